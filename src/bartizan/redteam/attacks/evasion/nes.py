"""NES: evasion by an adversary who sees scores and estimates their gradient."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError
from bartizan.redteam.asking import Asking, Samples
from bartizan.redteam.attack import Query, Search
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Access, Rows, Scores

PROBES, FEW_PROBES = 50, 20
"""Queries for one estimate: the paper's, and what is better for rows of few features at budgets of hundreds."""
FEW_FEATURES = 256


class NES:
    """Climb the margin by projected steps along a gradient that is estimated from pairs of opposite probes.

    As in the paper: Gaussian probes in opposite pairs, momentum, steps of the sign under Linf. All
    probes of all samples go out in one call. Samples that fool the victim are left alone.
    """

    name = "evasion.nes"
    title = "NES: climbs an estimated gradient within bounds, guided by scores"
    family = "evasion"
    technique = "T07"
    atlas: tuple[str, ...] = ("AML.T0043.001", "AML.T0042", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.SCORES})
    position = "user"
    least = 25
    references: tuple[str, ...] = (
        "Ilyas et al.: Black-box adversarial attacks with limited queries. ICML 2018, arXiv:1804.08598",
    )

    def __init__(
        self, *, probes: int | None = None, radius: float = 0.3, step: float = 0.2, momentum: float = 0.9
    ) -> None:
        self.probes, self.step, self.momentum = probes, step, momentum
        """Queries for one estimate, by default as many as suit the number of features; length of a step as a part of
        the largest change; weight of the past."""
        self.radius = radius
        """Deviation of a probe in each feature under Linf, or its length otherwise, as a part of the largest change."""

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        climb = _Climb(task, self, rng)
        try:
            yield from climb.margins(np.arange(len(task.rows)), task.rows)
            while (live := climb.live).size:
                yield from climb.step(live)
        except BudgetError:
            pass
        return climb.closest.rows


_PAIR = 2


class _Climb(Asking):
    """Where each sample stands, and where it is heading."""

    def __init__(self, task: EvasionTask, settings: NES, rng: np.random.Generator) -> None:
        super().__init__(task)
        self.settings, self.rng = settings, rng
        self.probes = settings.probes or (FEW_PROBES if task.rows.shape[1] <= FEW_FEATURES else PROBES)
        self.here: Rows = task.rows.copy()
        self.heading: NDArray[np.float64] = np.zeros(task.rows.shape)

    @property
    def live(self) -> Samples:
        """Samples for which nothing was found, and that can pay for another pair of probes and a step."""
        live = self.open
        return live[self.left[live] > _PAIR]

    def step(self, live: Samples) -> Generator[Query, Scores, None]:
        """Estimate, step, look."""
        gradient = yield from self._estimate(live)
        self.heading[live] = self.settings.momentum * self.heading[live] + (1 - self.settings.momentum) * gradient
        heading = self.heading[live]
        if self.task.norm == np.inf:
            heading = np.sign(heading)
        else:
            length = np.linalg.norm(heading, axis=1, keepdims=True)
            heading = heading / np.where(length > 0, length, 1.0)
        move = -self.settings.step * self.task.max_change * heading * self.task.space.scale
        self.here[live] = self.task.within(self.here[live] + move.astype(self.here.dtype), live)
        still = self.open
        yield from self.margins(still, self.here[still])

    def _estimate(self, live: Samples) -> Generator[Query, Scores, NDArray[np.float64]]:
        """``(live, features)``: gradient of the margin, up to its length."""
        pairs = max(min(self.probes, int(self.left[live].max()) - 1) // 2, 1)
        shape = (len(live), pairs, self.here.shape[1])
        noise = self.rng.standard_normal(shape, dtype=np.float32) * ~self.task.space.immutable
        radius = self.settings.radius * self.task.max_change
        if self.task.norm != np.inf:
            radius /= np.sqrt(shape[2])
        both = np.concatenate([noise, -noise], axis=1)
        rows = self.here[live][:, None, :] + (radius * both * self.task.space.scale).astype(self.here.dtype)
        sample = np.repeat(live, 2 * pairs)
        flat = self.task.space.project(rows.reshape(-1, shape[2]), self.task.rows[sample])
        margin = yield from self.margins(sample, flat)
        # A probe that could not be paid, like one that fooled the victim beyond the bound, says nothing more.
        margin = np.where(np.isfinite(margin), margin, 0.0).reshape(len(live), 2, pairs)
        return np.asarray(np.einsum("sp,spf->sf", margin[:, 0] - margin[:, 1], noise, dtype=np.float64))
