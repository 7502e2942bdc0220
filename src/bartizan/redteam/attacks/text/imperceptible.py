"""Imperceptible: a text that reads as before and is another one to the machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bartizan.redteam.greedy import greedy
from bartizan.redteam.homoglyphs import INVISIBLE, LOOKALIKES
from bartizan.redteam.text import Edit, TextSearch, TextTask, Unseen
from bartizan.targets.protocol import Access


class Imperceptible:
    """Put characters without width into the words that matter, or letters of other scripts; made for ``Unseen``.

    Against the paper: the search is greedy by word instead of evolutionary, because it finds as much
    with fewer queries where a few words decide.
    """

    name = "text.imperceptible"
    title = "Imperceptible: zero-width characters and look-alike letters in the words that matter"
    family = "text"
    technique = "T07"
    atlas: tuple[str, ...] = ("AML.T0043.001", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.SCORES})
    position = "user"
    references: tuple[str, ...] = ("Boucher et al.: Bad Characters. IEEE S&P 2022, arXiv:2106.09898",)

    most_change = 0.2
    """Share of the letters that may be touched, where nothing else is declared."""

    def edit(self, known: Sequence[str]) -> Edit:
        """See ``TextAttack.edit``."""
        del known
        return Unseen()

    def search(self, task: TextTask, rng: np.random.Generator) -> TextSearch:
        """See ``TextAttack.search``."""
        return greedy(task, lambda word: disguised(word, rng))


def disguised(word: str, rng: np.random.Generator) -> Sequence[str]:
    """The word with a character that has no width in its middle, and with one look-alike letter."""
    middle = len(word) // 2
    unseen = INVISIBLE[int(rng.integers(len(INVISIBLE)))]
    found = [word[:middle] + unseen + word[middle:]]
    places = [place for place, letter in enumerate(word) if letter in LOOKALIKES]
    if places:
        at = places[int(rng.integers(len(places)))]
        others = LOOKALIKES[word[at]]
        found.append(word[:at] + others[int(rng.integers(len(others)))] + word[at + 1 :])
    return found
