"""What all attacks by query do between their steps: ask what can be paid, and keep what came closest."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.attack import Query
from bartizan.redteam.closest import Closest
from bartizan.redteam.ledger import ordinals
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.feasible import TOLERANCE
from bartizan.targets.protocol import Labels, Rows, Scores

Samples = NDArray[np.int64]
Sizes = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEAST_SCORE = 1e-300
"""Below it a score counts as none, so that its logarithm stays finite."""


class Asking:
    """Asks about rows of an evasion task, sample by sample within the budget."""

    def __init__(self, task: EvasionTask, norm: float | None = None) -> None:
        self.task = task
        self.closest = Closest(task, norm)
        self.left: Samples = np.full(len(task.rows), task.budget)
        """``(samples,)``: queries that are left."""

    @property
    def open(self) -> Samples:
        """Samples for which nothing that counts was found, and that can still pay."""
        won = self.closest.change <= self.task.max_change * (1 + TOLERANCE)
        return np.flatnonzero((self.left > 0) & ~won)

    def labels(self, sample: Samples, rows: Rows) -> Generator[Query, Labels, Mask]:
        """Which of ``rows`` fool the victim. What cannot be paid is not asked and fools nobody."""
        fooled = np.zeros(len(sample), dtype=np.bool_)
        paid = self._paid(sample)
        if paid.size:
            sample, rows = sample[paid], rows[paid]
            labels = yield Query(rows, sample)
            fooled[paid] = labels != self.task.labels[sample]
            self._book(sample, rows, fooled[paid])
        return fooled

    def margins(self, sample: Samples, rows: Rows, *, logarithm: bool = True) -> Generator[Query, Scores, Sizes]:
        """Margin of each row, see ``margins``; infinite where it could not be paid and was not asked."""
        margin = np.full(len(sample), np.inf)
        paid = self._paid(sample)
        if paid.size:
            sample, rows = sample[paid], rows[paid]
            scores = yield Query(rows, sample, scores=True)
            margin[paid] = margins(scores, self.task.labels[sample], logarithm=logarithm)
            self._book(sample, rows, margin[paid] < 0)
        return margin

    def _paid(self, sample: Samples) -> Samples:
        """Places of the rows that the samples can pay, first come first served."""
        return np.flatnonzero(ordinals(sample) <= self.left[sample])

    def _book(self, sample: Samples, rows: Rows, fooled: Mask) -> None:
        self.left -= np.bincount(sample, minlength=len(self.left))
        if fooled.any():
            self.closest.offer(sample[fooled], rows[fooled])


def margins(scores: Scores, labels: Labels, *, logarithm: bool = True) -> Sizes:
    """Score of the true class less the best other ``(batch,)``: negative exactly where the row fools the victim.

    With ``logarithm`` of their logarithms, which is the difference of the logits of a network: it goes
    on falling where scores are all but certain.
    """
    every = np.arange(len(labels))
    graded = np.log(np.maximum(scores, LEAST_SCORE)) if logarithm else scores.copy()
    own = graded[every, labels]
    graded[every, labels] = -np.inf
    margin: Sizes = own - graded.max(axis=1)
    fooled = scores.argmax(axis=1) != labels
    # Where scores tie, the label decides.
    return np.where(fooled & (margin >= 0), -np.finfo(np.float64).tiny, margin)
