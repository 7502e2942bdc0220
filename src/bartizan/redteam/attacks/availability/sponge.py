"""Sponge: evolve inputs that cost a model more than others."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.availability import CostQuery, CostSearch, CostTask, costliest
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Access, Rows

POPULATION = 24
KEPT = 6
"""Costliest of each generation that have children."""
MUTATED = 0.1
"""Share of the features of a child that are drawn anew."""
REPEATS = 3
"""Times that an item is measured; the least counts, for other work on the machine only adds."""
Work = Callable[[Any], float]


class Sponge:
    """Breed rows from ordinary ones by their measured cost: the paper's genetic search, black box.

    A child takes each feature from one of two costly parents; some are drawn anew from the range.
    Where models exit early, skip zeros or search, rows differ in cost; where every row takes the same
    path, they do not, and the measurement afterwards says so.
    """

    name = "availability.sponge"
    title = "Sponge: evolves rows that take the model longer than others"
    family = "availability"
    technique = "T13"
    atlas: tuple[str, ...] = ("AML.T0029", "AML.T0034.001")
    needs: frozenset[Access] = frozenset({Access.LABELS})
    position = "user"
    items = "rows"
    """What it sends."""
    references: tuple[str, ...] = ("Shumailov et al.: Sponge examples. IEEE EuroS&P 2021, arXiv:2006.03463",)

    def __init__(self, space: Space | None = None, *, work: Work | None = None) -> None:
        self.space = space
        """What a possible row is; by default what the task says, else every feature within what ordinary rows show."""
        self.work = work
        """Tells the work that a row caused where that can be counted, such as the depth at which a model exits."""

    def search(self, task: CostTask, rng: np.random.Generator) -> CostSearch:
        """See ``CostAttack.search``."""
        ordinary = np.stack([np.asarray(row, dtype=np.float64) for row in task.ordinary])
        rows = ordinary[rng.integers(0, len(ordinary), POPULATION)]
        best, costs = rows, np.full(len(rows), -np.inf)
        spent = 0
        while spent + len(rows) * REPEATS <= task.budget:
            taken = yield from self._cost(rows)
            spent += len(rows) * REPEATS
            everyone, everything = np.concatenate([best, rows]), np.concatenate([costs, taken])
            order = np.argsort(-everything, kind="stable")[:KEPT]
            best, costs = everyone[order], everything[order]
            rows = _children(best, ordinary, self.space or task.space, rng)
        return costliest(list(best), costs)

    def _cost(self, rows: Rows) -> Generator[CostQuery, NDArray[np.float64], NDArray[np.float64]]:
        """``(rows,)``: what each row costs."""
        seconds = np.full(len(rows), np.inf)
        for _ in range(REPEATS):
            taken = yield CostQuery(tuple(rows))
            seconds = np.minimum(seconds, taken)
        if self.work is not None:
            return np.array([self.work(row) for row in rows], dtype=np.float64)
        return seconds


def _children(parents: Rows, ordinary: Rows, space: Space | None, rng: np.random.Generator) -> Rows:
    first, second = (parents[rng.integers(0, len(parents), POPULATION)] for _ in range(2))
    children = np.where(rng.random(first.shape) < 0.5, first, second)  # noqa: PLR2004 - an even chance
    low, high = (space.low, space.high) if space else (ordinary.min(axis=0), ordinary.max(axis=0))
    fresh = low + (high - low) * rng.random(children.shape)
    children = np.where(rng.random(children.shape) < MUTATED, fresh, children)
    return space.project(children, ordinary[rng.integers(0, len(ordinary), POPULATION)]) if space else children
