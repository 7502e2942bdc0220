"""Model inversion: climb from a usual row to the nearest one that the model is sure of, for each class.

By gradients where there are any, else by differences of scores along random directions. The climb
stops once the model is sure, because beyond that the row tells of the model and not of the data.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError
from bartizan.redteam.attack import Gradient, Query, Request, Search, slope
from bartizan.redteam.privacy_tasks import InversionTask
from bartizan.targets.protocol import Access, Loss, Rows, Scores

SURE = 0.95
"""Probability of the class at which a climb ends."""
STEPS = 100
STRIDE = 0.02
"""Length of a step, in standard deviations of every feature together."""
PAIRS = 25
"""Random directions, each asked on both sides, for one step without gradients."""
SPREAD = 0.5
"""Distance of these questions, in standard deviations of each feature."""
LEAST_CHANCE = 1e-9

Floats = NDArray[np.float64]


class InversionByGradients:
    """See ``InversionTask``. Stateless."""

    name = "privacy.inversion-gradients"
    title = "Model inversion by gradients"
    family = "privacy"
    technique = "T36"
    atlas: tuple[str, ...] = ("AML.T0024.001",)
    needs: frozenset[Access] = frozenset({Access.GRADIENTS})
    position = "finder"
    stride = STRIDE
    references: tuple[str, ...] = (
        "Fredrikson et al. 2015, Model inversion attacks that exploit confidence information, CCS",
    )

    def search(self, task: InversionTask, rng: np.random.Generator) -> Search:
        """Climb for all classes at once, as far as the budget goes."""
        centre = np.broadcast_to(task.centre, (task.classes, task.features))
        rows = task.space.project(centre, centre).astype(np.float64)
        length = self.stride * np.sqrt(task.features)
        live = np.arange(task.classes)
        try:
            for _ in range(STEPS):
                chance, uphill = yield from self._look(task, rows[live], live, rng)
                climbing = (chance < SURE) & (np.linalg.norm(uphill, axis=1) > 0)
                live, uphill = live[climbing], uphill[climbing]
                if not len(live):
                    break
                step = length * uphill / np.linalg.norm(uphill, axis=1, keepdims=True)
                rows[live] = task.space.project(rows[live] + step * task.space.scale, centre[live])
        except BudgetError:
            pass
        return rows

    def _look(
        self,
        task: InversionTask,
        rows: Rows,
        live: NDArray[np.int64],
        rng: np.random.Generator,  # noqa: ARG002 - others draw directions
    ) -> Generator[Request, Any, tuple[Floats, Floats]]:
        """Probability of each row's class, and the way up in standard deviations ``(classes, features)``."""
        answer = yield Gradient(rows, live, Loss.CROSS_ENTROPY, live)
        scores, gradients = slope(answer, task.classes)
        chance: Floats = scipy.special.softmax(scores.astype(np.float64), axis=1)[np.arange(len(live)), live]
        return chance, -gradients.astype(np.float64) * task.space.scale * ~task.space.immutable


class InversionByScores(InversionByGradients):
    """The same where only scores are answered (Ilyas et al. 2018, arXiv:1804.08598, for the directions)."""

    name = "privacy.inversion"
    title = "Model inversion by scores"
    needs = frozenset({Access.SCORES})
    position = "user"
    stride = 5 * STRIDE

    def _look(
        self, task: InversionTask, rows: Rows, live: NDArray[np.int64], rng: np.random.Generator
    ) -> Generator[Request, Any, tuple[Floats, Floats]]:
        """See ``InversionByGradients._look``."""
        directions = rng.normal(size=(len(live), PAIRS, task.features)) * ~task.space.immutable
        reach = SPREAD * directions * task.space.scale
        asked = np.concatenate([rows[:, None], rows[:, None] + reach, rows[:, None] - reach], axis=1)
        flat = asked.reshape(-1, task.features)
        answer: Scores = yield Query(flat, np.repeat(live, 1 + 2 * PAIRS), scores=True)
        chances = answer.reshape(len(live), 1 + 2 * PAIRS, task.classes)[np.arange(len(live)), :, live]
        logs = np.log(np.maximum(chances, LEAST_CHANCE))
        gain = logs[:, 1 : 1 + PAIRS] - logs[:, 1 + PAIRS :]
        return chances[:, 0], np.einsum("cp,cpf->cf", gain, directions)
