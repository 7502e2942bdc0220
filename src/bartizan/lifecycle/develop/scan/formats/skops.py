"""skops files: a zip archive with ``schema.json``, a tree of nodes, and the arrays that the nodes name.

Format: ``skops/io`` of skops 0.16, protocols 0 to 2. skops shows the types that are not on its own
list and loads the file once the caller has trusted them; callers pass on what they are shown. Every
node is judged here by the same allow-lists as a pickle: it imports the same classes.

Sources: CVE-2024-37065 (``trusted=True``), CVE-2025-54412 (``OperatorFuncNode``), CVE-2025-54413
(``MethodNode``), CVE-2025-54886 (``Card.get_model`` falls back to joblib).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bartizan.lifecycle.develop.scan.detect import detect
from bartizan.lifecycle.develop.scan.limits import Limits
from bartizan.lifecycle.develop.scan.pickle.policy import Policy, load_policy
from bartizan.lifecycle.develop.scan.pickle.values import Use
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source
from bartizan.lifecycle.develop.scan.verdict import Report, Verdict

SCHEMA = "schema.json"
NEWEST_PROTOCOL = 2
DEEPEST = 300
MOST_NODES = 1_000_000
LONGEST_SCHEMA = 64 << 20

BUILTINS = frozenset(
    (
        "int",
        "float",
        "str",
        "bool",
        "list",
        "set",
        "tuple",
        "dict",
        "map",
        "slice",
        "bytes",
        "bytearray",
        "complex",
        "frozenset",
        "NoneType",
        "range",
    )
)
PLAIN = {
    "DictNode": {("builtins", "dict"), ("collections", "OrderedDict")},
    "DefaultDictNode": {("collections", "defaultdict")},
    "ListNode": {("builtins", "list")},
    "SetNode": {("builtins", "set"), ("builtins", "frozenset")},
    "TupleNode": {("builtins", "tuple")},
    "BytesNode": {("builtins", "bytes")},
    "BytearrayNode": {("builtins", "bytearray")},
    "SliceNode": {("builtins", "slice")},
    "DTypeNode": {("numpy", "dtype")},
    "PartialNode": {("functools", "partial")},
    "MaskedArrayNode": {("numpy.ma", "MaskedArray"), ("numpy.ma.core", "MaskedArray")},
    "RandomStateNode": {("numpy.random.mtrand", "RandomState"), ("numpy.random", "RandomState")},
    "RandomGeneratorNode": {("numpy.random._generator", "Generator"), ("numpy.random", "Generator")},
}
"""Loaders and the only types for which skops writes them."""
BIT_GENERATORS = frozenset({"MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"})
OPERATORS = frozenset({"attrgetter", "itemgetter", "methodcaller"})
_NUMPY_TYPE = re.compile(
    r"(?:bool_?|u?int(?:8|16|32|64|p|c)?|float(?:16|32|64|96|128)|complex(?:64|128|256)|u?(?:long|short|byte|intc|longlong)"
    r"|(?:long|clong)?double|half|single|str_|bytes_|void|object_|datetime64|timedelta64|ndarray|matrix|memmap|recarray)\Z"
)
_SPARSE = re.compile(r"(?:csr|csc|coo|bsr|dia|lil|dok)_(?:matrix|array)\Z")


class _BrokenSchemaError(Exception):
    """The schema is none that skops reads; the text says why."""


class SkopsArchive:
    """Examines the members of an archive with ``schema.json``: that one first, then what it names."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self.is_skops = False
        self.raw: set[str] = set()
        """Members that are loaded as plain bytes."""
        self.wanted: set[str] = set()
        """Members that the schema names."""

    @classmethod
    def of(cls, names: list[str]) -> SkopsArchive | None:
        """The archive, when it may be one of skops."""
        return cls(names) if SCHEMA in names else None

    def examiner(self, examine: Examine, limits: Limits) -> Examine:
        """What examines the members, of which the schema must come first."""
        return lambda source: self._examine(source, examine, limits)

    def finish(self, draft: Draft) -> None:
        """Once all members have been examined: say what the archive is, and which members it lacks."""
        if not self.is_skops:
            return
        draft.kind = "skops"
        for name in sorted(self.wanted - self.names):
            draft.fire("skops/members", f"the schema names {name[:80]!r}, which is not there")

    def _examine(self, source: Source, examine: Examine, limits: Limits) -> Report:
        if source.name == SCHEMA:
            return self._examine_schema(source, examine, limits)
        draft = Draft(source, "bytes", limits.findings)
        if not self.is_skops:
            return examine(source)
        if source.name in self.raw and detect(source.data) in {"unknown", "maybe-pickle", "empty"}:
            return draft.close()
        report = examine(source)
        if source.name in self.wanted or report.own_verdict is not Verdict.CLEAN:
            return report
        draft.kind = report.format
        draft.fire("skops/members", f"the schema does not name {source.name[:80]!r}")
        draft.members.append(report)
        return draft.close()

    def _examine_schema(self, source: Source, examine: Examine, limits: Limits) -> Report:
        draft = Draft(source, "skops-schema", limits.findings)
        if len(source.data) > LONGEST_SCHEMA:
            draft.miss(f"a schema of more than {LONGEST_SCHEMA} bytes", rule="file/limit")
            return draft.close()
        raw = bytes(source.data)
        if b'"__loader__"' not in raw and b'"protocol"' not in raw and b"\\u00" not in raw:
            return examine(source)
        self.is_skops = True
        judge = SchemaJudge(draft, load_policy())
        try:
            judge.run(raw)
        except _BrokenSchemaError as broken:
            draft.fire("skops/malformed", str(broken))
            draft.miss("the schema cannot be read to its end")
        self.raw, self.wanted = judge.raw, judge.files
        draft.facts["nodes"] = judge.nodes
        return draft.close()


class SchemaJudge:
    """Judges the nodes of one schema."""

    def __init__(self, draft: Draft, policy: Policy) -> None:
        self.draft = draft
        self.policy = policy
        self.nodes = 0
        self.files: set[str] = set()
        self.raw: set[str] = set()
        self._seen: set[tuple[str, str]] = set()
        self._loaders: dict[str, Callable[[dict[str, Any], str, str], None]] = {
            "ObjectNode": self._object,
            "ConstructorFromReduceNode": self._constructor,
            "TreeNode": self._object,
            "LossNode": self._object,
            "QuantileForestNode": self._object,
            "_DictWithDeprecatedKeysNode": self._object,
            "TypeNode": self._type,
            "FunctionNode": self._function,
            "MethodNode": self._method,
            "OperatorFuncNode": self._operator,
            "NdArrayNode": self._array,
            "SparseMatrixNode": self._array,
            "JsonNode": self._json,
            "CachedNode": self._nothing,
        }

    def run(self, raw: bytes) -> None:
        """Judge a whole schema.

        Raises:
            _BrokenSchemaError: it is no schema.
        """
        root = self._parse(raw)
        protocol = root.get("protocol")
        if type(protocol) is not int or not 0 <= protocol <= NEWEST_PROTOCOL:
            self.draft.fire("skops/malformed", f"protocol {str(protocol)[:40]!r} is none of skops")
        for node, _depth in self._walk(root):
            self._judge(node)

    def _parse(self, raw: bytes) -> dict[str, Any]:
        try:
            root = json.loads(raw.decode(), object_pairs_hook=self._object_of)
        except (ValueError, RecursionError) as error:
            raise _BrokenSchemaError(f"the schema is no JSON: {str(error)[:120]}") from error
        if not isinstance(root, dict):
            raise _BrokenSchemaError("the schema is no object")
        return root

    def _object_of(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            self._fire("skops/malformed", "a key occurs twice in one object")
        return made

    def _fire(self, rule: str, detail: str) -> None:
        """Fire once for the same detail."""
        if (rule, detail) not in self._seen and len(self._seen) <= 2 * self.draft.most_findings:
            self._seen.add((rule, detail))
            self.draft.fire(rule, detail)

    def _walk(self, root: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
        """All nodes: objects with a loader, wherever they stand."""
        todo: list[tuple[Any, int]] = [(root, 0)]
        while todo:
            value, depth = todo.pop()
            if depth > DEEPEST:
                raise _BrokenSchemaError(f"nodes are nested more than {DEEPEST} deep")
            if isinstance(value, dict):
                if "__loader__" in value or "__class__" in value or "__module__" in value:
                    self.nodes += 1
                    yield value, depth
                todo.extend((part, depth + 1) for part in value.values() if isinstance(part, dict | list))
            else:
                todo.extend((part, depth + 1) for part in value if isinstance(part, dict | list))
            if self.nodes > MOST_NODES:
                raise _BrokenSchemaError(f"more than {MOST_NODES} nodes")

    def _judge(self, node: dict[str, Any]) -> None:
        loader, module, name = (node.get(key) for key in ("__loader__", "__module__", "__class__"))
        if not isinstance(loader, str) or not isinstance(module, str) or not isinstance(name, str):
            self._fire("skops/malformed", "a node lacks its class, its module or its loader")
            return
        if "file" in node:
            self._file(node, loader)
        if loader not in PLAIN and loader not in self._loaders:
            self._fire("skops/malformed", f"{loader[:60]!r} is no loader of skops, for {_shown(module, name)}")
            self._is_danger(module, name)
            return
        if self._is_danger(module, name):
            return
        if loader == "RandomGeneratorNode":
            self._bit_generator(node)
        if loader == "DefaultDictNode":
            self._factory(node)
        if loader in PLAIN:
            self._plain(loader, module, name)
        else:
            self._loaders[loader](node, module, name)

    def _is_danger(self, module: str, name: str) -> bool:
        """Whether a name is known to do harm; listed names are judged by their use."""
        if self.policy.entry(module, name) is not None or (module == "builtins" and name in BUILTINS):
            return False
        danger = self.policy.danger(module, name)
        if module == "operator" and name in OPERATORS:
            return False
        if danger:
            self._fire("skops/dangerous-name", f"names {_shown(module, name)}, which {danger}")
        return bool(danger)

    def _file(self, node: dict[str, Any], loader: str) -> None:
        name = node["file"]
        if not isinstance(name, str):
            self._fire("skops/malformed", "a node names a member by something else than a text")
            return
        self.files.add(name)
        if loader in {"BytesNode", "BytearrayNode"}:
            self.raw.add(name)

    def _plain(self, loader: str, module: str, name: str) -> None:
        if (module, name) in PLAIN[loader]:
            return
        entry = self.policy.entry(module, name)
        if (
            entry is not None
            and entry.uses & (Use.NEW | Use.CALL | Use.ITEMS)
            and not entry.args_rule
            and module != "builtins"
        ):
            return  # a named tuple, or a class of a framework that extends a container
        self._fire("skops/unlisted-class", f"{loader} loads {_shown(module, name)}")

    def _object(self, _node: dict[str, Any], module: str, name: str) -> None:
        entry = self.policy.entry(module, name)
        if entry is None or not entry.uses & (Use.NEW | Use.BUILD | Use.CALL) or module == "builtins":
            rule = "skops/dangerous-name" if module in {"builtins", "types"} else "skops/unlisted-class"
            self._fire(rule, f"restores an object of {_shown(module, name)}")

    def _constructor(self, node: dict[str, Any], module: str, name: str) -> None:
        entry = self.policy.entry(module, name)
        if entry is not None and entry.uses & Use.CALL and not entry.args_rule:
            return
        rule = "skops/dangerous-name" if module in {"builtins", "types"} else "skops/unlisted-class"
        if not (name[:1].isupper() or name[:1] == "_" or module in {"datetime", "decimal", "uuid"}) and entry is None:
            rule = "skops/unlisted-function"
        if (module, name) not in {("datetime", "timezone"), ("datetime", "timedelta"), ("zoneinfo", "ZoneInfo")}:
            self._fire(rule, f"calls {_shown(module, name)} with arguments of the file")
        self._nothing(node, module, name)

    def _type(self, _node: dict[str, Any], module: str, name: str) -> None:
        if module == "builtins" and name in BUILTINS:
            return
        if module == "numpy" and _NUMPY_TYPE.match(name):
            return
        if self.policy.entry(module, name) is None:
            self._fire("skops/unlisted-class", f"names the type {_shown(module, name)}")

    def _function(self, node: dict[str, Any], module: str, name: str) -> None:
        content = node.get("content")
        if isinstance(content, dict):  # protocol 0 keeps the name there
            module, name = str(content.get("module_path")), str(content.get("function"))
            if self._is_danger(module, name):
                return
        entry = self.policy.entry(module, name)
        if entry is None or entry.args_rule:
            self._fire("skops/unlisted-function", f"refers to the function {_shown(module, name)}")

    def _method(self, node: dict[str, Any], module: str, name: str) -> None:
        content = node.get("content")
        owner = content.get("obj") if isinstance(content, dict) else None
        method = content.get("func") if isinstance(content, dict) else None
        if not isinstance(owner, dict) or not isinstance(method, str):
            self._fire("skops/malformed", "a MethodNode lacks its object or its method")
            return
        if (owner.get("__module__"), owner.get("__class__")) != (module, name):
            inner = _shown(str(owner.get("__module__")), str(owner.get("__class__")))
            self._fire("skops/disguise", f"shows {_shown(module, name)} and takes {method[:60]!r} of {inner}")
        elif method.startswith("_"):
            self._fire("skops/disguise", f"takes the private {method[:60]!r} of {_shown(module, name)}")
        else:
            self._fire("skops/method", f"takes {method[:60]!r} of {_shown(module, name)}")

    def _operator(self, _node: dict[str, Any], module: str, name: str) -> None:
        if module != "operator":
            self._fire("skops/disguise", f"shows {_shown(module, name)} and calls operator.{name[:60]}")
        elif name not in OPERATORS:
            self._fire("skops/unlisted-function", f"calls {_shown(module, name)}")
        else:
            self._fire("skops/method", f"builds {_shown(module, name)}")

    def _array(self, node: dict[str, Any], module: str, name: str) -> None:
        if node.get("type") not in {"numpy", "json", "scipy"}:
            self._fire("skops/malformed", f"an array of type {str(node.get('type'))[:40]!r}")
        is_numpy = module == "numpy" and _NUMPY_TYPE.match(name)
        is_sparse = module.startswith("scipy.sparse") and _SPARSE.match(name)
        if not is_numpy and not is_sparse:
            self._fire("skops/unlisted-class", f"turns an array into {_shown(module, name)}")

    def _json(self, node: dict[str, Any], module: str, name: str) -> None:
        content = node.get("content")
        if not isinstance(content, str):
            self._fire("skops/malformed", "the content of a JsonNode is no text")
        if module != "builtins" or name not in BUILTINS:
            self._fire("skops/disguise", f"a JsonNode shows {_shown(module, name)}")

    def _nothing(self, _node: dict[str, Any], _module: str, _name: str) -> None:
        """The node refers to another one, which is judged where it stands."""

    def _bit_generator(self, node: dict[str, Any]) -> None:
        state = _down(node, "content", "bit_generator")
        name = _down(state, "content", "bit_generator", "content")
        plain = _down(state, "bit_generator")
        try:
            found = json.loads(name) if isinstance(name, str) else plain
        except (ValueError, RecursionError):
            found = None
        if found not in BIT_GENERATORS:
            self._fire("skops/disguise", f"a random generator calls numpy.random.{str(found)[:60]}")

    def _factory(self, node: dict[str, Any]) -> None:
        factory = _down(node, "content", "default_factory")
        if isinstance(factory, dict) and factory.get("__loader__") not in {"TypeNode", "JsonNode", "CachedNode"}:
            self._fire("skops/method", f"a defaultdict makes its values by a {str(factory.get('__loader__'))[:60]}")


def _down(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _shown(module: str, name: str) -> str:
    return f"{module[:120]}.{name[:120]}"
