"""Removals: leave out the words that give a text away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bartizan.redteam import text as edits
from bartizan.redteam.greedy import greedy
from bartizan.redteam.text import Edit, TextSearch, TextTask
from bartizan.targets.protocol import Access


class Removals:
    """Leave out the words that matter most, one after the other; made for the edit of the same name.

    Shows on how few words an answer hangs.
    """

    name = "text.removals"
    title = "Removals: leaves out the words that matter, guided by scores"
    family = "text"
    technique = "T07"
    atlas: tuple[str, ...] = ("AML.T0043.001", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.SCORES})
    position = "user"
    references: tuple[str, ...] = ("Feng et al.: Pathologies of neural models. EMNLP 2018, arXiv:1804.07781",)

    most_change = 0.3
    """Share of the words that may go, where nothing else is declared."""

    def edit(self, known: Sequence[str]) -> Edit:
        """See ``TextAttack.edit``."""
        del known
        return edits.Removals()

    def search(self, task: TextTask, rng: np.random.Generator) -> TextSearch:
        """See ``TextAttack.search``."""
        del rng
        return greedy(task, lambda _word: ("",))
