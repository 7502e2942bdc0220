"""The nearest row that sums of trees answer differently, as a mixed-integer program: the optimum, or a bound.

After Kantchelian et al. 2016 (arXiv:1509.07892): one variable for each threshold, one for each leaf. Only what is
nearer than the best known row is written down, which for good rows leaves a small part of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.redteam.cells import SQUARED, Cells, Ways
from bartizan.redteam.trees import Aim, Nearest, aims
from bartizan.targets.feasible import Space
from bartizan.targets.structure import Floats, Integers

Moves = NDArray[np.bool_]

MAX_VARIABLES = 20_000
"""Leaves and thresholds of one program; larger ones are left to the search."""


def prove(
    cells: Cells,
    space: Space,
    row: Floats,
    label: int,
    norm: float,
    *,
    known: Nearest,
    nodes: int = 10_000,
    seconds: float = np.inf,
) -> Nearest:
    """The optimum for an ensemble, or a bound on it, by mixed-integer programs; one for each other class.

    Args:
        cells: of the ensemble.
        space: what a possible row is.
        row: ``(features,)``.
        label: its class.
        norm: inf, 2, 1 or 0.
        known: what was found before; only what is nearer is looked for.
        nodes: of each search tree; the work is bounded by it, to the same result every time.
        seconds: wall time of each program; a run that it ends may differ from the next.
    """
    best, bound = known, np.inf
    ways = Ways.of(cells, space, row, norm)
    for aim in aims(cells, label):
        for need in (aim.loose, aim.need):
            program = _Program.of(cells, ways, space, replace(aim, need=need), best.change)
            found, least = program.solve(nodes, seconds) if program else (None, 0.0)
            if need == aim.loose:
                bound = min(bound, least)
            if found is None:
                break
            candidate = ways.row(found)
            change = float(space.change(candidate[None], row[None], norm)[0])
            if cells.ensemble.labels(candidate[None])[0] != label:
                best = Nearest(candidate, change) if change < best.change else best
                break
    return replace(best, bound=min(bound, best.change))


@dataclass(frozen=True, slots=True, eq=False)
class _Program:
    """Minimise the cost over cells, with one leaf of each tree, such that the lead is large enough.

    Variables: for each threshold that still matters, whether the value is at most that threshold; for each
    leaf within reach, its share; with the norm inf, the cost.
    """

    ways: Ways
    slots: Integers
    """``(variables, 2)``: feature and threshold of each of the first kind."""
    costs: Floats
    integrality: Integers
    rows: scipy.sparse.csr_array
    low: Floats
    high: Floats
    constant: float
    """Cost that cannot be avoided."""
    limit: float
    reach: tuple[Integers, Integers]
    """First and last cell of each feature that is not too expensive."""

    @classmethod
    def of(cls, cells: Cells, ways: Ways, space: Space, aim: Aim, upper: float) -> _Program | None:
        """The program; None when it is too large."""
        limit = upper**2 if ways.norm == SQUARED else upper
        within = ways.cost <= limit if np.isfinite(limit) else np.isfinite(ways.cost)
        each = np.arange(len(ways.home))
        within[each, ways.home] = True
        first, last = within.argmax(axis=1), within.shape[1] - 1 - within[:, ::-1].argmax(axis=1)
        inside = ((cells.last >= first) & (cells.first <= last)).all(axis=1)
        slots = np.array(
            [(feature, cut) for feature in each for cut in range(first[feature], last[feature])], np.int64
        ).reshape(-1, 2)
        leaves = np.flatnonzero(inside)
        if len(slots) + len(leaves) > MAX_VARIABLES:
            return None
        return _Builder(cells, ways, space, aim, slots, leaves, (first, last), within, limit).program()

    def solve(self, nodes: int, seconds: float) -> tuple[Integers | None, float]:
        """Cells of the best row found, if any, and a bound on the change of every row."""
        limit = {"time_limit": seconds} if np.isfinite(seconds) else {}
        count = len(self.costs)
        upper = np.ones(count)
        if self.ways.norm == np.inf:
            upper[-1] = np.inf
        result = scipy.optimize.milp(
            self.costs,
            integrality=self.integrality,
            bounds=scipy.optimize.Bounds(np.zeros(count), upper),
            constraints=scipy.optimize.LinearConstraint(self.rows, self.low, self.high),
            options={"node_limit": nodes, "presolve": True, "mip_rel_gap": 1e-7, **limit},  # type: ignore[arg-type]  # scipy-stubs: closed
        )
        infeasible = 2
        if result.status == infeasible:
            return None, np.inf
        dual = getattr(result, "mip_dual_bound", None)
        least = self._change(dual) if dual is not None and np.isfinite(dual) else 0.0
        return (None if result.x is None else self._cells(result.x)), least

    def _change(self, cost: float) -> float:
        cost = max(0.0, cost + self.constant)
        return float(np.sqrt(cost)) if self.ways.norm == SQUARED else float(cost)

    def _cells(self, solution: Floats) -> Integers:
        """The cheapest possible cells between those that the solution leaves."""
        first, last = self.reach[0].copy(), self.reach[1].copy()
        for (feature, cut), below in zip(self.slots.tolist(), solution[: len(self.slots)] > 0.5, strict=True):  # noqa: PLR2004 - 0 or 1
            if below:
                last[feature] = min(last[feature], cut)
            else:
                first[feature] = max(first[feature], cut + 1)
        cell, _ = self.ways.cheapest(first, last)
        return cell


@dataclass(eq=False)
class _Builder:
    """Writes down a ``_Program``."""

    cells: Cells
    ways: Ways
    space: Space
    aim: Aim
    slots: Integers
    leaves: Integers
    reach: tuple[Integers, Integers]
    within: Moves
    limit: float

    def __post_init__(self) -> None:
        self.entries: list[tuple[Integers, Integers, Floats]] = []
        self.low: list[float] = []
        self.high: list[float] = []
        self.place = {(feature, cut): at for at, (feature, cut) in enumerate(self.slots.tolist())}

    def program(self) -> _Program:
        extra = int(self.ways.norm == np.inf)
        count = len(self.slots) + len(self.leaves) + extra
        self._nested()
        self._one_leaf_each()
        self._leaves_fit()
        self._lead()
        self._groups()
        costs, constant = self._costs(count)
        integrality = np.r_[np.ones(len(self.slots)), np.zeros(len(self.leaves) + extra)]
        at = np.concatenate([np.broadcast_to(row, column.shape) for row, column, _ in self.entries])
        columns = np.concatenate([column for _, column, _ in self.entries])
        values = np.concatenate([np.broadcast_to(value, column.shape) for _, column, value in self.entries])
        rows = scipy.sparse.csr_array((values, (at, columns)), shape=(len(self.low), count))
        return _Program(
            self.ways, self.slots, costs, integrality, rows, np.array(self.low), np.array(self.high), constant,
            self.limit, self.reach,
        )  # fmt: skip

    def add(self, columns: Sequence[int] | Integers, values: Sequence[float] | Floats, low: float, high: float) -> None:
        """One constraint."""
        places = np.asarray(columns, np.int64)
        self.entries.append((np.full(len(places), len(self.low)), places, np.asarray(values, np.float64)))
        self.low.append(low)
        self.high.append(high)

    def _nested(self) -> None:
        """Who is at most a threshold is at most the next one; cells without a possible value are left out."""
        for (feature, cut), at in self.place.items():
            after = self.place.get((feature, cut + 1))
            if after is not None:
                possible = self.within[feature, cut + 1] or np.isfinite(self.ways.cost[feature, cut + 1])
                self.add([after, at], [1.0, -1.0], 0.0, np.inf if possible else 0.0)
        for feature in range(len(self.ways.home)):
            first, last = int(self.reach[0][feature]), int(self.reach[1][feature])
            if first < last and not np.isfinite(self.ways.cost[feature, first]):
                self.add([self.place[feature, first]], [1.0], 0.0, 0.0)
            if first < last and not np.isfinite(self.ways.cost[feature, last]):
                self.add([self.place[feature, last - 1]], [1.0], 1.0, 1.0)

    def _one_leaf_each(self) -> None:
        tree = self.cells.tree[self.leaves]
        for place in np.unique(self.cells.tree):
            own = np.flatnonzero(tree == place)
            self.add(len(self.slots) + own, np.ones(len(own)), 1.0, 1.0)

    def _leaves_fit(self) -> None:
        """Leaves of one tree on one side of a threshold have at most the share of that side, together."""
        first, last, tree = self.cells.first[self.leaves], self.cells.last[self.leaves], self.cells.tree[self.leaves]
        low, high = self.reach
        for bound, side in ((last, 1.0), (first, -1.0)):
            inner = bound < high if side > 0 else bound > low
            leaf, feature = np.nonzero(inner)
            cut = bound[leaf, feature] - (side < 0)
            order = np.lexsort((cut, feature, tree[leaf]))
            self._sides(leaf[order], tree[leaf[order]], feature[order], cut[order], side)

    def _sides(self, leaf: Integers, tree: Integers, feature: Integers, cut: Integers, side: float) -> None:
        """For each tree and threshold, one constraint on the leaves that are wholly on one side of it."""
        if not leaf.size:
            return
        fresh = np.flatnonzero(np.r_[True, (np.diff(tree) != 0) | (np.diff(feature) != 0)])
        for start, stop in zip(fresh, np.r_[fresh[1:], leaf.size], strict=True):
            cuts, leaves, own = cut[start:stop], leaf[start:stop], int(feature[start])
            for value in np.unique(cuts).tolist():
                wholly = leaves[cuts <= value] if side > 0 else leaves[cuts >= value]
                at = self.place[own, value]
                columns = np.r_[len(self.slots) + wholly, at]
                if side > 0:
                    self.add(columns, np.r_[np.ones(len(wholly)), -1.0], -np.inf, 0.0)
                else:
                    self.add(columns, np.ones(len(columns)), -np.inf, 1.0)

    def _lead(self) -> None:
        margin = self.aim.margin[self.leaves]
        size = max(float(np.abs(self.aim.margin).max(initial=0.0)), 1e-300)
        self.add(
            len(self.slots) + np.arange(len(self.leaves)),
            margin / size,
            (self.aim.need - self.aim.start) / size,
            np.inf,
        )

    def _groups(self) -> None:
        """One column of a one-hot group holds 1, or the group stays as it is."""
        for group in self.space.one_hot:
            cells_of_zero = (self.cells.thresholds[group.columns] < 0).sum(axis=1)
            sides = list(zip(group.columns.tolist(), cells_of_zero.tolist(), strict=True))
            places = [self.place.get(side) for side in sides]
            fixed = sum(
                place is None and self.ways.home[column] > cell
                for place, (column, cell) in zip(places, sides, strict=True)
            )
            free = [place for place in places if place is not None]
            # A column holds 1 less its variable.
            ones = len(free) + fixed
            self.add(free, np.ones(len(free)), ones - 1, ones if group.may_be_empty else ones - 1)

    def _costs(self, count: int) -> tuple[Floats, float]:
        costs = np.zeros(count)
        if self.ways.norm == np.inf:
            costs[-1] = 1.0
            for (feature, cut), at in self.place.items():
                self._at_least(feature, cut, at, count - 1)
            return costs, 0.0
        constant = 0.0
        for (feature, cut), at in self.place.items():
            near, far = self._sides_cost(feature, cut)
            costs[at] += far - near if cut < self.ways.home[feature] else near - far
            constant += 0.0 if cut < self.ways.home[feature] else far - near
        return costs, constant

    def _sides_cost(self, feature: int, cut: int) -> tuple[float, float]:
        """Cost of the cells next to a threshold: on the row's own side, and beyond."""
        cost = self.filled[feature]
        below, above = float(cost[cut]), float(cost[cut + 1])
        return (above, below) if cut < self.ways.home[feature] else (below, above)

    @property
    def filled(self) -> Floats:
        """Costs, with those of cells without a possible value taken from the next one towards the row's own."""
        ways = self.ways
        return np.take_along_axis(ways.cost, ways.settled(), axis=1)

    def _at_least(self, feature: int, cut: int, at: int, cost_at: int) -> None:
        """With the norm inf: the cost is at least that of being beyond a threshold."""
        _, far = self._sides_cost(feature, cut)
        if cut < self.ways.home[feature]:
            self.add([cost_at, at], [1.0, -far], 0.0, np.inf)
        else:
            self.add([cost_at, at], [1.0, far], far, np.inf)
