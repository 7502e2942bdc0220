"""Open Inference Protocol v2: what is read, what is refused, and how much an answer tells."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from bartizan.core.digest import Digest
from bartizan.lifecycle.deploy.gateway import plain, protocol
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.protocol import Description, Output

DIGEST = Digest("ab" * 32)


def described(features=2, dtype="<f8", shape=()):
    return Description(
        name="m", digest=DIGEST, features=features, classes=("a", "b"), dtype=dtype, columns=("x", "y"), shape=shape
    )


def read(sent, head=None, **more):
    return protocol.read(sent, head, described(**more))


def body(data, shape=(1, 2), datatype="FP64", **more):
    tensor = {"name": "features", "shape": list(shape), "datatype": datatype, "data": data}
    return json.dumps({"inputs": [tensor], **more}).encode()


@pytest.mark.parametrize("data", [[1, 2.5, 3, 4], [[1, 2.5], [3, 4]]])
def test_flat_and_nested_numbers_are_the_same_rows(data):
    question = read(body(data, (2, 2), id="7"))
    assert question.rows.tolist() == [[1, 2.5], [3, 4]]
    assert (question.id, question.outputs, question.rows.dtype) == ("7", (), np.dtype("float64"))
    assert read(body(data, (2, 2)), dtype="<f4").rows.dtype == np.dtype("float32")


@pytest.mark.parametrize(
    ("sent", "status", "says"),
    [
        (b"", 400, "no inference request"),
        (b"[" * 100_000, 400, "no inference request"),
        (b"\xff{}", 400, "no inference request"),
        (b'{"inputs":[]}', 400, "exactly one input"),
        (body([1, 2]).replace(b"features", b"other"), 400, "exactly one input"),
        (body([1, 2], surprise=1), 400, "no inference request"),
        (body([1, 2], id="x" * 129), 400, "an id has at most"),
        (body([1, 2], outputs=[{"name": "label"}, {"name": "label"}]), 400, "named twice"),
        (body([1, 2], (2,)), 400, "and not [rows, 2]"),
        (body([1, 2], (2, 1)), 400, "and not [rows, 2]"),
        (body([], (0, 2)), 400, "at least one row"),
        (body([1, 2], (-1, 2)), 400, "at least one row"),
        (body([1, 2], (4097, 2)), 413, "too many rows"),
        (body([1, 2], (2**62, 2)), 413, "too many rows"),
        (body([1, 2], (2**70, 2)), 413, "too many rows"),
        (body(["a", "b"], datatype="BYTES"), 400, "datatype "),
        (body([1, 2, 3]), 400, "3 numbers are no 1 rows of 2"),
        (body([]), 400, "0 numbers are no 1 rows of 2"),
        (body([[1, 2], [3]], (2, 2)), 400, "data are no 2 rows of 2"),
        (body([[1, [2]]]), 400, "data: "),
        (body([1, None]), 400, "data: "),
        (body([1, True]), 400, "data: "),
        (body("12"), 400, "data: "),
        (body({"a": 1}), 400, "data: "),
        (body([1.5, 2], datatype="INT64"), 400, "data: "),
        (body([1, 128], datatype="INT8"), 400, "out of the range of INT8"),
        (body([1, -1], datatype="UINT8"), 400, "out of the range of UINT8"),
        (body([1, 1e39], datatype="FP32"), 400, "out of the range of FP32"),
        (body([1, 2]).replace(b"[1, 2]}", b"[1e999, 2]}"), 400, ""),
        (body([1, 2]).replace(b"[1, 2]}", b"[NaN, 2]}"), 400, "no inference request"),
    ],
)
def test_what_is_out_of_bounds_is_refused(sent, status, says):
    with pytest.raises(RequestError) as refused:
        read(sent)
    assert refused.value.status == status
    assert says in refused.value.reason
    for word in ("[rows", "datatype", "FP32", "2 rows", "finite"):
        assert word not in refused.value.message


@given(some.binary(max_size=300))
def test_any_bytes_are_rows_or_a_refusal(noise):
    for sent in (noise, body([1, 2]).replace(b"[1, 2]", noise)):
        try:
            question = read(sent)
        except RequestError as error:
            assert error.status in {400, 413}  # noqa: PT017 - either outcome is right
        else:
            assert np.isfinite(question.rows).all()


def binary(rows, kind="<f4", datatype="FP32", size=None, **more):
    """A request of the binary tensor extension, and the length of its head."""
    data = np.asarray(rows, dtype=kind).tobytes()
    parameters = {"binary_data_size": len(data) if size is None else size}
    tensor = {"name": "features", "shape": list(np.shape(rows)), "datatype": datatype, "parameters": parameters}
    head = json.dumps({"inputs": [tensor], **more}).encode()
    return head + data, b"%d" % len(head)


@pytest.mark.parametrize(
    ("kind", "datatype"),
    [("<f2", "FP16"), ("<f4", "FP32"), ("<f8", "FP64"), ("<i1", "INT8"), ("<u2", "UINT16"), ("<i8", "INT64")],
)
def test_tensors_may_lie_behind_the_head_byte_by_byte(kind, datatype):
    rows = [[1, 2], [3, 4]]
    for dtype in ("<f4", "<f8"):
        question = read(*binary(rows, kind, datatype), dtype=dtype)
        assert (question.rows.tolist(), question.rows.dtype) == (rows, np.dtype(dtype))


@pytest.mark.parametrize(
    ("sent", "head"),
    [
        (binary([[1, 2]])[0], b"x"),
        (binary([[1, 2]])[0], b"999999"),
        (binary([[1, 2]])[0], b"-1"),
        (binary([[1, 2]])[0], b"0"),
        (binary([[1, 2]])[0] + b"\0", binary([[1, 2]])[1]),
        (binary([[1, 2]])[0][:-1], binary([[1, 2]])[1]),
        binary([[1, 2]], size=4),
        binary([[1, 2]], size=2**63),
        binary([[1, 2]], size=True),
        binary([[1, 2]], size="8"),
        binary([[1, 2]], datatype="BYTES"),
        binary([[1, float("nan")]]),
        binary([[1, float("inf")]]),
        binary([[1, 1e300]], "<f8", "FP64"),
    ],
)
def test_tensors_that_do_not_fit_their_head_are_refused(sent, head):
    with pytest.raises(RequestError) as refused:
        read(sent, head, dtype="<f4")
    assert refused.value.status == 400


@given(some.binary(max_size=200), some.integers(-2, 300))
def test_any_bytes_behind_any_head_are_rows_or_a_refusal(noise, cut):
    sent, head = binary([[1, 2]])
    for body_bytes, length in ((noise, b"%d" % cut), (sent[: int(head)] + noise, head), (noise, noise[:9])):
        try:
            question = read(body_bytes, length)
        except RequestError as error:
            assert error.status in {400, 413}  # noqa: PT017 - either outcome is right
        else:
            assert np.isfinite(question.rows).all()


def test_images_may_come_in_their_own_shape():
    sent = body(list(range(8)), (1, 2, 2, 2))
    assert read(sent, features=8, shape=(2, 2, 2)).rows.tolist() == [list(range(8))]
    with pytest.raises(RequestError):
        read(sent, features=8)


OUTPUTS = {"label": Output("BYTES", ["b", "a"]), "scores": Output("FP64", [0.25, 0.75, 0.5, 0.5], 2)}


def test_an_answer_has_the_outputs_that_are_wanted_and_given():
    question = read(body([1, 2, 3, 4], (2, 2), id="7"))
    written, length = protocol.write(question, OUTPUTS, described(), {"note": "mind"})
    answer = json.loads(written)
    assert (length, answer["id"], answer["model_version"], answer["parameters"]) == (
        None,
        "7",
        DIGEST,
        {"note": "mind"},
    )
    assert [(item["name"], item["shape"]) for item in answer["outputs"]] == [("label", [2]), ("scores", [2, 2])]
    wanted = read(body([1, 2], outputs=[{"name": "scores"}]))
    assert [item["name"] for item in json.loads(protocol.write(wanted, OUTPUTS, described())[0])["outputs"]] == [
        "scores"
    ]
    with pytest.raises(RequestError) as refused:
        protocol.write(wanted, {"label": OUTPUTS["label"]}, described())
    assert refused.value.status == 403


def test_an_answer_may_be_bytes():
    sent, head = binary([[1, 2], [3, 4]], parameters={"binary_data_output": True})
    question = read(sent, head)
    written, length = protocol.write(question, OUTPUTS, described())
    label, scores = json.loads(written[:length])["outputs"]
    rest = written[length:]
    size = label["parameters"]["binary_data_size"]
    assert rest[:size] == b"\x01\0\0\0b\x01\0\0\0a"
    assert np.frombuffer(rest[size:], "<f8").tolist() == OUTPUTS["scores"].data
    assert scores["parameters"]["binary_data_size"] == 32


def test_metadata_names_what_is_given():
    said = protocol.metadata(described(), OUTPUTS)
    assert {item["name"]: item["shape"] for item in said["outputs"]} == {"label": [-1], "scores": [-1, 2]}


@given(some.binary(max_size=200))
def test_any_bytes_are_plain_rows_or_a_refusal(noise):
    for sent in (noise, b'{"rows": [' + noise + b"]}"):
        try:
            question = plain.read(sent, described())
        except RequestError as error:
            assert error.status in {400, 413}  # noqa: PT017 - either outcome is right
        else:
            assert np.isfinite(question.rows).all()


@pytest.mark.parametrize("rows", [[{"x": 1, "y": 2}], [[1, 2]], [{"y": 2, "x": 1}]])
def test_plain_rows_by_name_or_in_order(rows):
    assert plain.read(json.dumps({"rows": rows}).encode(), described()).rows.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    "rows",
    [[], [{}], [{"x": 1}], [{"x": 1, "y": 2, "z": 3}], [[1]], [[1, 2, 3]], [[1, "2"]], [[1, True]], [[[1, 2]]], "x"],
)
def test_plain_rows_that_do_not_fit_are_refused(rows):
    with pytest.raises(RequestError):
        plain.read(json.dumps({"rows": rows}).encode(), described())


def test_plain_answers_have_one_object_for_each_row():
    assert plain.write(OUTPUTS, 2) == {
        "predictions": [{"label": "b", "scores": [0.25, 0.75]}, {"label": "a", "scores": [0.5, 0.5]}]
    }


@pytest.mark.parametrize(
    ("number", "datatype", "dtype", "says"),
    [
        (1e39, "FP64", "<f4", "out of the range of FP32, in which the model computes"),
        (-1e39, "FP64", "<f4", "out of the range of FP32, in which the model computes"),
        (65505, "FP16", "<f4", "out of the range of FP16"),
        (65505, "FP16", "<f8", "out of the range of FP16"),
        (1e39, "FP32", "<f8", "out of the range of FP32"),
        (1e400, "FP64", "<f8", "data: "),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_number_that_neither_datatype_holds_is_named(number, datatype, dtype, says, nested):
    numbers = [1.0, number]
    sent = body([numbers] if nested else numbers, datatype=datatype).replace(b"Infinity", b"1e400")
    with pytest.raises(RequestError) as error:
        read(sent, dtype=dtype)
    assert error.value.reason.startswith(says) or says in error.value.reason


def test_the_largest_numbers_of_a_datatype_are_read():
    largest = float(np.finfo(np.float32).max)
    assert read(body([largest, -largest]), dtype="<f4").rows.tolist() == [[largest, -largest]]


@pytest.mark.parametrize("question", [body([1, 2]), body([1, 2], id="7"), body([1, 2], outputs=[{"name": "label"}])])
@pytest.mark.parametrize("label", ["a", '"b\u2028'])
def test_the_most_frequent_answer_is_that_which_is_written_anew(question, label):
    outputs = {"label": Output("BYTES", [label])}
    written, length = protocol.write(read(question), outputs, described(), name="n")
    sent = json.loads(question)
    expected = {"model_name": "n", "model_version": DIGEST}
    expected |= {"id": "7"} if "id" in sent else {}
    expected["outputs"] = [{"name": "label", "datatype": "BYTES", "shape": [1], "data": [label]}]
    assert (json.loads(written), list(json.loads(written)), length) == (expected, list(expected), None)
    assert protocol.write(read(question), outputs, described(), {"notice": "/n"})[0] != written
