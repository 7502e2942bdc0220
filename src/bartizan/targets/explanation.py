"""Why a model answered as it did: what each feature adds to the answer, against a row that is usual.

A linear model is explained by its weights, exactly. Anything else is asked: Shapley values by sampled orders of
the features (Strumbelj and Kononenko 2014, Explaining prediction models and individual predictions with feature
contributions, KAIS 41), each order taken forwards and backwards, so that the parts always add up to the whole.
A single tree also shows the way that the row takes.

An explanation tells more of the model than its answer: with gradients or contributions a linear model is copied
after as many questions as it has classes (Milli et al. 2019, arXiv:1807.05185). So it is for those who need it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import InputError, WorkError
from bartizan.targets.protocol import Access, Rows, Target, Transparent
from bartizan.targets.structure import LEAF, LinearModel, TreeEnsemble

MOST_ROWS = 4096
"""Rows that one explanation asks about."""
LEAST_PAIRS, MOST_PAIRS = 2, 64
"""Orders of the features, each with its reverse; fewer where there are many features."""
SEED = 20_140_829
"""Of the orders: the same row is always explained in the same way."""
Floats = NDArray[np.float64]


class Unit(enum.StrEnum):
    """In what contributions are counted."""

    MARGIN = "lead over the next class"
    """Output of the answered class less that of the runner-up; log-odds where the model is a logistic one."""
    PROBABILITY = "probability"
    ANSWER = "answer"
    """1 while the answer stays, 0 when it is another one."""


@dataclass(frozen=True, slots=True)
class Step:
    """One question of a tree and which way the row takes."""

    feature: int
    threshold: float
    above: bool


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """What one answer is made of: ``usual`` and the contributions add up to ``here``."""

    answered: int
    """Class index."""
    unit: Unit
    usual: float
    """At the row of reference."""
    here: float
    contributions: Floats
    """``(features,)``"""
    errors: Floats
    """``(features,)``: standard errors; 0 where a contribution is exact."""
    path: tuple[Step, ...] = ()
    """Of a model that is one tree."""

    @property
    def exact(self) -> bool:
        """Whether no contribution was estimated."""
        return not self.errors.any()


def explain(target: Target, row: Rows, usual: Rows) -> Explanation:
    """Explain the answer to one row ``(features,)`` against a usual one ``(features,)``.

    Raises:
        InputError: a row has another shape, or is not finite.
        WorkError: the model cannot answer.
    """
    if not row.shape == usual.shape == (target.features,) or not (np.isfinite(row) & np.isfinite(usual)).all():
        raise InputError(f"the model takes {target.features} finite numbers", remedy="give a whole row.")
    structure = _structure(target)
    if isinstance(structure, LinearModel):
        return _linear(structure, row, usual)
    answered = int(target.labels(row[None])[0])
    value, unit = _worth(target, answered)
    contributions, errors = shapley(value, row, usual)
    ends = value(np.stack([usual, row]))
    path = way(structure, row) if isinstance(structure, TreeEnsemble) and structure.trees == 1 else ()
    return Explanation(answered, unit, float(ends[0]), float(ends[1]), contributions, errors, path)


def _structure(target: Target) -> object:
    """What the target is made of, where it says so."""
    if Access.WEIGHTS not in target.offers or not isinstance(target, Transparent):
        return None
    try:
        return target.structure()
    except WorkError:
        return None


def _linear(model: LinearModel, row: Rows, usual: Rows) -> Explanation:
    """Weights of the answered class less those of the runner-up, times how far the row is from usual."""
    outputs = model.outputs(np.stack([usual, row]))
    answered = int(model.labels(row[None])[0])
    if len(model.weights) == 1:
        sign = 1.0 if answered else -1.0
        weights, lead = sign * model.weights[0], sign * (outputs[:, 0] - model.cut)
    else:
        runner = int(np.argsort(np.where(np.arange(model.classes) == answered, -np.inf, outputs[1]))[-1])
        weights = model.weights[answered] - model.weights[runner]
        lead = outputs[:, answered] - outputs[:, runner]
    contributions = weights * (row - usual)
    errors = np.zeros(len(row))
    return Explanation(answered, Unit.MARGIN, float(lead[0]), float(lead[1]), contributions, errors)


def _worth(target: Target, answered: int) -> tuple[Callable[[Rows], Floats], Unit]:
    """What is split among the features: the probability of the answered class, or whether it is answered."""

    def probability(rows: Rows) -> Floats:
        return np.asarray(target.scores(rows), dtype=np.float64)[:, answered]

    def answer(rows: Rows) -> Floats:
        same: Floats = (target.labels(rows) == answered).astype(np.float64)
        return same

    return (probability, Unit.PROBABILITY) if Access.SCORES in target.offers else (answer, Unit.ANSWER)


def shapley(value: Callable[[Rows], Floats], row: Rows, usual: Rows) -> tuple[Floats, Floats]:
    """Shapley values ``(features,)`` of ``value`` between two rows, and their standard errors.

    Features in which the rows do not differ are out of the game. With a single one left the value is exact.
    """
    moved = np.flatnonzero(row != usual)
    contributions, errors = np.zeros(len(row)), np.zeros(len(row))
    if not len(moved):
        return contributions, errors
    rng = np.random.default_rng(SEED)
    pairs = int(np.clip(MOST_ROWS // (2 * (len(moved) + 1)), LEAST_PAIRS, MOST_PAIRS))
    pairs = 1 if len(moved) == 1 else min(pairs, math.factorial(min(len(moved), 8)))
    samples = np.empty((pairs, len(moved)))
    for pair in range(pairs):
        order = rng.permutation(len(moved))
        samples[pair] = (_marginal(value, row, usual, moved[order]) + _marginal(value, row, usual, moved[order[::-1]]))[
            moved
        ] / 2
    contributions[moved] = samples.mean(axis=0)
    if pairs > 1:
        errors[moved] = samples.std(axis=0, ddof=1) / math.sqrt(pairs)
    return contributions, errors


def _marginal(value: Callable[[Rows], Floats], row: Rows, usual: Rows, order: NDArray[np.int64]) -> Floats:
    """``(features,)``: what each feature adds when they come one after the other in this order."""
    rows = np.repeat(usual[None], len(order) + 1, axis=0)
    for place, feature in enumerate(order.tolist()):
        rows[place + 1 :, feature] = row[feature]
    added = np.zeros(len(row))
    added[order] = np.diff(value(rows))
    return added


def way(tree: TreeEnsemble, row: Rows) -> tuple[Step, ...]:
    """The questions that a row ``(features,)`` is asked on its way through the first tree."""
    node, steps = int(tree.roots[0]), list[Step]()
    while tree.feature[node] != LEAF:
        feature, threshold = int(tree.feature[node]), float(tree.threshold[node])
        above = bool(row[feature] > threshold)
        steps.append(Step(feature, threshold, above))
        node = int(tree.right[node] if above else tree.left[node])
    return tuple(steps)


def usual_row(rows: Rows, categorical: NDArray[np.bool_]) -> Rows:
    """A usual row ``(features,)`` of records ``(records, features)``: medians, and the most frequent categories.

    Raises:
        InputError: there are no records.
    """
    if not len(rows):
        raise InputError("there are no records to take a usual row from")
    usual = np.median(rows, axis=0)
    for column in np.flatnonzero(categorical):
        values, counts = np.unique(rows[:, column], return_counts=True)
        usual[column] = values[counts.argmax()]
    found: Rows = usual
    return found


__all__ = ["Explanation", "Step", "Unit", "explain", "shapley", "usual_row", "way"]
