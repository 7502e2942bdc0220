"""The closest row found so far for each sample: what an evasion attack keeps, and the engine too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Rows


class Closest:
    """Of all rows that fooled the victim, the one with the smallest change for each sample."""

    def __init__(self, task: EvasionTask, norm: float | None = None) -> None:
        self.rows: Rows = task.rows.copy()
        """``(samples, features)``; the sample itself as long as nothing fooled the victim."""
        self.change: NDArray[np.float64] = np.full(len(task.rows), np.inf)
        """``(samples,)``, in standard deviations; infinite as long as nothing fooled the victim."""
        self._task, self._norm = task, task.norm if norm is None else norm

    def closer(self, sample: NDArray[np.int64], rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Places of those ``rows`` that are closer to their sample than what is kept, and their changes."""
        change = self._task.space.change(rows, self._task.rows[sample], self._norm)
        places = np.flatnonzero(change < self.change[sample])
        return places, change[places]

    def keep(self, sample: NDArray[np.int64], rows: Rows, change: NDArray[np.float64]) -> None:
        """Take over the smallest change of each sample; all are smaller than what is kept."""
        order = np.argsort(-change, kind="stable")
        # Of several assignments to one sample the last one stands.
        self.rows[sample[order]] = rows[order]
        self.change[sample[order]] = change[order]

    def offer(self, sample: NDArray[np.int64], rows: Rows) -> None:
        """Take over what is closer among ``rows``, all of which fooled the victim."""
        places, change = self.closer(sample, rows)
        self.keep(sample[places], rows[places], change)
