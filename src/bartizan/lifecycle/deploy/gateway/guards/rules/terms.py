"""Terms of expressions: closures over one row with plain numbers, and over a batch with arrays, side by side."""

from __future__ import annotations

import ast
import enum
import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np

from bartizan.lifecycle.deploy.gateway.guards.rules.facts import NO, UNKNOWN, YES

Work = Callable[[Any], Any]


class Kind(enum.Enum):
    """What a term gives."""

    NUMBER = "number"
    """NaN where it is not known."""
    CLASS = "class"
    """Index of a class."""
    TEXT = "text"
    TEXTS = "list of texts"
    TRUTH = "condition"


@dataclass(frozen=True, slots=True)
class Term:
    """One part of an expression. Both closures take ``Facts``."""

    kind: Kind
    one: Work
    each: Work
    classes: tuple[str, ...] = ()
    """Of a class: all that there are."""


def constant(kind: Kind, value: Any) -> Term:
    """What is always the same."""
    return Term(kind, lambda _: value, lambda _: value)


def _comparison(work: Callable[[Any, Any], Any]) -> Callable[[Term, Term], Term]:
    def compared(first: Term, second: Term) -> Term:
        left, right, lefts, rights = first.one, second.one, first.each, second.each

        def one(facts: Any) -> int:
            x, y = left(facts), right(facts)
            if work(x, y):
                return YES
            return NO if x == x and y == y else UNKNOWN  # noqa: PLR0124 - only NaN differs from itself

        def each(facts: Any) -> Any:
            x, y = lefts(facts), rights(facts)
            lost = (x != x) | (y != y)  # noqa: PLR0124 - NaN; with it nothing is met
            return np.multiply(work(x, y), YES, dtype=np.int8) + np.multiply(lost, UNKNOWN, dtype=np.int8)

        return Term(Kind.TRUTH, one, each)

    return compared


def _unequal(first: Term, second: Term) -> Term:
    return negated(COMPARISONS[ast.Eq](first, second))


COMPARISONS: dict[type[ast.cmpop], Callable[[Term, Term], Term]] = {
    ast.Lt: _comparison(operator.lt),
    ast.LtE: _comparison(operator.le),
    ast.Gt: _comparison(operator.gt),
    ast.GtE: _comparison(operator.ge),
    ast.Eq: _comparison(operator.eq),
    ast.NotEq: _unequal,
}


def same(first: Term, second: Term) -> Term:
    """Whether two classes or two texts are the same."""
    left, right, lefts, rights = first.one, second.one, first.each, second.each
    return Term(
        Kind.TRUTH,
        lambda facts: YES if left(facts) == right(facts) else NO,
        lambda facts: np.multiply(lefts(facts) == rights(facts), YES, dtype=np.int8),
    )


def one_of(term: Term, choices: Sequence[Any]) -> Term:
    """Whether a class, text or number is among some; a number that is not known may be."""
    one, each, known = term.one, term.each, frozenset(choices)

    def single(facts: Any) -> int:
        value = one(facts)
        return YES if value in known else NO if value == value else UNKNOWN  # noqa: PLR0124 - NaN

    def batch(facts: Any) -> Any:
        values = each(facts)
        if isinstance(values, str):
            return YES if values in known else NO
        found = np.multiply(np.isin(values, list(known)), YES, dtype=np.int8)
        return np.where(np.isnan(values), np.int8(UNKNOWN), found) if term.kind is Kind.NUMBER else found

    return Term(Kind.TRUTH, single, batch)


def negated(term: Term) -> Term:
    """Not; the unknown stays unknown."""
    one, each = term.one, term.each
    return Term(Kind.TRUTH, lambda facts: YES - one(facts), lambda facts: YES - each(facts))


def both(first: Term, second: Term) -> Term:
    """And: the least of two truths."""
    left, right, lefts, rights = first.one, second.one, first.each, second.each

    def one(facts: Any) -> int:
        x: int = left(facts)
        return x and min(x, right(facts))

    return Term(Kind.TRUTH, one, lambda facts: np.minimum(lefts(facts), rights(facts)))


def either(first: Term, second: Term) -> Term:
    """Or: the greatest of two truths."""
    left, right, lefts, rights = first.one, second.one, first.each, second.each

    def one(facts: Any) -> int:
        x: int = left(facts)
        return x if x == YES else max(x, right(facts))

    return Term(Kind.TRUTH, one, lambda facts: np.maximum(lefts(facts), rights(facts)))


def opposite(term: Term) -> Term:
    """The negative number."""
    one, each = term.one, term.each
    return Term(Kind.NUMBER, lambda facts: -one(facts), lambda facts: -each(facts))


def _arithmetic(work: Callable[[Any, Any], Any]) -> Callable[[Term, Term], Term]:
    def joined(first: Term, second: Term) -> Term:
        left, right, lefts, rights = first.one, second.one, first.each, second.each
        return Term(
            Kind.NUMBER,
            lambda facts: work(left(facts), right(facts)),
            lambda facts: work(lefts(facts), rights(facts)),
        )

    return joined


def _quotient(above: Any, below: Any) -> Any:
    """A quotient by zero is no number, for one row as for many."""
    if isinstance(below, np.ndarray) or isinstance(above, np.ndarray):
        return np.where(np.equal(below, 0), nan, np.divide(above, np.where(np.equal(below, 0), 1.0, below)))
    return above / below if below else nan


ARITHMETIC: dict[type[ast.operator], Callable[[Term, Term], Term]] = {
    ast.Add: _arithmetic(operator.add),
    ast.Sub: _arithmetic(operator.sub),
    ast.Mult: _arithmetic(operator.mul),
    ast.Div: _arithmetic(_quotient),
}


def _least(one: Callable[..., Any], each: Callable[..., Any]) -> Callable[[Sequence[Term]], Term]:
    """``min`` or ``max``; of what is not known it is not known either."""

    def called(terms: Sequence[Term]) -> Term:
        def single(facts: Any) -> float:
            values = [term.one(facts) for term in terms]
            total = sum(values)
            return one(values) if total == total else nan  # noqa: PLR0124 - NaN

        return Term(Kind.NUMBER, single, lambda facts: functools.reduce(each, [term.each(facts) for term in terms]))

    return called


def _absolute(terms: Sequence[Term]) -> Term:
    (term,) = terms
    return Term(Kind.NUMBER, lambda facts: abs(term.one(facts)), lambda facts: np.abs(term.each(facts)))


FUNCTIONS: dict[str, tuple[int, int, Callable[[Sequence[Term]], Term]]] = {
    "abs": (1, 1, _absolute),
    "min": (2, 10, _least(min, np.minimum)),
    "max": (2, 10, _least(max, np.maximum)),
}
"""Name to least and greatest number of arguments, and what it does."""


__all__ = [
    "ARITHMETIC",
    "COMPARISONS",
    "FUNCTIONS",
    "Kind",
    "Term",
    "both",
    "constant",
    "either",
    "negated",
    "one_of",
    "opposite",
    "same",
]
