"""Carlini-Wagner: the smallest L2 change, by an optimiser that weighs it against being wrong."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from bartizan.core.errors import InputError
from bartizan.redteam.attack import Search
from bartizan.redteam.ball import EUCLID, box
from bartizan.redteam.closest import Closest
from bartizan.redteam.tasks import EvasionTask
from bartizan.redteam.tradeoff import Mask, Weights, judged, weighed
from bartizan.targets.protocol import Access, Rows

ALMOST = 0.999
"""How near to the ends of its range a feature may start: at the ends themselves nothing would move it."""
DECAYS = (0.9, 0.999)
"""Of the means of gradients and of their squares in the optimiser (Kingma and Ba 2015)."""
TINY = 1e-8


class CarliniWagner:
    """Minimise the squared length of the change plus a weight times the margin by which the victim is right.

    Features are written as ``tanh`` of free numbers, so that they keep within their ranges; Adam
    minimises. The weight is looked for by bisection, sample by sample. Costs ``searches * steps`` gradients
    for each sample.
    """

    name = "evasion.carlini-wagner"
    title = "Carlini-Wagner: the smallest L2 change, with gradients and many steps"
    family = "evasion"
    technique = "T06"
    atlas: tuple[str, ...] = ("AML.T0043.000", "AML.T0042", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.GRADIENTS})
    norms = frozenset({EUCLID})
    position = "user"
    least = 50
    references: tuple[str, ...] = (
        "Carlini, Wagner: Towards evaluating the robustness of neural networks. IEEE S&P 2017, arXiv:1608.04644",
    )

    def __init__(
        self,
        *,
        searches: int = 6,
        steps: int = 200,
        rate: float = 0.05,
        first_weight: float = 0.1,
        confidence: float = 0.0,
    ) -> None:
        self.searches, self.steps, self.rate = searches, steps, rate
        self.first_weight = first_weight
        """Weight of being wrong that is tried first."""
        self.confidence = confidence
        """Margin, in logits, by which the victim shall be wrong; more carries over to other models better."""

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``. Nothing here is random.

        Raises:
            InputError: the norm is not 2.
        """
        del rng
        if task.norm != EUCLID:
            raise InputError(
                f"{self.name} minimises the norm 2, and {task.norm:g} is asked for",
                remedy="take evasion.fab for the norm inf, evasion.ead for the norm 1.",
            )
        return weighed(task, self._minimise, searches=self.searches, first_weight=self.first_weight)

    def _minimise(self, task: EvasionTask, weights: Weights, closest: Closest) -> Generator[Any, Any, Mask]:
        """One run of the optimiser; returns which samples fooled the victim on the way."""
        sample = np.arange(len(task.rows))
        scale = task.space.scale
        low, high = box(task.space, task.rows)
        middle, half = (high + low) / 2, (high - low) / 2
        free = np.arctanh(np.clip((task.rows - middle) / np.where(half > 0, half, 1), -ALMOST, ALMOST))
        first, second = np.zeros_like(free), np.zeros_like(free)
        fooled = np.zeros(len(sample), dtype=np.bool_)
        for step in range(1, self.steps + 1):
            squashed = np.tanh(free)
            rows = middle + half * squashed
            seen = yield from judged(task, sample, self._possible(task, rows), closest, self.confidence)
            fooled |= seen.fooled
            pull = 2 * (rows - task.rows) / scale**2 - weights.value[:, None] * seen.slope
            gradient = (pull * half * (1 - squashed**2)).astype(free.dtype)
            first = DECAYS[0] * first + (1 - DECAYS[0]) * gradient
            second = DECAYS[1] * second + (1 - DECAYS[1]) * gradient**2
            steady, spread = first / (1 - DECAYS[0] ** step), second / (1 - DECAYS[1] ** step)
            free = free - self.rate * steady / (np.sqrt(spread) + TINY)
        return fooled

    def _possible(self, task: EvasionTask, rows: Rows) -> Rows:
        rows = rows.astype(task.rows.dtype, copy=False)
        return rows if task.space.is_plain else task.space.project(rows, task.rows)
