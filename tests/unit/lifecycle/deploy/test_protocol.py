"""Open Inference Protocol v2: what is read, what is refused, and how much an answer tells."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from bartizan.core.digest import Digest
from bartizan.lifecycle.deploy.gateway import protocol
from bartizan.lifecycle.deploy.gateway.protocol import Description, RequestError
from bartizan.targets.protocol import Access

DIGEST = Digest("ab" * 32)


def described(detail="scores", classes=("no", "yes"), features=2):
    return Description(name="m", digest=DIGEST, features=features, classes=classes, detail=detail)


def body(data, shape=(1, 2), datatype="FP64", **more):
    tensor = {"name": "features", "shape": list(shape), "datatype": datatype, "data": data}
    return json.dumps({"inputs": [tensor], **more}).encode()


class Fixed:
    """A model of four classes that answers the same to every row."""

    offers = frozenset({Access.LABELS, Access.SCORES})

    def labels(self, rows):
        return np.full(len(rows), 2, dtype=np.int64)

    def scores(self, rows):
        return np.tile([0.1234, 0.3, 0.5166, 0.06], (len(rows), 1))


@pytest.mark.parametrize("data", [[1, 2.5, 3, 4], [[1, 2.5], [3, 4]]])
def test_flat_and_nested_numbers_are_the_same_rows(data):
    question = protocol.read(body(data, (2, 2), id="7"), described())
    assert question.rows.tolist() == [[1, 2.5], [3, 4]]
    assert (question.id, question.outputs, question.rows.dtype) == ("7", ("label", "scores"), np.dtype("float64"))


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
        (body([1, 2], outputs=[{"name": "weights"}]), 400, "outputs are label, scores"),
        (body([1, 2], outputs=[{"name": "label"}, {"name": "label"}]), 400, "each once"),
        (body([1, 2], (2,)), 400, "the shape is [rows, 2]"),
        (body([1, 2], (2, 1)), 400, "the shape is [rows, 2]"),
        (body([], (0, 2)), 400, "at least one row"),
        (body([1, 2], (-1, 2)), 400, "at least one row"),
        (body([1, 2], (4097, 2)), 413, "at most 4096 rows"),
        (body([1, 2], (2**62, 2)), 413, "at most 4096 rows"),
        (body([1, 2], (2**70, 2)), 413, "at most 4096 rows"),
        (body(["a", "b"], datatype="BYTES"), 400, "datatypes that are taken"),
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
        protocol.read(sent, described())
    assert refused.value.status == status
    assert says in refused.value.message


@given(some.binary(max_size=300))
def test_any_bytes_are_rows_or_a_refusal(noise):
    for sent in (noise, body([1, 2]).replace(b"[1, 2]", noise)):
        try:
            question = protocol.read(sent, described())
        except RequestError as error:
            assert error.status in {400, 413}  # noqa: PT017 - either outcome is right
        else:
            assert np.isfinite(question.rows).all()


@pytest.mark.parametrize(
    ("detail", "outputs"),
    [
        ("label", {"label": ["c"]}),
        ("top-k", {"label": ["c"], "top": ["c", "b", "a"]}),
        ("rounded-scores", {"label": ["c"], "scores": [0.12, 0.3, 0.52, 0.06]}),
        ("scores", {"label": ["c"], "scores": [0.1234, 0.3, 0.5166, 0.06]}),
    ],
)
def test_an_answer_tells_as_much_as_was_declared(detail, outputs):
    model = described(detail, classes=("a", "b", "c", "d"))
    question = protocol.read(body([1, 2]), model)
    given_back = protocol.ask(Fixed(), question, model)
    assert given_back == outputs
    answer = protocol.write(question, given_back, model)
    assert (answer["model_name"], answer["model_version"]) == ("m", DIGEST)
    for output in answer["outputs"]:
        assert int(np.prod(output["shape"])) == len(output["data"])
    assert {item["name"] for item in protocol.metadata(model)["outputs"]} == set(outputs)


def test_only_the_wanted_outputs_are_asked_for():
    class LabelsOnly(Fixed):
        offers = frozenset({Access.LABELS})

        scores = None

    model = described("scores", classes=("a", "b", "c", "d"))
    question = protocol.read(body([1, 2], outputs=[{"name": "label"}]), model)
    assert protocol.ask(LabelsOnly(), question, model) == {"label": ["c"]}
    assert protocol.detail_of("scores", LabelsOnly()) == "label"
    assert protocol.detail_of("rounded-scores", Fixed()) == "rounded-scores"


@pytest.mark.parametrize(("classes", "named"), [(2, 1), (3, 2), (4, 3), (10, 3)])
def test_top_k_never_ranks_every_class(classes, named):
    assert protocol.ranked(classes) == named
