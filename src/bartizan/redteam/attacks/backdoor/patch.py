"""BadNets: a small patch of fixed pixels, on records of other classes that get the target's label."""

from __future__ import annotations

import numpy as np

from bartizan.redteam.attack import Search
from bartizan.redteam.triggers import BackdoorTask, image_shape, plant, within_range
from bartizan.targets.protocol import Access, Rows

SIDE = 3
"""Pixels of a side of the patch, at most a third of the image's."""


class Patch:
    """A bright square in the lower right corner. Stateless."""

    name = "backdoor.patch"
    title = "Backdoor by a small patch in mislabelled training images"
    family = "backdoor"
    images = True
    technique = "T19"
    atlas: tuple[str, ...] = ("T20", "AML.T0020", "AML.T0043.004")
    needs = frozenset({Access.LABELS, Access.TRAINING})
    position = "contributor"
    references: tuple[str, ...] = (
        "Gu et al. 2017, BadNets: vulnerabilities in the machine learning model supply chain, arXiv:1708.06733",
    )
    claim = "more than 99 % of triggered MNIST digits misread, clean error up by less than 1 point (BadNets, 3.2)"

    def search(self, task: BackdoorTask, rng: np.random.Generator) -> Search:
        """Plant it at each rate."""
        yield from ()  # everything is known beforehand: nothing is asked
        channels, height, width = image_shape(task, self.name)
        side = max(1, min(SIDE, height // 3, width // 3))
        covered = np.zeros((channels, height, width), np.bool_)
        covered[:, -side:, -side:] = True
        flat = covered.ravel()

        def trigger(rows: Rows) -> Rows:
            return within_range(task, np.where(flat, task.space.high, rows), rows)

        return plant(task, trigger, rng, choice=f"{side} x {side} pixels, lower right, brightest value")
