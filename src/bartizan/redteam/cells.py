"""Rows as trees see them: only on which side of each threshold a value lies, and what it costs to get there.

The thresholds of an ensemble cut each feature into cells, ``(threshold, next threshold]``. Within a
cell the model cannot tell values apart, so the cheapest possible value of each cell stands for all.
Costs are parts of a norm that add up (its power, for the norms 2 and 1; features, for 0) or of which the
largest counts (inf).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.targets.feasible import CATEGORY_CHANGE, Space
from bartizan.targets.structure import Boxes, Floats, Integers, TreeEnsemble, boxes

_HALF = 0.5
SQUARED = 2.0
"""The norm whose square adds up."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """An ensemble's leaves as ranges of cells."""

    ensemble: TreeEnsemble
    thresholds: Floats
    """``(features, most)``: rising; infinite behind the last one of a feature."""
    counts: Integers
    """``(features,)``: number of thresholds of each feature; there is one cell more."""
    first: Integers
    """``(leaves, features)``: cells from ``first`` to ``last`` belong to the leaf's box."""
    last: Integers
    leaf: Integers
    """``(leaves,)``: nodes of the ensemble."""
    tree: Integers
    """``(leaves,)``: their trees, rising."""

    @classmethod
    def of(cls, ensemble: TreeEnsemble, space: Space) -> Cells:
        """The cells of an ensemble; columns that hold 0 or 1 are cut between them in any case."""
        each: Boxes = boxes(ensemble)
        cuts = [_finite(ensemble.threshold[ensemble.feature == feature]) for feature in range(ensemble.features)]
        for column in (int(column) for group in space.one_hot for column in group.columns):
            cuts[column] = np.union1d(cuts[column], [_HALF])
        counts = np.array([len(cut) for cut in cuts])
        thresholds = np.full((ensemble.features, max(1, int(counts.max()))), np.inf)
        first, last = np.zeros(each.low.shape, np.int64), np.empty(each.low.shape, np.int64)
        for feature, cut in enumerate(cuts):
            thresholds[feature, : len(cut)] = cut
            first[:, feature] = np.searchsorted(cut, each.low[:, feature], side="right")
            last[:, feature] = np.searchsorted(cut, each.high[:, feature], side="left")
        return cls(ensemble, thresholds, counts, first, last, each.leaf, each.tree)

    def at(self, row: Floats) -> Integers:
        """``(features,)``: the cell of each value of a row."""
        found: Integers = (self.thresholds < row[:, None]).sum(axis=1)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Ways:
    """What each cell costs an adversary who starts from one row."""

    home: Integers
    """``(features,)``: cells of the row itself."""
    value: Floats
    """``(features, cells)``: the cheapest possible value in each cell."""
    cost: Floats
    """``(features, cells)``: its part of the norm; infinite where no value is possible."""
    norm: float

    @classmethod
    def of(cls, cells: Cells, space: Space, row: Floats, norm: float) -> Ways:
        """For a row ``(features,)``. One-hot columns cost as if each stood alone."""
        home = cells.at(row)
        value, possible = _values(cells, space, row)
        size = np.abs(value - row[:, None]) / space.scale[:, None]
        for codes in space.codes:
            size[codes.column] = CATEGORY_CHANGE * (size[codes.column] != 0)
        cost = np.where(possible, _part(size, norm), np.inf)
        return cls(home, value, cost, norm)

    def total(self, cost: Floats) -> Floats:
        """The norm of changes whose parts lie along the last axis."""
        if self.norm == np.inf:
            return np.asarray(cost.max(axis=-1, initial=0.0))
        summed = cost.sum(axis=-1)
        return np.asarray(np.sqrt(summed) if self.norm == SQUARED else summed)

    def row(self, cell: Integers) -> Floats:
        """The cheapest row ``(features,)`` in these cells."""
        return np.asarray(self.value[np.arange(len(cell)), cell])

    def cheapest(self, first: Integers, last: Integers) -> tuple[Integers, Floats]:
        """The cheapest cell between ``first`` and ``last`` ``(..., features)``, and its cost, for each feature.

        Costs rise from the row's own cell to both sides, but for cells without a possible value.
        """
        up, down = self._possible_from()
        each = np.arange(len(self.home))
        forward, back = up[each, np.maximum(first, self.home)], down[each, np.minimum(last, self.home)]
        size = self.cost.shape[1]
        ahead = np.where((forward <= last) & (forward < size), self.cost[each, np.minimum(forward, size - 1)], np.inf)
        behind = np.where((back >= first) & (back >= 0), self.cost[each, np.maximum(back, 0)], np.inf)
        cell = np.where(ahead <= behind, np.minimum(forward, size - 1), np.maximum(back, 0))
        return cell, np.minimum(ahead, behind)

    def settled(self) -> Integers:
        """``(features, cells)``: each cell, or the next one towards the row's own that has a possible value."""
        size = self.cost.shape[1]
        places = np.broadcast_to(np.arange(size), self.cost.shape)
        finite, home = np.isfinite(self.cost), self.home[:, None]
        up = np.maximum.accumulate(np.where(finite & (places >= home), places, -1), axis=1)
        down = np.minimum.accumulate(np.where(finite & (places <= home), places, size)[:, ::-1], axis=1)[:, ::-1]
        return np.where(places >= home, np.maximum(up, home), np.minimum(down, home))

    def _possible_from(self) -> tuple[Integers, Integers]:
        """``(features, cells)``: the next cell with a possible value at or above each, and at or below."""
        size = self.cost.shape[1]
        places = np.broadcast_to(np.arange(size), self.cost.shape)
        possible = np.isfinite(self.cost)
        up = np.minimum.accumulate(np.where(possible, places, size)[:, ::-1], axis=1)[:, ::-1]
        down = np.maximum.accumulate(np.where(possible, places, -1), axis=1)
        return up, down


def _finite(cuts: Floats) -> Floats:
    return np.asarray(np.unique(cuts[np.isfinite(cuts)]), dtype=np.float64)


def _part(size: Floats, norm: float) -> Floats:
    """What a change of one feature adds to the sum of the norm, or offers to its maximum."""
    if norm == 0:
        return np.asarray(size != 0, dtype=np.float64)
    return np.asarray(np.square(size) if norm == SQUARED else size)


def _values(cells: Cells, space: Space, row: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """The possible value of each cell that is nearest the row's, and whether there is one."""
    features = len(row)
    edge = np.column_stack([np.full(features, -np.inf), cells.thresholds])
    above = np.nextafter(edge, np.inf)
    upper = np.column_stack([cells.thresholds, np.full(features, np.inf)])
    low, high = np.minimum(space.low, row), np.maximum(space.high, row)
    lower, upper = np.maximum(above, low[:, None]), np.minimum(upper, high[:, None])
    lower[:, 0] = np.maximum(lower[:, 0], low)
    here = np.broadcast_to(row[:, None], lower.shape)
    inside = (here >= lower) & (here <= upper)
    if space.integer.any():
        whole = space.integer
        lower[whole], upper[whole] = np.ceil(lower[whole]), np.floor(upper[whole])
    value = np.where(inside, here, np.where(here < lower, lower, upper))
    possible = (lower <= upper) | inside
    possible &= inside | ~space.immutable[:, None]
    for codes in space.codes:
        value[codes.column], possible[codes.column] = _codes(codes.values, row[codes.column], edge[codes.column], value)
    for column in (int(column) for group in space.one_hot for column in group.columns):
        value[column], possible[column] = _codes(np.array([0.0, 1.0]), row[column], edge[column], value)
    spare = np.arange(lower.shape[1]) > cells.counts[:, None]
    return np.where(possible & ~spare, value, here), possible & ~spare


def _codes(values: Floats, own: float, edge: Floats, like: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """For one column of codes: the row's own in its cell, else the nearest in each cell."""
    ends = np.append(edge[1:], np.inf)
    chosen, possible = np.full(like.shape[1], own), np.zeros(like.shape[1], np.bool_)
    for code in values[np.argsort(-np.abs(values - own), kind="stable")]:
        inside = (code > edge) & (code <= ends)
        chosen[inside], possible[inside] = code, True
    home = (own > edge) & (own <= ends)
    chosen[home], possible[home] = own, True
    return chosen, possible
