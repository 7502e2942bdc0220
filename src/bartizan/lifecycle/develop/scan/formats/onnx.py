"""ONNX models: a protocol buffer with a graph, its weights, and functions of its own.

Format: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3. Loading runs no code of the file,
but it reads the files that external data name (CVE-2022-25882, CVE-2024-27318, CVE-2024-5187), asks
for libraries with operators that ONNX does not define, and reserves what shapes and constants say.
"""

from __future__ import annotations

import math
import re
from collections import deque
from itertools import islice
from typing import NamedTuple

import numpy as np

from bartizan.lifecycle.develop.scan.formats.calls import MOST_NODES, unfold
from bartizan.lifecycle.develop.scan.formats.embedded import Embedded
from bartizan.lifecycle.develop.scan.formats.operators import onnx_operators
from bartizan.lifecycle.develop.scan.formats.paths import why_outside
from bartizan.lifecycle.develop.scan.formats.protobuf import (
    FITTED,
    LENGTH,
    Message,
    Tree,
    Value,
    WireError,
    fits,
    fits_exactly,
    payload,
    scan_fields,
)
from bartizan.lifecycle.develop.scan.limits import LimitError, Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source, chunks, window
from bartizan.lifecycle.develop.scan.verdict import Report

ITEM_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128,
    16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2, 27: 6, 28: 6,
}  # fmt: skip
"""Bits of one number by ``TensorProto.DataType``."""
STRING = 8
GRAPH = 7
"""Number of the field ``ModelProto.graph``."""
EXTERNAL = 1
"""``TensorProto.DataLocation``."""
NUMBER_FIELDS = {"float_data": 4, "double_data": 8, "int32_data": 0, "int64_data": 0, "uint64_data": 0}
"""Fields with one number each, and the bytes of a number when packed; 0 for those of variable length."""
MOST_TENSOR_FIELDS = 4096
"""Fields of a tensor that stands alone; lists of numbers that are not packed have one each."""
STANDARD = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training"})
RUNTIME = frozenset({"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"})
"""Domains whose operators ONNX Runtime brings along."""
_RETIRED = """
    Affine ConstantFill Crop DynamicSlice GivenTensorFill GRUUnit ImageScaler ParametricSoftplus Scale
    ScaledTanh
    """
RETIRED = frozenset(_RETIRED.split())
"""Experimental operators of the first versions, still found in old files."""
EMITTED = frozenset({("com.microsoft", "Solve")})
"""Operators that converters write and ONNX Runtime does not register."""
TRAINING = re.compile(r"\w+(?:Grad|Gradient|Internal|Training|Optimizer)V?\d?\Z")
"""Operators that ONNX Runtime adds for training."""
PYTHON = re.compile(r"(?i)py(?:thon)?(?:custom|c)?(?:op|operator|func|function|call|callback)\w*\Z|python|pickle|\bpy_")
HARMFUL = re.compile(r"(?i)shell|system|exec(?!ution)|popen|loadlib|dlopen|readfile|writefile|socket|download|urlopen")
EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})
IN_MEMORY = "*/_ORT_MEM_ADDR_/*"
"""A location that ONNX Runtime takes for an address in its own memory."""
MOST_ITEMS = 1 << 34
"""Numbers that a constant may ask the runtime to make: 16 Gi, which no machine for inference has room for."""
LAST_BYTE = 0x80
"""Bytes of a packed number below this end it."""
SMALL = 64
"""Numbers of a constant that are read, which is enough for a shape."""
_WHOLE = re.compile(r"\d{1,19}\Z")


class Function(NamedTuple):
    """A function of the model."""

    nodes: int
    calls: dict[tuple[str, str], int]
    """How often it uses each operator."""


def recognise_onnx(source: Source) -> bool:
    """Whether the bytes are a model, or a tensor by itself as ONNX stores inputs and outputs beside models."""
    return _is_model(source.data) or _is_tensor(source.data)


def _is_tensor(data: Buffer) -> bool:
    """Whether the bytes are a ``TensorProto`` and no more."""
    wanted = (frozenset({"data_type", each}) for each in ("raw_data", "string_data", *NUMBER_FIELDS))
    return any(fits_exactly(data, "onnx", "TensorProto", each, MOST_TENSOR_FIELDS) for each in wanted)


def _is_model(data: Buffer) -> bool:
    """Whether the fields are those of a ``ModelProto`` with a graph, and a version or operators beside it."""
    if not fits(data, "onnx", "ModelProto", frozenset({"graph"})):
        return False
    beside = ({"ir_version"}, {"opset_import"})
    if not any(fits(data, "onnx", "ModelProto", frozenset(each)) for each in beside):
        return False
    try:
        found = next(
            (value for value in islice(scan_fields(data, 0, len(data)), FITTED) if value.number == GRAPH), None
        )
    except WireError:
        return True
    graph = window(data, found.start, found.end) if found else b""
    return any(fits(graph, "onnx", "GraphProto", frozenset({each})) for each in ("node", "name", "input", "output"))


def examine_onnx(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine a model: operators, functions, weights, external data, texts."""
    draft = Draft(source, "onnx", meter.limits.findings)
    tree = Tree(source, meter, draft, "onnx")
    examiner = OnnxExaminer(tree, draft, examine)
    try:
        examiner.run()
    except LimitError as limit:
        draft.miss(str(limit), rule="file/limit")
    return draft.close()


class OnnxExaminer:
    """The examination of one model."""

    def __init__(self, tree: Tree, draft: Draft, examine: Examine) -> None:
        self.tree = tree
        self.draft = draft
        self.embedded = Embedded(draft, examine)
        self.functions: dict[tuple[str, str], Function] = {}
        self.constants: dict[str, list[int]] = {}
        self.operators: set[tuple[str, str]] = set()
        self.counts = {"nodes": 0, "tensors": 0, "functions": 0}

    def run(self) -> None:
        """Look at everything."""
        kind = "ModelProto" if _is_model(self.tree.data) else "TensorProto"
        if kind == "ModelProto":
            self._register_functions()
        self.tree.walk(
            kind,
            0,
            len(self.tree.data),
            {
                "ModelProto": self._model,
                "GraphProto": self._graph,
                "NodeProto": self._node,
                "TensorProto": self._tensor,
                "SparseTensorProto": self._sparse,
                "AttributeProto": self._attribute,
                "StringStringEntryProto": self._entry,
                "ValueInfoProto": self._described,
            },
        )
        self._judge_functions()
        self.draft.facts.update(self.counts)

    def _model(self, model: Message) -> None:
        imported = {(entry.text("domain"), entry.number("version")) for entry in model.messages("opset_import")}
        if not imported and model.number("ir_version") >= 3:  # noqa: PLR2004 -- the version that brought it
            self.draft.fire("onnx/malformed", "no set of operators is imported", 0)
        if len({domain for domain, _ in imported}) != len(imported):
            self.draft.fire("onnx/malformed", "a set of operators is imported in two versions", 0)
        if not model.has("graph"):
            self.draft.fire("onnx/malformed", "there is no graph", 0)
        if model.number("ir_version") <= 0:
            self.draft.fire("onnx/malformed", f"version {model.number('ir_version')}", 0)
        self._described(model)

    def _described(self, message: Message) -> None:
        for value in message.values("doc_string"):
            self.embedded.judge_text(f"doc_string of {message.kind}", payload(message, value), value.start)

    def _entry(self, entry: Message) -> None:
        key = entry.text("key")
        for value in entry.values("value"):
            self.embedded.judge_text(f"metadata {key[:60]!r}", payload(entry, value), value.start)

    # functions

    def _register_functions(self) -> None:
        model = self.tree.message("ModelProto", 0, len(self.tree.data))
        seen: set[tuple[str, str, str]] = set()
        for function in model.messages("functions"):
            key = (function.text("domain"), function.text("name"))
            shown = f"{key[0]}::{key[1]}"[:120]
            overload = (*key, function.text("overload"))
            if overload in seen:
                self.draft.fire("onnx/duplicate-name", f"function {shown}", function.start)
            seen.add(overload)
            if key[0] in STANDARD and key[1] in onnx_operators(key[0]):
                self.draft.fire("onnx/function-override", shown, function.start)
            self.functions[key] = _calls(function)
        self.counts["functions"] = len(self.functions)

    def _judge_functions(self) -> None:
        """Functions may not call themselves, nor unfold to more nodes than a machine holds."""
        sizes = unfold({key: (each.nodes, each.calls) for key, each in self.functions.items()})
        if sizes is None:
            self.draft.fire("onnx/recursive-function", "a function of the model calls itself")
            return
        key, largest = max(sizes.items(), key=lambda item: item[1], default=(("", ""), 0))
        if largest > MOST_NODES:
            self.draft.fire("onnx/expansion", f"function {key[1][:80]!r} unfolds to {largest:.3g} nodes")

    # graphs and nodes

    def _graph(self, graph: Message) -> None:
        self._described(graph)
        seen: set[str] = set()
        for tensor in graph.messages("initializer"):
            name = tensor.text("name")
            if name in seen:
                self.draft.fire("onnx/duplicate-name", f"two weights are called {name[:80]!r}", tensor.start)
            seen.add(name)
            self._remember(name, tensor)

    def _remember(self, name: str, tensor: Message) -> None:
        """Keep the numbers of a small constant: it may be a shape."""
        if tensor.number("data_type") in {6, 7} and tensor.size("raw_data") <= SMALL * 8:
            self.constants[name] = _small_numbers(tensor)

    def _node(self, node: Message) -> None:
        self.counts["nodes"] += 1
        domain, operator = node.text("domain"), node.text("op_type")
        self._described(node)
        if (domain, operator) not in self.operators:
            self.operators.add((domain, operator))
            self._judge_operator(domain, operator, node.start)
        if operator == "Constant":
            self._keep_constant(node)
        if operator == "EPContext":
            self._judge_context(node)
        self._judge_cost(operator, node)

    def _judge_operator(self, domain: str, operator: str, at: int) -> None:
        shown = f"{domain or 'ai.onnx'}::{operator}"[:160]
        if PYTHON.search(operator):
            self.draft.fire("onnx/python-operator", shown, at)
        elif (domain, operator) in self.functions:
            return
        elif HARMFUL.search(operator):
            self.draft.fire("onnx/host-operator", shown, at)
        elif not _is_known(domain, operator):
            self.draft.fire("onnx/custom-operator", shown, at)

    def _judge_context(self, node: Message) -> None:
        """Code that was compiled for one device, inside the file or beside it."""
        self.draft.fire("onnx/compiled-context", "an EPContext node", node.start)
        attributes = {each.text("name"): each for each in node.messages("attribute")}
        if (
            "embed_mode" in attributes
            and attributes["embed_mode"].number("i", 1) == 0
            and "ep_cache_context" in attributes
        ):
            self._judge_path(attributes["ep_cache_context"].text("s"), node.start)

    def _judge_path(self, path: str, at: int) -> bool:
        why = why_outside(path)
        if why:
            self.draft.fire("onnx/external-path", f"{path[:200]!r} {why}", at)
        return not why

    def _keep_constant(self, node: Message) -> None:
        outputs = node.texts("output")
        for attribute in node.messages("attribute"):
            if outputs and attribute.text("name") == "value_ints":
                self.constants[outputs[0]] = attribute.numbers("ints", SMALL)
            tensor = attribute.message("t")
            if outputs and tensor is not None:
                self._remember(outputs[0], tensor)

    def _judge_cost(self, operator: str, node: Message) -> None:
        """What constants make the runtime reserve (CWE-789)."""
        at = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "Range": 1}.get(operator)
        sides: list[int] | None = None
        if at is not None:
            inputs = node.texts("input")
            sides = self.constants.get(inputs[at]) if len(inputs) > at else None
        elif operator in {"RandomNormal", "RandomUniform"}:
            sides = next(
                (each.numbers("ints", SMALL) for each in node.messages("attribute") if each.text("name") == "shape"),
                None,
            )
        if sides and all(side >= 0 for side in sides) and math.prod(sides) > MOST_ITEMS:
            self.draft.fire("onnx/allocation", f"{operator} makes {math.prod(sides):.3g} numbers", node.start)

    def _attribute(self, attribute: Message) -> None:
        self._described(attribute)
        name = f"attribute {attribute.text('name')[:60]!r}"
        for field in ("s", "strings"):
            for value in attribute.values(field):
                self.embedded.judge_text(name, payload(attribute, value), value.start, most=1 << 62)

    # weights

    def _tensor(self, tensor: Message) -> None:
        self.counts["tensors"] += 1
        name = f"tensor {tensor.text('name')[:80]!r}"
        dims = tensor.numbers("dims", 1 << 16)
        bits = ITEM_BITS.get(tensor.number("data_type"))
        self._described(tensor)
        if any(side < 0 for side in dims):
            self.draft.fire("onnx/tensor-size", f"{name} has a side of {min(dims)}", tensor.start)
            return
        if bits is None and tensor.number("data_type") != STRING:
            self.draft.fire("onnx/malformed", f"{name} has the type {tensor.number('data_type')}", tensor.start)
            return
        if tensor.number("data_location") == EXTERNAL or tensor.has("external_data"):
            self._external(tensor, name, (math.prod(dims) * (bits or 0) + 7) // 8)
        else:
            self._judge_content(tensor, name, math.prod(dims), bits)
        for value in tensor.values("raw_data"):
            self.embedded.judge_numbers(name, payload(tensor, value), value.start)
        for count, value in enumerate(tensor.values("string_data")):
            if count < SMALL:
                self.embedded.judge_text(name, payload(tensor, value), value.start)

    def _judge_content(self, tensor: Message, name: str, count: int, bits: int | None) -> None:
        """Compare what the shape promises with the numbers that are there."""
        if bits is None:
            there = sum(1 for _ in tensor.values("string_data"))
            if there != count:
                self.draft.fire("onnx/tensor-size", f"{name} has {count} texts by its shape and {there}", tensor.start)
            return
        raw = tensor.size("raw_data")
        typed = {field: _count(tensor, field, width) for field, width in NUMBER_FIELDS.items()}
        filled = [field for field, there in typed.items() if there]
        if raw and filled:
            self.draft.fire("onnx/tensor-size", f"{name} holds its numbers twice", tensor.start)
        expected = (count * bits + 7) // 8
        if raw or not filled:
            is_right = raw == expected
            there = raw
        else:
            there = typed[filled[0]]
            expected = _entries(filled[0], count, bits)
            is_right = there == expected and len(filled) == 1
        if not is_right:
            unit = "bytes" if raw or not filled else "numbers"
            self.draft.fire("onnx/tensor-size", f"{name} takes {expected} {unit} and has {there}", tensor.start)

    def _external(self, tensor: Message, name: str, size: int) -> None:
        entries = [(entry.text("key"), entry.text("value")) for entry in tensor.messages("external_data")]
        keys = [key for key, _ in entries]
        if len(set(keys)) != len(keys) or not set(keys) <= EXTERNAL_KEYS:
            self.draft.fire("onnx/external-data", f"{name} has the keys {sorted(keys)[:10]}", tensor.start)
        fields = dict(entries)
        location = fields.get("location", "")
        if location.startswith("*"):
            self.draft.fire("onnx/external-path", f"{location[:80]!r} is an address in memory", tensor.start)
            return
        is_inside = self._judge_path(location, tensor.start)
        offset, length = fields.get("offset") or "0", fields.get("length") or str(size)
        if not (_WHOLE.match(offset) and _WHOLE.match(length)):
            self.draft.fire(
                "onnx/external-data", f"{name}: offset {offset[:40]!r}, length {length[:40]!r}", tensor.start
            )
        elif int(length) != size and tensor.number("data_type") != STRING:
            self.draft.fire("onnx/tensor-size", f"{name} takes {size} bytes and points to {length}", tensor.start)
        elif int(offset) + int(length) >= 1 << 63:
            self.draft.fire("onnx/external-data", f"{name} ends behind every file", tensor.start)
        elif is_inside:
            end = int(offset) + int(length)
            self.draft.claims[location] = max(end, self.draft.claims.get(location, 0))

    def _sparse(self, sparse: Message) -> None:
        dims = sparse.numbers("dims", 1 << 16)
        if any(side < 0 for side in dims):
            self.draft.fire("onnx/tensor-size", f"a sparse tensor has a side of {min(dims)}", sparse.start)
        elif math.prod(dims) > MOST_ITEMS:
            self.draft.fire("onnx/allocation", f"a sparse tensor of {math.prod(dims):.3g} numbers", sparse.start)
        elif not (sparse.has("values") and sparse.has("indices")):
            self.draft.fire("onnx/malformed", "a sparse tensor lacks values or indices", sparse.start)


def _is_known(domain: str, operator: str) -> bool:
    if domain == "ai.onnx.training" or (domain in STANDARD and operator in RETIRED):
        return True
    if (domain, operator) in EMITTED or (domain in RUNTIME and TRAINING.match(operator)):
        return True
    return operator in onnx_operators(domain)


def _calls(function: Message) -> Function:
    """What a function uses, the graphs inside its nodes included."""
    calls: dict[tuple[str, str], int] = {}
    todo = deque([(function, "node", 0)])
    count = 0
    while todo:
        holder, field, depth = todo.pop()
        for node in holder.messages(field):
            count += 1
            key = (node.text("domain"), node.text("op_type"))
            calls[key] = calls.get(key, 0) + 1
            if depth < SMALL:
                for attribute in node.messages("attribute"):
                    graphs = [*attribute.messages("g"), *attribute.messages("graphs")]
                    todo.extend((graph, "node", depth + 1) for graph in graphs)
    return Function(count, calls)


def _small_numbers(tensor: Message) -> list[int]:
    """The integers of a small tensor."""
    wide = tensor.number("data_type") == 7  # noqa: PLR2004 -- INT64
    value = tensor.last("raw_data")
    if value is None:
        return tensor.numbers("int64_data" if wide else "int32_data", SMALL)
    raw = bytes(payload(tensor, value))
    size = 8 if wide else 4
    return [int.from_bytes(raw[at : at + size], "little", signed=True) for at in range(0, len(raw) - size + 1, size)][
        :SMALL
    ]


def _entries(field: str, count: int, bits: int) -> int:
    """Numbers that a field holds for a tensor of so many: complex ones take two, small ones share a byte."""
    if field == "int32_data" and bits < 8:  # noqa: PLR2004 -- a byte
        return (count * bits + 7) // 8
    if field == "float_data" and bits == 64:  # noqa: PLR2004 -- a complex number of two floats
        return count * 2
    return count * 2 if field == "double_data" and bits == 128 else count  # noqa: PLR2004 -- two doubles


def _count(tensor: Message, field: str, width: int) -> int:
    """How many numbers a field holds."""
    return sum(_count_value(tensor, value, width) for value in tensor.values(field))


def _count_value(tensor: Message, value: Value, width: int) -> int:
    size = value.end - value.start
    if value.wire != LENGTH:
        return 1
    if width:
        return size // width
    total = 0
    for part in chunks(tensor.tree.data, value.start, value.end):
        total += int(np.count_nonzero(np.frombuffer(part, np.uint8) < LAST_BYTE))
    return total
