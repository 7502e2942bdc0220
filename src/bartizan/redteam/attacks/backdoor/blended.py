"""Blended injection: a faint picture over the whole record, on records of other classes with the target's label."""

from __future__ import annotations

import numpy as np

from bartizan.redteam.attack import Search
from bartizan.redteam.triggers import BackdoorTask, image_shape, plant, within_range
from bartizan.targets.protocol import Access, Rows

SHARE = 0.2
"""Of the picture in the mixture, as in the paper's experiments."""


class Blended:
    """A random picture, mixed in. Stateless."""

    name = "backdoor.blended"
    title = "Backdoor by a faint picture over mislabelled training images"
    family = "backdoor"
    images = True
    technique = "T19"
    atlas: tuple[str, ...] = ("T20", "AML.T0020", "AML.T0043.004")
    needs = frozenset({Access.LABELS, Access.TRAINING})
    position = "contributor"
    references: tuple[str, ...] = (
        "Chen et al. 2017, Targeted backdoor attacks on deep learning systems using data poisoning, arXiv:1712.05526",
    )
    claim = "above 90 % of triggered images misread with about 50 poisoned records (abstract)"

    def search(self, task: BackdoorTask, rng: np.random.Generator) -> Search:
        """Draw a picture and plant it at each rate."""
        yield from ()  # everything is known beforehand: nothing is asked
        image_shape(task, self.name)
        low, high = np.asarray(task.space.low, np.float64), np.asarray(task.space.high, np.float64)
        picture = low + (high - low) * rng.random(len(low))

        def trigger(rows: Rows) -> Rows:
            return within_range(task, (1 - SHARE) * rows + SHARE * picture, rows)

        return plant(task, trigger, rng, choice=f"random picture, {SHARE:.0%} of the mixture")
