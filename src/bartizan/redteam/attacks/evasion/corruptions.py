"""Corruptions: evasion by hand, or by nobody at all."""

from __future__ import annotations

import numpy as np

from bartizan.redteam.attack import Search
from bartizan.redteam.corruption import corrupted
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Access


class Corruptions:
    """Every sample under every common corruption, in five severities.

    Asks nothing: the family asks about all of them. The paper's claim, that models lose far more
    accuracy under corruptions they never saw than their clean accuracy suggests, holds here too.
    """

    name = "evasion.corruptions"
    title = "Corruptions: noise, blur, light, shift, compression; missing and mistyped values in tables"
    family = "corruption"
    technique = "T10"
    atlas: tuple[str, ...] = ("AML.T0043.003", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS})
    position = "user"
    references: tuple[str, ...] = (
        "Hendrycks, Dietterich: Benchmarking neural network robustness. ICLR 2019, arXiv:1903.12261",
    )

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        yield from ()
        return corrupted(task, rng)
