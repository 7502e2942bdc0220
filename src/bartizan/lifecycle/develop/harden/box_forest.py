"""A forest that learns from boxes: every row stands for all that an adversary can make of it.

A split sends a box to each side that it reaches, so that a leaf counts everybody who can be brought there, and a split
pays only when it tells classes apart that no allowed change mixes. It is the idea of robust trees (Chen et al. 2019,
Robust decision trees against adversarial examples, arXiv:1902.10660; Vos and Verwer 2021, GROOT, arXiv:2012.10438)
with the adversary's whole box in place of a guess at what he does. Impurity is Gini's, counted for what reaches a
side; each tree sees its own draw of the records and, in each node, a draw of the features (Breiman 2001).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.develop.choose.candidate import Facts
from bartizan.lifecycle.develop.choose.opened import facts_of_structure
from bartizan.lifecycle.develop.harden.defence import Wrapped
from bartizan.redteam.family import Material
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target
from bartizan.targets.structure import LEAF, Link, TreeEnsemble, joined

TREES, DEPTH = 40, 6
LEAST_LEAF = 3
"""Records that reach a leaf."""
_BYTES = 8
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Where each record can be brought: ``low <= row <= high``, ``(records, features)`` each."""

    low: Floats
    high: Floats

    def take(self, index: NDArray[Any]) -> Boxes:
        """The boxes at ``index``."""
        return Boxes(self.low[index], self.high[index])


def boxes_around(rows: Rows, space: Space, change: float) -> Boxes:
    """All that an adversary can make of rows, feature by feature."""
    reach = np.where(space.immutable | space.categorical, 0.0, change * space.scale)
    low = np.minimum(np.maximum(rows - reach, space.low), rows)
    high = np.maximum(np.minimum(rows + reach, space.high), rows)
    free = space.categorical & ~space.immutable & (change >= 1)
    return Boxes(np.where(free, space.low, low), np.where(free, space.high, high))


@dataclass(slots=True)
class _Growing:
    """A tree as lists, one item for each node."""

    feature: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    value: list[Floats] = field(default_factory=list)

    def add(self, value: Floats) -> int:
        """A new leaf."""
        place = len(self.feature)
        self.feature.append(LEAF)
        self.threshold.append(0.0)
        self.left.append(place)
        self.right.append(place)
        self.value.append(value)
        return place

    def split(self, place: int, feature: int, threshold: float, children: tuple[int, int]) -> None:
        """Make a leaf a node with a question."""
        self.feature[place], self.threshold[place] = feature, threshold
        self.left[place], self.right[place] = children
        self.value[place] = np.zeros_like(self.value[place])


def grown(boxes: Boxes, counts: Floats, rng: np.random.Generator, *, depth: int = DEPTH) -> _Growing:
    """A tree from boxes and the class of each ``(records, classes)``, one 1 in a row."""
    tree = _Growing()
    drawn = max(1, math.isqrt(boxes.low.shape[1]))

    def grow(inside: Boxes, of: Floats, left: int) -> int:
        total = of.sum(axis=0)
        place = tree.add(total / max(total.sum(), 1.0))
        if not left or np.count_nonzero(total) < 2:  # noqa: PLR2004 - nothing to tell apart
            return place
        features = rng.permutation(inside.low.shape[1])[:drawn]
        found = best_split(inside, of, features)
        if found is None:
            return place
        feature, threshold = found
        below, above = inside.low[:, feature] <= threshold, inside.high[:, feature] > threshold
        lower, upper = inside.take(below), inside.take(above)
        lower.high[:, feature] = np.minimum(lower.high[:, feature], threshold)
        upper.low[:, feature] = np.maximum(upper.low[:, feature], np.nextafter(threshold, np.inf))
        children = grow(lower, of[below], left - 1), grow(upper, of[above], left - 1)
        tree.split(place, feature, threshold, children)
        return place

    grow(boxes, counts, depth)
    return tree


def best_split(boxes: Boxes, counts: Floats, features: NDArray[np.int64]) -> tuple[int, float] | None:
    """Feature and threshold after which the least impurity is left; None when no split takes any away."""
    best, chosen = impurity(counts.sum(axis=0)) - 1e-9, None
    for feature in features.tolist():
        low, high = boxes.low[:, feature], boxes.high[:, feature]
        edges = np.unique(np.concatenate([low, high]))
        if len(edges) < 2:  # noqa: PLR2004 - nothing to cut
            continue
        thresholds = (edges[:-1] + edges[1:]) / 2
        below = _reached(low, counts, thresholds)
        above = counts.sum(axis=0) - _reached(high, counts, thresholds)
        both = impurity(below) + impurity(above)
        small = np.minimum(below.sum(axis=1), above.sum(axis=1)) < LEAST_LEAF
        both[small] = np.inf
        place = int(both.argmin())
        if both[place] < best:
            best, chosen = float(both[place]), (feature, float(thresholds[place]))
    return chosen


def _reached(edges: Floats, counts: Floats, thresholds: Floats) -> Floats:
    """``(thresholds, classes)``: of each class, how many edges are at most the threshold."""
    order = np.argsort(edges, kind="stable")
    sums = np.vstack([np.zeros(counts.shape[1]), np.cumsum(counts[order], axis=0)])
    reached: Floats = sums[np.searchsorted(edges[order], thresholds, side="right")]
    return reached


def impurity(counts: Floats) -> Any:
    """Gini's impurity times the number of records, of counts ``(..., classes)``."""
    total = counts.sum(axis=-1)
    return total - (counts**2).sum(axis=-1) / np.maximum(total, 1e-12)


class BoxForest(Wrapped):
    """The robust forest. ``inner`` is what it stands in for, and is never asked. See ``Transparent``."""

    def __init__(self, inner: Target, forest: TreeEnsemble, space: Space, change: float) -> None:
        super().__init__(inner)
        self.forest, self._space, self._change = forest, space, change

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        return frozenset({Access.LABELS, Access.SCORES, Access.TRAINING, Access.WEIGHTS})

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        return self.forest.labels(rows)

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        return self.forest.scores(rows)

    def structure(self) -> TreeEnsemble:
        """See ``Transparent.structure``."""
        return self.forest

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``."""
        return box_forest(self.inner, rows, labels, space=self._space, change=self._change, seed=seed)

    @property
    def facts(self) -> Facts:
        """See ``Fitted.facts``."""
        return facts_of_structure(self.forest, _BYTES * (2 + self.classes) * len(self.forest.feature))


def box_forest(base: Target, rows: Rows, labels: Labels, *, space: Space, change: float, seed: int) -> BoxForest:
    """A robust forest of records ``(records, features)`` against changes of so many standard deviations (Linf)."""
    rng = np.random.default_rng(seed)
    boxes, counts = boxes_around(rows, space, change), np.eye(base.classes)[labels]
    trees = []
    for _ in range(TREES):
        drawn = rng.integers(len(rows), size=len(rows))
        made = grown(boxes.take(drawn), counts[drawn], rng)
        trees.append(
            TreeEnsemble(
                feature=np.array(made.feature, np.int64),
                threshold=np.array(made.threshold),
                left=np.array(made.left, np.int64),
                right=np.array(made.right, np.int64),
                value=np.array(made.value),
                roots=np.zeros(1, np.int64),
                base=np.zeros(base.classes),
                features=rows.shape[1],
                link=Link.MEAN,
            )
        )
    whole = joined(
        trees, base=np.zeros(base.classes), features=rows.shape[1], link=Link.MEAN, divisor=float(len(trees))
    )
    return BoxForest(base, whole, space, change)


class RobustTrees:
    """Replace the model by a forest that learnt from boxes. Tables only: what it withstands is a change per feature."""

    name, title, kind, credit = "robust-forest", "Forest trained on all that can be made of each row", "training", True
    references: tuple[str, ...] = (
        "Chen et al. 2019, Robust decision trees against adversarial examples, arXiv:1902.10660",
        "Vos and Verwer 2021, Efficient training of robust decision trees (GROOT), arXiv:2012.10438",
    )

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {"trees": TREES, "depth": DEPTH}

    def why_not(self, base: Target, material: Material) -> str:
        """See ``Defence.why_not``."""
        del base, material
        return ""

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        training, change = material.training, material.settings.max_change
        seed = int(rng.integers(2**31))
        return box_forest(base, training.rows, training.labels, space=material.space, change=change, seed=seed)
