"""Defences at the interface: coarser answers, coarser or clipped inputs, softer scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.lifecycle.develop.harden.defence import Wrapped
from bartizan.redteam.family import Material
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target

STEP = 0.1
"""Scores are answered in such steps."""
GRID = 0.25
"""Width of a cell of inputs, in standard deviations."""
TAIL = 0.01
"""Share of the training values beyond which inputs are clipped, on each side."""
SMALLEST = 1e-6


class RoundedScores(Wrapped):
    """Scores in coarse steps, the largest still the largest."""

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        exact = self.inner.scores(rows)
        coarse = np.rint(exact / STEP) * STEP
        # Ties would change the answer; a hair more for the class that was ahead keeps it.
        coarse[np.arange(len(coarse)), exact.argmax(axis=1)] += SMALLEST
        scores: Scores = coarse / coarse.sum(axis=1, keepdims=True)
        return scores


class Rounding:
    """Answer scores in steps. Hinders what lives on small differences, and nothing that gets by with labels."""

    name, title, kind, credit = "rounding", f"Scores in steps of {STEP:g}", "output", True
    references: tuple[str, ...] = ("Tramer et al. 2016, Stealing machine learning models, arXiv:1609.02943",)

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {"step": STEP}

    def why_not(self, base: Target, material: Material) -> str:
        """See ``Defence.why_not``."""
        del material
        return "" if Access.SCORES in base.offers else "the model answers labels only."

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        del material, rng
        return RoundedScores(base)


class Squeezed(Wrapped):
    """Inputs moved to the middle of their cell, or into the usual range, before training and asking."""

    def __init__(self, inner: Target, low: Rows, high: Rows, step: Rows, fixed: NDArray[np.bool_]) -> None:
        super().__init__(inner)
        self._low, self._high, self._step, self._fixed = low, high, step, fixed

    def squeezed(self, rows: Rows) -> Rows:
        """What the model inside is given."""
        clipped = np.clip(rows, self._low, self._high)
        steps = np.where(self._step > 0, self._step, 1.0)
        coarse = np.where(self._step > 0, self._low + np.rint((clipped - self._low) / steps) * steps, clipped)
        squeezed: Rows = np.where(self._fixed, rows, coarse)
        return squeezed

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        return self.inner.labels(self.squeezed(rows))

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        return self.inner.scores(self.squeezed(rows))

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``."""
        inner = self.inner.retrain(self.squeezed(rows), labels, seed=seed)
        return Squeezed(inner, self._low, self._high, self._step, self._fixed)


class _Squeezing:
    """What both input defences share."""

    kind, credit = "input", True
    references: tuple[str, ...] = (
        "Xu et al. 2018, Feature squeezing, arXiv:1704.01155",
        "He et al. 2017, Ensembles of weak defenses are not strong (why adaptive attacks decide), arXiv:1706.04701",
    )

    def why_not(self, base: Target, material: Material) -> str:
        """See ``Defence.why_not``."""
        if Access.TRAINING not in base.offers:
            return "the model cannot be trained again on squeezed rows."
        return "every column holds categories." if material.space.categorical.all() else ""

    @staticmethod
    def _wrapped(base: Target, material: Material, step: float, tail: float, rng: np.random.Generator) -> Target:
        training, space = material.training, material.space
        low, high = np.quantile(training.rows, [tail, 1 - tail], axis=0)
        wrapped = Squeezed(base, low, high, step * space.scale, space.categorical)
        return wrapped.retrain(training.rows, training.labels, seed=int(rng.integers(2**31)))


class Quantise(_Squeezing):
    """Round inputs to a grid, in training too."""

    name, title = "quantise", f"Inputs rounded to {GRID:g} standard deviations"

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {"grid": GRID}

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        return self._wrapped(base, material, GRID, 0.0, rng)


class Clip(_Squeezing):
    """Clip inputs to the range of all but the outermost training values."""

    name, title = "clip", f"Inputs clipped to all but the outer {TAIL:.0%}"

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {"tail": TAIL}

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        return self._wrapped(base, material, 0.0, TAIL, rng)


class Tempered(Wrapped):
    """Scores taken to a power and normalised."""

    def __init__(self, inner: Target, temperature: float) -> None:
        super().__init__(inner)
        self.temperature = temperature

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        return tempered(self.inner.scores(rows), self.temperature)

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``: the temperature is fitted anew, as it was."""
        return calibrated(self.inner, rows, labels, seed)


def tempered(scores: Scores, temperature: float) -> Scores:
    """``softmax(log p / T)``."""
    logs = np.log(np.maximum(scores, SMALLEST)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    normal: Scores = powers / powers.sum(axis=1, keepdims=True)
    return normal


def calibrated(base: Target, rows: Rows, labels: Labels, seed: int) -> Tempered:
    """A model on four fifths of the records, its temperature fitted to the rest, then one on all with that."""
    order = np.random.default_rng(seed).permutation(len(rows))
    held, kept = order[: max(1, len(rows) // 5)], order[max(1, len(rows) // 5) :]
    part = base.retrain(rows[kept], labels[kept], seed=seed)
    scores, truth = part.scores(rows[held]), labels[held]

    def loss(log_temperature: float) -> float:
        given = tempered(scores, float(np.exp(log_temperature)))
        return -float(np.log(np.maximum(given[np.arange(len(truth)), truth], SMALLEST)).mean())

    found = scipy.optimize.minimize_scalar(loss, bounds=(-2.0, 3.0), method="bounded")
    return Tempered(base.retrain(rows, labels, seed=seed), float(np.exp(found.x)))


class Temperature:
    """Scale the confidence to what held-out records support. Labels stay, so no attack by label is hindered."""

    name, title, kind, credit = "temperature", "Temperature scaling", "output", True
    references: tuple[str, ...] = ("Guo et al. 2017, On calibration of modern neural networks, arXiv:1706.04599",)

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {}

    def why_not(self, base: Target, material: Material) -> str:
        """See ``Defence.why_not``."""
        del material
        missing = {Access.SCORES, Access.TRAINING} - base.offers
        return f"the model does not offer {', '.join(sorted(missing))}." if missing else ""

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        training = material.training
        return calibrated(base, training.rows, training.labels, int(rng.integers(2**31)))
