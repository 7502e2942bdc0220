"""What makes a zip archive a torch file: a pickle that refers to storages, and the storages as raw bytes.

Layout (``torch/serialization.py``, ``_save``): ``NAME/data.pkl`` with persistent ids
``("storage", type, key, location, numel)``, ``NAME/data/KEY`` with ``numel`` numbers each, and a few
lines of bookkeeping. TorchScript adds ``NAME/code/__torch__/*.py``, and a folder of storages for each of
its other pickles: ``constants.pkl`` with ``constants/KEY``, ``traced_inputs.pkl`` with
``traced_inputs/KEY``. A storage that the pickle declares with the right size needs no parsing; one
that looks like a pickle is looked at all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from bartizan.lifecycle.develop.scan.containers import torch_script
from bartizan.lifecycle.develop.scan.detect import detect
from bartizan.lifecycle.develop.scan.formats.embedded import Embedded
from bartizan.lifecycle.develop.scan.limits import LimitError, Limits
from bartizan.lifecycle.develop.scan.pickle.constants import BrokenPickleError
from bartizan.lifecycle.develop.scan.pickle.policy import is_torch_script
from bartizan.lifecycle.develop.scan.pickle.reading import Reader
from bartizan.lifecycle.develop.scan.pickle.stream import Walk
from bartizan.lifecycle.develop.scan.pickle.values import Name, Symbol
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source
from bartizan.lifecycle.develop.scan.verdict import Report, Verdict

BOOKKEEPING = frozenset({"version", "byteorder", ".data/serialization_id", ".format_version", ".storage_alignment"})
TRACED = "traced_inputs/"
_PLAIN = re.compile(rb"[\w.+-]{1,64}\n?\Z")
ITEM_SIZES = {
    "Double": 8,
    "Float": 4,
    "Half": 2,
    "BFloat16": 2,
    "Long": 8,
    "Int": 4,
    "Short": 2,
    "Char": 1,
    "Byte": 1,
    "Bool": 1,
    "ComplexDouble": 16,
    "ComplexFloat": 8,
    "QInt8": 1,
    "QUInt8": 1,
    "QInt32": 4,
    "QUInt4x2": 1,
    "QUInt2x4": 1,
    "Untyped": 1,
}
"""Bytes of one number of each ``torch.*Storage``."""


class StorageError(Exception):
    """A persistent id is none that torch writes; the text says why."""


def storage_of(reader: Reader, pid: Symbol) -> tuple[str, int]:
    """Key and size in bytes of the storage that a persistent id names.

    Raises:
        StorageError: it is no such id.
    """
    try:
        return _storage_of(reader, pid)
    except BrokenPickleError as broken:
        raise StorageError(str(broken)) from broken


def _storage_of(reader: Reader, pid: Symbol) -> tuple[str, int]:
    if pid.__class__ is not tuple or len(pid) < 5 or reader.text(pid[0]) != "storage":  # noqa: PLR2004 -- its shape
        raise StorageError(f"persistent id {reader.expression(pid)} is none that torch writes")
    kind = pid[1].name.removesuffix("Storage") if pid[1].__class__ is Name and pid[1].listed else ""
    key, count = reader.text(pid[2]), reader.number(pid[4])
    if kind not in ITEM_SIZES or key is None or count is None or count < 0:
        raise StorageError(f"persistent id {reader.expression(pid)} is none that torch writes")
    return key, count * ITEM_SIZES[kind]


class DeclaredStorages:
    """Storages as pickles declare them. See ``source.Storages``."""

    def __init__(self) -> None:
        self.declared: dict[str, int] = {}
        """Bytes by storage key."""
        self.seen: set[str] = set()
        self.prefix = ""
        """Put before the keys of the pickle that is examined now."""

    def has_source(self, _module: str) -> bool:
        """Whether the archive holds the TorchScript source of a class."""
        return False

    def declare(self, walk: Walk, draft: Draft) -> None:
        """Take over the persistent ids of a pickle."""
        for name in walk.judge.names.values():
            if is_torch_script(name.module) and not self.has_source(name.module):
                draft.fire("torch/script-class", f"imports {name}", name.offset)
        for pid in walk.persistent_ids:
            try:
                key, size = storage_of(walk.judge.reader, pid.symbol)
            except StorageError as error:
                draft.fire("torch/storage", str(error), pid.offset)
                continue
            except LimitError as limit:
                draft.miss(str(limit), rule="file/limit")
                return
            key = self.prefix + key
            if self.declared.setdefault(key, size) != size:
                draft.fire(
                    "torch/storage",
                    f"storage {key!r} is declared with {self.declared[key]} and {size} bytes",
                    pid.offset,
                )

    def missing(self) -> list[str]:
        """Declared storages that were not found."""
        return sorted(set(self.declared) - self.seen)


class TorchArchive(DeclaredStorages):
    """A zip archive that torch loads."""

    def __init__(self, root: str, sources: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.root = root
        """Folder of the archive, with its slash."""
        self.sources = sources
        """Members with TorchScript source, without the folder."""

    @classmethod
    def of(cls, names: Iterable[str]) -> TorchArchive | None:
        """The torch archive that has these members, if they are one."""
        names = list(names)
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(roots) != 1:
            return None
        parts = (name.removeprefix(roots[0]) for name in names)
        return cls(roots[0], frozenset(part for part in parts if torch_script.is_source(part)))

    def is_pickle(self, name: str) -> bool:
        """Whether torch unpickles this member before it looks for storages."""
        return name.startswith(self.root) and name.endswith(".pkl") and "/" not in name.removeprefix(self.root)

    def has_source(self, module: str) -> bool:
        """Whether the archive holds the TorchScript source of a class, or torch has it built in."""
        return torch_script.is_native_class(module) or f"code/{module.replace('.', '/')}.py" in self.sources

    def missing(self) -> list[str]:
        """Declared storages that were not found; torch leaves out those of the inputs of a trace."""
        return [key for key in super().missing() if not key.startswith(TRACED)]

    def examine(self, source: Source, examine: Examine, limits: Limits) -> Report:
        """Report on a member: bookkeeping, TorchScript, a storage, or whatever its content is."""
        name = source.name.removeprefix(self.root)
        if name in BOOKKEEPING and _PLAIN.match(bytes(source.data[:80])):
            return Draft(source, "text", limits.findings).close()
        if name in self.sources:
            return torch_script.examine_script(source, limits)
        if self.is_pickle(source.name):
            self.prefix = "" if name == "data.pkl" else f"{name.removesuffix('.pkl')}/"
            return examine(source)
        key = name.removeprefix("data/")
        if key not in self.declared or (key == name and "/" not in key):
            return examine(source)
        self.seen.add(key)
        return self._examine_storage(source, key, examine, limits)

    def _examine_storage(self, source: Source, key: str, examine: Examine, limits: Limits) -> Report:
        draft = Draft(source, "tensor", limits.findings)
        is_left_out = key.startswith(TRACED) and not len(source.data)
        if len(source.data) != self.declared[key] and not is_left_out:
            draft.fire("torch/storage", f"{len(source.data)} bytes, and the pickle declares {self.declared[key]}")
        if detect(source.data) not in {"unknown", "empty"}:
            inside = examine(source)
            if inside.verdict is Verdict.DANGEROUS:
                return inside
        Embedded(draft, examine).judge_numbers(f"storage {key!r}", source.data, 0)
        return draft.close()
