"""Model extraction with chosen queries: learn a copy from as few answers as possible.

The adversary owns some unlabelled rows of the right kind. It asks about those of which its current
copy is least sure, about points on the line between rows that got different answers, and about a
few at random, so that it also hears where it is wrongly sure. The copy that is handed over at each
checkpoint is of the kind that predicts held-out answers best.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam import learners
from bartizan.redteam.attack import Search
from bartizan.redteam.siege import Siege, taught
from bartizan.redteam.tasks import ExtractionTask
from bartizan.targets.protocol import Access, Rows, Scores

FIRST_QUERIES, LEAST_QUERIES = 10, 5
"""Random rows asked before there is a copy that could choose; least number of queries in a later round."""
GROWTH = 0.25
"""Queries in one round, as a share of those answered so far; a round is one call of the target."""
RANDOM_SHARE, LINE_SHARE = 0.1, 0.1
"""Of a round's queries; the rest goes to rows that the copy is least sure of."""
CHOICE = 2
"""How many of the least sure rows stand to choice for each query, so that a round is not all of one kind."""
DENSITY = 10
"""Points considered for each query between rows."""
SCOUT = learners.Learner("linear", 1e-3)
"""Quick copy that chooses queries."""


@dataclass(slots=True)
class _Chooser:
    """Chooses what to ask about next, by what was told so far."""

    siege: Siege
    rng: np.random.Generator
    left: Rows = field(init=False)
    """Own rows not asked about, in random order."""

    def __post_init__(self) -> None:
        self.left = self.siege.task.rows[self.rng.permutation(len(self.siege.task.rows))]

    def choose(self, count: int) -> Rows:
        """Rows to ask about next, ``(count, features)``."""
        if not len(self.siege.asked):
            return self._own(count)
        scout = SCOUT.fit(self.siege.asked, self.siege.told, self.rng)
        between = self._between(round(LINE_SHARE * count), apart=True)
        line = between[np.argsort(_lead(scout(between)))[: round(LINE_SHARE * count)]]
        drawn = self._own(max(1, round(RANDOM_SHARE * count)))
        return np.concatenate([line, drawn, self._unsure(scout, count - len(line) - len(drawn))])

    def _own(self, count: int) -> Rows:
        """Own rows at random; points between own rows when they run out."""
        taken, self.left = self.left[:count], self.left[count:]
        missing = count - len(taken)
        return np.concatenate([taken, self._between(missing)[:missing]]) if missing else taken

    def _unsure(self, scout: learners.Model, count: int) -> Rows:
        """Rows between whose classes the copy is torn; points between own rows when those run out."""
        enough = len(self.left) > CHOICE * count
        pool = self.left if enough else np.concatenate([self.left, self._between(count)])
        choice = np.argsort(_lead(scout(pool)))[: CHOICE * count]
        picked = self.rng.permutation(choice)[:count]
        self.left = np.delete(self.left, picked[picked < len(self.left)], axis=0)
        rows: Rows = pool[picked]
        return rows

    def _between(self, count: int, *, apart: bool = False) -> Rows:
        """Possible points between own rows, or with ``apart`` between rows that got different answers."""
        rows = self.siege.asked if apart else self.siege.task.rows
        first, second = self.rng.integers(0, len(rows), (2, DENSITY * count))
        if apart:
            labels = self.siege.told.argmax(axis=1)
            different = labels[first] != labels[second]
            first, second = first[different], second[different]
        way = self.rng.random((len(first), 1))
        return self.siege.task.space.project(rows[first] + way * (rows[second] - rows[first]), rows[first])


def _round(answered: int) -> int:
    """Queries in the next round."""
    return max(LEAST_QUERIES, int(GROWTH * answered)) if answered else FIRST_QUERIES


def _lead(scores: Scores) -> NDArray[np.float64]:
    """``(batch,)``: by how much the likeliest class leads the second; small where a copy is unsure."""
    best = np.sort(scores, axis=1)[:, -2:]
    lead: NDArray[np.float64] = best[:, 1] - best[:, 0]
    return lead


class ActiveExtraction:
    """Copies the model from its scores. Stateless."""

    name = "extraction.active"
    title = "Model extraction from scores, with chosen queries"
    family = "extraction"
    technique = "T38"
    atlas: tuple[str, ...] = ("T05", "AML.T0024.002")
    """T05 is the other catalogue technique that is exercised: the copy is a proxy."""
    needs = frozenset({Access.SCORES})
    position = "user"
    references: tuple[str, ...] = (
        "Tramèr et al. 2016, Stealing machine learning models via prediction APIs, arXiv:1609.02943",
        "Orekondy et al. 2019, Knockoff Nets, arXiv:1812.02766",
        "Jagielski et al. 2020, High accuracy and high fidelity extraction, arXiv:1909.01838",
    )

    def search(self, task: ExtractionTask, rng: np.random.Generator) -> Search:
        """Ask in rounds that grow, and hand over a copy at each checkpoint."""
        siege = Siege(task, Access.SCORES in self.needs, lambda: taught(siege, rng))
        chooser = _Chooser(siege, rng)
        while siege.due:
            yield from siege.ask(chooser.choose(min(siege.due, _round(len(siege.asked)))))
        return siege.done()


class ActiveExtractionFromLabels(ActiveExtraction):
    """The same where only labels are answered."""

    name = "extraction.active-labels"
    title = "Model extraction from labels alone, with chosen queries"
    needs = frozenset({Access.LABELS})
