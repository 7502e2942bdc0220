"""TensorFlow graphs: ``saved_model.pb``, frozen graphs, meta graphs, Keras metadata, fingerprints.

Formats: ``tensorflow/core/protobuf/saved_model.proto``, ``meta_graph.proto``, ``graph.proto`` and
what they include. A graph is a program ("Using TensorFlow Securely", SECURITY.md of TensorFlow):
its nodes may call Python, open files and connections. Checkpoint operators are part of every model,
so their paths are followed back to where they come from.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from bartizan.lifecycle.develop.scan.formats.calls import MOST_NODES, unfold
from bartizan.lifecycle.develop.scan.formats.embedded import Embedded
from bartizan.lifecycle.develop.scan.formats.paths import why_outside
from bartizan.lifecycle.develop.scan.formats.protobuf import (
    Message,
    Tree,
    WireError,
    fits,
    fits_exactly,
    payload,
    scan_fields,
)
from bartizan.lifecycle.develop.scan.formats.tensorflow_operators import (
    ASSETS,
    CUSTOM,
    FILE,
    PATHS,
    PYTHON,
    SHAPES,
    rule_of,
)
from bartizan.lifecycle.develop.scan.limits import LimitError, Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source
from bartizan.lifecycle.develop.scan.verdict import Report

ROOTS = (
    ("SavedModel", frozenset({"saved_model_schema_version", "meta_graphs"}), (2, 2, 1)),
    ("SavedModel", frozenset({"meta_graphs"}), (2, 2, 1)),
    ("GraphDef", frozenset({"node"}), (1,)),
    ("GraphDef", frozenset({"library"}), (2, 1, 3)),
    ("MetaGraphDef", frozenset({"graph_def"}), (2, 1)),
    ("MetaGraphDef", frozenset({"graph_def"}), (2, 2, 1, 3)),
    ("SavedMetadata", frozenset({"nodes"}), (1,)),
)
"""Messages that stand alone in a file, the fields that tell them, and the way to the first node in them."""
FINGERPRINT = "FingerprintDef"
HASHES = frozenset({"saved_model_checksum", "graph_def_program_hash", "version"})
LARGEST_FINGERPRINT = 4096
_OPERATOR = re.compile(rb"[A-Za-z_][A-Za-z0-9_.>/:-]*\Z")
_IDENTIFIER = re.compile(rb"_tf_keras_\w+\Z|[A-Za-z_]\w*\Z")
ITEM_SIZES = {
    1: 4, 2: 8, 3: 4, 4: 1, 5: 2, 6: 1, 8: 8, 9: 8, 10: 1, 11: 1, 12: 1, 13: 4, 14: 2, 15: 2, 16: 2, 17: 2, 18: 16,
    19: 2, 22: 4, 23: 8, 24: 1, 25: 1, 26: 1, 27: 1, 28: 1,
}  # fmt: skip
"""Bytes of one number by ``DataType``."""
STRING = 7
MOST_ITEMS = 1 << 34
"""Numbers that a constant may stand for: 16 Gi, which no machine for inference has room for."""
MOST_SCOPE = 400_000
"""Nodes of one graph whose inputs are followed."""
MOST_STEPS = 500_000
"""Nodes that all paths together are followed through."""
SMALL = 64
MOST_FIRST = 10_000
LONGEST_METADATA = 1 << 22
CALLBACKS = re.compile(rb"xla_(?:ffi_)?(?:partitioned_)?python_\w*callback|xla_python_\w+|io_callback|pure_callback")
"""Calls from compiled modules back into Python."""
_PASSING = """
    Identity StringJoin Select SelectV2 ShardedFilename Pack ConcatV2 Reshape ExpandDims Squeeze
    StaticRegexFullMatch RegexFullMatch Placeholder PlaceholderWithDefault PlaceholderV2 Const StridedSlice Fill
    Cast Where IdentityN Split GuaranteeConst StopGradient VarHandleOp ReadVariableOp StringToHashBucketFast If
    StatelessIf MergeV2Checkpoints Add AddV2 NoOp Range Shape Size Tile Unpack GatherV2
    """
PASSING = frozenset(_PASSING.split())
"""Operators that hand a path on as it is, or put its parts together where the scan can see them."""


def recognise_savedmodel(source: Source) -> bool:
    """Whether the bytes are one of the messages that TensorFlow writes into files."""
    return bool(_root(source.data)) or _is_text_form(source.data)


def _root(data: Buffer) -> str:
    """The message that a file holds, or an empty text."""
    for kind, wanted, way in ROOTS:
        if fits(data, "tensorflow", kind, wanted) and (len(wanted) > 1 or _leads_to_node(data, kind, way)):
            return kind
    is_fingerprint = len(data) <= LARGEST_FINGERPRINT and fits_exactly(data, "tensorflow", FINGERPRINT, HASHES)
    return FINGERPRINT if is_fingerprint else ""


def _leads_to_node(data: Buffer, kind: str, way: tuple[int, ...]) -> bool:
    """Whether the first message at the end of a way is a node, or what Keras saves; a cut file breaks off there."""
    start, end = 0, len(data)
    try:
        for number in way:
            fields = islice(scan_fields(data, start, end), MOST_FIRST)
            found = next((value for value in fields if value.number == number), None)
            if found is None:
                return False
            start, end = found.start, found.end
        first: dict[int, bytes] = {}
        for value in islice(scan_fields(data, start, end), SMALL):
            first.setdefault(value.number, bytes(data[value.start : min(value.end, value.start + 256)]))
    except WireError:
        return kind == "SavedModel"
    if kind == "SavedMetadata":
        return bool(_IDENTIFIER.match(first.get(4, b""))) and 5 in first  # noqa: PLR2004 -- its metadata
    return bool(first.get(1) and _OPERATOR.match(first.get(2, b"")))


_TEXT_FORM = re.compile(
    rb"\s*(?:#[^\n]*\n\s*)*(?:saved_model_schema_version\s*:|meta_graphs\s*\{|(?:meta_info_def|node|library)\s*\{)"
)
_TEXT_OPERATOR = re.compile(r"""\bop\s*:\s*(["'])(.{1,200}?)\1""")


def _is_text_form(data: Buffer) -> bool:
    return bool(_TEXT_FORM.match(bytes(data[:4096])))


def examine_savedmodel(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine a file of TensorFlow: operators, paths, constants, functions, Keras layers."""
    kind = _root(source.data)
    draft = Draft(source, "savedmodel" if kind else "savedmodel-text", meter.limits.findings)
    if not kind:
        _examine_text(source, draft)
        return draft.close()
    draft.facts["message"] = kind
    examiner = GraphExaminer(Tree(source, meter, draft, "tensorflow"), draft, examine)
    try:
        examiner.run(kind)
    except LimitError as limit:
        draft.miss(str(limit), rule="file/limit")
    return draft.close()


def _examine_text(source: Source, draft: Draft) -> None:
    """The text form is read for its operators only, which is not all there is."""
    draft.miss("the text form of a graph is read for the names of its operators only")
    text = bytes(source.data[: 1 << 26]).decode("utf-8", "replace")
    for operator, count in Counter(match[2] for match in _TEXT_OPERATOR.finditer(text)).items():
        if (rule := rule_of(operator)) and rule != CUSTOM:
            draft.fire(rule, f"{count} nodes {operator[:80]!r}")


class Node(NamedTuple):
    """What is kept of a node to follow paths through it."""

    operator: str
    inputs: list[str]
    start: int
    end: int


class Scope:
    """One graph: the outermost, or that of a function."""

    def __init__(self, name: str, arguments: list[str], assets: set[str]) -> None:
        self.name = name
        self.arguments = arguments
        self.assets = assets
        self.nodes: dict[str, Node] = {}
        self.sinks: list[tuple[Node, tuple[int, ...]]] = []
        self.costly: list[Node] = []
        self.calls: list[tuple[str, Node]] = []
        self.traced: dict[str, Origin] = {}


class Origin(NamedTuple):
    """Where a path comes from."""

    constants: list[str]
    """Texts that go into it and that nobody replaces."""
    arguments: set[str]
    is_fed: bool
    """Whether a caller gives it, or a part of it."""
    computed: str
    """An operator that makes it from something else."""


class GraphExaminer:
    """The examination of one file."""

    def __init__(self, tree: Tree, draft: Draft, examine: Examine) -> None:
        self.tree = tree
        self.draft = draft
        self.embedded = Embedded(draft, examine)
        self.operators: Counter[str] = Counter()
        self.functions: dict[str, tuple[int, Counter[str]]] = {}
        self.scopes: list[Scope] = []
        self.assets: set[str] = set()
        self.steps = MOST_STEPS
        self.counts = {"nodes": 0, "functions": 0, "constants": 0}

    def run(self, kind: str) -> None:
        """Look at everything."""
        self.tree.walk(
            kind,
            0,
            len(self.tree.data),
            {
                "MetaGraphDef": self._meta_graph,
                "GraphDef": self._graph,
                "FunctionDef": self._function,
                "NodeDef": self._node,
                "TensorProto": self._tensor,
                "AssetFileDef": self._asset,
                "AttrValue": self._attribute,
                "protobuf.SavedObject": self._keras,
                "SavedUserObject": self._keras,
            },
        )
        self._judge_operators()
        self._judge_functions()
        self._judge_paths()
        self.draft.facts.update(self.counts)

    # assets

    def _meta_graph(self, graph: Message) -> None:
        """Note the nodes that the loader feeds with the places of assets."""
        found = [*graph.messages("asset_file_def"), *self._collected(graph)]
        self.assets = {
            (asset.message("tensor_info") or asset).text("name").split(":")[0]
            for asset in found
            if asset.has("tensor_info")
        }
        for asset in found:
            self._asset(asset)

    def _collected(self, graph: Message) -> Iterator[Message]:
        """Assets as TensorFlow 1 lists them, in a collection."""
        for entry in graph.messages("collection_def"):
            collection = entry.message("value")
            listed = (
                collection.message("any_list") if collection and entry.text("key") == "saved_model_assets" else None
            )
            for each in listed.messages("value") if listed else ():
                value = each.last("value")
                if value is not None:
                    yield self.tree.message("AssetFileDef", value.start, value.end)

    def _asset(self, asset: Message) -> None:
        name = asset.text("filename")
        if why := why_outside(name):
            self.draft.fire("tensorflow/path", f"asset {name[:200]!r} {why}", asset.start)

    # graphs

    def _graph(self, graph: Message) -> None:
        self._add_scope(Scope("", [], self.assets), graph.messages("node"))

    def _function(self, function: Message) -> None:
        signature = function.message("signature")
        if signature is None:
            self.draft.fire("tensorflow/malformed", "a function has no signature", function.start)
            return
        name = signature.text("name")
        if name in self.functions:
            self.draft.fire("tensorflow/malformed", f"function {name[:80]!r} is declared twice", function.start)
        arguments = [argument.text("name") for argument in signature.messages("input_arg")]
        scope = self._add_scope(Scope(name, arguments, set()), function.messages("node_def"))
        self.functions[name] = (len(scope.nodes) + 1, Counter(called for called, _ in scope.calls))
        self.counts["functions"] += 1

    def _add_scope(self, scope: Scope, nodes: Iterable[Message]) -> Scope:
        for message in nodes:
            if len(scope.nodes) >= MOST_SCOPE:
                self.draft.miss(f"paths in a graph of more than {MOST_SCOPE} nodes", rule="file/limit")
                break
            operator = message.text("op")
            node = Node(operator, message.texts("input"), message.start, message.end)
            scope.nodes[message.text("name")] = node
            scope.calls += [(called, node) for called in _called(message)]
            if operator in PATHS:
                scope.sinks.append((node, PATHS[operator]))
            elif operator in SHAPES:
                scope.costly.append(node)
        self.scopes.append(scope)
        return scope

    def _node(self, node: Message) -> None:
        self.counts["nodes"] += 1
        operator = node.text("op")
        self.operators[operator] += 1
        if not node.text("name") or not operator:
            self.draft.fire("tensorflow/malformed", "a node has no name or no operator", node.start)
        if operator in {"PrintV2", "XlaCallModule", "XlaLaunch"}:
            self._judge_attributes(operator, node)

    def _judge_attributes(self, operator: str, node: Message) -> None:
        for entry in node.messages("attr"):
            content = entry.message("value")
            value = content.last("s") if content else None
            if content is None or value is None:
                continue
            if operator == "PrintV2" and entry.text("key") == "output_stream":
                stream = self.tree.text(value)
                if stream.startswith("file:"):
                    self.draft.fire(FILE, f"PrintV2 writes to {stream[:200]!r}", node.start)
            elif found := CALLBACKS.search(payload(content, value)):
                self.draft.fire(PYTHON, f"{operator} calls {bytes(found[0])[:80].decode('latin-1')!r}", node.start)

    def _attribute(self, attribute: Message) -> None:
        for value in attribute.values("s"):
            self.embedded.judge_text("an attribute", payload(attribute, value), value.start, most=1 << 62)

    def _judge_operators(self) -> None:
        for operator, count in sorted(self.operators.items()):
            if operator in self.functions:
                continue
            if rule := rule_of(operator):
                self.draft.fire(rule, f"{count} nodes {operator[:80]!r}")

    def _judge_functions(self) -> None:
        sizes = unfold(self.functions)
        if sizes is None:
            self.draft.fire("tensorflow/recursive-function", "a function of the graph calls itself")
        elif max(sizes.values(), default=0) > MOST_NODES:
            self.draft.fire("tensorflow/allocation", f"functions unfold to {max(sizes.values()):.3g} nodes")

    # constants

    def _tensor(self, tensor: Message) -> None:
        """Compare the shape of a constant with its content; a short list of values stands for many."""
        self.counts["constants"] += 1
        shape = tensor.message("tensor_shape")
        dims = [dim.number("size") for dim in shape.messages("dim")] if shape else []
        size = ITEM_SIZES.get(tensor.number("dtype"))
        count = math.prod(dims)
        content = tensor.last("tensor_content")
        if any(side < 0 for side in dims):
            self.draft.fire("tensorflow/tensor-size", f"a constant has a side of {min(dims)}", tensor.start)
        elif (
            content is not None and content.end > content.start and size and content.end - content.start != count * size
        ):
            detail = f"a constant takes {count * size} bytes and has {content.end - content.start}"
            self.draft.fire("tensorflow/tensor-size", detail, tensor.start)
        elif count > MOST_ITEMS:
            self.draft.fire("tensorflow/allocation", f"a constant of {count:.3g} numbers", tensor.start)
        if content is not None:
            self.embedded.judge_numbers("a constant", payload(tensor, content), content.start)
        for number, value in enumerate(tensor.values("string_val")):
            if number < SMALL:
                self.embedded.judge_text("a constant text", payload(tensor, value), value.start, most=1 << 26)

    def _judge_cost(self, scope: Scope) -> None:
        for node in scope.costly:
            at = SHAPES[node.operator]
            if at >= len(node.inputs):
                continue
            source = scope.nodes.get(_plain(node.inputs[at]))
            sides = self._numbers(source) if source and source.operator == "Const" else []
            if sides and min(sides) >= 0 and math.prod(sides) > MOST_ITEMS:
                self.draft.fire(
                    "tensorflow/allocation", f"{node.operator} makes {math.prod(sides):.3g} numbers", node.start
                )

    def _constant(self, node: Node) -> Message | None:
        """The tensor of a ``Const``."""
        message = self.tree.message("NodeDef", node.start, node.end)
        for entry in message.messages("attr"):
            if entry.text("key") == "value" and (value := entry.message("value")):
                return value.message("tensor")
        return None

    def _numbers(self, node: Node) -> list[int]:
        tensor = self._constant(node)
        if tensor is None:
            return []
        wide = tensor.number("dtype") == 9  # noqa: PLR2004 -- DT_INT64
        content = tensor.last("tensor_content")
        if content is None:
            return tensor.numbers("int64_val" if wide else "int_val", SMALL)
        raw, width = bytes(payload(tensor, content)[: SMALL * 8]), 8 if wide else 4
        return [
            int.from_bytes(raw[at : at + width], "little", signed=True) for at in range(0, len(raw) - width + 1, width)
        ]

    # paths

    def _judge_paths(self) -> None:
        """Follow the paths of checkpoint operators back, through functions to their callers."""
        wanted: dict[str, set[str]] = {}
        for scope in self.scopes:
            self._judge_cost(scope)
            for node, places in scope.sinks:
                for at in places:
                    self._judge_sink(scope, node, at, wanted)
        for _ in range(SMALL):
            if not self._follow_calls(wanted):
                break

    def _judge_sink(self, scope: Scope, node: Node, at: int, wanted: dict[str, set[str]]) -> None:
        if at >= len(node.inputs):
            self.draft.fire("tensorflow/malformed", f"{node.operator} lacks its inputs", node.start)
            return
        origin = self._trace(scope, node.inputs[at])
        if node.operator.startswith("CacheDataset"):
            if any(origin.constants) or origin.computed:
                self.draft.fire(FILE, f"{node.operator} writes {str(origin.constants)[:160]}", node.start)
            return
        if node.operator == "ReadFile" and (origin.is_fed or origin.arguments):
            self.draft.fire(FILE, "ReadFile opens what its caller names", node.start)
        if node.operator in ASSETS:
            for path in origin.constants:
                self.draft.fire(
                    "tensorflow/path", f"{node.operator} opens {path[:200]!r}, which is no asset", node.start
                )
        self._judge_origin(node, origin)
        if origin.arguments and scope.name:
            wanted.setdefault(scope.name, set()).update(origin.arguments)

    def _judge_origin(self, node: Node, origin: Origin) -> None:
        for path in origin.constants:
            if path and node.operator not in ASSETS and (why := why_outside(path.removeprefix("^"))):
                self.draft.fire("tensorflow/path", f"{node.operator} with {path[:200]!r}, which {why}", node.start)
        if origin.computed:
            self.draft.fire("tensorflow/path", f"{node.operator} with a path that {origin.computed} makes", node.start)

    def _follow_calls(self, wanted: dict[str, set[str]]) -> bool:
        """Judge what callers hand to arguments that become paths; whether that led to further callers."""
        arguments = {scope.name: scope.arguments for scope in self.scopes if scope.name}
        grown = False
        for scope in self.scopes:
            for called, node in scope.calls:
                for name in sorted(wanted.get(called, ())):
                    at = arguments[called].index(name) if name in arguments.get(called, []) else -1
                    if not 0 <= at < len(node.inputs):
                        continue
                    origin = self._trace(scope, node.inputs[at])
                    self._judge_origin(node._replace(operator=f"a call of {called[:80]}"), origin)
                    known = wanted.setdefault(scope.name, set())
                    grown |= bool(scope.name and origin.arguments - known)
                    known |= origin.arguments
        return grown

    def _trace(self, scope: Scope, start: str) -> Origin:
        """Everything that a path is made from."""
        name = _plain(start)
        if name not in scope.traced:
            scope.traced[name] = self._trace_fresh(scope, name)
        return scope.traced[name]

    def _trace_fresh(self, scope: Scope, start: str) -> Origin:
        origin = Origin([], set(), is_fed=False, computed="")
        todo, seen = [start], set[str]()
        while todo:
            name = _plain(todo.pop())
            if not name or name in seen:
                continue
            seen.add(name)
            self.steps -= 1
            if self.steps < 0:
                raise LimitError(f"more than {MOST_STEPS} steps to follow paths")
            node = scope.nodes.get(name)
            if name in scope.assets or node is None:
                is_argument = name in scope.arguments
                origin = origin._replace(is_fed=origin.is_fed or not (is_argument or name in scope.assets))
                origin.arguments.update({name} if is_argument else ())
            elif node.operator == "Const":
                origin.constants.extend(self._texts(node))
            else:
                if node.operator.startswith("Placeholder") and node.operator != "PlaceholderWithDefault":
                    origin = origin._replace(is_fed=True)
                elif node.operator not in PASSING and "Call" not in node.operator:
                    origin = origin._replace(computed=node.operator)
                todo.extend(each for each in node.inputs if not each.startswith("^"))
        return origin

    def _texts(self, node: Node) -> list[str]:
        tensor = self._constant(node)
        return tensor.texts("string_val")[:SMALL] if tensor is not None else []

    # Keras

    def _keras(self, saved: Message) -> None:
        """Layers as Keras describes them, one JSON text each."""
        for value in saved.values("metadata"):
            raw = bytes(payload(saved, value)[:LONGEST_METADATA])
            if not raw.lstrip().startswith(b"{"):
                self.embedded.judge_text("metadata", raw, value.start)
                continue
            try:
                parsed = json.loads(raw)
            except (ValueError, RecursionError):
                self.draft.fire("tensorflow/malformed", "the description of a Keras object is no JSON", value.start)
                continue
            for each in _objects(parsed):
                self._judge_keras(each, value.start)

    def _judge_keras(self, described: dict[str, Any], at: int) -> None:
        config = described.get("config")
        if described.get("class_name") == "__lambda__":
            self.draft.fire("tensorflow/lambda", "a function as bytecode", at)
        elif described.get("class_name") == "Lambda" and isinstance(config, dict):
            function = config.get("function")
            is_code = config.get("function_type") == "lambda" or isinstance(function, (list, dict))
            rule = "tensorflow/lambda" if is_code else "tensorflow/keras-class"
            self.draft.fire(rule, f"layer {str(config.get('name'))[:80]!r} is a Lambda", at)
        module = described.get("module")
        if (
            isinstance(module, str)
            and "class_name" in described
            and not re.match(r"(?:tf_)?keras(?:\.|\Z)|builtins\Z|tensorflow\.|__main__\Z", module)
        ):
            self.draft.fire("tensorflow/keras-class", f"{module[:80]}.{str(described['class_name'])[:80]}", at)


def _called(node: Message) -> Iterator[str]:
    """Functions that a node calls: those in its attributes, and its operator, which may be one."""
    yield node.text("op")
    for entry in node.messages("attr"):
        value = entry.message("value")
        if value is None:
            continue
        listed = value.message("list")
        for function in (*value.messages("func"), *(listed.messages("func") if listed else ())):
            yield function.text("name")


def _plain(name: str) -> str:
    """The node of an input, without its output and without the mark of a control input."""
    return name.lstrip("^").split(":")[0]


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """All objects of a JSON value."""
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            yield each
            todo.extend(each.values())
        elif isinstance(each, list):
            todo.extend(each)
