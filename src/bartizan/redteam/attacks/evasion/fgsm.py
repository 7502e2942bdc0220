"""FGSM: evasion by one step along the gradient."""

from __future__ import annotations

import numpy as np

from bartizan.core.errors import BudgetError
from bartizan.redteam.attack import Query, Search
from bartizan.redteam.ball import STEPPED, Ball
from bartizan.redteam.closest import Closest
from bartizan.redteam.objective import slopes
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Access, Loss


class FGSM:
    """One step of the full size, from the sample itself or from a random place near it.

    The cheapest attack there is, and the weakest: one gradient and one query a sample. Worth running beside PGD,
    which must never do worse; see ``redteam.masking``.
    """

    name = "evasion.fgsm"
    title = "FGSM: one step along the gradient"
    family = "evasion"
    technique = "T06"
    atlas: tuple[str, ...] = ("AML.T0043.000", "AML.T0042", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.GRADIENTS})
    norms = STEPPED
    position = "user"
    references: tuple[str, ...] = (
        "Goodfellow, Shlens, Szegedy: Explaining and harnessing adversarial examples. ICLR 2015, arXiv:1412.6572",
        "Tramer et al.: Ensemble adversarial training (a random start). ICLR 2018, arXiv:1705.07204",
    )

    def __init__(self, *, start: float = 0.0, loss: Loss = Loss.CROSS_ENTROPY) -> None:
        self.start = start
        """Radius of the random start, as a part of the largest change that counts."""
        self.loss = loss

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        closest = Closest(task)
        everyone = np.arange(len(task.rows))
        ball = Ball(task, everyone)
        start = Ball(task, everyone, self.start * task.max_change)
        rows = start.anywhere(rng) if self.start else task.rows
        try:
            _, gradient = yield from slopes(task, everyone, rows, self.loss)
            step = ball.steepest(gradient, rows) * np.asarray(task.max_change, dtype=rows.dtype)
            rows = ball.inside(rows + step.astype(rows.dtype))
            labels = yield Query(rows, everyone)
            fooled = labels != task.labels
            closest.offer(everyone[fooled], rows[fooled])
        except BudgetError:
            pass
        return closest.rows
