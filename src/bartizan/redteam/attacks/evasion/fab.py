"""FAB: the smallest change, found along the decision boundary by an adversary who has gradients."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError
from bartizan.redteam.attack import Query, Search
from bartizan.redteam.ball import STEPPED, Ball, box, clipped
from bartizan.redteam.boundary import differences, distances, others, shortest
from bartizan.redteam.closest import Closest
from bartizan.redteam.objective import runners_up, slopes
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.feasible import TOLERANCE, lengths
from bartizan.targets.protocol import Access, Labels, Loss, Rows

Samples = NDArray[np.int64]
Sizes = NDArray[np.float64]
Mask = NDArray[np.bool_]
Asking = Generator[Any, Any, None]

MOST_HOMEWARD = 0.1
"""Weight of the way that starts at the sample, at most."""
OVERSHOOT = 1.05
BACK = 0.9
"""Part of the change that is kept after a success."""
LEAST = 1e-8
"""Length below which a way counts as none."""
ROWS = 1024
"""Rows that walk together; see ``evasion.apgd``."""


class FAB:
    """Walk onto the boundary, taken for a plane, staying near the sample; after a success go back a little way.

    Each step mixes the shortest ways onto the plane from where the row stands and from the sample,
    both within the ranges. With ``targets``, each sample walks towards that many other classes, the
    likeliest first, for one gradient and one query a step; without, towards the nearest of all classes
    for as many gradients as there are others.
    """

    name = "evasion.fab"
    title = "FAB: the smallest change across the decision boundary, with gradients"
    family = "evasion"
    technique = "T06"
    atlas: tuple[str, ...] = ("AML.T0043.000", "AML.T0042", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.GRADIENTS})
    norms = STEPPED
    position = "user"
    least = 30
    references: tuple[str, ...] = (
        "Croce, Hein: Minimally distorted adversarial examples. ICML 2020, arXiv:1907.02044",
    )

    def __init__(
        self, *, steps: int = 100, restarts: int = 1, targets: int = 9, settle: bool = False, rows_at_once: int = ROWS
    ) -> None:
        self.steps, self.restarts, self.targets, self.rows_at_once = steps, restarts, targets, rows_at_once
        self.settle = settle
        """Let a sample be once its change counts, however much smaller it could become."""

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        closest = Closest(task)
        with suppress(BudgetError):
            yield from self._everything(task, rng, closest)
        return closest.rows

    def _everything(self, task: EvasionTask, rng: np.random.Generator, closest: Closest) -> Asking:
        everyone = np.arange(len(task.rows))
        logits, _ = yield from slopes(task, everyone, task.rows, Loss.MARGIN)
        wrong = logits.argmax(axis=1) != task.labels
        closest.offer(everyone[wrong], task.rows[wrong])
        aims = runners_up(logits, task.labels, self.targets) if self.targets else None
        ways = [(restart, place) for place in range(1 if aims is None else aims.shape[1]) for restart in self._restarts]
        for chunk in _chunks(everyone[~wrong], self.rows_at_once):
            standing, tried = chunk, 0
            while standing.size and tried < len(ways):
                together = min(len(ways) - tried, max(1, self.rows_at_once // len(standing)))
                restart, place = np.tile(np.array(ways[tried : tried + together]), (len(standing), 1)).T
                sample = np.repeat(standing, together)
                walk = _Walk(task, sample, None if aims is None else aims[sample, place], closest)
                yield from walk.through(self.steps, restart > 0, rng, settle=self.settle)
                standing = _unsettled(chunk, closest, task) if self.settle else chunk
                tried += together

    @property
    def _restarts(self) -> range:
        return range(self.restarts)


class _Walk:
    """Rows on their way, in lock-step; a sample may have several. Everything is in units of the scale."""

    def __init__(self, task: EvasionTask, sample: Samples, aimed: Labels | None, closest: Closest) -> None:
        self.task, self.sample, self.aimed, self.closest = task, sample, aimed, closest
        self.scale = task.space.scale.astype(task.rows.dtype)
        low, high = box(task.space, task.rows[sample])
        self.origin: Rows = task.rows[sample] / self.scale
        self.low, self.high = low / self.scale, high / self.scale
        self.here: Rows = self.origin.copy()

    def through(self, steps: int, away: Mask, rng: np.random.Generator, *, settle: bool) -> Asking:
        """The whole walk; the rows in ``away`` begin at a random place half as far off as counts."""
        if away.any():
            ball = Ball(self.task, self.sample, self.task.max_change / 2)
            self.here = np.where(away[:, None], ball.anywhere(rng) / self.scale, self.here)
        for _ in range(steps):
            if not self.sample.size:
                return
            yield from self._step()
            if settle:
                self._settle()

    def _step(self) -> Asking:
        gap, slopes_ = yield from self._plane()
        norm = self.task.norm
        near = shortest(slopes_, -gap, self.here, (self.low, self.high), norm)
        # The same plane as seen from the sample.
        farther = gap - np.einsum("ij,ij->i", slopes_, self.here - self.origin, dtype=np.float64)
        home = shortest(slopes_, -farther, self.origin, (self.low, self.high), norm)
        first, second = (np.maximum(lengths(way, norm), LEAST) for way in (near, home))
        part = np.minimum(first / (first + second), MOST_HOMEWARD).astype(self.here.dtype)[:, None]
        moved = (1 - part) * (self.here + OVERSHOOT * near) + part * (self.origin + OVERSHOOT * home)
        self.here = clipped(moved, self.low, self.high)
        yield from self._try()

    def _plane(self) -> Generator[Any, Any, tuple[Sizes, Rows]]:
        """How far the class aimed at is behind, and the slopes of that; the nearest plane where none is aimed at."""
        task, rows = self.task, self._rows()
        if self.aimed is not None:
            gaps, steep = yield from differences(task, self.sample, rows, self.aimed[:, None])
            return gaps[:, 0], steep[:, 0] * self.scale
        gaps, steep = yield from differences(task, self.sample, rows, others(task, self.sample))
        steep = steep * self.scale
        nearest = distances(gaps, steep, task.norm).argmin(axis=1)
        every = np.arange(len(nearest))
        return gaps[every, nearest], steep[every, nearest]

    def _try(self) -> Asking:
        """Ask whether the victim is fooled; go back a little where it is."""
        rows = self._rows()
        labels = yield Query(rows, self.sample)
        fooled = labels != self.task.labels[self.sample]
        self.closest.offer(self.sample[fooled], rows[fooled])
        back = np.where(fooled, BACK, 1.0).astype(self.here.dtype)[:, None]
        self.here = self.origin + back * (self.here - self.origin)

    def _rows(self) -> Rows:
        """Where the rows stand, as possible rows."""
        rows = self.here * self.scale
        return rows if self.task.space.is_plain else self.task.space.project(rows, self.task.rows[self.sample])

    def _settle(self) -> None:
        left = self.closest.change[self.sample] > self.task.max_change * (1 + TOLERANCE)
        if left.all():
            return
        self.sample = self.sample[left]
        self.aimed = None if self.aimed is None else self.aimed[left]
        for name in ("here", "origin", "low", "high"):
            setattr(self, name, getattr(self, name)[left])


def _unsettled(sample: Samples, closest: Closest, task: EvasionTask) -> Samples:
    return sample[closest.change[sample] > task.max_change * (1 + TOLERANCE)]


def _chunks(sample: Samples, size: int) -> Iterator[Samples]:
    yield from (sample[at : at + size] for at in range(0, len(sample), size))
