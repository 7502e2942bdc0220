from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bartizan.adapters.onnx.inline import open_inline
from bartizan.core.digest import digest_bytes
from bartizan.core.errors import WorkError
from bartizan.lifecycle.deploy.gateway.hosting import is_row_wise

FEATURES, CLASSES = 4, 3
ROWS = np.random.default_rng(1).uniform(0, 1, (4, FEATURES)).astype(np.float32)
WEIGHTS = np.random.default_rng(0).normal(0, 1, (FEATURES, CLASSES)).astype(np.float32)


def opened(tmp_path, before=(), source="features"):
    """A linear classifier, with nodes before it that make ``source`` of the features."""
    nodes = [
        *before,
        helper.make_node("MatMul", [source, "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, CLASSES])],
        [numpy_helper.from_array(WEIGHTS, "weights")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return open_inline(path, digest_bytes(path.read_bytes()), classes=CLASSES, features=FEATURES, shape=())


def quantised():
    """As dynamic quantisation makes it: one scale for all rows of a call."""
    return [
        helper.make_node("DynamicQuantizeLinear", ["features"], ["small", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["small", "scale", "zero"], ["near"]),
    ]


def centred():
    """The mean goes over all rows of a call."""
    return [
        helper.make_node("ReduceMean", ["features"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["features", "mean"], ["near"]),
    ]


def test_a_model_that_takes_each_row_by_itself_is_known(tmp_path):
    assert is_row_wise(opened(tmp_path), ROWS)


@pytest.mark.parametrize("mixing", [quantised, centred])
def test_a_model_whose_answer_to_a_row_depends_on_others_is_asked_for_each_request(tmp_path, mixing):
    model = opened(tmp_path, mixing(), source="near")
    row, other = np.ones((1, FEATURES), np.float32), np.full((1, FEATURES), 1e4, np.float32)
    alone = model.ask(row, scores=True).scores[0]
    beside = model.ask(np.concatenate([row, other]), scores=True).scores[0]
    assert not np.allclose(alone, beside, atol=1e-3)  # which is what has to be kept from happening
    assert not is_row_wise(model, ROWS)


def test_one_row_of_scores_that_are_none_is_seen_among_many_that_are(tmp_path):
    """The sum over all rows would not show it."""
    model = opened(tmp_path)
    rows = np.zeros((40, FEATURES), np.float32)
    good = np.full((40, CLASSES), 1 / CLASSES)
    good[20] = [0.9, 0.2, 0.2]
    model._numbers = lambda _rows: good
    with pytest.raises(WorkError, match="no probabilities"):
        model.ask(rows, scores=True)
