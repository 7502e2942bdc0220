"""The nearest row that sums of trees answer differently, searched for: close, in milliseconds, without a proof.

Two views of the same leaves are used in turn. From farther away the model has a slope (``redteam.smoothed``), which
leads to a first row of another class with many small changes. From close by, the lead after every change of
one feature is known at once, and changes are saved, taken back and replaced. Zhang et al. 2020
(arXiv:2010.11598) search among leaves in the same spirit, one leaf of one tree at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.cells import Cells, Ways
from bartizan.redteam.smoothed import Smoothed
from bartizan.redteam.trees import Aim, Nearest, aims
from bartizan.targets.feasible import Space
from bartizan.targets.structure import Floats, Integers

Moves = NDArray[np.bool_]
State = tuple[Integers, Moves, Integers]
"""Cells of a row, and the ranges that it violates."""

TARGETS = 2
"""Classes that the search aims at for one row, the nearest by slope."""
WIDTHS = (0.15, 0.4, 1.0)
"""Widths of the noise, in units of scale, that are tried for a first row of another class."""
TURNS = 6
"""How often the direction is corrected by the slope at the row found last."""
LENGTHS = 12
"""Lengths tried along one direction."""
MIXED = (0.15, 0.4, 1.0)
"""Shares of the new direction in the corrected one."""
NARROW = 0.7
"""Width of the noise then, as a part of the mean change of a feature."""
ROUNDS = 3
"""How often the search takes a part of its changes back and looks for others."""
NOISE = 0.5
"""How far, as a factor of about ``exp(NOISE)``, the search strays from the best move after the first round."""
TAKEN_BACK = (0.1, 0.5)
"""Least and largest share of the changes that one round takes back."""
BISECTIONS = 12


class Searcher:
    """Looks for close rows among the cells of an ensemble.

    A leaf is reached when none of its ranges is violated. Knowing, for each leaf, how many are, tells
    the lead after every change of a single feature to every cell at once: only leaves with no violated
    range, or with just one, matter. That makes a neighbourhood of thousands of rows as cheap as a few.
    """

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        self.smoothed = Smoothed(cells)
        self._width = cells.thresholds.shape[1] + 1
        leaf, feature = np.nonzero((cells.first > 0) | (cells.last < cells.counts))
        self._leaf, self._feature = leaf, feature
        self._first, self._last = cells.first[leaf, feature], cells.last[leaf, feature]
        self._start = np.searchsorted(leaf, np.arange(len(cells.leaf) + 1))
        self._order = np.argsort(feature, kind="stable")
        self._of = np.searchsorted(feature[self._order], np.arange(cells.ensemble.features + 1))

    def nearest(self, space: Space, row: Floats, label: int, norm: float, rng: np.random.Generator) -> Nearest:
        """The closest row found for one row ``(features,)`` of class ``label``; without a bound.

        Columns of one-hot groups stay as they are.
        """
        ways = _without_groups(Ways.of(self.cells, space, row, norm), space)
        if self.cells.ensemble.labels(row[None])[0] != label:
            return Nearest(row, 0.0)
        every = aims(self.cells, label)
        approach = _Approach(self, ways, space, row, label)
        best = Nearest(row, np.inf)
        for aim, start in approach.starts(every):
            hunt = _Hunt(self, ways, aim, rng)
            cell = hunt.widest(start) if norm == np.inf else hunt.cheapest(start)
            for one in (cell, start):
                best = best if one is None else self._better(best, ways, one, label)
        return best

    def _better(self, best: Nearest, ways: Ways, cell: Integers, label: int) -> Nearest:
        """The closer one, when the model agrees that the row in these cells is of another class."""
        change, row = float(ways.total(ways.cost[np.arange(len(cell)), cell])), ways.row(cell)
        closer = change < best.change and self.cells.ensemble.labels(row[None])[0] != label
        return Nearest(row, change) if closer else best

    def violations(self, cell: Integers) -> tuple[Moves, Integers]:
        """Which ranges ``(ranges,)`` a row violates, and how many of each leaf ``(leaves,)``."""
        at = cell[self._feature]
        violated = (at < self._first) | (at > self._last)
        return violated, np.bincount(self._leaf[violated], minlength=len(self.cells.leaf))

    def moved(self, feature: int, cell: int, violated: Moves, count: Integers) -> None:
        """Bring ``violations`` up to date after one feature has changed."""
        ranges = self._order[self._of[feature] : self._of[feature + 1]]
        now = (cell < self._first[ranges]) | (cell > self._last[ranges])
        # A leaf has one range for a feature at most, so that no leaf is named twice.
        count[self._leaf[ranges]] += now.astype(np.int64) - violated[ranges]
        violated[ranges] = now

    def leads(self, aim: Aim, violated: Moves, count: Integers) -> tuple[float, Floats]:
        """The lead now, and after changing each feature to each cell ``(features, cells)``."""
        near = np.flatnonzero(count <= 1)
        lengths = self._start[near + 1] - self._start[near]
        ends = np.cumsum(lengths)
        ranges = np.arange(ends[-1] if ends.size else 0) + np.repeat(self._start[near] - (ends - lengths), lengths)
        reached = np.repeat(count[near] == 0, lengths)
        used = reached | violated[ranges]
        ranges, reached = ranges[used], reached[used]
        margin, offset = aim.margin[self._leaf[ranges]], self._feature[ranges] * (self._width + 1)
        size = self.cells.ensemble.features * (self._width + 1)
        change = np.bincount(offset + self._first[ranges], margin, size)
        change -= np.bincount(offset + self._last[ranges] + 1, margin, size)
        change -= np.bincount(offset[reached], margin[reached], size)
        lead = aim.start + float(aim.margin[near[count[near] == 0]].sum())
        table = change.reshape(-1, self._width + 1).cumsum(axis=1)[:, :-1]
        return lead, lead + table


def _without_groups(ways: Ways, space: Space) -> Ways:
    """The same ways, but columns of one-hot groups stay where they are."""
    if not space.one_hot:
        return ways
    cost = ways.cost.copy()
    for group in space.one_hot:
        stay = cost[group.columns, ways.home[group.columns]]
        cost[group.columns] = np.inf
        cost[group.columns, ways.home[group.columns]] = stay
    return replace(ways, cost=cost)


class _Approach:
    """First rows of another class, by slope."""

    def __init__(self, searcher: Searcher, ways: Ways, space: Space, row: Floats, label: int) -> None:
        self.searcher, self.ways, self.row, self.label = searcher, ways, row, label
        self.scale = np.asarray(space.scale, np.float64)
        self.settled = ways.settled()
        self.each = np.arange(len(row))
        self.free = (np.isfinite(ways.cost).sum(axis=1) > 1).astype(np.float64)

    def starts(self, every: Sequence[Aim]) -> Iterator[tuple[Aim, Integers | None]]:
        """The nearest aims, each with cells to start from; none where the slope leads nowhere."""
        margins = np.column_stack([aim.margin for aim in every])
        standing = self.lead(every)
        slopes = [self.slope(self.row, width, margins) for width in WIDTHS]
        size = np.array([self.dual(slope) for slope in slopes])
        distance = ((np.array([aim.need for aim in every]) - standing) / np.maximum(size, 1e-300)).min(axis=0)
        for place in np.argsort(distance, kind="stable")[:TARGETS]:
            yield every[place], self.closest(every[place], [slope[:, place] for slope in slopes])

    def lead(self, every: Sequence[Aim]) -> Floats:
        """``(aims,)``: leads at the row itself."""
        _, count = self.searcher.violations(self.ways.home)
        return np.array([aim.start + float(aim.margin[count == 0].sum()) for aim in every])

    def slope(self, row: Floats, width: float, margins: Floats) -> Floats:
        """Slopes ``(features, aims)`` in units of scale, of features that can change."""
        slope = self.searcher.smoothed.slope(row, width * self.scale, margins)
        return np.asarray(slope * (self.scale * self.free)[:, None])

    def dual(self, slope: Floats) -> Floats:
        """``(aims,)``: how much a change of length 1 adds to each lead."""
        if self.ways.norm == np.inf:
            return np.asarray(np.abs(slope).sum(axis=0))
        return np.asarray(np.sqrt(np.square(slope).sum(axis=0)))

    def closest(self, aim: Aim, slopes: Sequence[Floats]) -> Integers | None:
        """The cheapest cells that were found for one aim."""
        directions = np.array([direction for slope in slopes if (direction := self.unit(slope)).any()])
        if not len(directions):
            return None
        farthest = np.abs(self.ways.value - self.row[:, None]).max(axis=1) / self.scale
        longest = float(farthest.max() if self.ways.norm == np.inf else np.sqrt(np.square(farthest).sum()))
        lengths = longest * 2.0 ** -np.linspace(0, 6, 2 * LENGTHS)
        cell, cost = self.best(directions, lengths)
        for _ in range(TURNS):
            if cell is None:
                break
            found, less = self.turned(aim, cell)
            if found is not None and less < cost:
                cell, cost = found, less
        return cell

    def turned(self, aim: Aim, cell: Integers) -> tuple[Integers | None, float]:
        """The best of the directions between that of the row in ``cell`` and the slope there."""
        moved = (self.ways.row(cell) - self.row) / self.scale
        if self.ways.norm == np.inf:
            size = width = float(np.abs(moved).max())
        else:
            size = float(np.linalg.norm(moved))
            width = size / float(np.sqrt(max(1.0, self.free.sum())))
        if not size:
            return None, np.inf
        row = self.row + moved * self.scale
        slope = self.unit(self.slope(row, NARROW * width, aim.margin[:, None])[:, 0])
        mixed = np.array([(1 - share) * moved / size + share * slope for share in MIXED])
        if self.ways.norm != np.inf:
            mixed /= np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-300)
        return self.best(mixed, size * np.linspace(0.5, 1.05, LENGTHS))

    def unit(self, slope: Floats) -> Floats:
        """The direction of length 1 along which the lead grows most."""
        if self.ways.norm == np.inf:
            return np.asarray(np.sign(slope))
        return np.asarray(slope / max(float(np.linalg.norm(slope)), 1e-300))

    def best(self, directions: Floats, lengths: Floats) -> tuple[Integers | None, float]:
        """Cells of the cheapest row of another class among all lengths of all directions."""
        moves = (lengths[:, None, None] * directions).reshape(-1, len(self.row)) * self.scale
        cells = (self.searcher.cells.thresholds < (self.row + moves)[:, :, None]).sum(axis=2)
        cells = self.settled[self.each, cells]
        cost = self.ways.total(self.ways.cost[self.each, cells])
        other = self.searcher.cells.ensemble.labels(self.ways.value[self.each, cells]) != self.label
        if not other.any():
            return None, np.inf
        place = int(np.where(other, cost, np.inf).argmin())
        return cells[place], float(cost[place])


class _Hunt:
    """One search: from one row towards one other class."""

    def __init__(self, search: Searcher, ways: Ways, aim: Aim, rng: np.random.Generator) -> None:
        self.search, self.ways, self.aim, self.rng = search, ways, aim, rng
        self.each = np.arange(len(ways.home))
        self.least = 1e-9 * max(float(np.abs(aim.margin).max(initial=0.0)), 1e-300)
        self.go(ways.home)
        self.home = self.state()

    def go(self, cell: Integers) -> None:
        """Be at a row, given by its cells."""
        self.cell = cell.copy()
        self.violated, self.count = self.search.violations(self.cell)

    def state(self) -> State:
        """Where it is, to come back to."""
        return self.cell.copy(), self.violated.copy(), self.count.copy()

    def back(self, state: State) -> None:
        """Be where it was."""
        cell, violated, count = state
        self.cell, self.violated, self.count = cell.copy(), violated.copy(), count.copy()

    def change(self, feature: int, cell: int) -> None:
        self.cell[feature] = cell
        self.search.moved(feature, cell, self.violated, self.count)

    @property
    def cost(self) -> Floats:
        """``(features,)``: what the row costs now."""
        return np.asarray(self.ways.cost[self.each, self.cell])

    def cheapest(self, start: Integers | None) -> Integers | None:
        """For norms whose parts add up: take changes back, look for others, and keep what is cheaper."""
        if start is not None:
            self.go(start)
        if not self.climb(0.0, np.inf):
            return None
        self.prune()
        best, least = self.state(), float(self.cost.sum())
        for _ in range(ROUNDS):
            self.back(best)
            changed = np.flatnonzero(self.cell != self.ways.home)
            share = self.rng.uniform(*TAKEN_BACK)
            for feature in changed[self.rng.random(len(changed)) < share]:
                self.change(int(feature), int(self.ways.home[feature]))
            if self.climb(NOISE, least):
                self.prune()
                if (cost := float(self.cost.sum())) < least:
                    best, least = self.state(), cost
        return best[0]

    def climb(self, noise: float, limit: float) -> bool:
        """Change one feature after the other, most lead for the cost, until the aim is reached within ``limit``."""
        while True:
            lead, leads = self.search.leads(self.aim, self.violated, self.count)
            if lead > self.aim.need:
                return True
            cost = self.cost
            if cost.sum() >= limit:
                return False
            price = self.ways.cost - cost[:, None]
            reached = (leads > self.aim.need) & np.isfinite(price)
            if reached.any():
                place = int(np.where(reached, price, np.inf).argmin())
            else:
                gain = leads - lead
                worth = gain / np.maximum(price, 1e-12)
                if noise:
                    worth = worth * np.exp(noise * self.rng.standard_normal((len(worth), 1)))
                worth[(gain <= self.least) | ~np.isfinite(price)] = 0.0
                place = int(worth.argmax())
                if worth.flat[place] <= 0:
                    return False
            self.change(*divmod(place, leads.shape[1]))

    def prune(self) -> None:
        """Take every saving that leaves the aim reached, the largest first."""
        while True:
            _, leads = self.search.leads(self.aim, self.violated, self.count)
            price = self.ways.cost - self.cost[:, None]
            saving = np.where((leads > self.aim.need) & (price < 0), price, 0.0)
            place = int(saving.argmin())
            if saving.flat[place] >= 0:
                return
            self.change(*divmod(place, leads.shape[1]))

    def widest(self, start: Integers | None) -> Integers | None:
        """For the norm inf: halve the reach as long as the aim is reached within it, then shave it off."""
        if start is not None:
            self.go(start)
        if not self.fill(np.inf, 0.0):
            return None
        best, low, high = self.cell.copy(), 0.0, float(self.cost.max())
        for _ in range(BISECTIONS):
            self.back(self.home)
            if self.fill((low + high) / 2, 0.0):
                best, high = self.cell.copy(), float(self.cost.max())
            else:
                low = (low + high) / 2
        for _ in range(ROUNDS // 2):
            self.go(np.where(self.rng.random(len(best)) < self.rng.uniform(*TAKEN_BACK), self.ways.home, best))
            reach = self.below(high)
            for feature in np.flatnonzero(self.cost > reach):
                self.change(int(feature), int(self.ways.home[feature]))
            if self.fill(reach, NOISE):
                best, high = self.cell.copy(), float(self.cost.max())
        return best

    def below(self, reach: float) -> float:
        """The largest cost of any cell that is less than ``reach``; 0 when there is none."""
        costs = self.ways.cost[np.isfinite(self.ways.cost)]
        return float(costs[costs < reach].max(initial=0.0))

    def fill(self, reach: float, noise: float) -> bool:
        """Change features, each by ``reach`` at most, most lead first, until the aim is reached."""
        allowed = self.ways.cost <= reach if np.isfinite(reach) else np.isfinite(self.ways.cost)
        while True:
            lead, leads = self.search.leads(self.aim, self.violated, self.count)
            if lead > self.aim.need:
                return True
            gain = np.where(allowed, leads - lead, 0.0)
            if noise:
                gain = gain * np.exp(noise * self.rng.standard_normal((len(gain), 1)))
            place = int(gain.argmax())
            if gain.flat[place] <= self.least:
                return False
            self.change(*divmod(place, leads.shape[1]))
