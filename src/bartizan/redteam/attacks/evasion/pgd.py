"""PGD: evasion by an adversary who has gradients."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError
from bartizan.redteam.attack import Gradient, Search, slope
from bartizan.redteam.closest import Closest
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Access, Loss, Rows

Samples = NDArray[np.int64]


class PGD:
    """Climb a loss by projected steps, from random starts; samples that are fooled leave the batch.

    Steps follow the sign of the gradient under Linf, its direction under L2, and its largest entries
    under L1. Costs ``steps`` gradients for each restart and sample that still stands.
    """

    name = "evasion.pgd"
    title = "PGD: climbs the loss within bounds, with gradients"
    family = "evasion"
    technique = "T06"
    atlas: tuple[str, ...] = ("AML.T0043.000", "AML.T0042", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.GRADIENTS})
    position = "user"
    references: tuple[str, ...] = (
        "Madry et al.: Towards deep learning models resistant to adversarial attacks. ICLR 2018, arXiv:1706.06083",
    )

    def __init__(
        self, *, steps: int = 40, restarts: int = 1, step_size: float = 1 / 10, loss: Loss = Loss.CROSS_ENTROPY
    ) -> None:
        self.steps, self.restarts, self.loss = steps, restarts, loss
        self.step_size = step_size
        """As a part of the largest change that counts."""

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        closest = Closest(task)
        standing = np.arange(len(task.rows))
        try:
            for _ in range(self.restarts):
                standing = yield from self._climb(task, rng, closest, standing)
        except BudgetError:
            pass
        return closest.rows

    def _climb(
        self, task: EvasionTask, rng: np.random.Generator, closest: Closest, sample: Samples
    ) -> Generator[Gradient, NDArray[np.floating], Samples]:
        """One restart; returns the samples that still stand."""
        radius = np.full(len(sample), task.max_change)
        noise = rng.uniform(-1, 1, (len(sample), task.rows.shape[1])).astype(task.rows.dtype)
        rows = task.within(task.rows[sample] + noise * task.max_change * task.space.scale, sample, radius)
        for step in range(self.steps + 1):
            if not sample.size:
                break
            answer = yield Gradient(rows, sample, self.loss, task.labels[sample])
            logits, gradient = slope(answer, task.classes)
            fooled = logits.argmax(axis=1) != task.labels[sample]
            if fooled.any():
                closest.offer(sample[fooled], rows[fooled])
                sample, rows, gradient = sample[~fooled], rows[~fooled], gradient[~fooled]
            if step < self.steps:
                rows = self._moved(task, sample, rows, gradient)
        return sample

    def _moved(self, task: EvasionTask, sample: Samples, rows: Rows, gradient: NDArray[np.floating]) -> Rows:
        step = steepest(gradient, task.norm) * (self.step_size * task.max_change * task.space.scale)
        return task.within(rows + step.astype(rows.dtype), sample)


def steepest(gradient: NDArray[np.floating], norm: float) -> NDArray[np.floating]:
    """The direction of unit length by the norm in which a linear function grows most."""
    if norm == np.inf:
        return np.asarray(np.sign(gradient))
    length = np.linalg.norm(gradient, axis=1, keepdims=True)
    return np.asarray(gradient / np.maximum(length, np.finfo(gradient.dtype).tiny))
