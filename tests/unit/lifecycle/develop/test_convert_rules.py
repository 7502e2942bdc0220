"""Readers and comparisons of conversions, without any process."""

from __future__ import annotations

import io
import json
import math
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan.core.errors import ArtefactError, InputError
from bartizan.lifecycle.develop.convert import (
    Answers,
    Tensor,
    check_acceptance,
    compare_answers,
    compare_tensors,
    format_of,
    generated_samples,
    read_samples,
    read_tensors,
    refusal,
)
from bartizan.lifecycle.develop.scan.scanner import scan_bytes
from fixtures.hostile_models import DANGEROUS, SUSPECT, imports, text, whole

ONE = Tensor("a", "F32", (2, 3), "0" * 64)


def safetensors(header, content=b""):
    packed = json.dumps(header).encode()
    return len(packed).to_bytes(8, "little") + packed + content


def test_the_format_is_asked_for_or_read_off_the_name():
    assert format_of("x.safetensors", "") == "safetensors"
    assert format_of("x.anything", "onnx") == "onnx"
    with pytest.raises(InputError, match="does not say which format"):
        format_of("model.h5", "")


@pytest.mark.parametrize("name", [*list(DANGEROUS)[:40], *SUSPECT])
def test_what_is_not_clean_is_refused_whatever_is_accepted_unless_it_is_a_class(name):
    report = scan_bytes({**DANGEROUS, **SUSPECT}[name], "model.pkl")
    assert refusal(report)
    rules = {finding.rule for finding in report.findings}
    assert bool(refusal(report, "pickle/unlisted-class")) == (rules != {"pickle/unlisted-class"})


def test_an_unlisted_class_is_loaded_only_when_it_is_accepted_with_a_reason():
    report = scan_bytes(whole(imports("somebody.models", "Estimator") + b")\x81}" + text("a") + b"K\x01sb"), "m.pkl")
    assert "pickle/unlisted-class" in refusal(report)
    assert refusal(report, "pickle/unlisted-class") == ""
    assert refusal(scan_bytes(pickle.dumps([1]), "m.pkl")) == ""
    for accept, reason, fault in (
        ("pickle/dangerous-call", "it is ours, honestly", "cannot be accepted"),
        ("pickle/unlisted-class", "ours", "needs a reason"),
        ("", "it is ours, honestly", "needs --accept"),
    ):
        with pytest.raises(InputError, match=fault):
            check_acceptance(accept, reason)
    check_acceptance("pickle/unlisted-class", "written by our own team")


def test_an_incomplete_scan_is_refused():
    assert refusal(scan_bytes(b"\x00\x01nobody knows this format" * 10, "x"))


@pytest.mark.parametrize(
    ("result", "difference"),
    [
        ([], "'a' is missing"),
        ([Tensor("a", "F64", (2, 3), "0" * 64)], r"was F32 \[2, 3\] and is F64 \[2, 3\]"),
        ([Tensor("a", "F32", (3, 2), "0" * 64)], r"was F32 \[2, 3\] and is F32 \[3, 2\]"),
        ([Tensor("a", "F32", (2, 3), "1" * 64)], "'a' has other bytes"),
        ([ONE, Tensor("b", "F32", (), "0" * 64)], "'b' is new"),
        ([ONE, ONE], "more than once"),
    ],
)
def test_tensors_that_differ_in_anything_do_not_agree(result, difference):
    agreement = compare_tensors([ONE], result, {})
    assert not agreement.agrees
    with pytest.raises(AssertionError, match=difference):
        raise AssertionError(agreement.words)
    assert compare_tensors([ONE], [ONE], {}).agrees


@pytest.mark.parametrize(
    ("ours", "theirs", "agrees"),
    [
        (Answers(labels=[["a"], ["b"]]), Answers(labels=[["a"], ["b"]]), True),
        (Answers(labels=[["a"], ["b"]]), Answers(labels=[["a"], ["a"]]), False),
        (Answers(labels=[["a"], ["b"]]), Answers(labels=[["a"]]), False),
        (Answers(numbers=[[1.0]], scores=[[0.1, 0.9]]), Answers(numbers=[[1.0]], scores=[[0.1, 0.900001]]), True),
        (Answers(numbers=[[1.0]], scores=[[0.1, 0.9]]), Answers(numbers=[[1.0]], scores=[[0.1, 0.91]]), False),
        (Answers(numbers=[[1.0]], scores=[[0.1, 0.9]]), Answers(numbers=[[0.99999]], scores=[[0.1, 0.9]]), False),
        (Answers(numbers=[[100.0]]), Answers(numbers=[[100.001]]), True),
        (Answers(numbers=[[100.0]]), Answers(numbers=[[101.0]]), False),
        (Answers(numbers=[[math.nan]]), Answers(numbers=[[math.nan]]), True),
        (Answers(numbers=[[math.inf]]), Answers(numbers=[[math.inf]]), True),
        (Answers(numbers=[[math.inf]]), Answers(numbers=[[1.0]]), False),
        (Answers(numbers=[[1.0]]), Answers(numbers=[[math.nan]]), False),
        (Answers(numbers=[[1.0]]), Answers(numbers=[[1.0, 2.0]]), False),
        (Answers(scores=[[1.0, 2.0]]), Answers(scores=[[1.0, 2.0]]), True),
        (Answers(scores=[[1.0]]), Answers(scores=[[1.0], [2.0]]), False),
        (Answers(), Answers(), False),
    ],
)
def test_answers_agree_when_labels_are_identical_and_numbers_within_the_tolerance(ours, theirs, agrees):
    assert compare_answers(ours, theirs, 1, "onnx", "generated").agrees is agrees


def test_skops_has_to_give_the_very_same_numbers():
    ours, theirs = Answers(numbers=[[1.0]]), Answers(numbers=[[1.0 + 1e-12]])
    assert not compare_answers(ours, theirs, 1, "skops", "generated").agrees


def test_samples_are_read_or_made():
    table = np.arange(6.0).reshape(2, 3)
    stream = io.BytesIO()
    np.save(stream, table)
    assert (read_samples(stream.getvalue(), "x.npy", 3) == table).all()
    assert (read_samples(b"a,b,c\n0,1,2\n\n3,4,5\n", "x.csv", 3) == table).all()
    assert (read_samples("\ufeff0,1,2\n3,4,5".encode(), "x.csv", 3) == table).all()
    assert (generated_samples(4) == generated_samples(4)).all()
    assert generated_samples(4).shape == (256, 4)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "features"),
        (b"a,b\n", "features"),
        (b"1,2\n3\n", "no samples"),
        (b"1,2\n3,x\n", "no samples"),
        (b"1,nan\n", "not finite"),
        (b"1,2,3\n", "takes 2 features"),
        (b"\xff\xfe", "no samples"),
        (b"\x93NUMPY\x01\x00\x05\x00hello", "no samples"),
        (b"1,2\n" * 10_001, "1 to 10000 rows"),
    ],
)
def test_what_are_no_samples_is_said_so(data, fault):
    with pytest.raises(InputError, match=fault):
        read_samples(data, "x.csv", 2)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 16,
        safetensors([]),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, b"1234"),
        safetensors({"a": {"dtype": "F32", "shape": [1]}}, b"1234"),
        (9).to_bytes(8, "little") + b"[" * 9,
    ],
)
def test_a_broken_result_is_no_result(data):
    with pytest.raises(ArtefactError, match="no safetensors file"):
        read_tensors(data, "safetensors")


@settings(max_examples=200)
@given(st.binary(max_size=200), st.sampled_from(["safetensors", "npz"]))
def test_any_bytes_are_read_or_refused(data, kind):
    try:
        read_tensors(data, kind)
    except ArtefactError:
        return


def test_an_npz_member_of_any_content_is_read_or_refused():
    good = io.BytesIO()
    np.savez(good, a=np.arange(6, dtype="<i4").reshape(2, 3))
    assert [tensor.shape for tensor in read_tensors(good.getvalue(), "npz")] == [(2, 3)]
    for content in (
        b"",
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x01\x00\x02\x00{}",
        b"\x93NUMPY\x02\x00" + bytes(20),
        b"\x93NUMPY\x01\x00"
        + (60).to_bytes(2, "little")
        + b"{'descr':'<f4','fortran_order':False,'shape':(9,)}".ljust(60),
        b"\x93NUMPY\x01\x00"
        + (60).to_bytes(2, "little")
        + b"{'descr':'|O','fortran_order':False,'shape':(1,)}".ljust(60),
    ):
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("a.npy", content)
        with pytest.raises(ArtefactError, match="no npz file"):
            read_tensors(target.getvalue(), "npz")
