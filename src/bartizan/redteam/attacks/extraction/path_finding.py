"""Model extraction by path finding: the leaves of a decision tree, one box after the other."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.attack import Query, Search
from bartizan.redteam.siege import Siege, Spent
from bartizan.redteam.tasks import ExtractionTask
from bartizan.targets.protocol import Access, Labels, Rows, Scores
from bartizan.targets.structure import Floats

HALVINGS = 24
"""Steps of one line search: thresholds are found to ``2 ** -HALVINGS`` of the range of a feature."""
DIGITS = 12
"""Decimals of a score by which leaves are told apart."""
WAVE = 64
"""Points that are explored together: a wave costs one call for each step."""
OWN = 200
"""Own rows that are tried once nothing leads on: leaves that share their scores may hide others."""
QUIET = 4
"""Waves of random points without any surprise after which the tree is taken to be whole."""


@dataclass(slots=True, eq=False)
class BoxCopy:
    """A copy made of boxes ``low < row <= high``, each with one answer."""

    low: Floats
    """``(boxes, features)``"""
    high: Floats
    told: Scores
    """``(boxes, classes)``"""
    width: Floats
    """``(features,)``: ranges, by which distances are measured."""

    def __call__(self, rows: Rows) -> Labels:
        """Class indices ``(batch,)``: of the smallest box around each row, else of the nearest one."""
        labels: Labels = self.told[self.places(rows)[0]].argmax(axis=1).astype(np.int64)
        return labels

    def places(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """``(batch,)``: the box of each row, and whether the row is inside it."""
        best, chosen = np.full(len(rows), np.inf), np.zeros(len(rows), np.int64)
        small = np.log(np.maximum(np.minimum(self.high - self.low, self.width) / self.width, 1e-300)).sum(axis=1)
        # Below any distance, and the smaller the box the lower.
        rank = small.argsort(kind="stable").argsort(kind="stable") - float(len(small))
        for place, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            outside = np.maximum(low - rows, 0.0) + np.maximum(rows - high, 0.0)
            inside = ((rows > low) & (rows <= high)).all(axis=1)
            cost = np.where(inside, rank[place], (outside / self.width).sum(axis=1))
            better = cost < best
            best[better], chosen[better] = cost[better], place
        return chosen, best < 0


class PathFinding:
    """From a row, find by line searches how far its leaf reaches; go on behind each border. Stateless.

    The scores of a leaf serve as its name. Where leaves share their scores a line may run from one into
    another, and boxes come out too wide; own rows and random points are asked about afterwards, and what
    they contradict is explored anew. Costs 2 features and ``HALVINGS`` for each border a leaf, so that small
    trees come out whole and large ones in part. Rows that are asked about lie within the ranges but may be
    impossible. Claim of Tramèr et al.: all leaves with unique scores.
    """

    name = "extraction.path-finding"
    title = "Model extraction by path finding, for decision trees"
    family = "extraction"
    technique = "T38"
    atlas: tuple[str, ...] = ("T05", "AML.T0024.002")
    needs = frozenset({Access.SCORES})
    position = "user"
    references: tuple[str, ...] = (
        "Tramèr et al. 2016, Stealing machine learning models via prediction APIs, section 4.2, arXiv:1609.02943",
    )

    def search(self, task: ExtractionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        walk = _Walk(task)
        order = task.rows[rng.permutation(len(task.rows))].astype(np.float64)
        with suppress(Spent):
            yield from walk.explore(order[:1])
            yield from walk.explore(order[1 : 1 + OWN])
            quiet = 0
            while quiet < QUIET:
                wrong = yield from walk.explore(_trial(order, walk, rng))
                quiet = 0 if wrong else quiet + 1
        return walk.siege.done()


def _trial(own: Rows, walk: _Walk, rng: np.random.Generator) -> Rows:
    """Random points: own rows, own rows with features of another, and any within the ranges, a third each."""
    count, features = WAVE // 3, own.shape[1]
    rows = own[rng.integers(0, len(own), count)]
    first, second = own[rng.integers(0, len(own), (2, count))]
    crossed = np.where(rng.random((count, features)) < rng.random((count, 1)), first, second)
    return np.concatenate([rows, crossed, rng.uniform(walk.low, walk.high, (count, features))])


@dataclass(slots=True, eq=False)
class _Box:
    """What is taken for a leaf."""

    low: Floats
    high: Floats
    told: Scores
    """``(classes,)``"""
    seed: Floats
    """``(features,)``: the row that it was found from."""


@dataclass(slots=True, eq=False)
class _Walk:
    task: ExtractionTask
    siege: Siege = field(init=False)
    low: Floats = field(init=False)
    high: Floats = field(init=False)
    boxes: list[_Box] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.siege = Siege(self.task, scores=True, copy=self.copy)
        self.low, self.high = self.task.space.low.astype(np.float64), self.task.space.high.astype(np.float64)

    def copy(self) -> BoxCopy:
        """What is known so far; rows that were only asked about count as tiny boxes as long as there is no other."""
        known = self.boxes or [
            _Box(row - 1e-9, row, told, row) for row, told in zip(self.siege.asked, self.siege.told, strict=True)
        ]
        width = np.where(self.high > self.low, self.high - self.low, 1.0)
        low, high, told = (np.array([getattr(box, name) for box in known]) for name in ("low", "high", "told"))
        return BoxCopy(low, high, told, width)

    def explore(self, points: Rows) -> Generator[Query, Any, int]:
        """Find the leaves of ``points`` ``(batch, features)`` and all that can be reached from them.

        Returns:
            How many of all points that were asked about were answered otherwise than the boxes say.
        """
        waiting, surprises = list(points), 0
        while waiting:
            wave, waiting = np.array(waiting[:WAVE]), waiting[WAVE:]
            told = yield from self.siege.ask(wave)
            place, inside = self._boxes_of(wave)
            explained = inside & np.array([self._alike(told[at], place[at]) for at in range(len(wave))], np.bool_)
            surprises += int((~explained).sum())
            wrong, fresh = inside & ~explained, ~inside & self._first(told, ~inside)
            yield from self._narrow(wave[wrong], place[wrong])
            waiting += list(wave[~explained & ~fresh])
            waiting += yield from self._leaves(wave[fresh], told[fresh])
        return surprises

    def _boxes_of(self, points: Rows) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The smallest box around each point, and whether there is one."""
        if not self.boxes:
            return np.zeros(len(points), np.int64), np.zeros(len(points), np.bool_)
        return self.copy().places(points)

    def _alike(self, told: Scores, place: np.int64) -> bool:
        return bool(self.boxes) and bool(np.abs(self.boxes[place].told - told).max() <= 10.0**-DIGITS)

    @staticmethod
    def _first(told: Scores, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The first point of each name; the others wait for its box."""
        first, places = np.zeros(len(told), np.bool_), np.flatnonzero(among)
        if places.size:
            first[places[np.unique(np.round(told[places], DIGITS), axis=0, return_index=True)[1]]] = True
        return first

    def _narrow(self, points: Rows, place: NDArray[np.int64]) -> Generator[Query, Any, None]:
        """Cut boxes that hold ``points`` of another name, between their seed and the point.

        Going from the seed to the point one feature after the other, some first one changes the answer:
        there is a threshold of that feature in between.
        """
        count, features = points.shape
        if not count:
            return
        seeds, told = (np.array([getattr(self.boxes[at], name) for at in place]) for name in ("seed", "told"))
        steps = np.arange(1, features + 1)[:, None] > np.arange(features)
        rows = np.where(steps, points[:, None], seeds[:, None]).reshape(-1, features)
        changed = (yield from self._differ(rows, np.repeat(told, features, axis=0))).reshape(count, features)
        feature, each = changed.argmax(axis=1), np.arange(count)
        way = rows.reshape(count, features, features)[each, feature]
        near, far = seeds[each, feature], points[each, feature]
        for _ in range(HALVINGS):
            middle = (near + far) / 2
            way[each, feature] = middle
            differs = yield from self._differ(way, told)
            near, far = np.where(differs, near, middle), np.where(differs, middle, far)
        for at, one in enumerate(place.tolist()):
            box, own = self.boxes[one], int(feature[at])
            if far[at] > near[at]:
                box.high[own] = min(box.high[own], near[at])
            else:
                box.low[own] = max(box.low[own], far[at])

    def _leaves(self, points: Rows, told: Scores) -> Generator[Query, Any, list[Floats]]:
        """Find the boxes of several points by line searches in step; points behind their borders."""
        count, features = points.shape
        low, high = np.tile(self.low, (count, 1)), np.tile(self.high, (count, 1))
        at = np.indices((count, features, 2)).reshape(3, -1).T
        far = np.where(at[:, 2] == 0, self.low[at[:, 1]], self.high[at[:, 1]])
        near = points[at[:, 0], at[:, 1]]
        changed = (far != near) & (yield from self._differ(_moved(points, at, far), told[at[:, 0]]))
        at, far, near = at[changed], far[changed], near[changed]
        for _ in range(HALVINGS if len(at) else 0):
            middle = (near + far) / 2
            differs = yield from self._differ(_moved(points, at, middle), told[at[:, 0]])
            near, far = np.where(differs, near, middle), np.where(differs, middle, far)
        below = at[:, 2] == 0
        low[at[below, 0], at[below, 1]] = far[below]
        high[at[~below, 0], at[~below, 1]] = near[~below]
        # Boxes that reach the end of a range reach beyond it.
        low, high = np.where(low <= self.low, -np.inf, low), np.where(high >= self.high, np.inf, high)
        self.boxes += [_Box(*one) for one in zip(low, high, told, points, strict=True)]
        return list(_moved(points, at, far))

    def _differ(self, rows: Rows, told: Scores) -> Generator[Query, Any, NDArray[np.bool_]]:
        """Which rows are answered otherwise than ``told`` ``(batch, classes)``."""
        answer = yield from self.siege.ask(rows)
        return np.asarray(np.abs(answer - told).max(axis=1, initial=0.0) > 10.0**-DIGITS)


def _moved(points: Rows, at: NDArray[np.int64], values: Floats) -> Rows:
    """A copy of the point ``at[:, 0]`` for each value, with it as the feature ``at[:, 1]``."""
    rows = points[at[:, 0]].copy()
    rows[np.arange(len(at)), at[:, 1]] = values
    return rows
