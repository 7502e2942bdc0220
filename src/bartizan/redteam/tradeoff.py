"""Small changes by weighing their size against how wrong the victim is: what Carlini-Wagner and EAD share.

The weight of the second is looked for by bisection, sample by sample; all samples go in lock-step.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError
from bartizan.redteam.attack import Search
from bartizan.redteam.closest import Closest
from bartizan.redteam.objective import margins, slopes
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Loss, Rows

Sizes = NDArray[np.float64]
Samples = NDArray[np.int64]
Mask = NDArray[np.bool_]

GROWTH = 10.0
"""Factor by which the weight grows as long as nothing has fooled the victim."""


@dataclass(slots=True)
class Weights:
    """For each sample the weight of being wrong, narrowed down between too little and enough."""

    value: Sizes
    low: Sizes
    high: Sizes

    @classmethod
    def of(cls, count: int, first: float) -> Weights:
        """The same ``first`` weight for all."""
        return cls(np.full(count, first), np.zeros(count), np.full(count, np.inf))

    def narrow(self, fooled: Mask) -> None:
        """Less weight where the victim was fooled, more where it was not."""
        self.high = np.where(fooled, np.minimum(self.high, self.value), self.high)
        self.low = np.where(fooled, self.low, np.maximum(self.low, self.value))
        bounded = np.isfinite(self.high)
        middle = (self.low + np.where(bounded, self.high, 0)) / 2
        self.value = np.where(bounded, middle, self.value * GROWTH)


@dataclass(slots=True)
class Judged:
    """What a row is worth: whether it fools the victim, and the slope of its being wrong."""

    fooled: Mask
    slope: NDArray[np.floating]
    """``(batch, features)``: of the margin where it still pushes, else 0."""


Minimise = Callable[[EvasionTask, Weights, Closest], Generator[Any, Any, Mask]]
"""One run of an optimiser at given weights; returns which samples fooled the victim on the way."""


def weighed(task: EvasionTask, minimise: Minimise, *, searches: int, first_weight: float) -> Search:
    """Run the optimiser once for each weight that the bisection comes to; the closest rows that were found."""
    closest, weights = Closest(task), Weights.of(len(task.rows), first_weight)
    # Whatever was found when the budget ended stands.
    with suppress(BudgetError):
        for _ in range(searches):
            weights.narrow((yield from minimise(task, weights, closest)))
    return closest.rows


def judged(
    task: EvasionTask, sample: Samples, rows: Rows, closest: Closest, confidence: float
) -> Generator[Any, Any, Judged]:
    """Ask about ``rows``, keep what fools the victim, and say where its logits push until it is wrong by a margin.

    Args:
        task: what is asked about.
        sample: ``(batch,)``.
        rows: ``(batch, features)``.
        closest: takes what fools the victim.
        confidence: margin, in logits, up to which being wrong still pays.
    """
    logits, gradient = yield from slopes(task, sample, rows, Loss.MARGIN)
    labels = task.labels[sample]
    fooled = logits.argmax(axis=1) != labels
    closest.offer(sample[fooled], rows[fooled])
    margin = margins(logits, labels)
    pushing = margin < confidence
    return Judged(fooled & (margin >= confidence), gradient * pushing[:, None])
