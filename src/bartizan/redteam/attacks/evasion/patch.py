"""Patch: a small picture that fools the victim wherever it lies in the image."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError, InputError
from bartizan.redteam.attack import Query, Search, slope
from bartizan.redteam.closest import Closest
from bartizan.redteam.owned import Owned
from bartizan.redteam.tasks import EvasionTask
from bartizan.redteam.windows import Windows, is_picture, windows_of
from bartizan.targets.protocol import Access, Rows

Values = NDArray[np.floating]

ENOUGH = 1.0
"""Margin, in logits, beyond which an image that is fooled pushes no more."""


class Patch:
    """Learn one square patch on images that the adversary owns, at random places, and lay it on every sample.

    The bound is a number of pixels (norm 0): the patch is the largest square that has no more, with any
    values within the ranges. It is tried at ``places`` random places of each sample, and stays where it
    works. Costs ``epochs`` gradients for each owned image, shared out among the samples, and up to
    ``places`` queries a sample. Against the paper: square patches that are not turned or resized; the
    adversary picks the place.
    """

    name = "evasion.patch"
    title = "Patch: one small picture that fools the victim wherever it lies, learnt with gradients"
    family = "evasion"
    images = True
    technique = "T06"
    atlas: tuple[str, ...] = ("AML.T0043.000", "AML.T0041", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.GRADIENTS})
    norms = frozenset({0.0})
    position = "user"
    together = True
    """All samples are attacked together; a part of them would be another attack."""
    references: tuple[str, ...] = ("Brown et al.: Adversarial patch. NIPS workshop 2017, arXiv:1712.09665",)

    def __init__(
        self,
        *,
        epochs: int = 15,
        batch: int = 64,
        step_size: float = 1 / 10,
        places: int = 1,
        aimed: int | None = None,
    ) -> None:
        self.epochs, self.batch, self.places = epochs, batch, places
        self.step_size = step_size
        """Of the first steps, as a part of the range of values; the last ones are near 0."""
        self.aimed = aimed
        """Class that everything shall be taken for; none for any wrong one."""

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``.

        Raises:
            InputError: the rows are no images, or the bound is no number of pixels.
        """
        if not is_picture(task.shape) or task.norm != 0 or task.max_change < 1:
            raise InputError(
                f"{self.name} covers pixels of images, and the norm {task.norm:g} with a bound of "
                f"{task.max_change:g} on rows of shape {task.shape} is asked for",
                remedy="give images their shape, the norm 0, and a number of pixels as the bound.",
            )
        return self._search(task, rng)

    def _search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        closest = Closest(task)
        windows = windows_of(task.shape, int(np.sqrt(task.max_change)))
        try:
            patch = yield from self._learn(task, windows, rng)
            yield from self._lay(task, windows, patch, closest, rng)
        except BudgetError:
            pass
        return closest.rows

    def _learn(self, task: EvasionTask, windows: Windows, rng: np.random.Generator) -> Generator[Any, Any, Values]:
        """``(channels * side * side,)``: values of the patch, each as a share of its pixel's range."""
        owned = Owned.of(task)
        patch = rng.random(windows.channels * windows.side**2, dtype=np.float32)
        for epoch in range(self.epochs):
            size = self.step_size * (1 - epoch / self.epochs)
            for places in owned.batches(self.batch, rng):
                pixels = _somewhere(windows, len(places), rng)
                answer = yield owned.question(places, _laid(task, owned.rows[places], pixels, patch), self.aimed)
                logits, gradient = slope(answer, task.classes)
                pushing = owned.pushing(logits, places, self.aimed, ENOUGH)
                if pushing.any():
                    pull = np.take_along_axis(gradient[pushing], pixels[pushing], axis=1)
                    patch = np.clip(patch + size * np.sign(pull.mean(axis=0)), 0, 1).astype(np.float32)
        return patch

    def _lay(
        self, task: EvasionTask, windows: Windows, patch: Values, closest: Closest, rng: np.random.Generator
    ) -> Generator[Any, Any, None]:
        for _ in range(self.places):
            standing = np.flatnonzero(np.isinf(closest.change))
            if not standing.size:
                return
            rows = _laid(task, task.rows[standing], _somewhere(windows, len(standing), rng), patch)
            rows = task.space.project(rows, task.rows[standing])
            labels = yield Query(rows, standing)
            fooled = labels != task.labels[standing]
            closest.offer(standing[fooled], rows[fooled])


def _somewhere(windows: Windows, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``(count, channels * side * side)``: the pixels of random windows."""
    return windows.pixels(rng.integers(0, windows.count, count)).reshape(count, -1)


def _laid(task: EvasionTask, rows: Rows, pixels: NDArray[np.int64], patch: Values) -> Rows:
    """``rows`` with the patch over ``pixels``."""
    low, high = task.space.low, task.space.high
    covered = rows.copy()
    values = low[pixels] + (high - low)[pixels] * patch
    np.put_along_axis(covered, pixels, values.astype(rows.dtype), axis=1)
    return covered
