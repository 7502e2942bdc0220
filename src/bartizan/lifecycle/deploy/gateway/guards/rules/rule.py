"""One if-then sentence: read from the configuration, and told to the audit record when it was met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.guard import Action
from bartizan.lifecycle.deploy.gateway.guards.rules.expression import Names, Test, read_test
from bartizan.lifecycle.deploy.gateway.guards.rules.facts import UNKNOWN, YES
from bartizan.lifecycle.deploy.gateway.guards.rules.settings import RuleSettings, RulesSettings
from bartizan.lifecycle.deploy.gateway.guards.rules.vocabulary import Lookup, needs_answer

MOST_NAMED = 5
"""Rows that a reason names."""
ACTIONS = {
    "flag": Action.FLAG,
    "coarsen": Action.COARSEN,
    "hold": Action.HOLD,
    "refuse": Action.REFUSE,
    "answer": Action.ALLOW,
}


class Rule(NamedTuple):
    """A rule that was read."""

    name: str
    test: Test
    action: Action
    least: int
    """Truth value from which on it counts as met."""
    answer: int
    """Class that is answered instead; -1: the model's."""
    shadow: bool
    late: bool
    """Whether it can be told only when the model has answered."""
    covers: bool
    """Whether an answer that meets it needs no other protection."""


class Met(NamedTuple):
    """A rule with the rows that met it."""

    rule: Rule
    rows: tuple[int, ...]
    unknown: bool


def rules_of(settings: RulesSettings, classes: Sequence[str]) -> list[RuleSettings]:
    """All rules, with the one that the tree stands for. Raises InputError when two share a name."""
    rules = list(settings.rule)
    if settings.tree is not None and settings.tree.disagrees != "nothing":
        rules.append(RuleSettings(name="tree", when="not tree.agrees", then=settings.tree.disagrees))
    names = [rule.name for rule in rules]
    for rule in rules:
        if names.count(rule.name) > 1:
            raise InputError(f"two rules are called {rule.name!r}", remedy="give each rule its own name.")
        if (rule.then == "answer") != bool(rule.answer) or (rule.answer and rule.answer not in classes):
            allowed = ", ".join(classes[:20])
            problem = 'answer names a class, and stands beside then = "answer" only'
            raise InputError(f"rule {rule.name!r}: {problem}", remedy=f"classes are {allowed}.")
    return rules


def read_rule(settings: RuleSettings, lookup: Lookup, known: Names, classes: Sequence[str]) -> Rule:
    """Read one rule. Raises InputError when its condition is none."""
    test = read_test(settings.when, lookup, f"rule {settings.name!r}", known)
    overrules = settings.then == "answer"
    return Rule(
        name=settings.name,
        test=test,
        action=ACTIONS[settings.then],
        least=YES if overrules else UNKNOWN,
        answer=classes.index(settings.answer) if overrules else -1,
        shadow=settings.shadow,
        late=overrules or needs_answer(test.names),
        covers=settings.then != "flag" and not settings.shadow,
    )


def told(met: Met) -> str:
    """One rule for the audit record."""
    rows = ", ".join(map(str, met.rows[:MOST_NAMED])) + (" ..." if len(met.rows) > MOST_NAMED else "")
    where = f" (rows {rows})" if met.rows != (0,) else ""
    return f"{'shadow: ' if met.rule.shadow else ''}{met.rule.name}{where}{', not known' if met.unknown else ''}"


__all__ = ["ACTIONS", "Met", "Rule", "read_rule", "rules_of", "told"]
