"""Names that rules may use, and what stands behind each."""

from __future__ import annotations

from collections.abc import Callable
from math import nan
from typing import Any

import numpy as np

from bartizan.lifecycle.deploy.gateway.guard import Material
from bartizan.lifecycle.deploy.gateway.guards.rules.facts import NO, YES, Facts
from bartizan.lifecycle.deploy.gateway.guards.rules.terms import Kind, Term

ANSWER = frozenset({"label", "confidence", "margin", "tree.agrees"})
"""Names that there are only once the model has answered; so are ``score.CLASS``, ``opinion.*`` and measures."""
OPINION = ("belief", "disbelief", "uncertainty", "probability", "conflict")
OWNERS = frozenset({"score", "tree", "opinion", "caller", "time", "batch"})
"""Words before a dot that are ours; any other one is the name of a guard that measures something."""

Lookup = Callable[[str], Term | None]


def vocabulary(material: Material, *, tree: bool, opinion: bool) -> tuple[Lookup, dict[str, Term]]:
    """What gives the term of a name (None: there is none), and all fixed names for hints."""
    fixed: dict[str, Term] = {**_request(), **_answer(material.classes)}
    for place, column in enumerate(material.columns):
        term = _column(place)
        fixed[f"{{{column.name}}}"] = term
        if column.name.isidentifier():
            fixed.setdefault(column.name, term)
    if tree:
        fixed |= _tree(material.classes)
    if opinion:
        fixed |= {f"opinion.{name}": _both(Kind.NUMBER, _opinion(name)) for name in OPINION}

    def lookup(name: str) -> Term | None:
        owner, dot, rest = name.partition(".")
        if name in fixed or not dot or name.startswith("{"):
            return fixed.get(name)
        if owner == "caller":
            return _both(Kind.TEXT, lambda facts: facts.asked.caller.attributes.get(rest, ""))
        return None if owner in OWNERS else _measure(name)

    return lookup, fixed


def needs_answer(names: frozenset[str]) -> bool:
    """Whether something among the names is known only when the model has answered."""
    return any(name in ANSWER or name.partition(".")[0] in {"score", "opinion"} or is_measure(name) for name in names)


def is_of_answer(name: str) -> bool:
    """Whether a name stands for something that the model's answer says, and nothing else does."""
    return name in {"label", "confidence", "margin"} or name.startswith("score.")


def is_measure(name: str) -> bool:
    """Whether a name is a measure of another guard."""
    owner, dot, _ = name.partition(".")
    return bool(dot) and not name.startswith("{") and owner not in OWNERS


def _both(kind: Kind, work: Callable[[Facts], Any], classes: tuple[str, ...] = ()) -> Term:
    """What is the same for every row of a request."""
    return Term(kind, work, work, classes)


def _request() -> dict[str, Term]:
    return {
        "caller.id": _both(Kind.TEXT, lambda facts: facts.asked.caller.id),
        "caller.role": _both(Kind.TEXT, lambda facts: facts.asked.caller.role),
        "caller.method": _both(Kind.TEXT, lambda facts: facts.asked.caller.method),
        "caller.groups": _both(Kind.TEXTS, lambda facts: facts.asked.caller.groups),
        "caller.factors": _both(Kind.TEXTS, lambda facts: facts.asked.caller.factors),
        "verified": _both(Kind.TEXT, lambda facts: facts.asked.verified),
        "model": _both(Kind.TEXT, lambda facts: facts.asked.model),
        "time.hour": _both(Kind.NUMBER, Facts.hour),
        "time.weekday": _both(Kind.NUMBER, Facts.weekday),
        "batch.rows": _both(Kind.NUMBER, lambda facts: float(len(facts.rows))),
    }


def _answer(classes: tuple[str, ...]) -> dict[str, Term]:
    label = Term(Kind.CLASS, lambda facts: facts.labels.item(facts.index), lambda facts: facts.labels, classes)
    return {
        "label": label,
        "confidence": Term(Kind.NUMBER, Facts.confidence, Facts.confidences),
        "margin": Term(Kind.NUMBER, Facts.margin, Facts.margins),
        **{f"score.{name}": _score(place) for place, name in enumerate(classes)},
    }


def _score(place: int) -> Term:
    def one(facts: Facts) -> float:
        return nan if facts.scores is None else facts.scores.item(facts.index, place)

    def each(facts: Facts) -> Any:
        return np.full(len(facts.rows), nan) if facts.scores is None else facts.scores[:, place]

    return Term(Kind.NUMBER, one, each)


def _column(place: int) -> Term:
    return Term(Kind.NUMBER, lambda facts: facts.rows.item(facts.index, place), lambda facts: facts.rows[:, place])


def _tree(classes: tuple[str, ...]) -> dict[str, Term]:
    def one(facts: Facts) -> int:
        return YES if facts.tree == facts.labels.item(facts.index) else NO

    def each(facts: Facts) -> Any:
        return np.multiply(facts.tree == facts.labels, YES, dtype=np.int8)

    return {
        "tree.label": _both(Kind.CLASS, lambda facts: facts.tree, classes),
        "tree.agrees": Term(Kind.TRUTH, one, each),
    }


def _opinion(name: str) -> Callable[[Facts], Any]:
    if name == "conflict":
        return lambda facts: facts.conflict
    return lambda facts: getattr(facts.opinion, name)


def _measure(name: str) -> Term:
    return _both(Kind.NUMBER, lambda facts: facts.asked.measures.get(name, nan))


__all__ = ["Lookup", "is_measure", "is_of_answer", "needs_answer", "vocabulary"]
