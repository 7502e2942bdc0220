"""Universal perturbation: one change that fools the victim on most rows."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from bartizan.core.errors import BudgetError
from bartizan.redteam.attack import Query, Search, slope
from bartizan.redteam.ball import FLAT, largest
from bartizan.redteam.closest import Closest
from bartizan.redteam.owned import Owned
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.feasible import lengths, shrunk
from bartizan.targets.protocol import Access, Rows

ENOUGH = 1.0
"""Margin, in logits, beyond which a row that is fooled pushes no more."""
DENSITY = 0.05
"""Share of the features that a step moves under L1."""


class Universal:
    """Learn one change from rows that the adversary owns and put it on every sample.

    What it fools was never seen while learning, when the adversary owns rows; where it owns none, it learns
    from the samples. The victim's gradient is needed once, not for each input: a sticker or a filter would do.

    Against the paper, which adds up DeepFool steps: steps follow the mean gradient of the rows that still hold,
    projected after each (Shafahi et al. 2020), which fools more. Costs ``epochs`` gradients for each
    owned row, shared out among the samples, and one query a sample.
    """

    name = "evasion.universal"
    title = "Universal perturbation: one change for all inputs, learnt with gradients"
    family = "evasion"
    technique = "T06"
    atlas: tuple[str, ...] = ("AML.T0043.000", "AML.T0042", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.GRADIENTS})
    position = "user"
    together = True
    """All samples are attacked together; a part of them would be another attack."""
    references: tuple[str, ...] = (
        "Moosavi-Dezfooli et al.: Universal adversarial perturbations. CVPR 2017, arXiv:1610.08401",
        "Shafahi et al.: Universal adversarial training. AAAI 2020, arXiv:1811.11304",
    )

    def __init__(
        self, *, epochs: int = 10, batch: int = 64, step_size: float = 1 / 10, aimed: int | None = None
    ) -> None:
        self.epochs, self.batch = epochs, batch
        self.step_size = step_size
        """Of the first steps, as a part of the largest change that counts; the last ones are near 0."""
        self.aimed = aimed
        """Class that everything shall be taken for; none for any wrong one."""

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        closest = Closest(task)
        everyone = np.arange(len(task.rows))
        try:
            change = yield from self._learn(task, rng)
            rows = _applied(task, task.rows, change)
            labels = yield Query(rows, everyone)
            fooled = labels != task.labels
            closest.offer(everyone[fooled], rows[fooled])
        except BudgetError:
            pass
        return closest.rows

    def _learn(self, task: EvasionTask, rng: np.random.Generator) -> Generator[Any, Any, Rows]:
        """``(1, features)``: the change, in units of the scale."""
        owned = Owned.of(task)
        scale = task.space.scale.astype(task.rows.dtype)
        radius = np.array([task.max_change])
        change = np.zeros((1, task.rows.shape[1]), dtype=task.rows.dtype)
        for epoch in range(self.epochs):
            size = self.step_size * task.max_change * (1 - epoch / self.epochs)
            for places in owned.batches(self.batch, rng):
                rows = _applied(task, owned.rows[places], change)
                answer = yield owned.question(places, rows, self.aimed)
                logits, gradient = slope(answer, task.classes)
                pushing = owned.pushing(logits, places, self.aimed, ENOUGH)
                if pushing.any():
                    step = _steepest(gradient[pushing].mean(axis=0, keepdims=True) * scale, task.norm)
                    change = shrunk((change + size * step).astype(change.dtype), radius, task.norm)
        return change


def _applied(task: EvasionTask, rows: Rows, change: Rows) -> Rows:
    """``rows`` with the change, as possible rows within the bound."""
    moved = rows + change * task.space.scale.astype(rows.dtype)
    return task.space.within(moved, rows, np.full(len(rows), task.max_change), task.norm)


def _steepest(gradient: Rows, norm: float) -> Rows:
    """``(1, features)``: the step of unit length that gains most."""
    if norm == np.inf:
        return np.sign(gradient)
    if norm == 1:
        gradient = np.sign(gradient) * largest(np.abs(gradient), DENSITY)
    return np.asarray(gradient / np.maximum(lengths(gradient, norm or 2.0), FLAT)[:, None])
