"""Characters: misspell the words that matter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bartizan.redteam.greedy import greedy
from bartizan.redteam.text import Edit, Letters, TextSearch, TextTask
from bartizan.targets.protocol import Access

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LEAST_LENGTH = 2
"""Characters of a word below which there is nothing to misspell."""


class Characters:
    """Swap two letters, replace, drop or put in one, in the words that matter most; made for ``Letters``.

    Words matter by what leaving them out costs the true class. Each is tried with one misspelling of
    each of the paper's four kinds, and the best is kept. The paper's claim in kind: a few edits take
    most of the accuracy of a classifier by words, because misspelt words are unknown to it.
    """

    name = "text.characters"
    title = "Characters: misspells the words that matter, guided by scores"
    family = "text"
    technique = "T07"
    atlas: tuple[str, ...] = ("AML.T0043.001", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.SCORES})
    position = "user"
    references: tuple[str, ...] = ("Gao et al.: DeepWordBug. IEEE SPW 2018, arXiv:1801.04354",)

    most_change = 0.15
    """Share of the letters that may be touched, where nothing else is declared."""

    def edit(self, known: Sequence[str]) -> Edit:
        """See ``TextAttack.edit``."""
        del known
        return Letters()

    def search(self, task: TextTask, rng: np.random.Generator) -> TextSearch:
        """See ``TextAttack.search``."""
        return greedy(task, lambda word: misspelt(word, rng))


def misspelt(word: str, rng: np.random.Generator) -> Sequence[str]:
    """The word with one letter swapped, replaced, dropped and put in; first letters stay, readers go by them."""
    if len(word) < LEAST_LENGTH:
        return ()
    at = int(rng.integers(1, len(word)))
    letter = LETTERS[int(rng.integers(len(LETTERS)))]
    left = min(at, len(word) - 2)
    return (
        word[:left] + word[left + 1] + word[left] + word[left + 2 :],
        word[:at] + letter + word[at + 1 :],
        word[:at] + word[at + 1 :],
        word[:at] + letter + word[at:],
    )
