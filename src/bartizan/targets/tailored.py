"""A target seen through an interface that says less: labels only, the best score alone, or rounded ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bartizan.core.errors import WorkError
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of an answer is given."""

    name: str
    scores: bool = True
    """Scores at all; else labels only."""
    top: int = 0
    """Only so many of the highest scores; 0 for all."""
    digits: int = -1
    """Decimals of a score; -1 for all."""


FULL = Detail("all scores")
LABELS = Detail("labels only", scores=False)
TOP = Detail("best score", top=1)
ROUNDED = Detail("scores to 1 digit", digits=1)
DETAILS = (FULL, ROUNDED, TOP, LABELS)
"""From the most to the least."""


class Tailored:
    """A target that gives no more than a ``Detail``. See ``Target``.

    Scores that are kept back are completed as an adversary would: what is missing to 1 is spread evenly.
    """

    def __init__(self, target: Target, detail: Detail) -> None:
        self._target, self.detail = target, detail

    @property
    def name(self) -> str:
        """See ``Target.name``."""
        return self._target.name

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        given = {Access.LABELS, Access.TRAINING} | ({Access.SCORES} if self.detail.scores else set())
        return self._target.offers & given

    @property
    def classes(self) -> int:
        """See ``Target.classes``."""
        return self._target.classes

    @property
    def class_values(self) -> tuple[str, ...]:
        """See ``Target.class_values``."""
        return self._target.class_values

    @property
    def features(self) -> int:
        """See ``Target.features``."""
        return self._target.features

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        return self._target.labels(rows)

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        if not self.detail.scores:
            raise WorkError(f"{self.name} answers labels only", remedy="use an attack that needs labels only.")
        scores = np.asarray(self._target.scores(rows), dtype=np.float64)
        if 0 < self.detail.top < self.classes:
            scores = _highest(scores, self.detail.top)
        return scores if self.detail.digits < 0 else np.round(scores, self.detail.digits)

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Tailored:
        """See ``Target.retrain``."""
        return Tailored(self._target.retrain(rows, labels, seed=seed), self.detail)


def _highest(scores: Scores, count: int) -> Scores:
    """The ``count`` highest scores of each row; the others share what is missing to 1."""
    order = np.argsort(-scores, axis=1, kind="stable")
    kept = np.take_along_axis(scores, order[:, :count], axis=1)
    rest = (1.0 - kept.sum(axis=1, keepdims=True)) / (scores.shape[1] - count)
    shown = np.repeat(np.maximum(rest, 0.0), scores.shape[1], axis=1)
    np.put_along_axis(shown, order[:, :count], kept, axis=1)
    return shown
