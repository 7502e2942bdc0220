"""Columns that follow from others: a ratio, a sum, an index. Whoever changes the others changes these as well.

They are written as sums, differences, products and quotients of columns and numbers, in TOML as
``dependent = { bmi = "weight / (height * height)" }``; a name with blanks or other signs stands in braces:
``"{total cost} - discount"``. An expression is read as such and never executed as code.
"""

from __future__ import annotations

import ast
import itertools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError
from bartizan.targets.protocol import Rows

MAX_LENGTH = 500
"""Characters of one expression."""
MAX_DEPTH = 40
"""Operations inside one another."""
MAX_NUMBER = 1e100
OPERATIONS: dict[type[ast.operator], Callable[[Rows, Rows], Rows]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_BRACES = re.compile(r"\{([^{}]*)\}")

Formula = Callable[[Rows], NDArray[np.float64]]
"""Rows ``(batch, features)`` to the values of one column ``(batch,)``; infinite or NaN where there are none."""


@dataclass(frozen=True, slots=True, eq=False)
class Dependent:
    """One column that follows from others."""

    column: int
    text: str
    """As declared."""
    formula: Formula

    def follow(self, rows: Rows, origin: Rows) -> NDArray[np.float64]:
        """Values ``(batch,)`` for changed rows: those of the origin, moved as the formula moves.

        Nature's own row may lie beside the formula, by rounding or measurement; that difference stays.
        """
        with np.errstate(all="ignore"):
            return np.asarray(origin[:, self.column] + (self.formula(rows) - self.formula(origin)))


def read_dependents(declared: Mapping[str, str], columns: Sequence[str]) -> tuple[Dependent, ...]:
    """Declared expressions, each after those that it needs.

    Raises:
        ArtefactError: an expression is none, names no column, or two wait for each other.
    """
    places = {name: place for place, name in enumerate(columns)}
    needs: dict[str, set[str]] = {}
    formulas: dict[str, Formula] = {}
    for name, text in declared.items():
        if name not in places:
            raise _fault(name, "there is no such column")
        formulas[name], needs[name] = _read(name, text, places)
    order: list[str] = []
    while len(order) < len(declared):
        ready = [name for name in declared if name not in order and needs[name] & declared.keys() <= set(order)]
        if not ready:
            stuck = next(name for name in declared if name not in order)
            raise _fault(stuck, "it waits for itself")
        order += ready
    return tuple(Dependent(places[name], declared[name], formulas[name]) for name in order)


def _read(name: str, text: str, places: Mapping[str, int]) -> tuple[Formula, set[str]]:
    """The formula, and the columns that it needs."""
    try:
        tree, braced = parsed(text)
    except ValueError as error:
        raise _fault(name, str(error)) from error
    reader = _Reader(name, places, braced)
    return reader.built(tree), reader.needed


def parsed(text: str) -> tuple[ast.expr, dict[str, str]]:
    """The tree of an expression, and what stood in braces by the name that stands for it in the tree.

    Raises:
        ValueError: it is too long, or no expression; says which.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"an expression of {len(text)} characters; {MAX_LENGTH} are allowed")
    braced = [found.strip() for found in _BRACES.findall(text)]
    counted = itertools.count()
    try:
        tree = ast.parse(_BRACES.sub(lambda _: f" _{next(counted)}_ ", text).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} is no expression") from error
    return tree, {f"_{place}_": column for place, column in enumerate(braced)}


class _Reader:
    """Turns the nodes of one expression into a formula."""

    def __init__(self, name: str, places: Mapping[str, int], braced: Mapping[str, str]) -> None:
        self.needed: set[str] = set()
        self._name, self._places, self._braced = name, places, braced

    def built(self, node: ast.expr, depth: int = 0) -> Formula:
        """The formula of a node."""
        if depth > MAX_DEPTH:
            raise _fault(self._name, "too many operations inside one another")
        if isinstance(node, ast.Name):
            return self._column(self._braced.get(node.id, node.id))
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            return self._number(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            only = self.built(node.operand, depth + 1)
            return lambda rows: -only(rows)
        if isinstance(node, ast.BinOp) and (work := OPERATIONS.get(type(node.op))):
            first, second = self.built(node.left, depth + 1), self.built(node.right, depth + 1)
            return lambda rows: work(first(rows), second(rows))
        raise _fault(self._name, f"{ast.unparse(node)[:50]!r} is neither a column, a number, nor one of + - * /")

    def _number(self, number: float) -> Formula:
        if not abs(number) < MAX_NUMBER:
            raise _fault(self._name, "a number too large to count with")
        value = float(number)
        return lambda rows: np.full(len(rows), value)

    def _column(self, column: str) -> Formula:
        if column not in self._places:
            raise _fault(self._name, f"there is no column {column!r}")
        self.needed.add(column)
        place = self._places[column]
        return lambda rows: np.asarray(rows[:, place], np.float64)


def _fault(name: str, fault: str) -> ArtefactError:
    return ArtefactError(
        f"dependent column {name!r}: {fault}", remedy='write it like bmi = "weight / (height * height)".'
    )
