"""Learning one change for many rows from rows that the adversary owns: universal perturbations and patches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.attack import Gradient
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Labels, Loss, Rows


@dataclass(frozen=True, slots=True)
class Owned:
    """Rows to learn from. What is asked about them is charged to the samples under attack, to each in turn."""

    rows: Rows
    labels: Labels
    samples: int
    """Number of samples under attack."""

    @classmethod
    def of(cls, task: EvasionTask) -> Owned:
        """What the adversary owns; the samples under attack themselves where it owns nothing."""
        if len(task.starts):
            return cls(task.starts.astype(task.rows.dtype, copy=False), task.start_labels, len(task.rows))
        return cls(task.rows, task.labels, len(task.rows))

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Places of all rows once, shuffled, in batches."""
        order = rng.permutation(len(self.rows))
        yield from (order[at : at + size] for at in range(0, len(order), size))

    def question(self, places: NDArray[np.int64], rows: Rows, aimed: int | None) -> Gradient:
        """The slope of being wrong at changed ``rows``, or of being taken for the class aimed at."""
        sample = np.arange(len(places)) % self.samples
        if aimed is None:
            return Gradient(rows, sample, Loss.MARGIN, self.labels[places])
        towards = np.full(len(places), aimed, dtype=np.int64)
        return Gradient(rows, sample, Loss.TOWARDS, self.labels[places], towards)

    def pushing(
        self, logits: NDArray[np.floating], places: NDArray[np.int64], aimed: int | None, enough: float
    ) -> NDArray[np.bool_]:
        """``(batch,)``: which rows are not yet wrong (or taken for the class aimed at) by ``enough`` logits."""
        every = np.arange(len(places))
        own = self.labels[places] if aimed is None else np.full(len(places), aimed)
        others = np.array(logits, dtype=np.float64)
        others[every, own] = -np.inf
        lead = logits[every, own] - others.max(axis=1)
        return np.asarray(lead > -enough if aimed is None else lead < enough)
