"""EAD: a sparse change, by an optimiser that weighs it against being wrong."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from bartizan.redteam.attack import Search
from bartizan.redteam.ball import STEPPED, box, clipped
from bartizan.redteam.closest import Closest
from bartizan.redteam.tasks import EvasionTask
from bartizan.redteam.tradeoff import Mask, Weights, judged, weighed
from bartizan.targets.protocol import Access, Rows


class EAD:
    """Minimise the squared L2 and the L1 length of the change plus a weight times the margin of being right.

    Steps down the smooth part, then shrinks every change by the same amount, so that small ones vanish
    (accelerated shrinkage-thresholding). The weight is looked for by bisection. Of the rows that fooled
    the victim the closest by the task's norm is kept. Costs ``searches * steps`` gradients a sample.
    """

    name = "evasion.ead"
    title = "EAD: a small and sparse change, with gradients and many steps"
    family = "evasion"
    technique = "T06"
    atlas: tuple[str, ...] = ("AML.T0043.000", "AML.T0042", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.GRADIENTS})
    norms = STEPPED
    position = "user"
    least = 50
    references: tuple[str, ...] = (
        "Chen et al.: EAD, elastic-net attacks to deep neural networks. AAAI 2018, arXiv:1709.04114",
    )

    def __init__(
        self,
        *,
        searches: int = 8,
        steps: int = 150,
        rate: float = 0.03,
        sparsity: float = 0.05,
        first_weight: float = 1.0,
        confidence: float = 0.0,
    ) -> None:
        self.searches, self.steps, self.rate, self.confidence = searches, steps, rate, confidence
        self.sparsity = sparsity
        """Weight of the L1 length against the squared L2 length (``beta`` of the paper)."""
        self.first_weight = first_weight
        """Weight of being wrong that is tried first."""

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``. Nothing here is random."""
        del rng
        return weighed(task, self._minimise, searches=self.searches, first_weight=self.first_weight)

    def _minimise(self, task: EvasionTask, weights: Weights, closest: Closest) -> Generator[Any, Any, Mask]:
        """One run of the optimiser; returns which samples fooled the victim on the way."""
        sample = np.arange(len(task.rows))
        scale = task.space.scale.astype(task.rows.dtype)
        low, high = (end / scale for end in box(task.space, task.rows))
        origin = task.rows / scale
        here = ahead = origin
        fooled = np.zeros(len(sample), dtype=np.bool_)
        for step in range(self.steps):
            seen = yield from judged(task, sample, self._possible(task, ahead * scale), closest, self.confidence)
            fooled |= seen.fooled
            slope = 2 * (ahead - origin) - weights.value[:, None] * seen.slope * scale
            rate = self.rate * np.sqrt(1 - step / self.steps)
            moved = self._shrunk((ahead - rate * slope).astype(origin.dtype), origin, low, high)
            ahead = moved + np.asarray(step / (step + 3), origin.dtype) * (moved - here)
            here = moved
        return fooled

    def _shrunk(self, rows: Rows, origin: Rows, low: Rows, high: Rows) -> Rows:
        """Every change smaller by ``sparsity``, those that were no larger gone."""
        change = rows - origin
        kept = np.sign(change) * np.maximum(np.abs(change) - self.sparsity, 0)
        return clipped(origin + kept.astype(origin.dtype), low, high)

    def _possible(self, task: EvasionTask, rows: Rows) -> Rows:
        low, high = box(task.space, task.rows)
        rows = clipped(rows.astype(task.rows.dtype), low, high)
        return rows if task.space.is_plain else task.space.project(rows, task.rows)
