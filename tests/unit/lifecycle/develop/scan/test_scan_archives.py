"""Archives, encodings and programs: the corpus, real files of real writers, and damage of every kind."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import random
import struct
import tarfile
import tracemalloc
import zipfile

import joblib
import lz4.frame
import numpy as np
import py7zr
import pytest
import zstandard

from bartizan.lifecycle.develop.scan import Coverage, Limits, Verdict, scan_bytes, scan_path
from bartizan.lifecycle.develop.scan.containers.names import link_leads_out
from fixtures.effort import within
from fixtures.hostile_archives import (
    BENIGN,
    DANGEROUS,
    END,
    GOOD,
    SUSPECT,
    UNREAD,
    block,
    member,
    number,
    pax,
    records,
    sevenzip,
    signed,
    skippable,
    streams,
    tar,
)
from fixtures.hostile_models import EVIL, zipped

SMALL = Limits(
    opcodes=200_000,
    memo=20_000,
    stack=20_000,
    nodes=20_000,
    expanded=1 << 23,
    members=2000,
    ratio_from=1 << 20,
    header=1 << 20,
)
CONTENT = pickle.dumps({"weights": list(range(5000)), "text": "abc" * 5000}, 4)


def is_clean(report):
    """Whether nothing was found and everything was examined."""
    return (report.verdict, report.total_coverage, report.exit_code) == (Verdict.CLEAN, Coverage.EXAMINED, 0)


@pytest.mark.parametrize("vector", DANGEROUS)
def test_a_dangerous_file_is_called_dangerous(vector):
    report = scan_bytes(DANGEROUS[vector], "model.bin")
    assert report.verdict is Verdict.DANGEROUS, report.findings
    assert report.exit_code == 1


@pytest.mark.parametrize("vector", SUSPECT)
def test_a_suspect_file_is_never_called_clean(vector):
    report = scan_bytes(SUSPECT[vector], "model.bin")
    assert report.verdict in {Verdict.SUSPICIOUS, Verdict.MALFORMED}, report.findings


@pytest.mark.parametrize("vector", UNREAD)
def test_what_cannot_be_unpacked_is_not_examined(vector):
    report = scan_bytes(UNREAD[vector], "model.bin")
    assert (report.verdict, report.exit_code) == (Verdict.UNKNOWN, 2), report.findings
    assert report.reasons


@pytest.mark.parametrize("vector", BENIGN)
def test_an_ordinary_archive_is_clean(vector):
    assert is_clean(report := scan_bytes(BENIGN[vector], "model.bin")), report.findings


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_archives_of_folders_by_tarfile_are_clean(tmp_path, form, mode):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "data.pkl").write_bytes(CONTENT)
    (tmp_path / "model" / ("long" * 30)).mkdir()
    (tmp_path / "model" / ("long" * 30) / ("name" * 20)).write_bytes(GOOD)
    (tmp_path / "model" / "link").symlink_to("data.pkl")
    (tmp_path / "model" / "same").hardlink_to(tmp_path / "model" / "data.pkl")
    target = tmp_path / "model.tar"
    with tarfile.open(target, mode, format=form) as archive:
        archive.add(tmp_path / "model", "model")
    assert is_clean(report := scan_path(target)), report.findings


CHAINS = {
    "default": None,
    "copy": [{"id": py7zr.FILTER_COPY}],
    "lzma": [{"id": py7zr.FILTER_LZMA}],
    "lzma2": [{"id": py7zr.FILTER_LZMA2, "preset": 1}],
    "x86, lzma2": [{"id": py7zr.FILTER_X86}, {"id": py7zr.FILTER_LZMA2}],
    "x86, lzma": [{"id": py7zr.FILTER_X86}, {"id": py7zr.FILTER_LZMA}],
    "arm, lzma2": [{"id": py7zr.FILTER_ARM}, {"id": py7zr.FILTER_LZMA2}],
    "delta, lzma2": [{"id": py7zr.FILTER_DELTA}, {"id": py7zr.FILTER_LZMA2}],
    "bzip2": [{"id": py7zr.FILTER_BZIP2}],
    "deflate": [{"id": py7zr.FILTER_DEFLATE}],
    "zstd": [{"id": py7zr.FILTER_ZSTD, "level": 3}],
    "x86, zstd": [{"id": py7zr.FILTER_X86}, {"id": py7zr.FILTER_ZSTD, "level": 3}],
}


def seven(members, chain=None, **options):
    """A 7z archive as py7zr writes it."""
    target = io.BytesIO()
    with py7zr.SevenZipFile(target, "w", filters=CHAINS.get(chain), **options) as archive:
        for name, data in members.items():
            archive.writestr(data, name)
    return target.getvalue()


@pytest.mark.parametrize("chain", CHAINS)
def test_archives_by_py7zr_are_examined_whole(chain):
    members = {"folder/a.pkl": CONTENT, "b.pkl": GOOD, "empty": b""}
    assert is_clean(report := scan_bytes(seven(members, chain), "model.7z")), report.findings
    report = scan_bytes(seven(members | {"c.pkl": EVIL}, chain), "model.7z")
    assert (report.verdict, report.total_coverage) == (Verdict.DANGEROUS, Coverage.EXAMINED)


@pytest.mark.parametrize("options", [{}, {"header_encryption": True}])
def test_encrypted_archives_are_not_examined(options):
    report = scan_bytes(seven({"a": EVIL}, password="secret", **options), "x.7z")
    assert report.exit_code == 2
    assert "encrypted" in report.reasons[0]


@pytest.mark.parametrize("level", [1, 3, 9])
@pytest.mark.parametrize("method", ["zlib", "gzip", "bz2", "lzma", "xz", "lz4"])
def test_files_of_joblib_are_clean_with_every_compression(tmp_path, method, level):
    path = tmp_path / "model.joblib"
    joblib.dump({"a": np.arange(900.0), "b": [1, "x"]}, path, compress=(method, level))
    assert is_clean(report := scan_path(path)), report.findings


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_files_are_clean_with_every_method(method):
    assert is_clean(report := scan_bytes(zipped({"a": CONTENT, "b": GOOD, "c": b""}, method), "x")), report.findings
    assert scan_bytes(zipped({"a": CONTENT, "b": EVIL}, method), "x").verdict is Verdict.DANGEROUS


def zip_with_method(method: int, packed: bytes, data: bytes) -> bytes:
    """An archive whose one member is packed by other means than ``zipfile`` has."""
    whole = bytearray(zipped({"a.pkl": packed}))
    central = whole.index(b"PK\x01\x02")
    checksum = struct.unpack_from("<L", zipped({"a": data}), 14)[0]
    for at in (8, central + 10):
        struct.pack_into("<H", whole, at, method)
        struct.pack_into("<L", whole, at + 6, checksum)
        struct.pack_into("<L", whole, at + 14, len(data))
    return bytes(whole)


@pytest.mark.parametrize(("method", "compress"), [(93, zstandard.compress), (95, lzma.compress)])
def test_newer_compressions_in_zip_are_unpacked(method, compress):
    assert is_clean(report := scan_bytes(zip_with_method(method, compress(CONTENT), CONTENT), "x")), report.findings
    assert scan_bytes(zip_with_method(method, compress(EVIL), EVIL), "x").verdict is Verdict.DANGEROUS


@pytest.mark.parametrize(
    "compress",
    [
        gzip.compress,
        bz2.compress,
        lzma.compress,
        lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
        zstandard.ZstdCompressor(level=22, write_checksum=True, threads=2).compress,
        lambda data: lz4.frame.compress(data, block_size=lz4.frame.BLOCKSIZE_MAX4MB, content_checksum=True),
    ],
)
def test_compressed_files_are_examined_and_damage_is_noticed(compress):
    packed = compress(CONTENT)
    assert is_clean(report := scan_bytes(packed, "x")), report.findings
    assert scan_bytes(packed[:-1], "x").exit_code == 1
    assert scan_bytes(packed + b"\xff", "x").exit_code == 1


def test_a_tar_archive_of_zip_files_is_no_zip_file(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.arange(9))
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "a.npz", "a.npz")
    report = scan_path(tmp_path / "x.tar")
    assert is_clean(report), report.findings
    assert [each.format for each in report.members] == ["zip"]


def test_plain_text_that_begins_like_a_program_is_no_program():
    for text in (b"MZ is short for Mark Zbikowski.\n" * 20, b"MZ", b"MZ\n", b"#!not a path\n"):
        rules = {finding.rule for finding in scan_bytes(text, "notes").findings}
        assert not {rule for rule in rules if rule.startswith("executable/")}


@pytest.mark.parametrize(
    ("name", "target", "leaves"),
    [
        ("a", "b", False),
        ("d/a", "../b", False),
        ("d/e/a", "../../b/c", False),
        ("d/a", "./../b", False),
        ("a", "../b", True),
        ("d/a", "../../b", True),
        ("d/a", "x/../b", True),
        ("./a", "../b", True),
        ("a", "/b", True),
        ("a", "C:\\b", True),
        ("a", "..\\b", True),
    ],
)
def test_links_lead_out_when_their_steps_up_outnumber_their_folders(name, target, leaves):
    assert link_leads_out(name, target) is leaves


@pytest.mark.parametrize("kind", ["tar", "7z"])
def test_the_number_of_members_is_bounded(kind):
    many = {str(n): GOOD for n in range(9)}
    data = tar(*(member(name.encode(), held) for name, held in many.items())) if kind == "tar" else sevenzip(many)
    report = scan_bytes(data, "x", Limits(members=5))
    assert report.total_coverage is not Coverage.EXAMINED
    assert "more than 5 members" in report.reasons[0]


STARTS = [
    data for data in [*DANGEROUS.values(), *SUSPECT.values(), *UNREAD.values(), *BENIGN.values()] if len(data) < 9000
]


@pytest.mark.parametrize("seed", range(4))
def test_damaged_archives_end_in_a_report(seed):
    rng = random.Random(seed)
    for _ in range(400):
        data = bytearray(rng.choice(STARTS))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data) + 1)
            data[at : at + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
        assert scan_bytes(bytes(data), "x", SMALL).to_json()


@pytest.mark.parametrize("seed", range(3))
def test_damaged_headers_with_right_checksums_end_in_a_report(seed):
    rng = random.Random(seed)
    header = b"\x01\x04" + streams([40, 8], b"\x01\x01\0", [40], [10, 30]) + b"\0"
    whole = sevenzip({"a": GOOD, "b": GOOD})
    inner = whole[32 + 2 * len(GOOD) :]
    for _ in range(700):
        body = bytearray(rng.choice([header, inner]))
        for _ in range(rng.randint(1, 4)):
            body[rng.randrange(len(body))] = rng.choice([0, 1, 2, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        assert scan_bytes(signed(bytes(body), 2 * GOOD), "x", SMALL).to_json()


@pytest.mark.parametrize("vector", ["tar, pax", "tar, torch 0.1", "7z, stored", "zstd, seekable", "lz4", "zip, zip64"])
def test_no_cut_of_a_file_is_clean(vector):
    data = BENIGN[vector].rstrip(b"\0") if vector.startswith("tar") else BENIGN[vector]
    whole = {len(BENIGN["zstd"]), len(BENIGN["zstd, frames in a row"])}
    for end in range(101 if vector.startswith("tar") else 8, len(data), 1 if len(data) < 900 else 13):
        report = scan_bytes(data[:end], "x", SMALL)
        assert report.exit_code != 0 or end in whole, end


def expensive():
    """Small files that try to cost much."""
    yield "links without end", tar(*(block(b"a%d" % n, 0, b"2", target=b"a%d" % (n + 1)) for n in range(1500)))
    yield "long names", tar(*(member(b"L", b"a/" * 400_000, b"L") + block(b"x") for _ in range(4)))
    yield (
        "deep folders under links",
        tar(block(b"l", 0, b"2", target=b"m"), *(member(b"L", b"a/" * 40_000, b"L") + block(b"x") for _ in range(40))),
    )
    yield "many records", tar(member(b"P", records(a="b") * 30_000, b"x") + block(b"x"))
    yield (
        "many pieces",
        tar(
            pax(
                b"x",
                b"a" * 9000,
                GNU__sparse__map=",".join(f"{2 * n},1" for n in range(9000)),
                GNU__sparse__size="99999",
            )
        ),
    )
    yield "a hole of a gigabyte", tar(pax(b"x", b"a", GNU__sparse__map="0,1", GNU__sparse__size=str(1 << 30)))
    yield "many archives in a row", tar(member(b"a", b"N.")) * 500
    yield "many frames", zstandard.compress(b"") * 9000
    yield "many skippable frames", skippable(b"\x80\x04N.") * 500 + zstandard.compress(GOOD)
    yield (
        "a seven-zip of very many empty files",
        signed(
            b"\x01\x05"
            + number(2000)
            + b"\x0e"
            + number(250)
            + b"\xff" * 250
            + b"\x11"
            + number(1 + 4000)
            + bytes(4001)
            + b"\0\0"
        ),
    )
    yield (
        "a seven-zip whose files have no size",
        signed(b"\x01\x04" + streams([4], b"\x01\x01\0", [4], [0] * 1999 + [4]) + b"\0", b"N.N."),
    )
    yield "tar in tar", nested(9)
    yield "zeros", bytes(3 << 20)
    yield "a tar header and zeros", member(b"a", GOOD) + bytes(3 << 20) + b"x"
    yield "bzip2 of zeros", bz2.compress(bytes(20 << 20))
    yield "lz4 of zeros", lz4.frame.compress(bytes(20 << 20))
    yield "zstd of zeros", zstandard.compress(bytes(20 << 20))
    yield "lzma of zeros in zip", zipped({"a": bytes(20 << 20)}, zipfile.ZIP_LZMA)
    yield "zip of zips", nested_zip(6)


def nested(depth):
    """Archives in archives, each with two members."""
    data = GOOD
    for _ in range(depth):
        data = tar(member(b"a", data), member(b"b", data)) if len(data) < 200_000 else tar(member(b"a", data))
    return data


def nested_zip(depth):
    """Archives in archives, each with four copies of the next (42.zip)."""
    data = bytes(1 << 20)
    for _ in range(depth):
        data = zipped({str(n): data for n in range(4)}, zipfile.ZIP_DEFLATED)
    return data


@pytest.mark.parametrize("name", [name for name, _ in expensive()])
def test_small_files_cannot_cost_much(name):
    data = dict(expensive())[name]
    with within(10):
        assert scan_bytes(data, "x", SMALL).to_json()
    tracemalloc.start()
    scan_bytes(data[: 1 << 20], "x", SMALL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 << 20


def test_a_large_archive_is_not_copied(tmp_path):
    path = tmp_path / "large.tar"
    with path.open("wb") as file:
        file.write(block(b"a", 80 << 20))
        file.seek(80 << 20, 1)
        file.write(member(b"b", EVIL) + END)
    tracemalloc.start()
    report = scan_path(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.verdict is Verdict.DANGEROUS
    assert peak < 40 << 20
