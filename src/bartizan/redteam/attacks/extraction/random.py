"""Model extraction with the adversary's own rows in random order: the plain baseline of all others."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from bartizan.redteam.attack import Search
from bartizan.redteam.siege import Siege, Spent, taught
from bartizan.redteam.tasks import ExtractionTask
from bartizan.targets.protocol import Access, Rows


class RandomExtraction:
    """Ask about own rows, each once, and train on what is told. Stateless.

    When the rows run out, points between two of them are asked about. Costs what it asks; the fidelity of
    the copy rests on the learner. With pictures, long training on randomly shifted copies costs no query
    and is worth more than most ways of choosing queries.
    """

    name = "extraction.random"
    title = "Model extraction from scores, with random queries"
    family = "extraction"
    technique = "T38"
    atlas: tuple[str, ...] = ("T05", "AML.T0024.002")
    needs = frozenset({Access.SCORES})
    position = "user"
    references: tuple[str, ...] = (
        "Tramèr et al. 2016, Stealing machine learning models via prediction APIs, arXiv:1609.02943",
        "Jagielski et al. 2020, High accuracy and high fidelity extraction, arXiv:1909.01838",
    )

    def search(self, task: ExtractionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        siege = Siege(task, Access.SCORES in self.needs, lambda: taught(siege, rng))
        order = task.rows[rng.permutation(len(task.rows))]
        rows = order[: siege.left]
        with suppress(Spent):
            yield from siege.ask(np.concatenate([rows, _between(task, siege.left - len(rows), rng)]))
        return siege.done()


class RandomExtractionFromLabels(RandomExtraction):
    """The same where only labels are answered."""

    name = "extraction.random-labels"
    title = "Model extraction from labels alone, with random queries"
    needs = frozenset({Access.LABELS})


def _between(task: ExtractionTask, count: int, rng: np.random.Generator) -> Rows:
    """Possible points between own rows."""
    if count <= 0:
        return task.rows[:0]
    first, second = rng.integers(0, len(task.rows), (2, count))
    way = rng.random((count, 1)).astype(task.rows.dtype)
    moved = task.rows[first] + way * (task.rows[second] - task.rows[first])
    return task.space.project(moved, task.rows[first])
