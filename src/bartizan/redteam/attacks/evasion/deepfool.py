"""DeepFool: a small change, found by crossing the nearest of all planes again and again."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError
from bartizan.redteam.attack import Query, Search
from bartizan.redteam.ball import STEPPED, box, clipped
from bartizan.redteam.boundary import differences, distances, others, shortest
from bartizan.redteam.closest import Closest
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Access, Rows

Samples = NDArray[np.int64]

NUDGE = 1e-4
"""By how much each step goes beyond its plane, or a row would come to lie on the boundary of a linear victim."""


class DeepFool:
    """Take the victim for linear where the row stands and step onto the nearest boundary, until it is fooled.

    On a linear victim the first step is the least change there is. Costs ``classes - 1`` gradients and one
    query a step. Against the paper: the step keeps within the ranges, any of the norms inf, 2 and 1 will do,
    and the overshoot is tried small first.
    """

    name = "evasion.deepfool"
    title = "DeepFool: a small change across the nearest boundary, with gradients"
    family = "evasion"
    technique = "T06"
    atlas: tuple[str, ...] = ("AML.T0043.000", "AML.T0042", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.GRADIENTS})
    norms = STEPPED
    position = "user"
    least = 5
    references: tuple[str, ...] = ("Moosavi-Dezfooli, Fawzi, Frossard: DeepFool. CVPR 2016, arXiv:1511.04599",)

    def __init__(self, *, steps: int = 50, overshoot: float = 0.02) -> None:
        self.steps, self.overshoot = steps, overshoot

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``. Nothing here is random."""
        del rng
        closest = Closest(task)
        with suppress(BudgetError):
            yield from self._cross(task, closest)
        return closest.rows

    def _cross(self, task: EvasionTask, closest: Closest) -> Generator[Any, Any, None]:
        sample = np.arange(len(task.rows))
        labels = yield Query(task.rows, sample)
        wrong = labels != task.labels
        closest.offer(sample[wrong], task.rows[wrong])
        sample = sample[~wrong]
        here = task.rows[sample].copy()
        for _ in range(self.steps):
            if not sample.size:
                return
            here = yield from self._step(task, sample, here)
            fooled = yield from self._try(task, sample, here, closest)
            sample, here = sample[~fooled], here[~fooled]

    def _step(self, task: EvasionTask, sample: Samples, here: Rows) -> Generator[Any, Any, Rows]:
        scale = task.space.scale.astype(here.dtype)
        gaps, slopes = yield from differences(task, sample, here, others(task, sample))
        slopes = slopes * scale
        nearest = distances(gaps, slopes, task.norm).argmin(axis=1)
        every = np.arange(len(nearest))
        low, high = box(task.space, task.rows[sample])
        gap = -gaps[every, nearest]
        gap += NUDGE * np.abs(gap)
        way = shortest(slopes[every, nearest], gap, here / scale, (low / scale, high / scale), task.norm)
        return clipped(here + way.astype(here.dtype) * scale, low, high)

    def _try(
        self, task: EvasionTask, sample: Samples, here: Rows, closest: Closest
    ) -> Generator[Any, Any, NDArray[np.bool_]]:
        """Which rows fool the victim, as they are or with the overshoot."""
        origin = task.rows[sample]
        low, high = box(task.space, origin)
        farther = clipped(origin + np.asarray(1 + self.overshoot, here.dtype) * (here - origin), low, high)
        rows = task.space.project(np.concatenate([here, farther]), np.concatenate([origin, origin]))
        both = np.concatenate([sample, sample])
        labels = yield Query(rows, both)
        fooled: NDArray[np.bool_] = labels != task.labels[both]
        closest.offer(both[fooled], rows[fooled])
        return np.asarray(fooled.reshape(2, -1).any(axis=0))
