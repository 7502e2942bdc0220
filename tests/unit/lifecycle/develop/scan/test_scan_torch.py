"""Torch files from before zip, and zip archives of the largest kind."""

from __future__ import annotations

import pickle
import struct

import numpy as np
import pytest

from bartizan.lifecycle.develop.scan import Coverage, Verdict, scan_bytes
from bartizan.lifecycle.develop.scan.containers import directory as zd
from fixtures.hostile_models import EVIL, calls, imports, text, whole, zipped

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
COUNT = struct.pack("<q", 4)
NUMBERS = np.arange(4, dtype=np.float32).tobytes()


def tensor(key="0", count=4):
    """A tensor whose storage is a persistent id."""
    number = bytes([0x4B, count])
    storage = text("storage") + imports("torch", "FloatStorage") + text(key) + text("cpu") + number + b"N"
    size = number + b"\x85"
    return calls(
        "torch._utils", "_rebuild_tensor_v2", b"(" + storage + b"tQ", b"K\x00", size, b"K\x01\x85", b"\x89", b"N"
    )


def legacy(model=None, keys=("0",), storages=COUNT + NUMBERS):
    """A torch file as it was written before zip."""
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}
    parts = [
        MAGIC,
        pickle.dumps(1001, 2),
        pickle.dumps(facts, 2),
        whole(model or tensor(), 2),
        pickle.dumps(list(keys), 2),
    ]
    return b"".join(parts) + storages


def rules(data):
    """Ids of the rules that fire."""
    return {finding.rule for finding in scan_bytes(data, "model.pt").findings}


def test_a_file_from_before_zip_is_examined_to_its_last_byte():
    report = scan_bytes(legacy(), "model.pt")
    assert (report.verdict, report.total_coverage) == (Verdict.CLEAN, Coverage.EXAMINED), report.findings
    assert report.facts["pickles"] == 5


def test_a_class_with_its_source_is_the_class():
    source = text("module") + imports("torch.nn.modules.linear", "Linear") + text("linear.py") + text("class Linear")
    assert rules(legacy(b"(" + source + b"tQ)\x81}b", keys=(), storages=b"")) == set()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"keys": ("0", "1")}, "torch/storage"),
        ({"keys": ()}, "file/unaccounted-bytes"),
        ({"storages": b""}, "torch/storage"),
        ({"storages": struct.pack("<q", 5) + NUMBERS}, "torch/storage"),
        ({"storages": COUNT + NUMBERS + b"hidden"}, "file/unaccounted-bytes"),
        ({"model": text("x") + b"Q"}, "torch/storage"),
        (
            {"model": b"(" + text("storage") + imports("torch", "load") + text("0") + text("c") + b"K\x04tQ"},
            "torch/storage",
        ),
        ({"model": calls("os", "system", text("x"))}, "pickle/dangerous-callable"),
        ({"storages": COUNT + NUMBERS + EVIL}, "pickle/dangerous-callable"),
    ],
)
def test_storages_must_be_as_the_pickles_say(changes, rule):
    assert rule in rules(legacy(**changes))


def test_storage_keys_that_are_no_text_leave_the_storages_unaccounted_for():
    data = legacy().replace(pickle.dumps(["0"], 2), b"\x80\x02]\x8c\x01\xffa.")
    assert rules(data) == {"file/unaccounted-bytes", "torch/storage"}


def test_a_declared_storage_that_is_missing_is_reported():
    assert "torch/storage" in rules(legacy(tensor("0") + tensor("7") + b"\x86"))


def test_the_64_bit_end_of_an_archive_is_read():
    data = zipped({"data.pkl": pickle.dumps(1)})
    at = data.rindex(zd.EOCD_MAGIC)
    _, _, _, _, entries, size, offset, _ = zd.EOCD.unpack_from(data, at)
    record = zd.EOCD64.pack(zd.EOCD64_MAGIC, 44, 45, 45, 0, 0, entries, entries, size, offset)
    locator = zd.LOCATOR64.pack(zd.LOCATOR64_MAGIC, 0, at, 1)
    full = zd.EOCD.pack(zd.EOCD_MAGIC, 0, 0, 0xFFFF, 0xFFFF, zd.BIG32, zd.BIG32, 0)
    report = scan_bytes(data[:at] + record + locator + full, "x.zip")
    assert (report.verdict, report.total_coverage) == (Verdict.CLEAN, Coverage.EXAMINED), report.findings


def test_a_directory_with_a_broken_name_is_malformed():
    data = bytearray(zipped({"ä": b""}))
    at = data.rindex("ä".encode())
    data[at] = 0xFF
    assert "zip/malformed" in rules(bytes(data))


def test_a_member_whose_header_is_elsewhere_is_malformed():
    data = bytearray(zipped({"a": b"1", "b": b"2"}))
    struct.pack_into("<L", data, data.rindex(b"PK\x01\x02") + 42, 9999)
    assert "zip/malformed" in rules(bytes(data))
