"""Python source, judged by its syntax tree. Nothing is compiled or run.

Every name that the program uses is followed back to the module that it comes from, through imports,
renaming, ``getattr`` and computed names, and looked up in ``code_names``. What is reached while the file
is imported counts more than what stands in a function that somebody has to call.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.formats import code_names as names

LONGEST = 1 << 19
"""Characters; a syntax tree takes up to 200 times as much memory."""
DEEPEST = 100
"""Brackets inside brackets."""
MOST_PATHS = 8
"""Things that one name may stand for."""
ROUNDS = 4
"""Names of names of names that are followed."""
LONGEST_TEXT = 2_000
STRONG = frozenset({names.PROCESS, names.DYNAMIC, names.ESCAPE, names.NETWORK, names.SYSTEM})
"""What is worse when it happens during an import."""
INNER_MODULES = frozenset({"os", "sys", "subprocess", "builtins", "importlib", "posix", "nt", "ctypes", "marshal"})
"""Modules that other modules hold under their own name, as in ``shutil.os``."""
CODINGS = frozenset({"utf-8", "utf8", "ascii", "us-ascii", "latin-1", "latin1", "iso-8859-1", "utf-8-sig", "cp1252"})
_CODING = re.compile(r"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_BRACKETS = re.compile(r"[][(){}]")
_STRUCTURE = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Call)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_TIMED = frozenset({"timeit.timeit", "timeit.repeat", "timeit.Timer"})
_CALLED_ONLY = frozenset({"types.FunctionType", "types.CodeType"})
"""Often compared with; harmful when called."""
_GETTERS = frozenset({"operator.attrgetter", "operator.methodcaller"})
_LOOKING = frozenset({"getattr", "hasattr", "dir", "print", "vars", "id", "type", "repr", "str"})
_IMPORTERS = frozenset({"builtins.__import__", "importlib.import_module", "importlib.__import__"})


class Found(NamedTuple):
    """One thing that the program does."""

    rule: str
    detail: str


class _Scope(NamedTuple):
    """Where a node stands."""

    at_import: bool = True
    parameters: frozenset[str] = frozenset()
    """Parameters of the functions around it."""
    assigned: frozenset[str] = frozenset()
    """Names that those functions assign."""


def parse(text: str) -> ast.Module | None:
    """The syntax tree; None when the text is no Python, or too long or too deep to be looked at."""
    if len(text) > LONGEST or _depth(text) > DEEPEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _depth(text: str) -> int:
    deepest = depth = 0
    for match in _BRACKETS.finditer(text):
        depth = depth + 1 if match[0] in "([{" else max(depth - 1, 0)
        deepest = max(deepest, depth)
    return deepest


def is_program(tree: ast.Module) -> bool:
    """Whether a tree does anything; prose and tables can be valid Python by chance."""
    return any(isinstance(node, _STRUCTURE) for node in ast.walk(tree))


def judge_code(text: str, tree: ast.Module, *, is_module: bool = True) -> list[Found]:
    """What a program does that a model does not need; ``is_module`` when importing the file runs it."""
    found = _Judge(tree, is_module=is_module).run()
    for line in text.splitlines()[:2]:
        match = _CODING.match(line)
        if match and match[1].lower().replace("_", "-") not in CODINGS:
            found.append(Found(names.ESCAPE, f"the source is to be read as {match[1]!r}, and so as other code"))
    return list(dict.fromkeys(found))


class _Judge:
    """Goes through one tree."""

    def __init__(self, tree: ast.Module, *, is_module: bool) -> None:
        self.tree = tree
        self.is_module = is_module
        self.found: list[Found] = []
        self.paths: dict[str, set[str]] = {}
        """What names stand for: dotted names of modules and their parts."""
        self.texts: dict[str, str | None] = {}
        """Constant text of names; None when there are several."""
        self.own: set[str] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        """Functions and classes of the module, which may have the name of a builtin."""
        self.at_import = self._called_at_import()

    def run(self) -> list[Found]:
        self._collect()
        todo: list[tuple[ast.AST, _Scope]] = [(self.tree, _Scope(at_import=self.is_module))]
        while todo:
            node, scope = todo.pop()
            followed = self._visit(node, scope)
            todo.extend((child, inner) for child, inner in self._inside(node, scope) if child is not followed)
        return self.found

    def _collect(self) -> None:
        """Fill ``paths`` and ``texts`` from imports and assignments anywhere in the program."""
        assigned: list[tuple[str, ast.expr]] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for name, path in _imported(node):
                    self.paths.setdefault(name, set()).add(path)
            elif isinstance(node, ast.Delete):
                self.own -= {target.id for target in node.targets if isinstance(target, ast.Name)}
            else:
                assigned += _assigned(node)
        for name, value in assigned:
            text = self.fold(value)
            self.texts[name] = text if name not in self.texts else None
        for _ in range(ROUNDS):
            for name, value in assigned:
                known = self.paths.get(name, set())
                if len(known) < MOST_PATHS and (new := self.resolve(value, _Scope()) - known):
                    self.paths[name] = known | new

    def _called_at_import(self) -> frozenset[str]:
        """Names of functions and classes that the body of the module calls, directly or in turn."""
        bodies = {node.name: node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        called: set[str] = set()
        todo: list[ast.AST] = [node for node in self.tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
        while todo:
            node = todo.pop()
            if isinstance(node, ast.If) and _is_main(node):
                continue
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else None
                if name in bodies and name not in called:
                    called.add(name)
                    todo.append(bodies[name])
            todo.extend(ast.iter_child_nodes(node))
        return frozenset(called)

    def _inside(self, node: ast.AST, scope: _Scope) -> Iterator[tuple[ast.AST, _Scope]]:
        """Children of a node with the scope that they stand in."""
        if isinstance(node, _FUNCTIONS):
            inner = self._scope_of(node, scope)
            body = node.body if isinstance(node.body, list) else [node.body]
            inside = {id(each) for each in body}
            for child in ast.iter_child_nodes(node):
                yield child, inner if id(child) in inside else scope
        elif isinstance(node, ast.If) and _is_main(node):
            for child in ast.iter_child_nodes(node):
                yield child, scope._replace(at_import=False)
        elif isinstance(node, ast.ClassDef) and node.name in self.at_import:
            for child in ast.iter_child_nodes(node):
                yield child, scope
        else:
            for child in ast.iter_child_nodes(node):
                yield child, scope

    def _scope_of(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, scope: _Scope) -> _Scope:
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        parameters = {each.arg for each in every if each is not None}
        body = node.body if isinstance(node.body, list) else []
        stored = {
            each.id
            for statement in body
            for each in ast.walk(statement)
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
        }
        runs = scope.at_import and getattr(node, "name", "") in self.at_import
        return _Scope(runs, scope.parameters | parameters, scope.assigned | stored)

    def _visit(self, node: ast.AST, scope: _Scope) -> ast.AST | None:
        """Judge one node; returns the child that has been judged together with it."""
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node, scope)
        elif isinstance(node, ast.Call):
            self._call(node, scope)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            self._text(node.value, node, scope)
        elif isinstance(node, ast.Attribute):
            return self._attribute(node, scope)
        elif isinstance(node, ast.Name | ast.Subscript) and isinstance(node.ctx, ast.Load):
            self._value(node, scope)
        return None

    def fire(self, rule: str, what: str, node: ast.AST, scope: _Scope) -> None:
        """Something was reached; what only changes files matters during an import alone."""
        line = getattr(node, "lineno", 0)
        if rule == names.FILES:
            if scope.at_import:
                self.found.append(Found(names.SYSTEM, f"line {line}: {what} while it is imported"))
            return
        self.found.append(Found(rule, f"line {line}: {what}"))
        if scope.at_import and rule in STRONG and not isinstance(node, ast.Import | ast.ImportFrom):
            self.found.append(Found("code/runs-at-import", f"line {line}: {what}"))

    def _import(self, node: ast.Import | ast.ImportFrom, scope: _Scope) -> None:
        for name, path in _imported(node):
            watched = names.WATCHED.get(path)
            if name == "*":
                if names.WATCHED.get(path.removesuffix(".*")):
                    self.fire(names.ESCAPE, f"takes every name of {path.removesuffix('.*')}", node, scope)
            elif watched is not None and watched.allowed:
                continue
            elif rule := rule_of(path):
                self.fire(rule, f"imports {path}", node, scope)

    def _attribute(self, node: ast.Attribute, scope: _Scope) -> ast.AST | None:
        if node.attr in names.INNER:
            self.fire(names.ESCAPE, f"reaches for {node.attr}", node, scope)
        elif node.attr == "__subclasses__" and any(
            isinstance(each, ast.Attribute) and each.attr in names.BASES for each in ast.walk(node)
        ):
            self.fire(names.ESCAPE, "reaches every class", node, scope)
        paths = self.resolve(node, scope) or _chain(node)
        self._judge_paths(paths, node, scope)
        return node.value if isinstance(node.value, ast.Attribute | ast.Name) and paths else None

    def _value(self, node: ast.Name | ast.Subscript, scope: _Scope) -> None:
        """A name or a subscript that stands alone; a module that is handed over can be used in any way."""
        paths = self.resolve(node, scope)
        if isinstance(node, ast.Name) and node.id == "__builtins__":
            self.fire(names.ESCAPE, "reaches for __builtins__", node, scope)
        self._judge_paths(paths, node, scope)

    def _judge_paths(self, paths: set[str], node: ast.AST, scope: _Scope) -> None:
        for path in sorted(paths):
            rule = rule_of(path)
            if rule is not None and path not in _CALLED_ONLY:
                self.fire(rule, f"uses {path}", node, scope)

    def _text(self, text: str, node: ast.AST, scope: _Scope) -> None:
        if text in names.INNER:
            self.fire(names.ESCAPE, f"names {text}", node, scope)
        if len(text) <= LONGEST_TEXT:
            for place in names.PLACES:
                if place in text:
                    self.fire(names.SYSTEM, f"names {place}", node, scope)

    def _call(self, node: ast.Call, scope: _Scope) -> None:
        called = self.resolve(node.func, scope)
        if isinstance(node.func, ast.Attribute) and not called and node.func.attr in names.CALLS_ANYWHERE:
            self.fire(names.CALLS_ANYWHERE[node.func.attr], f"calls {node.func.attr}", node, scope)
        for keyword in node.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            if isinstance(value, bool) and (rule := names.KEYWORDS.get((keyword.arg or "", value))):
                self.fire(rule, f"calls with {keyword.arg}={value}", node, scope)
        if called & _IMPORTERS and node.args:
            self._computed_import(node, scope)
        if "builtins.getattr" in called and len(node.args) > 1:
            self._computed_attribute(node.args[0], node.args[1], node, scope)
        for path in sorted(called & _CALLED_ONLY):
            self.fire(names.ESCAPE, f"calls {path}", node, scope)
        self._handed_over(node, called, scope)
        if called & _TIMED and node.args and self.fold(node.args[0]) is not None:
            self.fire(names.DYNAMIC, "runs a text as code", node, scope)

    def _handed_over(self, node: ast.Call, called: set[str], scope: _Scope) -> None:
        """Modules as arguments, and names of harmful methods handed to ``operator``."""
        if called & _GETTERS:
            for text in (self.fold(each) or "" for each in node.args):
                if (rule := names.CALLS_ANYWHERE.get(text.rpartition(".")[2])) is not None:
                    self.fire(rule, f"makes a function that calls {text[:80]}", node, scope)
        if not (isinstance(node.func, ast.Name) and node.func.id in _LOOKING):
            for path in sorted(set().union(*(self.resolve(each, scope) for each in node.args))):
                if path in INNER_MODULES - {"sys"}:
                    self.fire(names.ESCAPE, f"hands over the module {path}", node, scope)

    def _computed_import(self, node: ast.Call, scope: _Scope) -> None:
        name = self.fold(node.args[0])
        if name is None and not _begins_with_text(node.args[0]):
            self.fire("code/dynamic-import", "imports a module whose name is made while it runs", node, scope)
        for path in self.resolve(node, scope):
            watched = names.WATCHED.get(path)
            if watched is not None:
                self.fire(watched.rule, f"imports {path} by its name", node, scope)

    def _computed_attribute(self, base: ast.expr, name: ast.expr, node: ast.Call, scope: _Scope) -> None:
        text = self.fold(name)
        tops = {path.split(".")[0] for path in self.resolve(base, scope)}
        if text is None:
            if any(top in names.WATCHED or top == "builtins" for top in tops):
                self.fire(names.DYNAMIC, "takes a part of a module by a name that is made while it runs", node, scope)
        elif text in names.INNER:
            self.fire(names.ESCAPE, f"reaches for {text}", node, scope)
        elif tops:
            self._judge_paths(self.resolve(node, scope), node, scope)
        elif text in names.CALLS_ANYWHERE:
            self.fire(names.CALLS_ANYWHERE[text], f"reaches for {text}", node, scope)

    def resolve(self, node: ast.AST, scope: _Scope, depth: int = 0) -> set[str]:  # noqa: PLR0911 -- one for each kind of node
        """Dotted names that an expression may stand for; empty when they cannot be told."""
        if depth > DEEPEST:
            return set()
        if isinstance(node, ast.Name):
            return self._resolve_name(node.id, scope)
        if isinstance(node, ast.Attribute):
            return _join(self.resolve(node.value, scope, depth + 1), node.attr)
        if isinstance(node, ast.NamedExpr | ast.Await):
            return self.resolve(node.value, scope, depth + 1)
        if isinstance(node, ast.IfExp):
            return self.resolve(node.body, scope, depth + 1) | self.resolve(node.orelse, scope, depth + 1)
        if isinstance(node, ast.BoolOp):
            return set().union(*(self.resolve(each, scope, depth + 1) for each in node.values))
        if isinstance(node, ast.Subscript):
            return self._resolve_subscript(node, scope, depth)
        if isinstance(node, ast.Call):
            return self._resolve_call(node, scope, depth)
        return set()

    def _resolve_name(self, name: str, scope: _Scope) -> set[str]:
        if name in scope.parameters:
            return set()
        if name in self.paths:
            return self.paths[name]
        if name in names.BUILTINS and name not in self.own and name not in scope.assigned:
            return {f"builtins.{name}"}
        return {"builtins"} if name == "__builtins__" else set()

    def _resolve_subscript(self, node: ast.Subscript, scope: _Scope, depth: int) -> set[str]:
        """``sys.modules["os"]``, ``globals()["os"]``, ``vars(os)["system"]``, ``os.__dict__["system"]``."""
        key = self.fold(node.slice)
        if key is None:
            return set()
        base = node.value
        if isinstance(base, ast.Call) and base.args and "builtins.vars" in self.resolve(base.func, scope, depth + 1):
            return _join(self.resolve(base.args[0], scope, depth + 1), key)
        if isinstance(base, ast.Call) and self.resolve(base.func, scope, depth + 1) & {
            "builtins.vars",
            "builtins.globals",
        }:
            return self._resolve_name(key, scope)
        held = self.resolve(base, scope, depth + 1)
        if "sys.modules" in held:
            return {key}
        return _join({path.removesuffix(".__dict__") for path in held if path.endswith(".__dict__")}, key) or (
            {f"builtins.{key}"} if "builtins" in held else set()
        )

    def _resolve_call(self, node: ast.Call, scope: _Scope, depth: int) -> set[str]:  # noqa: PLR0911 -- one for each function
        called = self.resolve(node.func, scope, depth + 1)
        if called & _IMPORTERS and node.args:
            name = self.fold(node.args[0])
            if name is None or name.startswith("."):
                return set()
            return {name.split(".")[0]} if "builtins.__import__" in called and len(node.args) == 1 else {name}
        if "builtins.getattr" in called and len(node.args) > 1 and (name := self.fold(node.args[1])):
            return _join(self.resolve(node.args[0], scope, depth + 1), name)
        if "builtins.getattr" in called and len(node.args) > 1 and self.fold(node.args[1]) is None:
            return set()
        if isinstance(node.func, ast.Attribute) and node.func.attr in {"get", "__getattribute__"} and node.args:
            key = self.fold(node.args[0])
            held = self.resolve(node.func.value, scope, depth + 1)
            if key and node.func.attr == "get":
                return {key} if "sys.modules" in held else set()
            return _join(held, key) if key else set()
        return set()

    def fold(self, node: ast.AST, depth: int = 0) -> str | None:
        """The text that an expression is made of constants to be; None when it cannot be told."""
        if depth > ROUNDS * ROUNDS:
            return None
        if isinstance(node, ast.Constant):
            return node.value[:LONGEST_TEXT] if isinstance(node.value, str) else None
        if isinstance(node, ast.Name):
            return self.texts.get(node.id)
        parts: list[ast.expr] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            parts = [node.left, node.right]
        elif isinstance(node, ast.JoinedStr):
            parts = [each.value if isinstance(each, ast.FormattedValue) else each for each in node.values]
        elif isinstance(node, ast.Call) and _is_join(node):
            parts = [each for each in getattr(node.args[0], "elts", ()) if isinstance(each, ast.expr)]
        elif isinstance(node, ast.Subscript) and _is_reversal(node.slice):
            text = self.fold(node.value, depth + 1)
            return text[::-1] if text is not None else None
        texts = [self.fold(each, depth + 1) for each in parts]
        return "".join(each for each in texts if each is not None) if texts and None not in texts else None


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """Names that an import binds, and what they stand for; nothing for modules of the same package."""
    if isinstance(node, ast.Import):
        for each in node.names:
            yield (each.asname, each.name) if each.asname else (each.name.split(".")[0], each.name.split(".")[0])
            if not each.asname and "." in each.name:
                yield f"{each.name} ", each.name
    elif not node.level and node.module:
        for each in node.names:
            yield each.asname or each.name, f"{node.module}.{each.name}"


def _assigned(node: ast.AST) -> list[tuple[str, ast.expr]]:
    """Names and the expressions that an assignment gives them."""
    if isinstance(node, ast.Assign):
        pairs = [pair for target in node.targets for pair in _pairs(target, node.value)]
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        pairs = _pairs(node.target, node.value)
    else:
        return []
    return [(target.id, value) for target, value in pairs if isinstance(target, ast.Name)]


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    if isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
        return list(zip(target.elts, value.elts, strict=False))
    return [(target, value)]


def rule_of(path: str) -> str | None:
    """The rule that a dotted name breaks; None when it breaks none."""
    parts = [part.strip() for part in path.split(".")]
    for start in range(len(parts) - 1, 0, -1):
        if parts[start].removeprefix("_") in INNER_MODULES:
            inner = rule_of(".".join([parts[start].removeprefix("_"), *parts[start + 1 :]]))
            if inner is not None and ".".join(parts[: start + 1]) not in names.WATCHED:
                return inner
    for end in range(len(parts), 0, -1):
        watched = names.WATCHED.get(".".join(parts[:end]))
        if watched is not None:
            rest = parts[end:]
            if rest:
                return None if rest[0] in watched.allowed else watched.rule
            return watched.rule if not watched.allowed else None
    return None


def _join(paths: set[str], name: str) -> set[str]:
    return {f"{path}.{name}" for path in paths if len(path) < LONGEST_TEXT}


def _chain(node: ast.Attribute) -> set[str]:
    """The dotted name of a chain of attributes on something unknown, when a known module stands inside it."""
    parts: list[str] = []
    at: ast.AST = node
    while isinstance(at, ast.Attribute) and len(parts) < DEEPEST:
        parts.append(at.attr)
        at = at.value
    chain = ["?", *reversed(parts)]
    for start in range(1, len(chain) - 1):
        if chain[start].removeprefix("_") in INNER_MODULES:
            return {".".join([chain[start].removeprefix("_"), *chain[start + 1 :]])}
    return set()


def _begins_with_text(node: ast.AST) -> bool:
    """Whether a computed name begins with the name of a package or with a dot."""
    if isinstance(node, ast.JoinedStr) and node.values:
        first = node.values[0]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        first = node.left
    else:
        return False
    return isinstance(first, ast.Constant) and isinstance(first.value, str) and "." in first.value


def _is_main(node: ast.If) -> bool:
    """``if __name__ == "__main__":`` -- not run by an import."""
    test = node.test
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.left, ast.Name)
        and test.left.id == "__name__"
        and isinstance(test.ops[0], ast.Eq)
        and isinstance(test.comparators[0], ast.Constant)
        and test.comparators[0].value == "__main__"
    )


def _is_join(node: ast.Call) -> bool:
    function = node.func
    is_empty = isinstance(function, ast.Attribute) and isinstance(function.value, ast.Constant)
    return is_empty and function.attr == "join" and function.value.value == "" and len(node.args) == 1  # type: ignore[attr-defined]  # an Attribute of a Constant


def _is_reversal(node: ast.AST) -> bool:
    step = node.step if isinstance(node, ast.Slice) else None
    return isinstance(step, ast.UnaryOp) and isinstance(step.op, ast.USub) and isinstance(step.operand, ast.Constant)


__all__ = ["LONGEST", "Found", "is_program", "judge_code", "parse", "rule_of"]
