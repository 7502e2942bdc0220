"""The language of rules: comparisons of features, answers, scores, measures, callers and time.

::

    {mean radius} == 0 and label == "malignant"
    confidence < 0.7 and caller.role != "radiologist"
    outliers.distance > 3 or not tree.agrees
    label in ("burn", "wound") and 22 <= time.hour

An expression is read as such, never executed as code, and turned once into closures: one that looks at a single row
with plain numbers, and one that looks at a whole batch with arrays. Both are bounded by the length of the text.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.guards.rules.facts import NO, YES, Facts, Truth
from bartizan.lifecycle.deploy.gateway.guards.rules.terms import (
    ARITHMETIC,
    COMPARISONS,
    FUNCTIONS,
    Kind,
    Term,
    both,
    constant,
    either,
    negated,
    one_of,
    opposite,
    same,
)
from bartizan.targets.dependent import MAX_DEPTH, parsed

MAX_OPERATIONS = 100
"""Of one expression."""
MAX_CHOICES = 100
"""Words in one list."""
ALLOWED = (
    "columns, label, confidence, margin, score.CLASS, tree.agrees, tree.label, opinion.uncertainty, GUARD.MEASURE, "
    "caller.role, time.hour, time.weekday, batch.rows, numbers, texts, + - * /, comparisons, in, and, or, not, "
    "abs, min, max"
)

Names = Mapping[str, Term]
"""What an expression may name; columns by ``{name}``."""


@dataclass(frozen=True, slots=True)
class Test:
    """An expression that is met or not."""

    __test__ = False
    text: str
    one: Callable[[Facts], int]
    """Of the row ``facts.index``."""
    each: Callable[[Facts], Truth]
    """Of each row ``(batch,)``, or one value where nothing in it differs by row."""
    names: frozenset[str]
    """Everything that it looks at."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A number that an expression gives."""

    text: str
    one: Callable[[Facts], float]
    each: Callable[[Facts], Any]
    names: frozenset[str]


def read_test(text: str, lookup: Callable[[str], Term | None], where: str, known: Names) -> Test:
    """Read a condition.

    Raises:
        InputError: it is none; says what of ``where`` is wrong, on which line of it, and what may stand there.
    """
    reader, term = _read(text, lookup, where, known)
    if term.kind is not Kind.TRUTH:
        raise reader.fault(None, f"a rule is met or not, and {text[:60]!r} is a {term.kind.value}")
    return Test(text, term.one, term.each, frozenset(reader.used))


def read_number(text: str, lookup: Callable[[str], Term | None], where: str, known: Names) -> Reading:
    """Read an expression that gives a number. Raises InputError as ``read_test`` does."""
    reader, term = _read(text, lookup, where, known)
    if term.kind is not Kind.NUMBER:
        raise reader.fault(None, f"a number is wanted, and {text[:60]!r} is a {term.kind.value}")
    return Reading(text, term.one, term.each, frozenset(reader.used))


def _read(text: str, lookup: Callable[[str], Term | None], where: str, known: Names) -> tuple[_Reader, Term]:
    try:
        tree, braced = parsed(text)
    except ValueError as error:
        raise InputError(f"{where}: {error}", remedy=f"allowed are {ALLOWED}.") from error
    reader = _Reader(lookup, where, known, braced)
    return reader, reader.term(tree)


class _Reader:
    """Turns the nodes of one expression into terms."""

    def __init__(
        self, lookup: Callable[[str], Term | None], where: str, known: Names, braced: Mapping[str, str]
    ) -> None:
        self.used: set[str] = set()
        self._lookup, self._where, self._known, self._braced = lookup, where, known, braced
        self._operations = 0

    def fault(self, node: ast.AST | None, problem: str) -> InputError:
        line = getattr(node, "lineno", 1)
        place = f"{self._where}, line {line}" if line > 1 else self._where
        return InputError(f"{place}: {problem}", remedy=f"allowed are {ALLOWED}.")

    def term(self, node: ast.expr, depth: int = 0) -> Term:  # noqa: PLR0911 - one for each kind of node
        """The term of a node."""
        self._operations += 1
        if depth > MAX_DEPTH or self._operations > MAX_OPERATIONS:
            raise self.fault(node, f"more than {MAX_OPERATIONS} operations, or {MAX_DEPTH} inside one another")
        match node:
            case ast.Name() | ast.Attribute() | ast.Subscript():
                return self._named(node)
            case ast.Constant():
                return self._constant(node)
            case ast.BoolOp():
                return self._joined(node, depth)
            case ast.Compare():
                return self._compared(node, depth)
            case ast.UnaryOp(op=ast.Not()):
                return negated(self._of(node.operand, Kind.TRUTH, depth))
            case ast.UnaryOp(op=ast.USub()):
                return opposite(self._of(node.operand, Kind.NUMBER, depth))
            case ast.BinOp() if type(node.op) in ARITHMETIC:
                first, second = (self._of(side, Kind.NUMBER, depth) for side in (node.left, node.right))
                return ARITHMETIC[type(node.op)](first, second)
            case ast.Call(func=ast.Name(id=name), keywords=[]) if name in FUNCTIONS:
                return self._called(node, name, depth)
        raise self.fault(node, f"{ast.unparse(node)[:60]!r} cannot stand in a rule")

    def _of(self, node: ast.expr, kind: Kind, depth: int) -> Term:
        term = self.term(node, depth + 1)
        if term.kind is not kind:
            raise self.fault(node, f"{ast.unparse(node)[:60]!r} is a {term.kind.value} where a {kind.value} is wanted")
        return term

    def _named(self, node: ast.expr) -> Term:
        name = self._spelled(node)
        if (term := self._lookup(name)) is None:
            near = difflib.get_close_matches(name.strip("{}"), {each.strip("{}") for each in self._known}, 3)
            hint = f"; near it: {', '.join(near)}" if near else ""
            raise self.fault(node, f"there is no {name[:60]!r}{hint}")
        self.used.add(name)
        return term

    def _spelled(self, node: ast.expr) -> str:
        match node:
            case ast.Name(id=name) if name in self._braced:
                return f"{{{self._braced[name]}}}"
            case ast.Name(id=name):
                return name
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner not in self._braced:
                return f"{owner}.{name}"
            case ast.Subscript(value=ast.Name(id=owner), slice=ast.Constant(value=str(name))):
                return f"{owner}.{name}"
        raise self.fault(node, f"{ast.unparse(node)[:60]!r} is no name")

    def _constant(self, node: ast.Constant) -> Term:
        value = node.value
        if isinstance(value, bool):
            return constant(Kind.TRUTH, YES if value else NO)
        if isinstance(value, int | float) and abs(value) <= np.finfo(np.float64).max:
            return constant(Kind.NUMBER, float(value))
        if isinstance(value, str):
            return constant(Kind.TEXT, value)
        raise self.fault(node, f"{ast.unparse(node)[:60]!r} is neither a number nor a text")

    def _joined(self, node: ast.BoolOp, depth: int) -> Term:
        join = both if isinstance(node.op, ast.And) else either
        first, *rest = (self._of(each, Kind.TRUTH, depth) for each in node.values)
        for term in rest:
            first = join(first, term)
        return first

    def _compared(self, node: ast.Compare, depth: int) -> Term:
        """``a < b <= c`` is ``a < b and b <= c``."""
        whole: Term | None = None
        left = node.left
        for operation, right in zip(node.ops, node.comparators, strict=True):
            step = self._step(left, operation, right, depth)
            whole, left = step if whole is None else both(whole, step), right
        assert whole is not None  # noqa: S101 - a comparison has at least one operator
        return whole

    def _step(self, left: ast.expr, operation: ast.cmpop, right: ast.expr, depth: int) -> Term:
        if isinstance(operation, ast.In | ast.NotIn):
            found = self._among(left, right, depth)
            return found if isinstance(operation, ast.In) else negated(found)
        if type(operation) not in COMPARISONS:
            raise self.fault(left, "a comparison is one of == != < <= > >= in")
        first, second = self.term(left, depth + 1), self.term(right, depth + 1)
        if first.kind is second.kind is Kind.NUMBER:
            return COMPARISONS[type(operation)](first, second)
        if isinstance(operation, ast.Eq | ast.NotEq):
            equal = self._same(first, second, left, right)
            return equal if isinstance(operation, ast.Eq) else negated(equal)
        raise self.fault(left, "only numbers are less or greater than one another")

    def _same(self, first: Term, second: Term, left: ast.expr, right: ast.expr) -> Term:
        if first.kind is Kind.CLASS and second.kind is Kind.TEXT:
            return same(first, self._class(first, right))
        if second.kind is Kind.CLASS and first.kind is Kind.TEXT:
            return same(second, self._class(second, left))
        if first.kind is second.kind and first.kind in {Kind.TEXT, Kind.CLASS}:
            return same(first, second)
        raise self.fault(left, f"a {first.kind.value} cannot be compared with a {second.kind.value}")

    def _class(self, label: Term, node: ast.expr) -> Term:
        """The index of a class that is written as text."""
        word = node.value if isinstance(node, ast.Constant) else None
        if not isinstance(word, str) or word not in label.classes:
            raise self.fault(node, f"{ast.unparse(node)[:60]} is no class; classes are {', '.join(label.classes[:20])}")
        return constant(Kind.CLASS, label.classes.index(word))

    def _among(self, left: ast.expr, right: ast.expr, depth: int) -> Term:
        if isinstance(right, ast.Tuple | ast.List | ast.Set) and 0 < len(right.elts) <= MAX_CHOICES:
            term = self.term(left, depth + 1)
            if term.kind is Kind.CLASS:
                return one_of(term, tuple(self._class(term, each).one(None) for each in right.elts))
            words = [each.value for each in right.elts if isinstance(each, ast.Constant)]
            kind = str if term.kind is Kind.TEXT else int | float if term.kind is Kind.NUMBER else ()
            if len(words) == len(right.elts) and all(isinstance(word, kind) for word in words):
                return one_of(term, tuple(words))
        elif not isinstance(right, ast.Tuple | ast.List | ast.Set):
            term, group = self._of(left, Kind.TEXT, depth), self._of(right, Kind.TEXTS, depth)
            return Term(Kind.TRUTH, *(lambda facts: YES if term.one(facts) in group.one(facts) else NO,) * 2)
        raise self.fault(right, f"{ast.unparse(right)[:60]!r} is no list of what may stand on the left")

    def _called(self, node: ast.Call, name: str, depth: int) -> Term:
        least, most, work = FUNCTIONS[name]
        if not least <= len(node.args) <= most:
            raise self.fault(node, f"{name} takes {least} to {most} numbers")
        return work([self._of(each, Kind.NUMBER, depth) for each in node.args])


__all__ = ["ALLOWED", "Names", "Reading", "Test", "read_number", "read_test"]
