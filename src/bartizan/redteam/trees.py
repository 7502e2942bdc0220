"""The nearest row that trees answer differently: what is known about it, and the optimum for one tree.

One tree is a list of boxes, and the nearest box of another class is the optimum. Sums of trees are searched
in ``redteam.tree_search`` and proven in ``redteam.tree_proof``, and what a row costs and whether it is
possible is the business of ``redteam.cells``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bartizan.redteam.cells import SQUARED, Cells, Ways
from bartizan.targets.feasible import OneHot, Space
from bartizan.targets.structure import Floats, Integers, decided

SLACK = 1e-5
"""Margin, as a part of the largest value of a leaf, below which an answer is left to rounding. Solvers of
mixed-integer programs work to a tenth of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """What is known about the nearest row that is answered differently."""

    row: Floats
    """``(features,)``; the row itself when none was found."""
    change: float
    """How far it is; infinite when none was found."""
    bound: float = 0.0
    """No possible row that is nearer than this is answered differently."""

    @property
    def exact(self) -> bool:
        """Whether nothing nearer is left to find; also when there is provably no such row."""
        return self.bound >= self.change * (1 - 1e-6)


def nearest_leaf(cells: Cells, space: Space, row: Floats, label: int, norm: float) -> Nearest:
    """The exact optimum for one tree, over all its leaves."""
    ways = Ways.of(cells, space, row, norm)
    other = np.flatnonzero(decided(cells.ensemble.added(cells.leaf[:, None]), cells.ensemble.cut) != label)
    first, last = cells.first[other], cells.last[other]
    cell, cost = ways.cheapest(first, last)
    groups = [_Group.of(group, cells, row, norm) for group in space.one_hot]
    values = np.array([ways.row(one) for one in cell]).reshape(len(other), len(row))
    for group in groups:
        values[:, group.columns], cost[:, group.columns] = group.cheapest(first, last)
    total = ways.total(cost)
    if not total.size or not np.isfinite(total.min()):
        return Nearest(row, np.inf, np.inf)
    best = int(total.argmin())
    return Nearest(values[best], float(total[best]), float(total[best]))


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """The encodings of one one-hot group, and what each costs from one row."""

    columns: Integers
    encodings: Floats
    """``(encodings, columns)``, the row's own first."""
    cells: Integers
    """``(encodings, columns)``"""
    cost: Floats
    """``(encodings, columns)``: parts of the norm."""
    norm: float

    @classmethod
    def of(cls, group: OneHot, cells: Cells, row: Floats, norm: float) -> _Group:
        columns = group.columns
        encodings = np.vstack([row[columns], np.eye(len(columns)), *([np.zeros(len(columns))] * group.may_be_empty)])
        places = (cells.thresholds[columns][None] < encodings[:, :, None]).sum(axis=2)
        size = np.abs(encodings - row[columns])
        cost = (size != 0).astype(np.float64) if norm == 0 else np.square(size) if norm == SQUARED else size
        return cls(columns, encodings, places, cost, norm)

    def cheapest(self, first: Integers, last: Integers) -> tuple[Floats, Floats]:
        """Values and costs ``(leaves, columns)`` of the cheapest encoding in each box; infinite where none is."""
        low, high = first[:, None, self.columns], last[:, None, self.columns]
        inside = np.all((self.cells >= low) & (self.cells <= high), axis=2)
        whole = self.cost.max(axis=1) if self.norm == np.inf else self.cost.sum(axis=1)
        chosen = np.where(inside, whole, np.inf).argmin(axis=1)
        cost = np.where(inside[np.arange(len(first)), chosen][:, None], self.cost[chosen], np.inf)
        return self.encodings[chosen], cost


@dataclass(frozen=True, slots=True, eq=False)
class Aim:
    """One class that a row is to be given instead of its own."""

    margin: Floats
    """``(leaves,)``: what each leaf adds to the lead of the class aimed at."""
    start: float
    """The lead without any tree."""
    need: float
    """With a larger lead the class is surely answered."""
    loose: float
    """With a smaller lead it is surely not. Between the two rounding decides."""


def aims(cells: Cells, label: int) -> list[Aim]:
    """One aim for each other class, with the strictness that ties between classes ask for."""
    ensemble = cells.ensemble
    value, base = ensemble.value[cells.leaf], ensemble.base
    if len(base) == 1:
        sign = -1.0 if label else 1.0
        # The answer is class 1 above the cut only.
        start = sign * (float(base[0]) - ensemble.cut * ensemble.divisor)
        slack = SLACK * float(np.abs(value).max(initial=0.0))
        return [Aim(sign * value[:, 0], start, slack, -slack)]
    others = [other for other in range(len(base)) if other != label]
    lead = [(value[:, other] - value[:, label], float(base[other] - base[label])) for other in others]
    return [Aim(*one, *_needs(value, other < label)) for one, other in zip(lead, others, strict=True)]


def _needs(value: Floats, wins_ties: bool) -> tuple[float, float]:
    """Whole votes are compared exactly; sums of fractions up to rounding."""
    if (value == np.rint(value)).all():
        return (-0.5, -0.5) if wins_ties else (0.5, 0.5)
    slack = SLACK * float(np.abs(value).max(initial=0.0))
    return slack, -slack
