"""Chat templates: Jinja text that arrives inside a model and is rendered with every prompt.

The text is parsed, never compiled or rendered, and its syntax tree is judged by an allow-list of
what templates of language models do: walk over messages, compare texts, join them. Rendering
anything more outside a strict sandbox has run code (CVE-2024-34359, llama-cpp-python).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from jinja2 import Environment, nodes
from jinja2.ext import Extension
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.parser import Parser
from jinja2.tests import TESTS as JINJA_TESTS

CODE = "template/code"
INCLUDE = "template/include"
CALL = "template/unknown-call"
UNBOUNDED = "template/unbounded"
MALFORMED = "template/malformed"

LONGEST = 1 << 18
"""Characters of a template; the longest in use has some 30,000."""
MOST_NODES = 40_000
MOST_TURNS = 100_000
"""Turns of loops whose bounds are constants, and characters that a constant may multiply."""
DEEPEST_LOOPS = 6
MOST_FINDINGS = 20
SHORT = 4096
DEEPEST_CONSTANT = 40

FUNCTIONS = frozenset({"range", "namespace", "raise_exception", "strftime_now", "dict", "caller", "joiner", "cycler"})
"""What the libraries that render chat templates offer, and Jinja itself."""
_METHODS = """
    strip lstrip rstrip split rsplit splitlines title upper lower capitalize casefold swapcase startswith
    endswith replace removeprefix removesuffix find rfind index rindex count join partition rpartition zfill
    ljust rjust center isdigit isalpha isalnum isspace isupper islower isnumeric isdecimal istitle items keys
    values get append extend insert pop update copy setdefault sort reverse cycle changed next strftime
    isoformat format remove clear
    """
METHODS = frozenset(_METHODS.split())
FILTERS = frozenset(JINJA_FILTERS) - {"attr", "pprint", "urlize", "xmlattr"} | {"items", "from_json", "fromjson"}
TESTS = frozenset(JINJA_TESTS) | {"contains"}
BY_ATTRIBUTE = {
    "map": 0,
    "selectattr": 1,
    "rejectattr": 1,
    "groupby": 1,
    "sort": 0,
    "unique": 0,
    "sum": 1,
    "min": 0,
    "max": 0,
}
"""Filters that read attributes by name, and how many of their first arguments are such names."""
_GLOBALS = """
    lipsum self config request session g app application settings environ get_flashed_messages
    url_for current_app os sys subprocess builtins globals locals vars eval exec compile open input getattr
    setattr hasattr type object importlib popen system context
    """
GLOBALS = frozenset(_GLOBALS.split())
"""Names that lead out of a template where an application hands them in."""
INTERNALS = re.compile(
    r"_|mro\Z|func_(?:code|globals|closure|defaults)|im_(?:func|self|class)|(?:gi|cr|ag)_(?:frame|code|yieldfrom|await)"
    r"|(?:f|tb|co)_(?:globals|locals|builtins|back|frame|next|code|consts)\Z"
)
"""Attributes of Python's own objects, as the sandbox of Jinja refuses them."""
DUNDER = re.compile(r"__[a-zA-Z]+_*|_{2,}\Z|\A_{2,}")
_REACHING = re.compile(r"\{[^{}]*[.\[!]|\{[^{}]*\{")
"""A format text that reaches into its arguments."""
_WIDE = re.compile(r"%[-+ #0]*\d{5,}|:[^{}]?[<>=^]?\d{5,}|%[-+ #0]*\*")
BUILDERS = frozenset({"join", "format", "replace", "reverse", "urlencode", "attr", "first", "last", "random", "batch"})


class _Generation(Extension):
    """``{% generation %}``, by which transformers marks what the model says."""

    tags = {"generation"}  # noqa: RUF012 -- the type of the base class

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Take the statements up to ``endgeneration`` as they are."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def judge_template(text: str) -> list[tuple[str, str]]:
    """Rules that a template breaks, each with a detail; none for a template that only puts texts together."""
    if len(text) > LONGEST:
        return [(UNBOUNDED, f"a template of {len(text)} characters")]
    environment = Environment(  # noqa: S701 -- nothing is rendered
        extensions=["jinja2.ext.loopcontrols", "jinja2.ext.do", _Generation], trim_blocks=True, lstrip_blocks=True
    )
    try:
        tree = environment.parse(text)
    except RecursionError:
        return [(UNBOUNDED, "the template is nested too deeply to be parsed")]
    except Exception as error:  # noqa: BLE001 -- whatever the parser says, the template is none
        return [(MALFORMED, f"{type(error).__name__}: {str(error)[:160]}")]
    try:
        return _Judge(tree).run()
    except RecursionError:
        return [(UNBOUNDED, "the template is nested too deeply to be judged")]


class _Judge:
    """One walk over one template."""

    def __init__(self, tree: nodes.Template) -> None:
        self.tree = tree
        self.found: dict[tuple[str, str], None] = {}
        self.names: set[str] = set()
        """What the template itself defines."""
        self.values: dict[str, Any] = {}
        """Constants that a name was set to."""

    def fire(self, rule: str, detail: str) -> None:
        """Note a breach, once."""
        if len(self.found) < MOST_FINDINGS:
            self.found[rule, detail[:200]] = None

    def run(self) -> list[tuple[str, str]]:
        """The breaches, in the order of the text."""
        every: list[tuple[nodes.Node, int, int]] = []
        todo: list[tuple[nodes.Node, int, int]] = [(self.tree, 0, 1)]
        while todo:
            node, loops, turns = todo.pop()
            every.append((node, loops, turns))
            if len(every) > MOST_NODES:
                self.fire(UNBOUNDED, f"more than {MOST_NODES} parts")
                return list(self.found)
            self._define(node)
            inner = (loops + 1, turns * self._turns(node)) if isinstance(node, nodes.For) else (loops, turns)
            todo.extend((child, *inner) for child in reversed(list(node.iter_child_nodes())))
        for node, loops, turns in every:
            self._judge(node, loops, turns)
        return list(self.found)

    def _define(self, node: nodes.Node) -> None:
        if isinstance(node, nodes.Macro) or (isinstance(node, nodes.Name) and node.ctx in {"store", "param"}):
            self.names.add(node.name)
        elif isinstance(node, nodes.Assign) and isinstance(node.target, nodes.Name):
            value = self._fold(node.node)
            if value is not None:
                self.values[node.target.name] = value

    def _judge(self, node: nodes.Node, loops: int, turns: int) -> None:
        if isinstance(node, nodes.For):
            if loops >= DEEPEST_LOOPS:
                self.fire(UNBOUNDED, f"more than {DEEPEST_LOOPS} loops inside one another")
                return
            if turns * self._turns(node) > MOST_TURNS:
                self.fire(UNBOUNDED, f"loops of {turns * self._turns(node):.3g} turns")
        judge = getattr(self, f"_on_{type(node).__name__.lower()}", None)
        if judge is not None:
            judge(node)

    # what leads out

    def _on_import(self, _node: nodes.Node) -> None:
        self.fire(INCLUDE, "it imports another template")

    def _on_fromimport(self, _node: nodes.Node) -> None:
        self.fire(INCLUDE, "it imports another template")

    def _on_include(self, _node: nodes.Node) -> None:
        self.fire(INCLUDE, "it includes another template")

    def _on_extends(self, _node: nodes.Node) -> None:
        self.fire(INCLUDE, "it extends another template")

    def _on_getattr(self, node: nodes.Getattr) -> None:
        if INTERNALS.match(node.attr):
            self.fire(CODE, f"it reads the attribute {node.attr!r}")

    def _on_nsref(self, node: nodes.NSRef) -> None:
        if INTERNALS.match(node.attr):
            self.fire(CODE, f"it sets the attribute {node.attr!r}")

    def _on_getitem(self, node: nodes.Getitem) -> None:
        key = self._fold(node.arg)
        if isinstance(key, str):
            if INTERNALS.match(key) or not isinstance(node.arg, (nodes.Const, nodes.Name)):
                self.fire(CODE, f"it reads the attribute {key!r}")
            return
        for part in _below(node.arg):
            is_text = isinstance(part, (nodes.Concat, nodes.Add, nodes.Mod)) and any(
                isinstance(self._fold(child), str) for child in part.iter_child_nodes()
            )
            if is_text or (isinstance(part, nodes.Filter) and part.name in BUILDERS):
                self.fire(CODE, "it reads an attribute whose name it puts together")

    def _on_name(self, node: nodes.Name) -> None:
        if node.ctx == "load" and node.name not in self.names and (node.name in GLOBALS or node.name.startswith("__")):
            self.fire(CODE, f"it uses {node.name!r}")

    def _on_const(self, node: nodes.Const) -> None:
        if isinstance(node.value, str):
            self._judge_text(node.value)

    def _judge_text(self, text: str) -> None:
        if DUNDER.search(text[:SHORT]):
            self.fire(CODE, f"it holds the name {text[:60]!r}")

    def _on_concat(self, node: nodes.Expr) -> None:
        self._judge_text(str(self._fold(node) or ""))

    _on_add = _on_concat
    _on_mul = _on_concat

    def _on_keyword(self, node: nodes.Keyword) -> None:
        if INTERNALS.match(node.key):
            self.fire(CODE, f"it makes a key called {node.key!r}")

    # filters, tests and calls

    def _on_filter(self, node: nodes.Filter) -> None:
        if node.name == "attr":
            self.fire(CODE, "it reads attributes by the filter 'attr'")
        elif node.name not in FILTERS:
            self.fire(CALL, f"filter {node.name!r}")
        elif node.name == "format":
            self._judge_format(node.node, node.args)
        self._judge_text(str(self._fold(node) or ""))
        self._judge_attributes(node)
        self._judge_numbers(node.name, (*node.args, *(each.value for each in node.kwargs)))
        if node.name == "map" and node.args:
            inner = self._fold(node.args[0])
            if not isinstance(inner, str) or inner == "attr" or inner not in FILTERS:
                self.fire(CODE if inner is None or inner == "attr" else CALL, f"map by the filter {inner!r}")

    def _judge_attributes(self, node: nodes.Filter) -> None:
        if node.name not in BY_ATTRIBUTE:
            return
        named = [
            *node.args[: BY_ATTRIBUTE[node.name]],
            *(each.value for each in node.kwargs if each.key == "attribute"),
        ]
        for each in named:
            name = self._fold(each)
            if isinstance(name, int):
                continue
            if not isinstance(name, str):
                self.fire(CODE, f"the filter {node.name!r} reads an attribute whose name it puts together")
            elif any(INTERNALS.match(part) for part in name.split(".")):
                self.fire(CODE, f"the filter {node.name!r} reads the attribute {name!r}")

    def _on_test(self, node: nodes.Test) -> None:
        if node.name not in TESTS:
            self.fire(CALL, f"test {node.name!r}")

    def _on_mod(self, node: nodes.Mod) -> None:
        if isinstance(self._fold(node.left), str):
            self._judge_format(node.left, [node.right])

    def _judge_format(self, pattern: nodes.Expr | None, arguments: Iterable[nodes.Expr]) -> None:
        text = self._fold(pattern)
        if not isinstance(text, str):
            self.fire(CODE, "it formats by a text that it puts together")
        elif "%c" in text or _REACHING.search(text):
            self.fire(CODE, f"it builds text by {text[:60]!r}")
        elif _WIDE.search(text):
            self.fire(UNBOUNDED, f"it pads text by {text[:60]!r}")
        for each in arguments:
            if isinstance(value := self._fold(each), str):
                self._judge_text(value)

    def _on_call(self, node: nodes.Call) -> None:
        callee = node.node
        self._judge_numbers("a call", (*node.args, *(each.value for each in node.kwargs)))
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            self.fire(CALL, "a call with arguments that are not written out")
        if isinstance(callee, nodes.Name):
            if callee.name not in FUNCTIONS and callee.name not in self.names and callee.name != "loop":
                self.fire(CALL, f"{callee.name}()")
        elif not isinstance(callee, nodes.Getattr):
            self.fire(CALL, "a call of what an expression gives")
        elif callee.attr not in METHODS:
            self.fire(CALL, f".{callee.attr}()")
        elif callee.attr == "format":
            self._judge_format(callee.node, node.args)

    # bounds

    def _on_pow(self, node: nodes.Pow) -> None:
        exponent = self._fold(node.right)
        is_tower = isinstance(node.left, nodes.Pow) or isinstance(node.right, nodes.Pow)
        if is_tower or not isinstance(exponent, int) or abs(exponent) > 64:  # noqa: PLR2004 -- bits of a number
            self.fire(UNBOUNDED, "it raises a number to a power")

    def _judge_numbers(self, what: str, arguments: Iterable[nodes.Expr]) -> None:
        for each in arguments:
            value = self._fold(each)
            if isinstance(value, int) and abs(value) > MOST_TURNS * 10:
                self.fire(UNBOUNDED, f"{what} with {value}")

    def _on_for(self, node: nodes.For) -> None:
        if not isinstance(node.iter, nodes.Name):
            return
        for call in _below(node):
            callee = call.node if isinstance(call, nodes.Call) else None
            if not isinstance(callee, nodes.Getattr) or callee.attr not in {"append", "extend", "insert"}:
                continue
            if isinstance(callee.node, nodes.Name) and callee.node.name == node.iter.name:
                self.fire(UNBOUNDED, f"a loop over {node.iter.name!r} that makes it longer")

    def _on_assign(self, node: nodes.Assign) -> None:
        """A text that is set to itself twice doubles with every turn."""
        target = _path(node.target)
        if not target:
            return
        if any(sum(_path(part) == target for part in parts) > 1 for parts in _sums(node.node)):
            self.fire(UNBOUNDED, f"{target!r} doubles")
        multiplied = [each for each in _below(node.node) if isinstance(each, nodes.Mul)]
        if any(_path(each.left) == target == _path(each.right) for each in multiplied):
            self.fire(UNBOUNDED, f"{target!r} is squared")

    def _turns(self, node: nodes.For) -> int:
        """Turns of a loop over a range of constants; 1 for what depends on the messages."""
        call = node.iter
        if not (isinstance(call, nodes.Call) and isinstance(call.node, nodes.Name) and call.node.name == "range"):
            return 1
        bounds = [self._fold(each) for each in call.args]
        numbers = [each for each in bounds if isinstance(each, int)]
        if not numbers or len(numbers) != len(bounds):
            return 1
        try:
            return max(1, len(range(*numbers)))
        except (TypeError, ValueError, OverflowError):
            return MOST_TURNS + 1

    # constants

    def _fold(self, node: nodes.Node | None, depth: int = 0) -> Any:
        """Value of an expression of constants: a text, a number, a list of these; None for any other."""
        if depth > DEEPEST_CONSTANT:
            return None
        if isinstance(node, nodes.Const):
            return node.value if isinstance(node.value, (str, int)) else None
        if isinstance(node, nodes.Name):
            return self.values.get(node.name)
        fold = next((fold for kind, fold in _FOLDS.items() if isinstance(node, kind)), None)
        return fold(self, node, depth + 1) if fold else None

    def _fold_list(self, node: nodes.List, depth: int) -> Any:
        items = [self._fold(each, depth) for each in node.items[:SHORT]]
        return items if items and all(isinstance(each, (str, int)) for each in items) else None

    def _fold_concat(self, node: nodes.Concat, depth: int) -> Any:
        parts = [self._fold(each, depth) for each in node.nodes[:SHORT]]
        known = all(isinstance(each, (str, int)) for each in parts)
        return "".join(str(each) for each in parts)[:SHORT] if known else None

    def _fold_negative(self, node: nodes.Neg, depth: int) -> Any:
        value = self._fold(node.node, depth)
        return -value if isinstance(value, int) else None

    def _fold_binary(self, node: nodes.BinExpr, depth: int) -> Any:
        left, right = self._fold(node.left, depth), self._fold(node.right, depth)
        if isinstance(left, int) and isinstance(right, int):
            return _compute(node, left, right)
        if isinstance(node, nodes.Add) and isinstance(left, str) and isinstance(right, str):
            return (left + right)[:SHORT]
        text, times = (left, right) if isinstance(left, str) else (right, left)
        if isinstance(node, nodes.Mul) and isinstance(text, str) and isinstance(times, int):
            return self._repeat(text, times)
        return None

    def _repeat(self, text: str, times: int) -> str:
        if times * len(text) > MOST_TURNS:
            self.fire(UNBOUNDED, f"it repeats a text {times} times")
        return text * max(0, min(times, SHORT // max(1, len(text))))

    def _fold_filter(self, node: nodes.Filter, depth: int) -> Any:
        value = self._fold(node.node, depth)
        arguments = [self._fold(each, depth) for each in node.args]
        if isinstance(value, list):
            return _filter_list(node.name, value, arguments)
        if not isinstance(value, str):
            return None
        if node.name == "replace" and len(arguments) == 2 and all(isinstance(each, str) for each in arguments):  # noqa: PLR2004
            return value.replace(arguments[0], arguments[1])[:SHORT]
        return _TEXT_FILTERS[node.name](value) if node.name in _TEXT_FILTERS else None


_FOLDS: dict[type[nodes.Node], Callable[[_Judge, Any, int], Any]] = {
    nodes.List: _Judge._fold_list,  # noqa: SLF001
    nodes.Tuple: _Judge._fold_list,  # noqa: SLF001
    nodes.Concat: _Judge._fold_concat,  # noqa: SLF001
    nodes.Filter: _Judge._fold_filter,  # noqa: SLF001
    nodes.Neg: _Judge._fold_negative,  # noqa: SLF001
    nodes.BinExpr: _Judge._fold_binary,  # noqa: SLF001
}
_TEXT_FILTERS: dict[str, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "trim": str.strip,
    "string": str,
    "safe": str,
    "reverse": lambda text: text[::-1],
    "first": lambda text: text[:1],
    "last": lambda text: text[-1:],
}


def _filter_list(name: str, items: list[Any], arguments: list[Any]) -> Any:
    """What a filter makes of a list of constants."""
    if name == "join":
        middle = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        return middle.join(str(each) for each in items)[:SHORT]
    if name == "reverse":
        return items[::-1]
    return {"first": items[0], "last": items[-1]}.get(name)


def _compute(node: nodes.BinExpr, left: int, right: int) -> int | None:
    """What a sum, product or power of constants comes to, if that is cheap to tell."""
    if max(abs(left), abs(right)) > 1 << 64:
        return None
    if isinstance(node, nodes.Pow):
        return int(left**right) if 0 <= right <= 64 and abs(left) < 1 << 16 else None  # noqa: PLR2004 -- small
    results = {nodes.Add: left + right, nodes.Sub: left - right, nodes.Mul: left * right}
    return results.get(type(node))


def _below(node: nodes.Node) -> Iterable[nodes.Node]:
    """A node and all below it, without recursion."""
    todo = [node]
    while todo:
        each = todo.pop()
        yield each
        todo.extend(each.iter_child_nodes())


def _path(node: nodes.Node) -> str:
    """A name or ``namespace.name``; empty for anything else."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.NSRef):
        return f"{node.name}.{node.attr}"
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        return f"{node.node.name}.{node.attr}"
    return ""


def _sums(node: nodes.Node) -> Iterable[list[nodes.Node]]:
    """The parts of each sum, sums of sums taken together."""
    todo = [node]
    while todo:
        each = todo.pop()
        if not isinstance(each, (nodes.Concat, nodes.Add)):
            todo.extend(each.iter_child_nodes())
            continue
        parts, inner = [], list(each.iter_child_nodes())
        while inner:
            part = inner.pop()
            if isinstance(part, (nodes.Concat, nodes.Add)):
                inner.extend(part.iter_child_nodes())
            else:
                parts.append(part)
        yield parts
        todo.extend(parts)
