"""Listed callables with arguments and states: what frameworks write passes, everything else is refused."""

from __future__ import annotations

import pickle
import struct

import numpy as np
import pytest

from bartizan.lifecycle.develop.scan import Verdict, scan_bytes
from bartizan.lifecycle.develop.scan.limits import Limits, Meter
from bartizan.lifecycle.develop.scan.pickle.stream import walk
from fixtures.hostile_models import EVIL, calls, imports, text, whole

DTYPE_ARGUMENTS = b"\x89\x88"
MINUS = b"J\xff\xff\xff\xff"
NDARRAY = imports("numpy", "ndarray")
CLASS = imports("sklearn.linear_model._base", "LinearRegression")


def found(body):
    """Rules and details of what is found in a pickle with this body."""
    return [(issue.rule, issue.detail) for issue in walk(whole(body), 0, Meter(Limits())).issues]


def dtype(kind, state=None):
    """A pickled dtype."""
    made = calls("numpy", "dtype", text(kind), DTYPE_ARGUMENTS)
    return made if state is None else made + b"(" + state + b"tb"


def plain_state(  # noqa: PLR0917 -- in the order of numpy's state
    order=b"<", size=MINUS, alignment=MINUS, flags=b"K\x00", names=b"N", fields=b"N", subarray=b"N"
):
    """The state of a dtype."""
    return b"K\x03" + text(order.decode()) + subarray + names + fields + size + alignment + flags


FLOAT = dtype("f8", plain_state())
OBJECT = dtype("O8", plain_state(b"|", flags=b"K?"))


def field(name, kind, offset):
    """One field of a structure."""
    return text(name) + kind + bytes([0x4B, offset]) + b"\x86s"


def array_state(dtype_bytes, data, shape=b"K\x02\x85"):
    """An array and its state."""
    made = calls("numpy.core.multiarray", "_reconstruct", NDARRAY, b"K\x00\x85", b"C\x01b")
    return made + b"(K\x01" + shape + dtype_bytes + b"\x89" + data + b"tb"


GOOD = {
    "bytearray of bytes": calls("builtins", "bytearray", b"C\x02ab"),
    "partial": calls("functools", "partial", imports("builtins", "int")) + b"(" + imports("builtins", "int") + b")}Ntb",
    "defaultdict": calls("collections", "defaultdict", imports("builtins", "list")),
    "defaultdict of nothing": calls("collections", "defaultdict", b"N"),
    "type of None": calls("builtins", "type", b"N"),
    "pattern": calls("re", "_compile", text("a+"), b"K\x00"),
    "generator": calls(
        "numpy.random._pickle",
        "__generator_ctor",
        text("PCG64"),
        imports("numpy.random._pickle", "__bit_generator_ctor"),
    ),
    "reconstructor": calls("copyreg", "_reconstructor", CLASS, imports("builtins", "object"), b"N"),
    "fraction": calls("fractions", "Fraction", text("1/3")),
    "ufunc": calls("numpy.core", "_ufunc_reconstruct", text("numpy"), text("sin")),
    "array of numbers": array_state(FLOAT, b"C\x10" + b"\0" * 16),
    "array of objects": array_state(OBJECT, b"](K\x01Ne"),
    "array of objects in a list of names": array_state(OBJECT, b"](" + imports("builtins", "int") + b"K\x01e"),
    "frombuffer": calls("numpy.core.numeric", "_frombuffer", b"C\x08" + b"\0" * 8, FLOAT, b"K\x01\x85", text("C")),
    "structure": dtype(
        "V16",
        plain_state(
            b"|",
            b"K\x10",
            b"K\x01",
            b"K\x10",
            text("a") + text("b") + b"\x86",
            b"}" + field("a", FLOAT, 0) + field("b", FLOAT, 8),
        ),
    ),
    "subarray": dtype("V16", plain_state(b"|", b"K\x10", b"K\x08", subarray=FLOAT + b"K\x02\x85\x86")),
    "subarray of one side": dtype("V16", plain_state(b"|", b"K\x10", b"K\x08", subarray=FLOAT + b"K\x02\x86")),
}

REFUSED = {
    "no arguments": (imports("copyreg", "_reconstructor") + b")R", "a class, a base and a state"),
    "arguments that are no tuple": (imports("builtins", "bytearray") + b"]R", "not a plain tuple"),
    "base that is no built-in": (
        calls("copyreg", "_reconstructor", CLASS, imports("collections", "Counter"), b"N"),
        "base is not a built-in",
    ),
    "class that is no name": (calls("copyreg", "_reconstructor", b"N", b"N", b"N"), "no imported class"),
    "class that is a function": (
        calls("numpy.core.multiarray", "_reconstruct", imports("numpy", "sin"), b"K\x00\x85", b"C\x01b"),
        "not to be constructed",
    ),
    "unpickler without arguments": (
        imports("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence") + b")R",
        "no arg",
    ),
    "getattr of a constant": (calls("builtins", "getattr", b"N", text("a")), "only a nested class"),
    "getattr of an unlisted part": (calls("builtins", "getattr", CLASS, text("fit")), "is not listed"),
    "partial of nothing": (imports("functools", "partial") + b")R", "function is not a listed one"),
    "factory that is a call": (calls("collections", "defaultdict", calls("builtins", "range", b"K\x01")), "factory"),
    "attribute from a call": (calls("operator", "attrgetter", calls("builtins", "range", b"K\x01")), "plain attribute"),
    "bytes of a number": (calls("builtins", "bytes", b"J\0\0\0\x7f"), "allocates more"),
    "bytes of a call": (calls("builtins", "bytes", calls("builtins", "range", b"J\0\0\0\x7f")), "only computed"),
    "type with three arguments": (calls("builtins", "type", text("A"), b")", b"}"), "None or Ellipsis"),
    "long pattern": (calls("re", "_compile", b"X" + struct.pack("<I", 20_000) + b"a" * 20_000), "sensible length"),
    "device from a call": (calls("torch", "device", calls("builtins", "range", b"K\x01")), "only constants"),
    "dtype from a name": (calls("numpy", "dtype", imports("builtins", "int")), "type string"),
    "dtype of nothing": (imports("numpy", "dtype") + b")R", "no arguments"),
    "dtype of an odd string": (calls("numpy", "dtype", text("f8,f8")), "no type string"),
    "array of two arguments": (calls("numpy.core.multiarray", "_reconstruct", NDARRAY, b"K\x00\x85"), "takes a class"),
    "masked array of two arguments": (calls("numpy.ma.core", "_mareconstruct", NDARRAY, NDARRAY), "two classes"),
    "scalar of an object": (calls("numpy.core.multiarray", "scalar", OBJECT, CLASS), "is no object"),
    "scalar of an object alone": (calls("numpy.core.multiarray", "scalar", OBJECT), "is no object"),
    "scalar of no dtype": (calls("numpy.core.multiarray", "scalar", b"N", b"C\x08" + bytes(8)), "made by numpy.dtype"),
    "scalar of too few bytes": (
        calls("numpy.core.multiarray", "scalar", calls("numpy", "dtype", text("f8")), b"C\x04" + bytes(4)),
        "not as many bytes",
    ),
    "many small allocations": (calls("builtins", "bytearray", b"J\0\0\0\x01") * 5, "allocates more"),
    "arrays of many items": (
        calls("numpy.core.multiarray", "_reconstruct", NDARRAY, b"J\0\0\x10\0\x85", text("V1000000")),
        "allocates more",
    ),
    "array of an unknown type": (
        calls("numpy.core.multiarray", "_reconstruct", NDARRAY, b"K\x01\x85", text("x")),
        "no type string",
    ),
    "buffer of nothing": (calls("numpy.core.numeric", "_frombuffer", b"C\x00"), "takes a buffer"),
    "buffer of no dtype": (
        calls("numpy.core.numeric", "_frombuffer", b"C\x00", b"N", b"K\x00\x85"),
        "made by numpy.dtype",
    ),
    "buffer of objects": (calls("numpy.core.numeric", "_frombuffer", b"C\x00", OBJECT, b"K\x00\x85"), "objects cannot"),
    "ufunc without a name": (calls("numpy.core", "_ufunc_reconstruct", text("numpy")), "a module and a name"),
    "bit generator unknown": (calls("numpy.random._pickle", "__bit_generator_ctor", text("os")), "no bit generator"),
    "bit generator elsewhere": (calls("numpy.random._pickle", "__bit_generator_ctor", CLASS), "no bit generator"),
    "tensor of two arguments": (calls("torch._utils", "_rebuild_tensor_v2", b"N", b"N"), "takes a storage"),
    "tensor of odd size": (calls("torch._utils", "_rebuild_tensor_v2", b"N", b"K\x00", b"N", b"N"), "not plain"),
    "bytes for torch that are computed": (
        calls("torch.storage", "_load_from_bytes", calls("builtins", "range", b"K\x01")),
        "cannot be read",
    ),
}

REFUSED_STATES = {
    "too few parts": (dtype("f8", b"K\x03" + text("<")), "eight or nine parts"),
    "unknown version": (dtype("f8", plain_state().replace(b"K\x03", b"K\x07", 1)), "unknown version"),
    "odd order": (dtype("f8", plain_state(b"x")), "unknown version"),
    "odd alignment": (dtype("f8", plain_state(alignment=b"K\x03")), "not numpy's"),
    "huge size": (dtype("V8", plain_state(b"|", b"\x8a\x05\0\0\0\0\x01")), "not numpy's"),
    "flags of another type": (dtype("U2", plain_state(b"<", b"K\x08", b"K\x04", b"K\x09")), "flags are 9"),
    "object flags missing": (dtype("O8", plain_state(b"|", flags=b"K\x00")), "flags are 0"),
    "names without fields": (
        dtype("V8", plain_state(b"|", b"K\x08", b"K\x01", names=text("a") + b"\x85")),
        "no fields",
    ),
    "fields without names": (dtype("V8", plain_state(b"|", b"K\x08", b"K\x01", b"K\x10", fields=b"}")), "its names"),
    "fields that are no dict": (
        dtype("V8", plain_state(b"|", b"K\x08", b"K\x01", b"K\x10", fields=b"]")),
        "cannot be read",
    ),
    "field that is no pair": (
        dtype("V8", plain_state(b"|", b"K\x08", b"K\x01", b"K\x10", text("a") + b"\x85", b"}" + text("a") + b"Ns")),
        "not (dtype, offset)",
    ),
    "field outside": (
        dtype("V8", plain_state(b"|", b"K\x08", b"K\x01", b"K\x10", text("a") + b"\x85", b"}" + field("a", FLOAT, 4))),
        "outside the item",
    ),
    "objects denied by the structure": (
        dtype("V8", plain_state(b"|", b"K\x08", b"K\x01", b"K\x10", text("a") + b"\x85", b"}" + field("a", OBJECT, 0))),
        "flags are 16",
    ),
    "subarray that is no pair": (
        dtype("V8", plain_state(b"|", b"K\x08", b"K\x01", subarray=b"K\x01")),
        "(dtype, shape)",
    ),
    "subarray that does not fill": (
        dtype("V8", plain_state(b"|", b"K\x08", b"K\x01", subarray=FLOAT + b"K\x02\x85\x86")),
        "does not fill",
    ),
    "a shared dtype is changed": (
        calls("numpy", "dtype", text("f8"), b"\x89", b"\x89") + b"(" + plain_state() + b"tb",
        "all arrays share",
    ),
    "fewer objects than the shape says": (array_state(OBJECT, b"](K\x01e"), "as many objects"),
    "bytes for objects": (array_state(OBJECT, b"C\x10" + b"a" * 16), "as many objects"),
    "shape that is no tuple": (array_state(FLOAT, b"C\x00", b"N"), "no tuple of sizes"),
    "array state of two parts": (
        calls("numpy.core.multiarray", "_reconstruct", NDARRAY, b"K\x00\x85", b"C\x01b") + b"K\x01N\x86b",
        "the one that numpy writes",
    ),
    "dtype that is none": (array_state(b"N", b"C\x00"), "its dtype"),
    "distribution state that is no dict": (
        imports("scipy.stats._continuous_distns", "norm_gen") + b")\x81NN\x86b",
        "not a plain dict",
    ),
}


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
def test_what_frameworks_write_passes(body):
    assert found(body) == []


@pytest.mark.parametrize(("body", "why"), REFUSED.values(), ids=REFUSED)
def test_other_arguments_are_refused(body, why):
    refused = [detail for rule, detail in found(body) if rule == "pickle/refused-argument"]
    assert any(why in detail for detail in refused), found(body)


@pytest.mark.parametrize(("body", "why"), REFUSED_STATES.values(), ids=REFUSED_STATES)
def test_other_states_are_refused(body, why):
    refused = [detail for rule, detail in found(body) if rule == "pickle/refused-state"]
    assert any(why in detail for detail in refused), found(body)


def test_states_that_numpy_refuses_or_crashes_on_are_no_prejudice():
    """The states above differ from good ones in one place; numpy itself takes the good ones."""
    assert pickle.loads(whole(GOOD["array of objects"])).tolist() == [1, None]
    assert pickle.loads(whole(GOOD["structure"])).itemsize == 16
    assert pickle.loads(whole(GOOD["subarray"])) == np.dtype(("f8", (2,)))


def test_an_unlisted_class_inside_a_listed_call_is_noted():
    body = calls("numpy.core.multiarray", "_reconstruct", imports("somebody", "Array"), b"K\x00\x85", b"C\x01b")
    assert [rule for rule, _ in found(body)] == ["pickle/unlisted-class"]


def test_bytes_that_torch_loads_are_loaded_once():
    constant = b"B" + struct.pack("<I", len(EVIL)) + EVIL
    body = constant + b"\x94" + b"".join(calls("torch.storage", "_load_from_bytes", b"h\x00") + b"0" for _ in range(5))
    assert len(walk(whole(body), 0, Meter(Limits())).nested) == 1


def test_a_stored_model_in_a_stream_that_is_no_stream_is_refused():
    """``BytesIO.__new__(BytesIO, *False)``: found by mutation."""
    data = (
        b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93\x8c\x1bkeras.src.models.sequential\x8c\nSequential\x93"
        b"\x8c\x0f_unpickle_model\x86R\x8c\x03_io\x8c\x07BytesIO\x93\x89\x81\x85R."
    )
    report = scan_bytes(data, "model.pkl")
    assert report.verdict is Verdict.DANGEROUS
    assert "pickle/refused-argument" in {finding.rule for finding in report.findings}


def test_many_lesser_findings_do_not_hide_a_dangerous_one():
    classes = b"".join(b"\x8c\x06ourlib\x8c\x04C%03d\x93)\x810" % number for number in range(500))
    report = scan_bytes(b"\x80\x04" + classes + b"\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.", "model.pkl")
    assert report.verdict is Verdict.DANGEROUS
    assert any("posix.system" in finding.detail for finding in report.findings)
    assert len(report.findings) <= Limits().findings
