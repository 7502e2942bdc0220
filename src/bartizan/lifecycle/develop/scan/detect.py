"""Which format some bytes are in, told from the bytes alone. A name proves nothing."""

from __future__ import annotations

from typing import NamedTuple

from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer

ZLIB = 0x78
SAFETENSORS_HEADER = 100_000_000
"""Longest header that the safetensors library reads."""


class Magic(NamedTuple):
    """How a format begins."""

    kind: str
    at: int
    magic: bytes


_EXAMINED = (
    Magic("zip", 0, b"PK\x03\x04"),
    Magic("zip", 0, b"PK\x05\x06"),
    Magic("npy", 0, b"\x93NUMPY"),
    Magic("gzip", 0, b"\x1f\x8b\x08"),
    *(Magic("bzip2", 0, b"BZh%d" % level + start) for level in range(1, 10) for start in (b"1AY&SY", b"\x17rE8P\x90")),
    Magic("xz", 0, b"\xfd7zXZ\x00"),
    Magic("lzma", 0, b"\x5d\x00\x00"),
    Magic("zfile", 0, b"ZF0x"),
)
_NAMED_ONLY = (
    Magic("lz4", 0, b"\x04\x22\x4d\x18"),
    Magic("zstandard", 0, b"\x28\xb5\x2f\xfd"),
    Magic("hdf5", 0, b"\x89HDF\r\n\x1a\n"),
    Magic("gguf", 0, b"GGUF"),
    Magic("tflite", 4, b"TFL3"),
    Magic("tar", 257, b"ustar"),
    Magic("7z", 0, b"7z\xbc\xaf\x27\x1c"),
    Magic("rar", 0, b"Rar!\x1a\x07"),
    Magic("elf", 0, b"\x7fELF"),
    Magic("windows-program", 0, b"MZ"),
    Magic("parquet", 0, b"PAR1"),
    Magic("sqlite", 0, b"SQLite format 3\x00"),
    Magic("pdf", 0, b"%PDF-"),
)
NOT_EXAMINED = frozenset(magic.kind for magic in _NAMED_ONLY)
"""Formats that are recognised, so that they can be named, and not examined."""

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
LOADABLE = frozenset({"pickle", "joblib", "zip", "torch", "zlib", "gzip", "bzip2", "xz", "lzma", "zfile"})
"""Kinds that can carry code."""


def detect(data: Buffer) -> str:
    """Kind of ``data``: one that a module here examines or only names, ``maybe-pickle``, ``empty`` or ``unknown``."""
    if not len(data):
        return "empty"
    if _is_safetensors(data):
        return "safetensors"
    if data[0] == op.PROTO and len(data) > 1 and data[1] <= op.HIGHEST_PROTOCOL:
        return "pickle"
    for kind, at, magic in (*_EXAMINED, *_NAMED_ONLY):
        if bytes(data[at : at + len(magic)]) == magic:
            return kind
    if _is_zlib(data):
        return "zlib"
    return "maybe-pickle" if data[0] in op.VALID else "unknown"


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
