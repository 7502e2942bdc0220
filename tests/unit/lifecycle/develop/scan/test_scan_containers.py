"""Archives and compressed files: every member by content, every byte accounted for, nothing without bounds."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest

from bartizan.lifecycle.develop.scan import Coverage, Limits, Verdict, scan_bytes
from fixtures.hostile_models import EVIL, torch_archive, zipped

GOOD = pickle.dumps({"a": [1, 2, 3]})


def rules(data, name="model.bin", **limits):
    """Ids of the rules that fire, without those about what was not examined."""
    found = {finding.rule for finding in scan_bytes(data, name, Limits(**limits)).findings}
    return found - {"file/not-examined"}


def test_a_torch_file_is_examined_whole():
    report = scan_bytes(zipped(torch_archive()), "model.pt")
    assert (report.format, report.verdict, report.total_coverage) == ("torch", Verdict.CLEAN, Coverage.EXAMINED)
    assert {member.format for member in report.members} == {"pickle", "tensor", "text"}


def test_a_deflated_archive_with_streamed_members_is_examined_whole():
    target = io.BytesIO()

    class Unseekable(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            return target.write(data)

    with zipfile.ZipFile(Unseekable(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", GOOD)
        archive.writestr("folder/", b"")
    report = scan_bytes(target.getvalue(), "x.zip")
    assert (report.verdict, report.total_coverage) == (Verdict.CLEAN, Coverage.EXAMINED), report.findings


def test_an_archive_with_64_bit_sizes_is_read():
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive, archive.open("data.pkl", "w", force_zip64=True) as member:
        member.write(GOOD)
    assert scan_bytes(target.getvalue(), "x").verdict is Verdict.CLEAN


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_comment_belongs_to_the_archive(method):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.writestr("data.pkl", GOOD)
        archive.comment = b"made by hand"
    assert scan_bytes(target.getvalue(), "x").verdict is Verdict.CLEAN


def test_an_unknown_compression_is_not_examined():
    data = zipped({"data.pkl": GOOD})
    data = data.replace(b"\x14\0\0\0\0\0", b"\x14\0\0\0\x62\0")
    report = scan_bytes(data, "x")
    assert report.exit_code == 2
    assert "compression method 98" in report.reasons[0]


def test_an_encrypted_member_is_not_examined():
    data = bytearray(zipped({"data.pkl": b"\xaa" * 12 + GOOD}))
    central = data.index(b"PK\x01\x02")
    for flags, size in ((6, 22), (central + 8, central + 24)):
        data[flags] |= 1
        struct.pack_into("<L", data, size, len(GOOD))
    report = scan_bytes(bytes(data), "x")
    assert report.exit_code == 2
    assert "encrypted" in report.reasons[0]


@pytest.mark.parametrize(
    ("offset", "value"),
    [(8, 8), (14, 1), (18, 9), (22, 9), (6, 0x10)],
    ids=["method", "checksum", "packed size", "size", "flags"],
)
def test_local_and_central_headers_must_agree(offset, value):
    data = bytearray(zipped({"data.pkl": GOOD}))
    data[offset] ^= value
    assert "zip/header-mismatch" in rules(bytes(data))


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "C:/x", "..\\x", "a\0b"])
def test_names_that_leave_the_folder_are_dangerous(name):
    data = zipped({"a" * len(name): b"x"}).replace(b"a" * len(name), name.encode())
    assert scan_bytes(data, "x").verdict is Verdict.DANGEROUS


def test_ordinary_names_do_not_leave_the_folder():
    assert rules(zipped({"a/b..c/.d": GOOD, "..e": GOOD})) == set()


def test_bytes_between_members_are_reported():
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a", GOOD)
        archive.fp.write(b"hidden")
        archive.start_dir = archive.fp.tell()
        archive.writestr("b", GOOD)
    assert rules(target.getvalue()) == {"file/unaccounted-bytes"}


def test_bytes_behind_the_archive_are_reported():
    assert rules(zipped({"a": GOOD}) + b"hidden") == {"file/unaccounted-bytes"}


def test_a_pickle_between_members_is_dangerous():
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a", GOOD)
        archive.fp.write(EVIL)
        archive.start_dir = archive.fp.tell()
        archive.writestr("b", GOOD)
    assert scan_bytes(target.getvalue(), "x").verdict is Verdict.DANGEROUS


def test_members_that_share_their_bytes_are_a_bomb():
    one = zipped({"a": b"\0" * 1000, "b": b"\0" * 1000})
    at = one.rindex(b"PK\x01\x02")
    shared = bytearray(one)
    struct.pack_into("<L", shared, at + 42, 0)
    shared[at + 46 : at + 47] = b"a"
    assert "archive/bomb" in rules(bytes(shared))


def test_the_number_of_members_is_bounded():
    report = scan_bytes(zipped({str(n): GOOD for n in range(9)}), "x", Limits(members=5))
    assert report.total_coverage is Coverage.PARTLY
    assert report.exit_code == 1


def test_a_directory_that_lies_about_its_members_is_malformed():
    data = bytearray(zipped({"a": GOOD, "b": GOOD}))
    at = data.rindex(b"PK\x05\x06")
    struct.pack_into("<2H", data, at + 8, 1, 1)
    assert rules(bytes(data)) >= {"zip/malformed"}


def test_nesting_is_bounded():
    data = GOOD
    for _ in range(12):
        data = gzip.compress(data, mtime=0)
    report = scan_bytes(data, "x")
    assert report.exit_code == 2
    assert "nested more than 8 deep" in report.reasons[0]


@pytest.mark.parametrize("compress", [zlib.compress, gzip.compress, bz2.compress, lzma.compress])
def test_a_stream_that_unpacks_to_too_much_is_a_bomb(compress):
    data = compress(b"\0" * 3_000_000)
    report = scan_bytes(data, "x", Limits(ratio=50, ratio_from=1 << 20))
    assert report.verdict is Verdict.DANGEROUS
    assert report.total_coverage is not Coverage.EXAMINED
    assert {finding.rule for finding in report.findings} == {"archive/bomb", "file/not-examined"}


def test_the_bytes_unpacked_in_all_are_bounded():
    many = zipped({str(n): np.random.default_rng(n).bytes(5000) for n in range(9)}, zipfile.ZIP_DEFLATED)
    assert "archive/bomb" in rules(many, expanded=20_000)


def test_streams_in_a_row_are_one_content():
    halves = gzip.compress(GOOD[:9], mtime=0) + gzip.compress(GOOD[9:], mtime=0)
    assert scan_bytes(halves, "x").verdict is Verdict.CLEAN


def test_what_came_out_before_the_damage_is_examined():
    packed = zlib.compressobj(0)
    data = packed.compress(EVIL) + packed.flush(zlib.Z_FULL_FLUSH) + b"\xff\xff\xff"
    assert scan_bytes(data, "x").verdict is Verdict.DANGEROUS


def test_large_content_is_unpacked_to_disk():
    report = scan_bytes(gzip.compress(GOOD * 200, mtime=0), "x", Limits(in_memory=1000))
    assert report.verdict is Verdict.CLEAN
    assert report.facts["expanded_bytes"] == 200 * len(GOOD)


def test_joblib_files_from_before_gzip_are_unpacked():
    header = b"ZF" + hex(len(GOOD)).encode().ljust(19)
    report = scan_bytes(header + zlib.compress(GOOD), "x")
    assert (report.format, report.verdict) == ("zfile", Verdict.CLEAN)


def test_the_header_of_old_joblib_files_may_be_one_space_wider():
    header = b"ZF" + hex(len(GOOD)).encode().ljust(20)
    assert scan_bytes(header + zlib.compress(GOOD), "x").verdict is Verdict.CLEAN


@pytest.mark.parametrize(
    ("magic", "kind"), [(b"\x1f\x9d", "compress"), (b"\xff\x06\0\0sNaPpY", "snappy"), (b"LZIP\x01", "lzip")]
)
def test_compressions_that_cannot_be_unpacked_are_named(magic, kind):
    report = scan_bytes(magic + b"123456", "x")
    assert (report.exit_code, report.format) == (2, kind)


def test_a_storage_declared_twice_with_two_sizes_is_malformed():
    members = torch_archive()
    pickled = members["archive/data.pkl"]
    storage = pickled[pickled.index(b"(\x8c\x07storage") : pickled.index(b"tQ") + 2]
    doubled = pickled.replace(storage, storage + b"0" + storage.replace(b"K\x04tQ", b"K\x05tQ"))
    assert "torch/storage" in rules(zipped(members | {"archive/data.pkl": doubled}))


def test_a_tensor_that_begins_like_a_pickle_raises_no_alarm():
    members = torch_archive() | {"archive/data/0": b"\x80\x04N." + b"\0" * 12}
    assert scan_bytes(zipped(members), "x").verdict is Verdict.CLEAN
