"""Which format some bytes are in, told from the bytes alone. A name proves nothing."""

from __future__ import annotations

from bartizan.lifecycle.develop.scan.containers.tar_header import is_header
from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.registry import LOADABLE, MAGIC, RECOGNISED, recogniser
from bartizan.lifecycle.develop.scan.source import Source

ZLIB = 0x78
SAFETENSORS_HEADER = 100_000_000
"""Longest header that the safetensors library reads."""


SAFE_ENDINGS = {
    ".safetensors": {"safetensors"},
    ".npy": {"npy"},
    ".npz": {"zip"},
    ".onnx": {"unknown"},
    ".gguf": {"gguf"},
    ".json": {"unknown"},
    ".txt": {"unknown"},
    ".csv": {"unknown"},
    ".h5": {"hdf5"},
    ".md": {"unknown"},
    ".yaml": {"unknown"},
    ".yml": {"unknown"},
    ".toml": {"unknown"},
    ".png": {"unknown"},
    ".jpg": {"unknown"},
}
"""Endings of formats that run nothing when loaded, with the kinds that their content may have."""


def detect(data: Buffer) -> str:
    """Kind of ``data`` by its first bytes: one of ``registry.FORMATS``, ``maybe-pickle``, ``empty`` or ``unknown``."""
    if not len(data):
        return "empty"
    if _is_safetensors(data):
        return "safetensors"
    if data[0] == op.PROTO and len(data) > 1 and data[1] <= op.HIGHEST_PROTOCOL:
        return "pickle"
    if is_header(data):
        return "tar"
    return _by_magic(data) or ("maybe-pickle" if data[0] in op.VALID else "unknown")


def _by_magic(data: Buffer) -> str:
    """Kind by fixed bytes, wherever the format has them; empty when there are none."""
    for each in MAGIC:
        if any(bytes(data[at : at + len(magic)]) == magic for at, magic in each.magics):
            return each.kind
    return "zlib" if _is_zlib(data) else ""


def front(data: Buffer) -> str:
    """Kind by the very first bytes alone, for what is a tar archive as well; ``unknown`` when they tell nothing."""
    for each in MAGIC:
        if any(at == 0 and bytes(data[: len(magic)]) == magic for at, magic in each.magics):
            return each.kind
    return "unknown"


def recognise(source: Source) -> str:
    """Kind of a source that has no fixed first bytes; ``unknown`` when no recogniser claims it."""
    for each in RECOGNISED:
        if recogniser(each.kind)(source):
            return each.kind
    return "unknown"


def _is_safetensors(data: Buffer) -> bool:
    """Eight bytes of header length, then a JSON object. The length may be a lie: that is for the parser to say."""
    length = int.from_bytes(bytes(data[:8]), "little")
    return bytes(data[8:9]) == b"{" and 1 < length <= SAFETENSORS_HEADER


def _is_zlib(data: Buffer) -> bool:
    """A zlib header: a window of 32 KiB, check bits right, no preset dictionary (RFC 1950).

    Smaller windows are legal, never written, and would take ``(S``, the beginning of a pickle, for a header.
    """
    first, second = bytes(data[:2]) if len(data) > 1 else (0, 0)
    return first == ZLIB and (first << 8 | second) % 31 == 0 and not second & 0x20


def promises_other(name: str, kind: str) -> bool:
    """Whether the ending of ``name`` stands for a harmless format and ``kind`` is something else that can be loaded."""
    dot = name.rfind(".")
    promised = SAFE_ENDINGS.get(name[dot:].lower()) if dot >= 0 else None
    return promised is not None and kind in LOADABLE - promised
