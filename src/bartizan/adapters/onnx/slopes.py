"""Whether the gradients of an ONNX graph can be had exactly, and which operator stands in the way.

What the input flows through counts: constants and shapes may be computed by any operator that ``operators`` knows.
Rounding, comparisons and whole numbers have no slope, or one that says nothing; an attack that was given it
would stand still although nothing has become more robust, so it is not given.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto

from bartizan.adapters.onnx.graph import FLOATS, Graph, attributes

OLDEST = 7
"""Opset from which on operators mean what is computed here."""
FLOWING: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Concat"), ()),
    **dict.fromkeys(("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Softplus"), ()),
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softsign", "Gelu", "Mish", "Erf"), ()),
    **dict.fromkeys(("Exp", "Log", "Sqrt", "Reciprocal", "Neg", "Abs", "Sin", "Cos"), ()),
    **dict.fromkeys(("Gemm", "MatMul", "Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), ()),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization", "LayerNormalization"), ()),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Identity", "Dropout", "Cast", "Flatten", "Transpose", "Clip"), ()),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Pad", "Expand", "Split", "Gather"), (1,)),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2"), (1,)),
    "Slice": (1, 2, 3, 4),
    "Where": (0,),
    "FeatureVectorizer": (),
    "Scaler": (),
    "Normalizer": (),
    "LinearClassifier": (),
}
"""Operators whose slopes are exact but for corners, and inputs of theirs that must not depend on the rows."""
SHAPES = frozenset({"Shape", "Size"})
"""What comes out of them depends on no number of the rows."""
CONSTANT = frozenset({"Constant", "ConstantOfShape", "Range", "Equal"})
"""Operators that are computed where nothing of the rows goes in, beside those above."""


def why_none(model: ModelProto, target: str) -> str:
    """Why the slope of tensor ``target`` by the input is not had, in one sentence; empty when it is."""
    graph = Graph(model)
    if graph.opset < OLDEST:
        return f"Operators of version {graph.opset} are older than what is differentiated here ({OLDEST})"
    if any(given.kind not in FLOATS for given in graph.inputs):
        return "It takes whole numbers, which have no slopes"
    flowing = {given.name for given in graph.inputs}
    for node in needed(graph, target):
        if fault := _fault(node, flowing):
            return fault
        if flowing.intersection(node.input) and node.op_type not in SHAPES:
            flowing.update(node.output)
    return "" if target in flowing else "Its answers do not depend on its input"


def needed(graph: Graph, target: str) -> list[NodeProto]:
    """Nodes that a tensor is made of, in their order."""
    wanted, found = {target}, []
    for node in reversed(graph.model.graph.node):
        if wanted.intersection(node.output):
            wanted.update(name for name in node.input if name)
            found.append(node)
    return found[::-1]


def _fault(node: NodeProto, flowing: set[str]) -> str:
    kind = node.op_type
    through = [place for place, name in enumerate(node.input) if name in flowing]
    if kind in SHAPES or (not through and (kind in CONSTANT or kind in FLOWING)):
        return ""
    where = f" (node {node.name[:60]!r})" if node.name else ""
    if kind not in FLOWING:
        return f"The operator {kind[:60]}{where} stops gradients, or their exactness here is not known"
    if any(place in FLOWING[kind] for place in through):
        return f"The operator {kind}{where} chooses by the numbers of the rows, which stops gradients"
    if kind == "Cast" and (to := attributes(node)["to"]) not in FLOATS:
        return f"The operator Cast{where} turns numbers into {TensorProto.DataType.Name(to)}, which stops gradients"
    return ""
