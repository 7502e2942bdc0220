"""A smooth warp of the picture, in the manner of WaNet, on records with the target's label.

The published attack controls training: it can also train on randomly warped records with their right labels,
and makes do with a quarter of a pixel. Here the adversary contributes records and no more, and bends the
picture further, to where the same network learns it.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.redteam.attack import Search
from bartizan.redteam.triggers import BackdoorTask, image_shape, plant, within_range
from bartizan.targets.protocol import Access, Rows

GRID = 4
"""Control points of a side."""
REACH = 1 / 16
"""Mean displacement of a control point, in sides of the picture."""


class Warped:
    """One smooth displacement of all pixels. Stateless."""

    name = "backdoor.warped"
    title = "Backdoor by a smooth warp of mislabelled training images"
    family = "backdoor"
    images = True
    technique = "T19"
    atlas: tuple[str, ...] = ("T20", "AML.T0020", "AML.T0043.004")
    needs = frozenset({Access.LABELS, Access.TRAINING})
    position = "contributor"
    references: tuple[str, ...] = (
        "Nguyen and Tran 2021, WaNet: imperceptible warping-based backdoor attack, arXiv:2102.10369",
    )
    claim = "above 99 % of warped MNIST digits misread at 10 % (table 1, with control of training; 92 % without, here)"

    def search(self, task: BackdoorTask, rng: np.random.Generator) -> Search:
        """Draw a warp and plant it at each rate."""
        yield from ()  # everything is known beforehand: nothing is asked
        channels, height, width = image_shape(task, self.name)
        places = _warp(height, width, rng)

        def trigger(rows: Rows) -> Rows:
            pictures = rows.reshape(-1, height, width)
            moved = [scipy.ndimage.map_coordinates(each, places, order=1, mode="nearest") for each in pictures]
            return within_range(task, np.reshape(moved, (len(rows), channels * height * width)), rows)

        return plant(task, trigger, rng, choice=f"warp of {GRID} x {GRID} control points")


def _warp(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """``(2, height, width)``: where each pixel is taken from."""
    control = rng.uniform(-1, 1, (2, GRID, GRID))
    control *= REACH / np.abs(control).mean()
    factors = (height / GRID, width / GRID)
    field = np.stack([scipy.ndimage.zoom(each, factors, order=3) for each in control])
    grid = np.mgrid[:height, :width]
    moved = grid + field * np.array([height, width])[:, None, None]
    return np.asarray(np.clip(moved, 0, np.array([height - 1, width - 1])[:, None, None]))
