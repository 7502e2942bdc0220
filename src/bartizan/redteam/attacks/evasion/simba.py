"""SimBA: evasion by an adversary who sees scores and steps along one direction after the other."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError
from bartizan.redteam.asking import Asking, Mask, Samples, Sizes
from bartizan.redteam.attack import Query, Search
from bartizan.redteam.tasks import EvasionTask
from bartizan.redteam.windows import is_picture
from bartizan.targets.protocol import Access, Rows, Scores

STEP = 0.2
"""Length of a step as in the paper, in units of the space; never beyond the largest change that counts."""


class SimBA:
    """Take a random direction of an orthonormal basis, step forth or back along it, keep what lowers the margin.

    The basis is features or pixels, or with ``cosines`` the waves of the image's cosine transform, low
    frequencies first, of which the paper says that they need fewer queries on natural images. No
    direction comes twice before all have come. All samples step together: at most two calls for each
    step. Samples that fool the victim are left alone.
    """

    name = "evasion.simba"
    title = "SimBA: steps along one feature or wave after the other, guided by scores"
    family = "evasion"
    technique = "T07"
    atlas: tuple[str, ...] = ("AML.T0043.001", "AML.T0042", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.SCORES})
    position = "user"
    least = 25
    references: tuple[str, ...] = ("Guo et al.: Simple black-box adversarial attacks. ICML 2019, arXiv:1905.07121",)

    def __init__(self, *, step: float = STEP, cosines: bool = False) -> None:
        self.step, self.cosines = step, cosines

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        walk = _Walk(task, self.step, rng, cosines=self.cosines and is_picture(task.shape))
        try:
            everything = np.arange(len(task.rows))
            walk.margin = yield from walk.margins(everything, task.rows)
            while (live := walk.open).size and walk.idle < walk.directions:
                yield from walk.move(live)
        except BudgetError:
            pass
        return walk.closest.rows


class _Walk(Asking):
    """Where each sample stands."""

    def __init__(self, task: EvasionTask, step: float, rng: np.random.Generator, *, cosines: bool) -> None:
        super().__init__(task)
        self.rng, self.cosines = rng, cosines
        self.here: Rows = task.rows.copy()
        self.margin: Sizes = np.full(len(task.rows), np.inf)
        self.length = min(step, task.max_change)
        mobile = np.flatnonzero(~task.space.immutable)
        self.directions = len(mobile)
        if cosines:
            order = np.argsort(_frequency(task.shape) + 0.5 * rng.random((len(task.rows), task.rows.shape[1])), axis=1)
        else:
            order = mobile[rng.random((len(task.rows), len(mobile))).argsort(axis=1)]
        self.order: Samples = order
        """``(samples, directions)``: which direction each sample takes when."""
        self.turn = 0
        self.idle = 0
        """Directions in a row in which nobody could move at all."""

    def move(self, live: Samples) -> Generator[Query, Scores, None]:
        """One direction for each sample: forth, and where that does not help back."""
        direction = self.order[live, self.turn % self.directions]
        self.turn += 1
        self.idle += 1
        moved = yield from self._step(live, direction, 1.0)
        again = ~moved & np.isin(live, self.open, assume_unique=True)
        yield from self._step(live[again], direction[again], -1.0)

    def _step(self, sample: Samples, direction: Samples, sign: float) -> Generator[Query, Scores, Mask]:
        """Which samples moved."""
        if not sample.size:
            return np.zeros(0, dtype=np.bool_)
        step = self._unit(direction) * (sign * self.length) * self.task.space.scale
        whole = self.task.space.integer & (step != 0)
        step[whole] = np.where(np.abs(step[whole]) < 1, np.sign(step[whole]), step[whole])
        rows = self.task.within(self.here[sample] + step.astype(self.here.dtype), sample)
        new = (rows != self.here[sample]).any(axis=1)
        self.idle = 0 if new.any() else self.idle
        better = np.zeros(len(sample), dtype=np.bool_)
        margin = yield from self.margins(sample[new], rows[new])
        better[new] = margin < self.margin[sample[new]]
        self.margin[sample[better]] = margin[better[new]]
        self.here[sample[better]] = rows[better]
        return better

    def _unit(self, direction: Samples) -> NDArray[np.float64]:
        """``(batch, features)``: the steps of length 1."""
        unit = np.zeros((len(direction), self.here.shape[1]))
        unit[np.arange(len(direction)), direction] = 1.0
        if not self.cosines:
            return unit
        waves = scipy.fft.idctn(unit.reshape(-1, *self.task.shape), axes=(2, 3), norm="ortho")
        return np.asarray(waves.reshape(unit.shape))


def _frequency(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """``(features,)``: how many waves each direction of the cosine transform has across the image, at most."""
    channels, height, width = shape
    waves = np.maximum(np.arange(height)[:, None], np.arange(width))
    return np.broadcast_to(waves, (channels, height, width)).reshape(-1).astype(np.float64)
