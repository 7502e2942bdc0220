"""What a model file holds, named part by part: tensors, globals, settings, members.

For comparing two versions of a model. Nothing is loaded; what a format does not reveal is one part,
known by its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickletools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bartizan.core.digest import Digest
from bartizan.lifecycle.develop.scan import detect
from bartizan.lifecycle.develop.scan.containers import directory as zd
from bartizan.lifecycle.develop.scan.containers.compressed import MAKERS, BombError, unpack
from bartizan.lifecycle.develop.scan.containers.torch import BOOKKEEPING, ITEM_SIZES, TorchArchive
from bartizan.lifecycle.develop.scan.limits import Limits, Meter
from bartizan.lifecycle.develop.scan.numpy import HeaderError, read_header
from bartizan.lifecycle.develop.scan.pickle.constants import BrokenPickleError, Buffer
from bartizan.lifecycle.develop.scan.pickle.examine import examine_maybe_pickle
from bartizan.lifecycle.develop.scan.pickle.stream import walk
from bartizan.lifecycle.develop.scan.safetensors import METADATA, PREFIX
from bartizan.lifecycle.develop.scan.source import Draft, Source, chunks, read_file, window
from bartizan.lifecycle.develop.scan.verdict import Report

Reader = Callable[[str, Buffer, "Inventory", int], None]
Kind = Literal["member", "tensor", "global", "setting"]
MOST_PARTS = 200_000
MOST_TEXT = 300
LARGEST_SETTINGS = 4 << 20
DEEPEST = 40
_STORED, _DEFLATED = 0, 8
_FAILURES = (BrokenPickleError, HeaderError, BombError, zd.BrokenZipError, ValueError, KeyError, TypeError)


class Part(NamedTuple):
    """One part of a file."""

    kind: Kind
    name: str
    shape: str = ""
    """Of a tensor: type and sides, ``F32 [10, 3]``; of a setting: its value."""
    data: Buffer = b""
    """The bytes that it stands for; empty for globals and settings."""

    @property
    def digest(self) -> Digest:
        """SHA-256 of the data."""
        state = hashlib.sha256()
        for piece in chunks(self.data, 0, len(self.data)):
            state.update(piece)
        return Digest(state.hexdigest())


class Inventory:
    """Parts of a file or folder by kind and name."""

    def __init__(self) -> None:
        self.parts: dict[tuple[Kind, str], Part] = {}
        self.files: dict[str, Digest] = {}
        """SHA-256 of each file by its name in the folder; a single file has none."""
        self.meter = Meter(Limits())
        self.is_whole = True
        """False when there were more parts than are kept."""

    def add(self, part: Part) -> None:
        """Note a part; two of a name are numbered."""
        if len(self.parts) >= MOST_PARTS:
            self.is_whole = False
            return
        name, number = part.name, 2
        while (part.kind, name) in self.parts:
            name, number = f"{part.name} #{number}", number + 1
        self.parts[part.kind, name] = part._replace(name=name)


def take_inventory(path: Path) -> Inventory:
    """The parts of a file, or of all files below a folder.

    Raises:
        ArtefactError: it cannot be read.
    """
    inventory = Inventory()
    if not path.is_dir():
        _file("", path, inventory)
        return inventory
    for file in sorted(each for each in path.rglob("*") if each.is_file() and not each.is_symlink()):
        _file(file.relative_to(path).as_posix(), file, inventory)
    return inventory


def _file(name: str, path: Path, inventory: Inventory) -> None:
    opened = read_file(path, inventory.meter)
    inventory.files[name] = opened.digest
    _look(name, opened.data, inventory, 0)


def _look(name: str, data: Buffer, inventory: Inventory, depth: int) -> None:
    """Add the parts of some bytes; what cannot be taken apart is one part."""
    kind = detect.detect(data)
    known = _READERS.get(kind)
    if known is None and kind in MAKERS:
        known = _packed
    before = len(inventory.parts)
    if known and depth < inventory.meter.limits.nesting:
        with contextlib.suppress(*_FAILURES):
            known(name, data, inventory, depth)
    elif _may_be_settings(data):
        with contextlib.suppress(ValueError, RecursionError):
            for key, value in _flat("", json.loads(bytes(data)), 0):
                inventory.add(Part("setting", _join(name, key), value))
    if len(inventory.parts) == before:
        inventory.add(Part("member", name, data=data))


def _join(name: str, part: str) -> str:
    return f"{name}: {part}" if name else part


def _may_be_settings(data: Buffer) -> bool:
    return len(data) <= LARGEST_SETTINGS and bytes(data[:64]).lstrip()[:1] in {b"{", b"["}


def _flat(path: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    """Leaves of a JSON value with their paths."""
    if isinstance(value, dict) and value and depth < DEEPEST:
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), inner, depth + 1)
    elif isinstance(value, list) and value and depth < DEEPEST and any(isinstance(item, dict) for item in value):
        for number, inner in enumerate(value):
            yield from _flat(f"{path}[{number}]", inner, depth + 1)
    else:
        yield path, json.dumps(value)


def _safetensors(name: str, data: Buffer, inventory: Inventory, depth: int) -> None:  # noqa: ARG001 -- one shape for all
    size = int.from_bytes(bytes(data[:PREFIX]), "little")
    header = json.loads(bytes(data[PREFIX : PREFIX + min(size, inventory.meter.limits.header)]))
    for key, value in header.pop(METADATA, {}).items():
        inventory.add(Part("setting", _join(name, f"metadata.{key}"), json.dumps(value)))
    start = PREFIX + size
    for tensor, about in header.items():
        first, last = about["data_offsets"]
        part = window(data, start + first, start + last)
        inventory.add(Part("tensor", _join(name, tensor), f"{about['dtype']} {about['shape']}", part))


def _npy(name: str, data: Buffer, inventory: Inventory, depth: int) -> None:
    header = read_header(data)
    if header.layout.has_object:
        _look(_join(name, "objects"), window(data, header.data, len(data)), inventory, depth + 1)
        return
    kind = bytes(data[: header.data]).partition(b"'descr':")[2].split(b",")[0].strip(b" '").decode("ascii", "replace")
    shape = f"{kind} {list(header.shape)}"
    inventory.add(Part("tensor", name or "array", shape, window(data, header.data, len(data))))


def _pickle(name: str, data: Buffer, inventory: Inventory, depth: int) -> None:  # noqa: ARG001 -- one shape for all
    one = walk(data, 0, inventory.meter, torch=True)
    for module, attribute in sorted(one.judge.names):
        inventory.add(Part("global", _join(name, f"{module}.{attribute}")))
    inventory.add(Part("member", name, data=data))


def _maybe_pickle(name: str, data: Buffer, inventory: Inventory, depth: int) -> None:
    """Bytes that may be a pickle of protocol 0 or 1, which has no first bytes of its own."""
    examined = examine_maybe_pickle(Source(data, name, name), inventory.meter, _no_member)
    if examined is not None:
        _pickle(name, data, inventory, depth)


def _no_member(source: Source) -> Report:
    """What lies inside a pickle is not told apart here."""
    return Draft(source, "unknown", 0).close()


def _packed(name: str, data: Buffer, inventory: Inventory, depth: int) -> None:
    """A compressed stream, such as joblib writes, by what it unpacks to; as one part where that is not all."""
    unpacked = unpack(data, detect.detect(data), inventory.meter)
    _look(name, unpacked.spool.finish(), inventory, depth + 1)
    if unpacked.used < len(data) or unpacked.failure or unpacked.obstacle or unpacked.hidden:
        inventory.add(Part("member", name, data=data))


def _zip(name: str, data: Buffer, inventory: Inventory, depth: int) -> None:
    end = zd.find_end(data)
    if end is None:
        return
    entries = zd.read_entries(data, end, inventory.meter.limits.members)
    contents = {entry.name: content for entry in entries if (content := _content(data, entry, inventory)) is not None}
    torch = TorchArchive.of(contents)
    if torch is None:
        for inner, content in contents.items():
            _look(_join(name, inner.removesuffix(".npy")), content, inventory, depth + 1)
        return
    pickled = contents.pop(f"{torch.root}data.pkl")
    tensors = dict(_torch_storages(pickled))
    _pickle(_join(name, "data.pkl"), pickled, inventory, depth)
    for inner, content in contents.items():
        short = inner.removeprefix(torch.root)
        if short in BOOKKEEPING:
            continue
        title, kind = tensors.get(short.removeprefix("data/"), ("", ""))
        if title:
            count = len(content) // ITEM_SIZES.get(kind, 1)
            inventory.add(Part("tensor", _join(name, title), f"{kind} [{count}]", content))
        else:
            inventory.add(Part("member", _join(name, short), data=content))


_READERS: dict[str, Reader] = {
    "zip": _zip,
    "safetensors": _safetensors,
    "npy": _npy,
    "pickle": _pickle,
    "maybe-pickle": _maybe_pickle,
}


def _content(data: Buffer, entry: zd.Entry, inventory: Inventory) -> Buffer | None:
    """Unpacked bytes of a member; None when it is a folder or packed in another way."""
    local = zd.read_local(data, entry)
    packed = window(data, local.data, local.data + entry.packed)
    if entry.name.endswith("/"):
        return None
    if entry.method == _STORED:
        return packed
    if entry.method != _DEFLATED:
        return None
    return unpack(packed, "deflate", inventory.meter, several=False).spool.finish()


def _torch_storages(data: Buffer) -> Iterator[tuple[str, tuple[str, str]]]:
    """Storage key to (name, type of number) of the tensors in a state dict, told from the order of its texts.

    torch writes a tensor's name, then ``_rebuild_tensor_v2``, then the reference to its storage. A tensor
    whose name cannot be told is called by its key.
    """
    texts: list[str] = []
    memo: dict[int, str] = {}
    name = kind = last = ""
    for opcode, argument, _ in pickletools.genops(bytes(data)):
        text = argument if isinstance(argument, str) else ""
        index = argument if isinstance(argument, int) else -1
        if opcode.name in {"BINGET", "LONG_BINGET"}:
            text = memo.get(index, "")
        elif opcode.name in {"BINPUT", "LONG_BINPUT"}:
            memo[index] = last
        last = text
        if "_rebuild_" in text and texts and "_rebuild_" not in texts[-1]:
            name = texts[-1]
        if text.startswith("torch ") and text.endswith("Storage"):
            kind = text.removeprefix("torch ").removesuffix("Storage")
        if opcode.name == "BINPERSID" and len(texts) > 1:
            yield texts[-2], (name or f"storage {texts[-2]}", kind)
        if text:
            texts = [*texts[-3:], text[:MOST_TEXT]]
