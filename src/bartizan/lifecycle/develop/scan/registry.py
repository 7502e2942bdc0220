"""The formats: how each is told by its bytes, and what examines it.

Examiners and recognisers are named as strings, so that a scan imports what its files need.
"""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any, NamedTuple

_HERE = "bartizan.lifecycle.develop.scan"


class Format(NamedTuple):
    """One format."""

    kind: str
    magics: tuple[tuple[int, bytes], ...] = ()
    """Offsets and the bytes that stand there; any one of them tells the format."""
    examiner: str = ""
    """``module:function`` below this package, an ``Examiner``; empty when files are only named."""
    recogniser: str = ""
    """``module:function``, a ``Recogniser``, for a format without magic; asked when nothing else fits."""
    loadable: bool = False
    """Whether such a file can carry code, so that the name of a harmless format is a disguise."""


def load(name: str) -> Any:
    """The object that ``module:function`` names."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(f"{_HERE}.{module}"), attribute)


MAGIC = (
    Format("zip", ((0, b"PK\x03\x04"), (0, b"PK\x05\x06")), "containers.zip:examine_zip", loadable=True),
    Format("npy", ((0, b"\x93NUMPY"),), "numpy:examine_npy"),
    Format("gzip", ((0, b"\x1f\x8b\x08"),), "containers.compressed:examine_gzip", loadable=True),
    Format(
        "bzip2",
        tuple((0, b"BZh%d" % level + start) for level in range(1, 10) for start in (b"1AY&SY", b"\x17rE8P\x90")),
        "containers.compressed:examine_bzip2",
        loadable=True,
    ),
    Format("xz", ((0, b"\xfd7zXZ\x00"),), "containers.compressed:examine_xz", loadable=True),
    Format("lzma", ((0, b"\x5d\x00\x00"),), "containers.compressed:examine_lzma", loadable=True),
    Format("zfile", ((0, b"ZF0x"),), "containers.compressed:examine_zfile", loadable=True),
    Format("lz4", ((0, b"\x04\x22\x4d\x18"),)),
    Format("zstandard", ((0, b"\x28\xb5\x2f\xfd"),)),
    Format("hdf5", ((0, b"\x89HDF\r\n\x1a\n"),)),
    Format("gguf", ((0, b"GGUF"),)),
    Format("tflite", ((4, b"TFL3"),)),
    Format("tar", ((257, b"ustar"),)),
    Format("7z", ((0, b"7z\xbc\xaf\x27\x1c"),)),
    Format("rar", ((0, b"Rar!\x1a\x07"),)),
    Format("elf", ((0, b"\x7fELF"),)),
    Format("windows-program", ((0, b"MZ"),)),
    Format("parquet", ((0, b"PAR1"),)),
    Format("sqlite", ((0, b"SQLite format 3\x00"),)),
    Format("pdf", ((0, b"%PDF-"),)),
)
"""Told by fixed bytes."""

OTHER = (
    Format("safetensors", examiner="safetensors:examine_safetensors"),
    Format("zlib", examiner="containers.compressed:examine_zlib", loadable=True),
    Format("pickle", examiner="pickle.examine:examine_pickle", loadable=True),
)
"""Told by ``detect`` itself, which looks at more than fixed bytes."""

RECOGNISED: tuple[Format, ...] = ()
"""Told by a recogniser, asked in this order; the earlier ones are the stricter ones."""

FORMATS: dict[str, Format] = {each.kind: each for each in (*MAGIC, *OTHER, *RECOGNISED)}
"""All formats by kind."""

FOLDER_EXAMINERS: tuple[str, ...] = ()
"""``module:function`` of what looks at a folder as a whole once its files have been examined."""

LOADABLE = frozenset({"joblib", "torch"}) | {each.kind for each in FORMATS.values() if each.loadable}
"""Kinds that can carry code."""


@functools.cache
def examiner(kind: str) -> Any:
    """What examines files of a kind (an ``Examiner``); None when nothing does."""
    known = FORMATS.get(kind)
    return load(known.examiner) if known and known.examiner else None


@functools.cache
def recogniser(kind: str) -> Any:
    """What recognises files of a kind (a ``Recogniser``)."""
    return load(FORMATS[kind].recogniser)
