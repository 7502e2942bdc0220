"""A tree that knows the declared training data, and what it and the configured rules say of data that it does not.

The tree is small enough to be read: at most four questions deep, and each answer rests on one in a hundred records at
least. It is fitted to the declared labels, not to the model's answers, so that it can disagree with the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bartizan.core.predicates import Metric
from bartizan.lifecycle.deploy.gateway.guards.rules.tree import Tree, TreeRow
from bartizan.redteam.statistics import Estimate, bootstrap, proportion
from bartizan.targets.protocol import Labels, Rows, Scores
from bartizan.targets.table import Table

LEVELS = 4
LEAST_SHARE, LEAST_RECORDS = 0.01, 5

Plain = tuple[int, float, int, int, int]
"""Column, threshold, left, right, class; the class is -1 where the tree goes on."""


class Trees(Protocol):
    """Fits decision trees."""

    def fit(self, rows: Rows, labels: Labels, *, levels: int, least: int, seed: int) -> list[Plain]:
        """Rows of a tree from its root down, each below what leads to it; every leaf rests on ``least`` records."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the model says of records that it has not seen, beside the truth."""

    rows: Rows
    truth: Labels
    labels: NDArray[np.int64]
    scores: Scores | None

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Which answers are wrong ``(records,)``."""
        return np.asarray(self.labels != self.truth)


def fitted(trees: Trees, training: Table, classes: Sequence[str], seed: int) -> tuple[TreeRow, ...]:
    """A tree fitted to declared training data."""
    least = max(LEAST_RECORDS, int(LEAST_SHARE * len(training)))
    plain = trees.fit(training.rows, training.labels, levels=LEVELS, least=least, seed=seed)
    return tuple(
        ("", 0.0, 0, 0, classes[label]) if label >= 0 else (training.columns[column], threshold, left, right, "")
        for column, threshold, left, right, label in plain
    )


def judged(tree: Tree, answers: Answers) -> dict[str, Estimate]:
    """How good the tree is, and what its disagreement is worth: how many of the model's errors it points at."""
    said = tree.each(answers.rows)
    apart, wrong = said != answers.labels, answers.wrong
    found = {
        "tree_accuracy": proportion(int((said == answers.truth).sum()), len(said)),
        "tree_disagrees": proportion(int(apart.sum()), len(said)),
    }
    return found | _told_apart("tree", apart, wrong)


def doubts(answers: Answers, seed: int) -> dict[str, Estimate]:
    """How uncertain the model is: how often it is wrong, and how far on average its confidence is from 1."""
    found = {"error": proportion(int(answers.wrong.sum()), len(answers.wrong))}
    if answers.scores is not None:
        lacking = 1.0 - np.asarray(answers.scores, float).max(axis=1)
        interval = bootstrap(lacking, lambda values: float(values.mean()), np.random.default_rng(seed))
        found["lack_of_confidence"] = Estimate(float(lacking.mean()), interval, len(lacking), "bootstrap")
    return found


def uncertainty(found: Mapping[str, Estimate]) -> float:
    """The measured uncertainty of a model: the greater upper end; all of it where that is unknown."""
    ends = [found[name].interval.high for name in ("error", "lack_of_confidence") if name in found]
    return float(min(max(ends), 1.0)) if ends and np.isfinite(ends).all() else 1.0


def rates(met: Mapping[str, NDArray[np.bool_]], answers: Answers) -> dict[str, Estimate]:
    """How often each rule is met: at all, by answers that are wrong, and by answers that are right."""
    found: dict[str, Estimate] = {}
    for name, where in met.items():
        found[f"rule_{name}"] = proportion(int(where.sum()), len(where))
        found |= _told_apart(f"rule_{name}", where, answers.wrong)
    return found


def metrics(found: Mapping[str, Estimate]) -> dict[str, Metric]:
    """Estimates as they are stated."""
    return {name: estimate.metric() for name, estimate in found.items() if np.isfinite(_ends(estimate)).all()}


def _ends(estimate: Estimate) -> tuple[float, float]:
    return estimate.interval.low, estimate.interval.high


def _told_apart(name: str, where: NDArray[Any], wrong: NDArray[Any]) -> dict[str, Estimate]:
    found = {}
    if wrong.any():
        found[f"{name}_of_wrong"] = proportion(int((where & wrong).sum()), int(wrong.sum()))
    if not wrong.all():
        found[f"{name}_of_right"] = proportion(int((where & ~wrong).sum()), int((~wrong).sum()))
    return found


__all__ = ["Answers", "Plain", "Trees", "doubts", "fitted", "judged", "metrics", "rates", "uncertainty"]
