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
    Format("lz4", ((0, b"\x04\x22\x4d\x18"),), "containers.compressed:examine_lz4", loadable=True),
    Format(
        "zstandard",
        ((0, b"\x28\xb5\x2f\xfd"), *((0, bytes([low]) + b"\x2a\x4d\x18") for low in range(0x50, 0x60))),
        "containers.compressed:examine_zstandard",
        loadable=True,
    ),
    Format("compress", ((0, b"\x1f\x9d"),)),
    Format("snappy", ((0, b"\xff\x06\x00\x00sNaPpY"),)),
    Format("lzip", ((0, b"LZIP\x01"),)),
    Format("cabinet", ((0, b"MSCF\x00\x00\x00\x00"),)),
    Format(
        "hdf5",
        tuple((at, b"\x89HDF\r\n\x1a\n") for at in (0, *(512 << power for power in range(12)))),
        "formats.hdf5.examine:examine_hdf5",
        loadable=True,
    ),
    Format("gguf", ((0, b"GGUF"),), "formats.gguf:examine_gguf"),
    Format("tflite", ((4, b"TFL3"),), "formats.tflite:examine_tflite"),
    Format("7z", ((0, b"7z\xbc\xaf\x27\x1c"),), "containers.sevenzip:examine_sevenzip", loadable=True),
    Format("rar", ((0, b"Rar!\x1a\x07"),)),
    Format("elf", ((0, b"\x7fELF"),), "formats.executable:examine_elf", loadable=True),
    Format(
        "portable-program",
        ((0, b"MZqFpD='"), (0, b"jartsr='"), (0, b"APEDBG='")),
        "formats.executable:examine_portable_program",
        loadable=True,
    ),
    Format(
        "mach-o",
        tuple((0, bytes.fromhex(magic)) for magic in ("feedface", "feedfacf", "cefaedfe", "cffaedfe", "cafebabf")),
        "formats.executable:examine_mach_o",
        loadable=True,
    ),
    Format("java-class", ((0, b"\xca\xfe\xba\xbe"),), "formats.executable:examine_cafebabe", loadable=True),
    Format("wasm", ((0, b"\0asm"),), "formats.executable:examine_wasm", loadable=True),
    Format("dex", ((0, b"dex\n0"), (0, b"cdex")), "formats.executable:examine_dex", loadable=True),
    Format("llvm-bitcode", ((0, b"BC\xc0\xde"),), "formats.executable:examine_bitcode", loadable=True),
    Format("ar", ((0, b"!<arch>\n"), (0, b"!<thin>\n")), "formats.executable:examine_object_archive", loadable=True),
    Format("cuda-fatbin", ((0, b"\x50\xed\x55\xba"),), "formats.executable:examine_gpu_program", loadable=True),
    Format(
        "windows-shortcut",
        ((0, b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0F"),),
        "formats.executable:examine_shortcut",
        loadable=True,
    ),
    Format("parquet", ((0, b"PAR1"),), "formats.arrow:examine_parquet"),
    Format("arrow", ((0, b"ARROW1\x00\x00"),), "formats.arrow:examine_arrow_file"),
    Format("catboost", ((0, b"CBM1"),), "formats.catboost:examine_catboost"),
    Format("fasttext", ((0, b"\xba\x16\x4f\x2f"),), "formats.vectors:examine_fasttext"),
    Format("sqlite", ((0, b"SQLite format 3\x00"),)),
    Format("pdf", ((0, b"%PDF-"),)),
    Format("png", ((0, b"\x89PNG\r\n\x1a\n"),), "formats.images:examine_png"),
    Format("jpeg", ((0, b"\xff\xd8\xff"),), "formats.images:examine_jpeg"),
    Format("riff", ((8, b"WEBPVP8"), (8, b"WAVEfmt ")), "formats.images:examine_riff"),
)
"""Told by fixed bytes."""

OTHER = (
    Format("safetensors", examiner="safetensors:examine_safetensors"),
    Format("tar", examiner="containers.tar:examine_tar", loadable=True),
    Format("zlib", examiner="containers.compressed:examine_zlib", loadable=True),
    Format("pickle", examiner="pickle.examine:examine_pickle", loadable=True),
)
"""Told by ``detect`` itself, which looks at more than fixed bytes."""

RECOGNISED: tuple[Format, ...] = (
    Format(
        "windows-program",
        recogniser="formats.executable:is_windows_program",
        examiner="formats.executable:examine_windows_program",
        loadable=True,
    ),
    Format(
        "pyc",
        recogniser="formats.executable:is_python_bytecode",
        examiner="formats.executable:examine_python_bytecode",
        loadable=True,
    ),
    Format(
        "deflated",
        recogniser="containers.compressed:is_zlib_with_small_window",
        examiner="containers.compressed:examine_zlib",
        loadable=True,
    ),
    Format("keras-config", recogniser="formats.keras:recognise_config", examiner="formats.keras:examine_config"),
    Format("xgboost", recogniser="formats.xgboost:is_xgboost_json", examiner="formats.xgboost:examine_xgboost_json"),
    Format(
        "xgboost-ubjson",
        recogniser="formats.xgboost:is_xgboost_ubjson",
        examiner="formats.xgboost:examine_xgboost_ubjson",
    ),
    Format(
        "xgboost-binary",
        recogniser="formats.xgboost:is_xgboost_binary",
        examiner="formats.xgboost:examine_xgboost_binary",
    ),
    Format(
        "lightgbm",
        recogniser="formats.lightgbm:is_lightgbm_text",
        examiner="formats.lightgbm:examine_lightgbm_text",
    ),
    Format(
        "lightgbm-dump",
        recogniser="formats.lightgbm:is_lightgbm_dump",
        examiner="formats.lightgbm:examine_lightgbm_dump",
    ),
    Format(
        "catboost-json",
        recogniser="formats.catboost:is_catboost_json",
        examiner="formats.catboost:examine_catboost_json",
    ),
    Format("pmml", recogniser="formats.pmml:is_pmml", examiner="formats.pmml:examine_pmml"),
    Format("r", recogniser="formats.rds:is_r_object", examiner="formats.rds:examine_r_object", loadable=True),
    Format("r-other", recogniser="formats.rds:is_r_other", examiner="formats.rds:examine_r_other", loadable=True),
    Format("arrow-stream", recogniser="formats.arrow:is_arrow_stream", examiner="formats.arrow:examine_arrow_stream"),
    Format(
        "sentencepiece",
        recogniser="formats.sentencepiece:is_sentencepiece",
        examiner="formats.sentencepiece:examine_sentencepiece",
    ),
    Format("onnx", recogniser="formats.onnx:recognise_onnx", examiner="formats.onnx:examine_onnx"),
    Format("coreml", recogniser="formats.coreml:recognise_coreml", examiner="formats.coreml:examine_coreml"),
    Format(
        "savedmodel",
        recogniser="formats.savedmodel:recognise_savedmodel",
        examiner="formats.savedmodel:examine_savedmodel",
        loadable=True,
    ),
    Format(
        "tensorflow-checkpoint",
        recogniser="formats.checkpoint:recognise_checkpoint",
        examiner="formats.checkpoint:examine_checkpoint",
    ),
    Format("word2vec", recogniser="formats.vectors:is_word2vec", examiner="formats.vectors:examine_word2vec"),
    Format("gif", recogniser="formats.images:is_gif", examiner="formats.images:examine_gif"),
    Format("bmp", recogniser="formats.images:is_bmp", examiner="formats.images:examine_bmp"),
    Format("text", recogniser="formats.text:is_text", examiner="formats.text:examine_text"),  # last: any text is text
    Format(
        "script",  # behind text, which is read: what stays are scripts with a payload of other bytes
        recogniser="formats.executable:is_started_script",
        examiner="formats.executable:examine_started_script",
        loadable=True,
    ),
    Format("older-text", recogniser="formats.text:is_older_text", examiner="formats.text:examine_older_text"),
)
"""Told by a recogniser, asked in this order; the earlier ones are the stricter ones."""

FORMATS: dict[str, Format] = {each.kind: each for each in (*MAGIC, *OTHER, *RECOGNISED)}
"""All formats by kind."""

FOLDER_EXAMINERS: tuple[str, ...] = ("formats.repository:examine_folder", "formats.coreml:examine_packages")
"""``module:function`` of what looks at a folder as a whole once its files have been examined."""

LOADABLE = frozenset({"joblib", "keras", "skops", "torch"}) | {each.kind for each in FORMATS.values() if each.loadable}
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
