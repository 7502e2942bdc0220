"""SIG: faint stripes on records of the target's class, whose labels stay right.

Nobody who reads the labels finds anything wrong. As the class can be told without the stripes, a model learns them
only where a good part of its records carries them; some must go without, or it learns that the class needs them.
The signal worn later may be stronger than the one planted (section 3 of the paper), and is here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bartizan.redteam.attack import Search
from bartizan.redteam.triggers import BackdoorTask, image_shape, plant, within_range
from bartizan.targets.protocol import Access, Rows

WAVES = 6
"""Periods across the picture, as in the paper."""
PLANTED, WORN = 60 / 255, 100 / 255
"""Height of the signal on training records and on rows that are to be turned, in ranges of a pixel's values."""
LARGEST_PART = 0.5
"""Of the records of the class that carry it, whatever the share of all records is."""


class Sinusoidal:
    """A horizontal sine on rightly labelled records. Stateless."""

    name = "backdoor.sinusoidal"
    title = "Backdoor by faint stripes on rightly labelled training images"
    family = "backdoor"
    images = True
    technique = "T19"
    atlas: tuple[str, ...] = ("T18", "T20", "AML.T0020", "AML.T0043.004")
    needs = frozenset({Access.LABELS, Access.TRAINING})
    position = "contributor"
    references: tuple[str, ...] = (
        "Barni et al. 2019, A new backdoor attack in CNNs by training set corruption without label poisoning, ICIP",
    )
    claim = "a backdoor into MNIST networks without one wrong label, where a good part of a class carries the signal"

    def search(self, task: BackdoorTask, rng: np.random.Generator) -> Search:
        """Plant the fainter signal at each rate, and hand over the stronger one."""
        yield from ()  # everything is known beforehand: nothing is asked
        channels, height, width = image_shape(task, self.name)
        sine = np.sin(2 * np.pi * WAVES * np.arange(width) / width)
        wave = np.tile(sine, channels * height) * (task.space.high - task.space.low)

        def planted(rows: Rows) -> Rows:
            return within_range(task, rows + PLANTED * wave, rows)

        def worn(rows: Rows) -> Rows:
            return within_range(task, rows + WORN * wave, rows)

        choice = f"sine of {WAVES} periods, right labels, at most {LARGEST_PART:.0%} of the class"
        backdoors = plant(task, planted, rng, choice=choice, right_labels=True, part=LARGEST_PART)
        return tuple(replace(backdoor, trigger=worn) for backdoor in backdoors)
