"""Logistic regression with differential privacy, by objective perturbation.

Chaudhuri, Monteleoni and Sarwate 2011, Differentially private empirical risk minimization, JMLR 12,
algorithm 2 with the logistic loss (c = 1/4). Several classes are learnt one against the rest, and share
the budget. The guarantee holds for an exact minimum and for rows inside the unit ball; the rows are
brought there by ranges, which cost no privacy only when they are declared and not read off the data.
The number of records is taken to be public. Two caveats of every such mechanism in floating-point
arithmetic: the minimum is found to a small tolerance, and the noise is not drawn exactly (Mironov 2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.core.errors import InputError
from bartizan.lifecycle.develop.choose.candidate import Facts, Interpretability
from bartizan.lifecycle.develop.harden.audit import Promise
from bartizan.lifecycle.develop.harden.defence import Wrapped
from bartizan.redteam.family import Material
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target

EPSILON = 1.0
PENALTY = 3e-3
"""Weight of the quadratic penalty, for one record."""
CURVATURE = 0.25
"""Largest second derivative of the logistic loss."""
PAIR = 2
READABLE_WEIGHTS = 100
_BYTES = 8
_LOWEST = 1e-9


@dataclass(frozen=True, slots=True)
class Dials:
    """What the mechanism of one classifier uses, after algorithm 2."""

    epsilon: float
    """What is left for the noise."""
    extra: float
    """Additional penalty."""


def dials(epsilon: float, penalty: float, records: int) -> Dials:
    """Split of the privacy budget (Chaudhuri et al. 2011, algorithm 2).

    Raises:
        InputError: epsilon or the penalty is not above 0, or there are no records.
    """
    if not (epsilon > 0 and math.isfinite(epsilon) and penalty > 0 and records > 0):
        raise InputError(f"epsilon {epsilon}, penalty {penalty} and {records} records: each must be above 0")
    share = CURVATURE / (records * penalty)
    left = epsilon - math.log(1 + 2 * share + share**2)
    if left > 0:
        return Dials(left, 0.0)
    return Dials(epsilon / 2, CURVATURE / (records * math.expm1(epsilon / 4)) - penalty)


def noise(epsilon: float, features: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A vector ``(features,)`` with density proportional to ``exp(-epsilon / 2 * length)``."""
    direction = rng.normal(size=features)
    length = rng.gamma(features, 2 / epsilon)
    drawn: NDArray[np.float64] = direction / np.linalg.norm(direction) * length
    return drawn


def learn(
    rows: NDArray[np.float64], signs: NDArray[np.float64], epsilon: float, penalty: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Weights ``(features,)`` of one private classifier, from rows in the unit ball and signs of 1 or -1."""
    records, features = rows.shape
    dial = dials(epsilon, penalty, records)
    pull = noise(dial.epsilon, features, rng) / records
    total = penalty + dial.extra

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = signs * (rows @ weights)
        value = float(np.logaddexp(0, -margins).mean() + pull @ weights + total / 2 * weights @ weights)
        slope = -(scipy.special.expit(-margins) * signs) @ rows / records + pull + total * weights
        return value, slope

    found = scipy.optimize.minimize(
        loss, np.zeros(features), jac=True, method="L-BFGS-B", options={"maxiter": 2_000, "ftol": 1e-15, "gtol": 1e-9}
    )
    weights: NDArray[np.float64] = found.x
    return weights


class PrivateLinear(Wrapped):
    """The private model. ``inner`` is what it stands in for, and is never asked."""

    def __init__(self, inner: Target, weights: NDArray[np.float64], low: Rows, high: Rows, epsilon: float) -> None:
        super().__init__(inner)
        self.weights, self._low, self._high, self.epsilon = weights, low, high, epsilon

    @property
    def promise(self) -> Promise:
        """See ``Promising``."""
        return Promise(self.epsilon)

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        return frozenset({Access.LABELS, Access.SCORES, Access.TRAINING})

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        labels: Labels = self.scores(rows).argmax(axis=1).astype(np.int64)
        return labels

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        chances = scipy.special.expit(in_ball(rows, self._low, self._high) @ self.weights.T)
        if self.classes == PAIR:
            return np.column_stack([1 - chances[:, 0], chances[:, 0]])
        scores: Scores = chances / np.maximum(chances.sum(axis=1, keepdims=True), _LOWEST)
        return scores

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``."""
        return private(
            self.inner,
            rows,
            labels,
            ranges=(self._low, self._high),
            epsilon=self.epsilon,
            rng=np.random.default_rng(seed),
        )

    @property
    def facts(self) -> Facts:
        """See ``Fitted.facts``."""
        count = self.weights.size
        glass = count <= READABLE_WEIGHTS
        openness = Interpretability.GLASS_BOX if glass else Interpretability.GREY_BOX
        return Facts(count, _BYTES * count, openness, f"{count} noisy weights")


def in_ball(rows: Rows, low: Rows, high: Rows) -> NDArray[np.float64]:
    """Rows with a constant, inside the unit ball: ranges to -1 to 1, clipped, divided by the largest length."""
    middle, half = (low + high) / 2, np.where(high > low, (high - low) / 2, 1.0)
    scaled = np.clip((rows - middle) / half, -1, 1)
    ball: NDArray[np.float64] = np.column_stack([scaled, np.ones(len(rows))]) / math.sqrt(rows.shape[1] + 1)
    return ball


def private(
    base: Target, rows: Rows, labels: Labels, *, ranges: tuple[Rows, Rows], epsilon: float, rng: np.random.Generator
) -> PrivateLinear:
    """A private model of the records; ``epsilon`` altogether."""
    inside, classes = in_ball(rows, *ranges), base.classes
    kinds = [1] if classes == PAIR else list(range(classes))
    each = [learn(inside, np.where(labels == kind, 1.0, -1.0), epsilon / len(kinds), PENALTY, rng) for kind in kinds]
    return PrivateLinear(base, np.array(each), *ranges, epsilon)


class Private:
    """Replace the model by a logistic regression with differential privacy."""

    kind, credit = "training", True
    references: tuple[str, ...] = (
        "Chaudhuri et al. 2011, Differentially private empirical risk minimization, JMLR 12:1069-1109",
    )

    def __init__(self, epsilon: float = EPSILON) -> None:
        self.epsilon = epsilon
        self.name = "private" if epsilon == EPSILON else f"private-{epsilon:g}"
        self.title = f"Private logistic regression (epsilon {epsilon:g})"

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {"epsilon": self.epsilon, "penalty": PENALTY, "mechanism": "objective perturbation"}

    def why_not(self, base: Target, material: Material) -> str:
        """See ``Defence.why_not``."""
        del base, material
        return ""

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        training, space = material.training, material.space
        return private(
            base, training.rows, training.labels, ranges=(space.low, space.high), epsilon=self.epsilon, rng=rng
        )
