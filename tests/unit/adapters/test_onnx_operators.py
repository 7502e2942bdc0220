"""Each operator in a graph of its own: what torch computes must be what ONNX Runtime answers."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bartizan.adapters.onnx.graph import Graph
from bartizan.adapters.onnx.network import Network
from bartizan.adapters.onnx.operators import OPERATORS
from bartizan.adapters.onnx.slopes import FLOWING, SHAPES, why_none
from bartizan.targets.hosting import Refusal

RNG = np.random.default_rng(0)


def made(kind, given, constants=(), *, opset=17, domain="", outputs=("y",), **attributes):
    """A graph of one operator; ``constants`` follow its input ``x``, None where one is left out."""
    names = ["x", *(f"c{place}" if value is not None else "" for place, value in enumerate(constants))]
    stored = [
        numpy_helper.from_array(np.asarray(value), f"c{place}")
        for place, value in enumerate(constants)
        if value is not None
    ]
    node = helper.make_node(kind, names, list(outputs), domain=domain, name="odd", **attributes)
    shape = [None, *given.shape[1:]] if given.ndim else []
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(given.dtype), shape)],
        [helper.make_empty_tensor_value_info(outputs[-1])],
        stored,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return ModelProto.FromString(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def by_runtime(model, given):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run([model.graph.output[0].name], {"x": given})[0]


def by_torch(model, given):
    network = Network(Graph(model), model.graph.output[0].name, lambda rows: {"x": rows}, lambda found: found)
    with torch.no_grad():
        return network(torch.from_numpy(given)).numpy()


ROWS = RNG.standard_normal((4, 6)).astype(np.float32)
POSITIVE = np.abs(ROWS) + 0.5
IMAGES = RNG.standard_normal((3, 4, 7, 6)).astype(np.float32)
LINES = RNG.standard_normal((3, 4, 9)).astype(np.float32)
W = RNG.standard_normal((6, 5)).astype(np.float32)
KERNEL = RNG.standard_normal((8, 2, 3, 3)).astype(np.float32)
CHANNEL = (np.abs(RNG.standard_normal((4, 4))) + 0.5).astype(np.float32)
WHOLE = np.int64

SIMPLE = {
    **dict.fromkeys(["Relu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Softplus", "Sigmoid", "HardSigmoid"], ROWS),
    **dict.fromkeys(["HardSwish", "Tanh", "Softsign", "Erf", "Exp", "Neg", "Abs", "Sin", "Cos", "Identity"], ROWS),
    **dict.fromkeys(["LeakyRelu", "Log", "Sqrt", "Reciprocal"], POSITIVE),
    **dict.fromkeys(["GlobalAveragePool", "GlobalMaxPool", "Shape", "Size", "Flatten", "Transpose"], IMAGES),
}
CASES = [(kind, given, (), {}) for kind, given in SIMPLE.items()] + [
    ("Mish", ROWS, (), {"opset": 18}),
    ("Gelu", ROWS, (), {"opset": 20}),
    ("Gelu", ROWS, (), {"opset": 20, "approximate": "tanh"}),
    ("LeakyRelu", ROWS, (), {"alpha": 0.3}),
    ("PRelu", IMAGES, (CHANNEL[0][:, None, None],), {}),
    ("Add", ROWS, (W[:, 0],), {}),
    ("Sub", ROWS, (W[:, 0],), {}),
    ("Mul", ROWS, (W[:, 0],), {}),
    ("Div", ROWS, (POSITIVE[0],), {}),
    ("Div", np.array([[7, -7, 8]]), (np.array([2, 2, 3]),), {}),
    ("Pow", POSITIVE, (np.float32(1.5),), {}),
    ("Max", ROWS, (W[:, 0], W[:, 1]), {}),
    ("Min", ROWS, (W[:, 0], W[:, 1]), {}),
    ("Sum", ROWS, (W[:, 0], W[:, 1]), {}),
    ("Mean", ROWS, (W[:, 0], W[:, 1]), {}),
    ("MatMul", ROWS, (W,), {}),
    ("Gemm", ROWS, (W, W[0]), {}),
    ("Gemm", ROWS, (W.T.copy(), W[0]), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Conv", IMAGES, (KERNEL[:, :2], CHANNEL.ravel()[:8]), {"group": 2, "pads": [1, 1, 1, 1]}),
    ("Conv", IMAGES, (KERNEL[:, :2],), {"group": 2, "pads": [0, 1, 2, 0], "strides": [2, 1]}),
    ("Conv", IMAGES, (KERNEL[:, :2],), {"group": 2, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", IMAGES, (KERNEL[:, :2],), {"group": 2, "auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("Conv", LINES, (KERNEL[:, :, 0].repeat(2, 1),), {"dilations": [2]}),
    ("MaxPool", IMAGES, (), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("MaxPool", IMAGES, (), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    ("MaxPool", IMAGES, (), {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("MaxPool", LINES, (), {"kernel_shape": [2], "pads": [0, 1]}),
    ("AveragePool", IMAGES, (), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("AveragePool", IMAGES, (), {"kernel_shape": [3, 3], "pads": [1, 0, 1, 1]}),
    ("AveragePool", IMAGES, (), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("BatchNormalization", IMAGES, tuple(CHANNEL), {"epsilon": 1e-3}),
    ("InstanceNormalization", IMAGES, (CHANNEL[0], CHANNEL[1]), {}),
    ("LayerNormalization", ROWS, (POSITIVE[0], ROWS[1]), {}),
    ("Softmax", ROWS, (), {}),
    ("Softmax", IMAGES, (), {"opset": 11, "axis": 2}),
    ("LogSoftmax", ROWS, (), {}),
    ("Dropout", ROWS, (), {}),
    ("Cast", ROWS, (), {"to": TensorProto.DOUBLE}),
    ("Clip", ROWS, (np.float32(-0.5), np.float32(0.5)), {}),
    ("Clip", ROWS, (None, np.float32(0.5)), {}),
    ("Clip", ROWS, (), {"opset": 9, "min": -0.1, "max": 0.2}),
    ("Reshape", IMAGES, (np.array([0, 2, -1]),), {}),
    ("Squeeze", ROWS[:, :1], (np.array([1]),), {}),
    ("Squeeze", ROWS[:, :1], (), {"opset": 11, "axes": [1]}),
    ("Unsqueeze", ROWS, (np.array([0, -1]),), {}),
    ("Concat", ROWS, (ROWS,), {"axis": 1}),
    ("Split", ROWS, (np.array([2, 4]),), {"axis": 1, "outputs": ("a", "y")}),
    ("Split", ROWS, (), {"axis": 1, "outputs": ("a", "y"), "opset": 11}),
    ("Slice", ROWS, (np.array([4]), np.array([-100]), np.array([1]), np.array([-2])), {}),
    ("Slice", ROWS, (np.array([5]), np.array([np.iinfo(WHOLE).min]), np.array([1]), np.array([-1])), {}),
    ("Slice", ROWS, (), {"opset": 9, "starts": [1], "ends": [3], "axes": [1]}),
    ("Gather", ROWS, (np.array([[0, -1]]),), {"axis": 1}),
    ("Expand", ROWS[:, :1], (np.array([2, 1, 3]),), {}),
    ("Pad", IMAGES, (np.array([0, 0, 1, 2, 0, 0, 0, 1]), np.float32(0.5)), {}),
    ("Pad", IMAGES, (np.array([0, 0, 1, 2, 0, 0, 0, 1]),), {"mode": "reflect"}),
    ("Pad", IMAGES, (np.array([1, 2, 0, 1]), np.float32(0), np.array([2, -1])), {"opset": 18}),
    ("Pad", IMAGES, (), {"opset": 9, "pads": [0, 0, 1, 0, 0, 0, 1, 1], "value": 2.0}),
    ("ReduceMean", IMAGES, (), {"axes": [2, 3], "keepdims": 0}),
    ("ReduceMean", IMAGES, (np.array([-1]),), {"opset": 18}),
    ("ReduceSum", ROWS, (np.array([1]),), {}),
    ("ReduceMax", IMAGES, (), {"axes": [2], "keepdims": 1}),
    ("ReduceL2", ROWS, (), {"axes": [1]}),
    ("Equal", np.array([[1, 2]]), (np.array([1, 3]),), {}),
    ("ConstantOfShape", np.array([2, 3]), (), {"value": numpy_helper.from_array(np.array([7.0]), "v")}),
    ("Range", np.array(2), (np.array(9), np.array(3)), {}),
    ("Where", np.array([[True, False]]), (np.float32([1, 2]), np.float32([3, 4])), {}),
    ("Scaler", ROWS, (), {"domain": "ai.onnx.ml", "offset": [0.5] * 6, "scale": [2.0] * 6}),
    ("FeatureVectorizer", ROWS, (ROWS[:, :2],), {"domain": "ai.onnx.ml", "inputdimensions": [6, 2]}),
    ("Normalizer", ROWS, (), {"domain": "ai.onnx.ml", "norm": "L1"}),
    ("Normalizer", ROWS, (), {"domain": "ai.onnx.ml", "norm": "L2"}),
    *[
        ("LinearClassifier", ROWS, (), {
            "domain": "ai.onnx.ml", "coefficients": W.T.ravel().tolist(), "intercepts": W[0].tolist(),
            "post_transform": kind, "classlabels_ints": [0, 1, 2, 3, 4], "outputs": ("label", "y"),
        })
        for kind in ("NONE", "SOFTMAX", "LOGISTIC")
    ],
]  # fmt: skip


@pytest.mark.parametrize(("kind", "given", "constants", "more"), CASES, ids=[case[0] for case in CASES])
def test_torch_computes_what_the_runtime_answers(kind, given, constants, more):
    model = made(kind, given, constants, **more)
    theirs, ours = by_runtime(model, given), by_torch(model, given)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert np.allclose(ours, theirs, atol=1e-5)


def test_no_operator_is_left_untried_or_unknown():
    tried = {case[0] for case in CASES} | {"Constant"}
    assert set(OPERATORS) == tried
    assert set(OPERATORS) - set(FLOWING) - SHAPES == {"Constant", "ConstantOfShape", "Range", "Equal"}
    assert set(FLOWING) | SHAPES <= set(OPERATORS)


@pytest.mark.parametrize(
    ("kind", "given", "more", "reason"),
    [
        ("Round", ROWS, {}, "Round (node 'odd') stops gradients"),
        ("Sign", ROWS, {}, "Sign"),
        ("ArgMax", ROWS, {"axis": 1}, "ArgMax"),
        ("Greater", ROWS, {"constants": (np.float32(0),)}, "Greater"),
        ("Cast", ROWS, {"to": TensorProto.INT32}, "turns numbers into INT32"),
        ("Cast", ROWS, {"to": TensorProto.FLOAT16}, "turns numbers into FLOAT16"),
        ("Shape", ROWS, {}, "do not depend on its input"),
        ("Neg", np.array([[1]]), {}, "takes whole numbers"),
        ("Relu", ROWS, {"opset": 6}, "older than what is differentiated"),
        ("Gather", ROWS, {}, ""),
    ],
)
def test_what_stops_gradients_is_named(kind, given, more, reason):
    more = {"constants": (np.array([0]),)} | more if kind == "Gather" else more
    model = made(kind, given, **more)
    assert reason in why_none(model, "y")
    assert bool(why_none(model, "y")) == bool(reason)


def test_places_that_depend_on_the_rows_stop_gradients():
    nodes = [helper.make_node("Relu", ["x"], ["b"]), helper.make_node("Where", ["b", "x", "x"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])]
    nodes[0] = helper.make_node("Relu", ["x"], ["b"])
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_empty_tensor_value_info("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    assert "chooses by the numbers of the rows" in why_none(model, "y")


@pytest.mark.parametrize(
    ("kind", "given", "constants", "more", "fault"),
    [
        ("Dropout", ROWS, (np.float32(0.5), np.asarray(np.True_)), {}, "set to training"),
        ("BatchNormalization", IMAGES, tuple(CHANNEL), {"training_mode": 1}, "set to training"),
        ("AveragePool", IMAGES, (), {"kernel_shape": [2, 2], "ceil_mode": 1}, "rounded up"),
        ("Pad", IMAGES, (np.array([1, 0, 0, 0, 0, 0, 0, 0]),), {"mode": "edge"}, "across the batch"),
        ("MatMul", ROWS, (W.T.copy(),), {}, "operator MatMul cannot be computed by torch"),
    ],
)
def test_what_torch_does_not_compute_is_refused(kind, given, constants, more, fault):
    with pytest.raises(Refusal, match=fault):
        by_torch(made(kind, given, constants, **more), given)
