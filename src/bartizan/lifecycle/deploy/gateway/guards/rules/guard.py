"""The guard "rules": what is known without the model overrules, holds or stops what the model says.

Rules are if-then sentences over features, answer, scores, what other guards measured, caller and time. A decision tree
outside the model answers beside it. Several uncertain signals become one opinion. And an answer that nothing can mean,
such as scores that are no probabilities, is caught whatever the rules say (CWE-754).

A protection that cannot tell, because a number that it rests on is not there, takes its rule for met; a rule that
overrules the model does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked, Material, Numbers, Verdict
from bartizan.lifecycle.deploy.gateway.guards.rules.bound import Bound
from bartizan.lifecycle.deploy.gateway.guards.rules.facts import UNKNOWN, Facts
from bartizan.lifecycle.deploy.gateway.guards.rules.fusion import Fusion
from bartizan.lifecycle.deploy.gateway.guards.rules.report import CHECK, read_report
from bartizan.lifecycle.deploy.gateway.guards.rules.rule import ACTIONS, Met, Rule, read_rule, rules_of, told
from bartizan.lifecycle.deploy.gateway.guards.rules.settings import RulesSettings, TreeSettings
from bartizan.lifecycle.deploy.gateway.guards.rules.soundness import impossible, impossible_rows, possible
from bartizan.lifecycle.deploy.gateway.guards.rules.tree import Tree
from bartizan.lifecycle.deploy.gateway.guards.rules.vocabulary import is_measure, is_of_answer, vocabulary

AFTER_ALL = 1e6
"""Cost of a guard that rests on what others measure: the dearest comes last."""


class RulesGuard:
    """See ``gateway.guard.Guard`` and ``GuardMaker``."""

    Settings: ClassVar[type[RulesSettings]] = RulesSettings
    name = "rules"
    wants_scores = True
    """Whether they are looked at even where nobody is shown them."""

    def __init__(self, settings: RulesSettings, material: Material) -> None:
        """Make it.

        Raises:
            InputError: a rule, source or tree cannot be read.
            ArtefactError: the model is too uncertain to be served without a rule, or that was not measured.
        """
        self._settings, self._classes = settings, material.classes
        self._tree = _tree(settings.tree, material)
        lookup, known = vocabulary(material, tree=self._tree is not None, opinion=settings.fusion is not None)
        self._fusion = Fusion(settings.fusion, lookup, known) if settings.fusion else None
        rules = [read_rule(each, lookup, known, material.classes) for each in rules_of(settings, material.classes)]
        self._early = tuple(rule for rule in rules if not rule.late)
        self._late = tuple(rule for rule in rules if rule.late)
        self._bound = Bound.of(settings, rules, material)
        self._reports = self._fusion is not None or self._bound is not None
        names = self._names(rules).union(self._fusion.names if self._fusion else ())
        if self._fusion is not None:
            self._fusion.wants_conflict = "opinion.conflict" in names
        self.foretells = self._tree is None and not self._reports and all(map(is_of_answer, self._names(self._late)))
        """Whether it rests on nothing but answers, and can look at many at once."""
        self.cost = AFTER_ALL if any(is_measure(name) for name in names) else 1.0 + len(rules)

    @property
    def must_enforce(self) -> bool:
        """Whether it may not run in shadow mode: the model is less certain than may be answered without it."""
        return self._bound is not None and self._bound.exceeded

    def on_request(self, asked: Asked) -> Verdict | None:
        """Rules that rest on the request alone."""
        if not self._early:
            return None
        facts = Facts(asked)
        if self._tree is not None:
            self._ask_tree(facts)
        met = self._met(self._early, facts, len(asked.rows))
        return self._verdict(met, facts, {}) if met else None

    def clears(self, rows: Numbers, most: int) -> bool:
        """See ``Guard.on_request``."""
        del rows, most
        return not self._early

    @staticmethod
    def _names(rules: Sequence[Rule]) -> frozenset[str]:
        return frozenset().union(*(rule.test.names for rule in rules))

    def foretell(self, labels: NDArray[np.int64], scores: NDArray[np.float64]) -> list[bool]:
        """Of which answers there is nothing to say. See ``Guard.on_response``."""
        quiet = possible(labels, scores, len(self._classes))
        facts = Facts.of_answers(labels, scores)
        with np.errstate(all="ignore"):
            for rule in self._late:
                quiet &= rule.test.each(facts) < rule.least
        return quiet.tolist()  # type: ignore[no-any-return]

    def on_response(self, asked: Asked, answer: Answer) -> Verdict | None:
        """Everything else."""
        if answer.ahead(self.name):
            return None
        facts, rows = Facts(asked, answer), len(asked.rows)
        if problem := self._impossible(answer, rows):
            return Verdict(action=ACTIONS[self._settings.impossible], reason=problem, measures={"impossible": 1.0})
        if self._tree is not None:
            self._ask_tree(facts)
        met = self._met(self._late, facts, rows)
        measures = self._measures(facts, met, rows) if self._reports else {}
        if not met and not measures:
            return None
        return self._verdict(met, facts, measures)

    def tried(self, asked: Asked, answer: Answer) -> dict[str, NDArray[np.bool_]]:
        """Where each rule is met ``(batch,)``, without consequences; rules that rest on other guards are left out."""
        facts, rows = Facts(asked, answer), len(asked.rows)
        if self._tree is not None:
            facts.tree = self._tree.each(facts.rows)
        with np.errstate(all="ignore"):
            if self._fusion is not None:
                self._fusion.each(facts)
            return {
                rule.name: np.broadcast_to(rule.test.each(facts), (rows,)) >= rule.least
                for rule in (*self._early, *self._late)
                if not any(is_measure(name) for name in rule.test.names)
            }

    def _impossible(self, answer: Answer, rows: int) -> str:
        if rows == 1:
            return impossible(answer, len(self._classes))
        return impossible_rows(answer, len(self._classes), rows)

    def _ask_tree(self, facts: Facts) -> None:
        assert self._tree is not None  # noqa: S101 - asked by whoever has one
        rows = facts.rows
        facts.tree = self._tree.one(rows, 0) if len(rows) == 1 else self._tree.each(rows)

    def _met(self, rules: Sequence[Rule], facts: Facts, rows: int) -> list[Met]:
        if rows == 1:
            if self._fusion is not None and facts.labels is not None:
                self._fusion.one(facts)
            return [
                Met(rule, (0,), truth == UNKNOWN) for rule in rules if (truth := rule.test.one(facts)) >= rule.least
            ]
        with np.errstate(all="ignore"):
            if self._fusion is not None and facts.labels is not None:
                self._fusion.each(facts)
            found = ((rule, np.broadcast_to(rule.test.each(facts), (rows,))) for rule in rules)
            return [
                Met(rule, tuple(where.tolist()), bool((truth == UNKNOWN).any()))
                for rule, truth in found
                if len(where := np.flatnonzero(truth >= rule.least))
            ]

    def _measures(self, facts: Facts, met: list[Met], rows: int) -> dict[str, float]:
        """The uncertainty of the worst row; what is beyond the bound without a rule is added to ``met``."""
        doubt = self._doubt(facts, rows)
        measures = {"uncertainty": doubt if rows == 1 else float(doubt.max())}
        if self._bound is not None:
            beyond = self._bound.uncovered(doubt, {row for each in met if each.rule.covers for row in each.rows})
            if beyond:
                met.append(Met(self._bound.rule, beyond, unknown=False))
        return measures

    def _doubt(self, facts: Facts, rows: int) -> Any:
        """Uncertainty of each row, of one as a float; what is not known is wholly uncertain."""
        if facts.opinion is not None:
            return facts.opinion.uncertainty
        if rows == 1:
            confidence = facts.confidence()
            return 1.0 - confidence if confidence == confidence else 1.0  # noqa: PLR0124 - NaN
        return np.nan_to_num(1.0 - facts.confidences(), nan=1.0)

    def _verdict(self, met: Sequence[Met], facts: Facts, measures: dict[str, float]) -> Verdict:
        action = max((each.rule.action for each in met if not each.rule.shadow), default=Action.ALLOW)
        labels, scores = self._overruled(met, facts)
        return Verdict(
            action=action,
            reason="; ".join(told(each) for each in met),
            measures={**measures, "met": float(len(met))},
            labels=labels,
            scores=scores,
        )

    def _overruled(
        self, met: Sequence[Met], facts: Facts
    ) -> tuple[NDArray[np.int64] | None, NDArray[np.float64] | None]:
        """Labels with those of rules in their place; the first rule that says something about a row counts.

        Scores follow: a rule knows no probabilities, so its class has them all.
        """
        said = [each for each in met if each.rule.answer >= 0 and not each.rule.shadow]
        if not said:
            return None, None
        labels = np.array(facts.labels, np.int64)
        scores = None if facts.scores is None else np.array(facts.scores, np.float64)
        for each in reversed(said):
            rows = list(each.rows)
            labels[rows] = each.rule.answer
            if scores is not None:
                scores[rows] = 0.0
                scores[rows, each.rule.answer] = 1.0
        return labels, scores


def _tree(settings: TreeSettings | None, material: Material) -> Tree | None:
    if settings is None:
        return None
    columns = [column.name for column in material.columns]
    if settings.rows:
        return Tree(settings.rows, columns, material.classes, "guard.tree")
    return Tree(read_report(material.fitted(CHECK)).tree, columns, material.classes, f"tree of {CHECK}")


__all__ = ["RulesGuard"]
