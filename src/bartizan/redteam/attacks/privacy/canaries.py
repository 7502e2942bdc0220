"""Canaries: records that a model would only know if it has learnt them by heart.

Two designs. ``Mislabelled`` takes real records and gives them a wrong class: nothing but memory can
make a model sure of it. ``Improbable`` draws records at random from what is possible, such as no
population would show.
"""

from __future__ import annotations

import numpy as np

from bartizan.redteam.attack import Search
from bartizan.redteam.privacy_tasks import Canaries, CanaryTask
from bartizan.targets.protocol import Access, Labels, Rows

NUDGE = 0.05
"""Noise on a real record, in standard deviations, so that the canary is a record of its own."""


class Mislabelled:
    """Real records with a wrong class. Stateless."""

    name = "privacy.canary"
    title = "Memorisation of mislabelled canaries, with exposure and an audit of epsilon"
    family = "privacy"
    technique = "T40"
    atlas: tuple[str, ...] = ("AML.T0057",)
    needs = frozenset({Access.SCORES, Access.TRAINING})
    position = "contributor"
    references: tuple[str, ...] = (
        "Carlini et al. 2019, The secret sharer, arXiv:1802.08232",
        "Nasr et al. 2021, Adversary instantiation, arXiv:2101.04535",
        "Steinke et al. 2023, Privacy auditing with one (1) training run, arXiv:2305.08846",
    )

    def search(self, task: CanaryTask, rng: np.random.Generator) -> Search:
        """Design the canaries; nothing is asked."""
        rows, own = self.rows(task, rng)
        step = rng.integers(1, max(2, task.classes), task.count)
        yield from ()
        return Canaries(rows, (own + step) % task.classes)

    def rows(self, task: CanaryTask, rng: np.random.Generator) -> tuple[Rows, Labels]:
        """``(count, features)``, and the class that each would have by rights ``(count,)``."""
        chosen = rng.permutation(len(task.rows))[: task.count]
        near = task.rows[chosen] + NUDGE * task.space.scale * rng.normal(size=(task.count, task.rows.shape[1]))
        return task.space.project(near, task.rows[chosen]), task.labels[chosen]


class Improbable(Mislabelled):
    """Random rows from what is possible, with random classes."""

    name = "privacy.canary-improbable"
    title = "Memorisation of improbable canaries, with exposure and an audit of epsilon"

    def rows(self, task: CanaryTask, rng: np.random.Generator) -> tuple[Rows, Labels]:
        """See ``Mislabelled.rows``."""
        origin = task.rows[rng.integers(len(task.rows), size=task.count)]
        low, high = task.space.low, task.space.high
        drawn = low + rng.random((task.count, task.rows.shape[1])) * (high - low)
        return task.space.project(drawn, origin), rng.integers(task.classes, size=task.count)


class MislabelledFromLabels(Mislabelled):
    """The same where only labels are answered."""

    name = "privacy.canary-labels"
    title = "Memorisation of mislabelled canaries, seen from labels alone"
    needs = frozenset({Access.LABELS, Access.TRAINING})
