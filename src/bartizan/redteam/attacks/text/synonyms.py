"""Synonyms: say the same in other words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bartizan.core.errors import InputError
from bartizan.redteam.greedy import greedy
from bartizan.redteam.synonyms import learn_synonyms
from bartizan.redteam.text import Edit, TextSearch, TextTask, Words
from bartizan.targets.protocol import Access


class Synonyms:
    """Replace the words that matter most by those that the task's table names for them; made for ``Words``.

    The table comes from the user, or from ``redteam.synonyms`` where there is none. Against the paper:
    words are ranked by what leaving them out costs, and no grammar is checked.
    """

    name = "text.synonyms"
    title = "Synonyms: replaces the words that matter by others like them, guided by scores"
    family = "text"
    technique = "T07"
    atlas: tuple[str, ...] = ("AML.T0043.001", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.SCORES})
    position = "user"
    references: tuple[str, ...] = (
        "Jin et al.: Is BERT really robust? (TextFooler). AAAI 2020, arXiv:1907.11932",
        "Ren et al.: Generating natural language adversarial examples (PWWS). ACL 2019",
    )

    most_change = 0.3
    """Share of the words that may be replaced, where nothing else is declared."""

    def edit(self, known: Sequence[str]) -> Edit:
        """See ``TextAttack.edit``."""
        return Words(learn_synonyms(known))

    def search(self, task: TextTask, rng: np.random.Generator) -> TextSearch:
        """See ``TextAttack.search``.

        Raises:
            InputError: the task names no words that may be replaced.
        """
        del rng
        if not isinstance(task.edit, Words):
            raise InputError(f"{self.name} replaces words", remedy="give the task the edit Words with a table.")
        table = task.edit.table
        return greedy(task, lambda word: substitutes(word, table))


def substitutes(word: str, table: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """What the table names for a word, with its capital."""
    found = table.get(word.lower(), ())
    return [other.capitalize() if word[:1].isupper() else other for other in found]
