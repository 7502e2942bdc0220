"""What an ONNX file takes and answers: which output holds labels, which holds scores, and what stands before them.

Files as skl2onnx, ``torch.onnx`` and tf2onnx write them. Format: https://github.com/onnx/onnx/blob/main/docs/IR.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs are installed
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bartizan.targets.hosting import Refusal

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Sets of operators that ONNX Runtime brings along; nothing else is loaded."""
ML = "ai.onnx.ml"
FLOATS: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64"}
WHOLE = frozenset({TensorProto.INT64, TensorProto.INT32})
_CLASS_ATTRIBUTES = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")
_PASSING = frozenset({"Identity", "Cast", "Dropout", "Squeeze", "Reshape", "Flatten", "Unsqueeze"})
_LAYERS = frozenset({"Gemm", "MatMul"})
MAX_STEPS = 64
"""Nodes between an output and what it is looked up in."""
SOFTMAX_OF_THE_LAST = 13
"""Opset since which a softmax is of one axis, the last unless said otherwise."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input, without its batch."""

    name: str
    kind: int
    """Element type, of ``TensorProto``."""
    batch: int
    """0 where it is free."""
    sides: tuple[int, ...] | None
    """0 where a side is free; None where even their number is."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Tensors by name; empty where there is none."""

    labels: str
    """``(batch,)``: what the predicted class is called."""
    values: tuple[Any, ...]
    """What ``labels`` are called, in the order of the classes; empty where they are indices, or not said."""
    numbers: str
    """``(batch, classes)``: probabilities, logarithms of them, or logits."""
    last: str
    """``Softmax``, ``LogSoftmax`` or ``Sigmoid`` where ``numbers`` come out of that."""
    before: str
    """What went into it."""
    layer: str
    """What the last linear layer before ``numbers`` is given."""


def read(data: bytes) -> ModelProto:
    """The model, when nothing in it reaches beyond the file.

    Raises:
        Refusal: it is none, or needs other files or foreign operators.
    """
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise Refusal("it is no ONNX file, or a part of one only") from error
    if not model.graph.output or not model.graph.node:
        raise Refusal("it is no ONNX file, or one without any graph")
    known = DOMAINS | {function.domain for function in model.functions}
    for node in _all_nodes(model):
        if node.domain not in known:
            raise Refusal(
                f"it needs operators of {node.domain[:60]!r} ({node.op_type[:60]}), which are not loaded here"
            )
    for tensor in _all_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise Refusal("parts of it lie in other files, which are not read; save it in one file")
    return model


def _all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Nodes of the graph, of functions, and of graphs within nodes."""
    waiting = [model.graph.node, *(function.node for function in model.functions)]
    while waiting:
        for node in waiting.pop():
            yield node
            for attribute in node.attribute:
                graphs = [attribute.g] if attribute.HasField("g") else []
                waiting += [graph.node for graph in (*graphs, *attribute.graphs)]


def _all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    graphs = [model.graph]
    for node in _all_nodes(model):
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            graphs += [attribute.g] if attribute.HasField("g") else []
            graphs += attribute.graphs
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)


class Graph:
    """A model's graph, to be looked around in."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.producer = {name: node for node in model.graph.node for name in node.output if name}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and (value := attributes(node).get("value")) is not None:
                self.constants[node.output[0]] = value

    @cached_property
    def inputs(self) -> list[Input]:
        """What has to be given. Raises Refusal for what rows cannot be given as."""
        return [_input(value) for value in self.model.graph.input if value.name not in self.constants]

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        return max((entry.version for entry in self.model.opset_import if entry.domain in {"", "ai.onnx"}), default=1)

    def answers(self, classes: int) -> Answers:
        """Which output is what. Maps of scores by class are taken out of the graph: their tensor is the output then.

        Raises:
            Refusal: it cannot be told.
        """
        values = self._without_maps()
        outputs = list(self.model.graph.output)
        labels = [output for output in outputs if _kind(output) in WHOLE | {TensorProto.STRING}]
        numbers = [output for output in outputs if _kind(output) in FLOATS]
        if len(numbers) > 1:
            numbers = [output for output in numbers if _width(output) == classes] or numbers
        if len(labels) > 1 or len(numbers) > 1 or not labels + numbers:
            names = ", ".join(f"{output.name[:40]!r}" for output in outputs[:10])
            raise Refusal(
                f"it cannot be told which of its outputs ({names}) are labels and which are scores of the "
                f"{classes} declared classes; save it with one output of scores, or with labels and scores"
            )
        label, number = (found[0].name if found else "" for found in (labels, numbers))
        last, before = self._last(number) if number else ("", "")
        return Answers(
            labels=label,
            values=values or (self._values(label) if label else ()),
            numbers=number,
            last=last,
            before=before,
            layer=self._layer(before or number) if number else "",
        )

    def exposed(self, *names: str) -> bytes:
        """The model as bytes, with further tensors among its outputs."""
        known = {output.name for output in self.model.graph.output}
        for name in dict.fromkeys(names):
            if name and name not in known:
                self.model.graph.output.append(ValueInfoProto(name=name))
        data: bytes = self.model.SerializeToString()
        return data

    def _without_maps(self) -> tuple[Any, ...]:
        """Replace outputs that are maps by the tensors that these are made of; names of the classes there."""
        graph, values = self.model.graph, ()
        for place, output in enumerate(graph.output):
            node = self.producer.get(output.name)
            if node is None or node.op_type != "ZipMap":
                continue
            values = _class_values(node)
            kind = self._kind_of_tensor(node.input[0])
            graph.output[place].CopyFrom(helper.make_tensor_value_info(node.input[0], kind, None))
            graph.node.remove(node)
        return values

    def _kind_of_tensor(self, name: str) -> int:
        """Element type of scores that go into a map: what a cast says, or float32."""
        node = self.producer.get(name)
        if node is not None and node.op_type == "Cast":
            return int(attributes(node)["to"])
        return int(TensorProto.FLOAT)

    def _last(self, name: str) -> tuple[str, str]:
        """The softmax or sigmoid that a tensor comes out of, and what went into that."""
        node = self.producer.get(self._through(name, {"Identity", "Cast", "Dropout"}))
        if node is None or node.op_type not in {"Softmax", "LogSoftmax", "Sigmoid"}:
            return "", ""
        usual = -1 if self.opset >= SOFTMAX_OF_THE_LAST else 1
        if node.op_type != "Sigmoid" and attributes(node).get("axis", usual) not in {1, -1}:
            return "", ""
        return node.op_type, node.input[0]

    def _layer(self, name: str) -> str:
        node = self.producer.get(self._through(name, {"Identity", "Cast", "Add", "Dropout", "Reshape", "Squeeze"}))
        if node is None or node.op_type not in _LAYERS:
            return ""
        given: str = node.input[0]
        fixed = given in self.constants or given in {value.name for value in self.inputs}
        return "" if fixed else given

    def _through(self, name: str, passing: set[str] | frozenset[str]) -> str:
        """The tensor that a tensor is, but for operators that change nothing that matters."""
        for _ in range(MAX_STEPS):
            node = self.producer.get(name)
            if node is None or node.op_type not in passing:
                break
            moving = [given for given in node.input if given not in self.constants]
            name = moving[0] if moving else node.input[0]
        return name

    def _values(self, name: str) -> tuple[Any, ...]:
        """What labels are called, by the node that makes them.

        Raises:
            Refusal: they are texts, and it is not said which there are.
        """
        node = self.producer.get(self._through(name, _PASSING))
        if node is not None:
            found = _class_values(node)
            if node.op_type == "ArrayFeatureExtractor" and node.input[0] in self.constants:
                found = _plain(self.constants[node.input[0]])
            if node.op_type == "LabelEncoder":
                found = _encoded(node)
            if found:
                return found
        if _kind(next(output for output in self.model.graph.output if output.name == name)) == TensorProto.STRING:
            raise Refusal("its labels are texts, and it is not said which of them there are")
        return ()


def _input(value: ValueInfoProto) -> Input:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise Refusal(f"its input {value.name[:60]!r} is no tensor")
    if not tensor.HasField("shape"):
        return Input(value.name, tensor.elem_type, 0, None)
    sides = [side.dim_value if side.HasField("dim_value") and side.dim_value > 0 else 0 for side in tensor.shape.dim]
    if not sides:
        raise Refusal(f"its input {value.name[:60]!r} is a single number")
    return Input(value.name, tensor.elem_type, sides[0], tuple(sides[1:]))


def _kind(value: ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type) if value.type.HasField("tensor_type") else 0


def _width(value: ValueInfoProto) -> int:
    """Last side of a matrix; 0 where it is none, or free."""
    sides = value.type.tensor_type.shape.dim
    return int(sides[1].dim_value) if len(sides) == 2 else 0  # noqa: PLR2004 - a matrix


def attributes(node: NodeProto) -> dict[str, Any]:
    """Attributes of a node by name, as plain values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _class_values(node: NodeProto) -> tuple[Any, ...]:
    said = attributes(node)
    for name in _CLASS_ATTRIBUTES:
        if values := said.get(name):
            return tuple(value.decode() if isinstance(value, bytes) else int(value) for value in values)
    return ()


def _encoded(node: NodeProto) -> tuple[Any, ...]:
    """What whole numbers from 0 are turned into."""
    said = attributes(node)
    keys, values = said.get("keys_int64s", ()), said.get("values_strings", ())
    table = {int(key): value.decode() for key, value in zip(keys, values, strict=False)}
    return tuple(table[key] for key in sorted(table)) if sorted(table) == list(range(len(table))) else ()


def _plain(tensor: TensorProto) -> tuple[Any, ...]:
    values = numpy_helper.to_array(tensor).ravel().tolist()
    return tuple(value.decode() if isinstance(value, bytes) else value for value in values)
