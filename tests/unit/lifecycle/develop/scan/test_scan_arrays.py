"""Array files: numpy's own and safetensors."""

from __future__ import annotations

import io
import json
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bartizan.lifecycle.develop.scan import Limits, Verdict, scan_bytes
from bartizan.lifecycle.develop.scan.numpy import read_header
from bartizan.lifecycle.develop.scan.pickle.arrays import DtypeError, parse_type
from fixtures.hostile_models import EVIL

TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def npy(array, **options):
    """An array file."""
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # numpy warns of headers in format 3.0
        np.save(target, array, **options)
    return target.getvalue()


def npy_header(text, data=b""):
    """An array file with any header."""
    raw = text.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + data


def safetensors(header, data=b"12345678"):
    """A safetensors file with any header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def rules(data):
    """Ids of the rules that fire."""
    return {finding.rule for finding in scan_bytes(data, "m").findings} - {"file/not-examined"}


@given(hnp.arrays(dtype=hnp.scalar_dtypes() | hnp.nested_dtypes(), shape=hnp.array_shapes(max_dims=3, max_side=4)))
def test_every_array_that_numpy_saves_is_clean_and_fully_accounted_for(array):
    if array.dtype.hasobject or array.dtype.itemsize == 0:
        return
    data = npy(array)
    header = read_header(data)
    assert header.data + array.nbytes == len(data)
    assert header.layout.itemsize == array.dtype.itemsize
    assert scan_bytes(data, "a.npy").verdict is Verdict.CLEAN


@given(hnp.scalar_dtypes())
def test_type_strings_have_the_size_that_numpy_gives_them(dtype):
    assert parse_type(dtype.str).itemsize == dtype.itemsize


@pytest.mark.parametrize("text", ["x", "f8,f8", "O9", "", "f", "<f8 ", "V-1", "M8[ns]x", "f8" * 9])
def test_odd_type_strings_are_refused_or_plain(text):
    if text == "f":
        assert parse_type(text).itemsize == 4
        return
    with pytest.raises(DtypeError):
        parse_type(text)


def test_every_header_version_is_read():
    for version in ((1, 0), (2, 0), (3, 0)):
        target = io.BytesIO()
        np.lib.format.write_array(target, np.zeros(3), version=version)
        assert scan_bytes(target.getvalue(), "a.npy").verdict is Verdict.CLEAN


def test_arrays_in_a_row_are_all_examined():
    assert scan_bytes(npy(np.zeros(3)) + npy(np.ones(2)), "a.npy").verdict is Verdict.CLEAN
    objects = npy(np.array([None], dtype=object), allow_pickle=True)
    assert scan_bytes(npy(np.zeros(3)) + objects, "a.npy").verdict is Verdict.SUSPICIOUS


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{",
        "[]",
        "{'descr': '<f8'}",
        "{'descr': '<f8', 'fortran_order': 1, 'shape': ()}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': [1]}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': 8, 'fortran_order': False, 'shape': ()}",
        "{'descr': [('a',)], 'fortran_order': False, 'shape': ()}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (__import__('os').system('x'),)}",
        "(" * 5000,
        "{'descr': " + "[('a', " * 50 + "'<f8'" + ")]" * 50 + ", 'fortran_order': False, 'shape': ()}",
    ],
)
def test_headers_that_numpy_does_not_write_are_malformed(header):
    assert rules(npy_header(header)) == {"numpy/malformed"}


def test_a_field_of_objects_makes_an_object_array():
    data = npy(np.zeros(1, [("a", "f8"), ("b", [("c", "O")])]), allow_pickle=True)
    assert rules(data) == {"numpy/object-array"}


def test_too_few_and_too_many_bytes_are_told_apart():
    data = npy(np.zeros(4))
    assert rules(data[:-1]) == {"numpy/size"}
    assert rules(data + b"1") == {"file/unaccounted-bytes"}


def test_a_good_safetensors_file_is_clean():
    header = {"__metadata__": {"format": "pt"}, "a": TENSOR, "b": TENSOR | {"shape": [], "data_offsets": [8, 12]}}
    assert scan_bytes(safetensors(header, b"x" * 12), "m.safetensors").verdict is Verdict.CLEAN
    assert scan_bytes(safetensors({}, b""), "m.safetensors").verdict is Verdict.CLEAN


@pytest.mark.parametrize(
    ("header", "data", "rule"),
    [
        (b"{]", b"", "safetensors/malformed"),
        (b"{" * 5000, b"", "safetensors/malformed"),
        (b'{"a": 1}', b"", "safetensors/malformed"),
        (b'{"a": ' + b"9" * 5000 + b"}", b"", "safetensors/malformed"),
        ({"__metadata__": {"a": 1}}, b"", "safetensors/malformed"),
        ({"a": TENSOR | {"dtype": "F99"}}, b"12345678", "safetensors/malformed"),
        ({"a": TENSOR | {"more": 1}}, b"12345678", "safetensors/malformed"),
        ({"a": TENSOR | {"shape": [-2]}}, b"12345678", "safetensors/malformed"),
        ({"a": TENSOR | {"shape": [1.5]}}, b"12345678", "safetensors/malformed"),
        ({"a": TENSOR | {"data_offsets": [0]}}, b"12345678", "safetensors/malformed"),
        (b'{"a":{"dtype":"F32"},"a":{}}', b"", "safetensors/duplicate-key"),
        ({"a": TENSOR | {"shape": [3]}}, b"12345678", "safetensors/offsets"),
        ({"a": TENSOR}, b"1234", "safetensors/offsets"),
        ({"a": TENSOR | {"data_offsets": [8, 16]}}, b"x" * 16, "safetensors/offsets"),
        ({"a": TENSOR, "b": TENSOR | {"data_offsets": [4, 12]}}, b"x" * 12, "safetensors/offsets"),
        ({"a": TENSOR}, b"x" * 9, "file/unaccounted-bytes"),
    ],
)
def test_safetensors_files_that_readers_would_disagree_about(header, data, rule):
    assert rule in rules(safetensors(header, data))


def test_a_safetensors_header_that_leads_past_the_end_is_malformed():
    assert "safetensors/malformed" in rules(struct.pack("<Q", 5000) + b'{"a": 1}')


def test_a_long_safetensors_header_is_not_read():
    report = scan_bytes(safetensors({"a" * 1000: TENSOR}), "m", Limits(header=500))
    assert report.exit_code == 2


def test_a_pickle_behind_the_tensors_is_reported():
    assert "file/unaccounted-bytes" in rules(safetensors({"a": TENSOR}, b"12345678" + EVIL))


@given(st.binary(max_size=200))
def test_any_safetensors_header_ends_in_a_report(raw):
    scan_bytes(struct.pack("<Q", len(raw) + 1) + b"{" + raw, "m")
