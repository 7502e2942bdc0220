"""Extremely randomised trees on soft targets, after Geurts et al. 2006, in NumPy.

For victims that are trees themselves: steps are copied by steps better than by smooth functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.targets.protocol import Rows, Scores

TREES = 30
FEATURE_SHARE = 0.5
"""Of the features, how many are tried at each split, one random threshold for each."""
ALIKE = 0.02
"""Targets closer than this are not split further."""
LARGEST_TREE = 1_000
"""Leaves of a tree, about; bounds time and memory on long answers."""
_LEAF = -1


@dataclass(frozen=True, slots=True)
class _Tree:
    """Nodes as parallel arrays; the root is node 0, a leaf has the feature -1."""

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    children: NDArray[np.int64]
    """``(nodes, 2)``: where rows at most at the threshold go, and the others."""
    value: Scores
    """``(nodes, classes)``"""

    def __call__(self, rows: Rows) -> Scores:
        node, each = np.zeros(len(rows), np.int64), np.arange(len(rows))
        while (inner := self.feature[node] != _LEAF).any():
            above = rows[each, self.feature[node]] > self.threshold[node]
            node = np.where(inner, self.children[node, above.astype(np.int64)], node)
        scores: Scores = self.value[node]
        return scores


@dataclass(frozen=True, slots=True)
class Forest:
    """Mean of trees."""

    trees: tuple[_Tree, ...]

    def __call__(self, rows: Rows) -> Scores:
        """Probabilities ``(batch, classes)`` of ``rows`` ``(batch, features)``."""
        scores: Scores = np.mean([tree(rows) for tree in self.trees], axis=0)
        return scores


def grow(rows: Rows, targets: Scores, rng: np.random.Generator, trees: int = TREES) -> Forest:
    """Trees grown on all ``rows`` ``(batch, features)`` until the targets ``(batch, classes)`` of a leaf are alike."""
    return Forest(tuple(_grow_tree(rows, targets, rng) for _ in range(trees)))


def _grow_tree(rows: Rows, targets: Scores, rng: np.random.Generator) -> _Tree:
    features, thresholds, children, values = list[int](), list[float](), list[list[int]](), list[Scores]()
    least = max(2, 2 * len(rows) // LARGEST_TREE)
    waiting = [(np.arange(len(rows)), _LEAF, 0)]
    while waiting:
        inside, parent, side = waiting.pop()
        place = len(features)
        if parent != _LEAF:
            children[parent][side] = place
        feature, threshold, above = _split(rows[inside], targets[inside], least, rng)
        features.append(feature)
        thresholds.append(threshold)
        children.append([0, 0])
        values.append(targets[inside].mean(axis=0))
        if feature != _LEAF:
            waiting += [(inside[~above], place, 0), (inside[above], place, 1)]
    return _Tree(np.array(features), np.array(thresholds), np.array(children), np.array(values))


def _split(rows: Rows, targets: Scores, least: int, rng: np.random.Generator) -> tuple[int, float, NDArray[np.bool_]]:
    """The best of some random splits: feature, threshold, and which rows lie above; none for a leaf."""
    low, high = rows.min(axis=0), rows.max(axis=0)
    varied = np.flatnonzero(high > low)
    if len(rows) < least or not len(varied) or np.ptp(targets, axis=0).max() < ALIKE:
        return _LEAF, 0.0, np.zeros(len(rows), np.bool_)
    tried = rng.choice(varied, max(1, round(FEATURE_SHARE * len(varied))), replace=False)
    thresholds = low[tried] + rng.random(len(tried)) * (high[tried] - low[tried])
    thresholds = np.minimum(thresholds, np.nextafter(high[tried], low[tried]))
    above = rows[:, tried] > thresholds
    count = above.sum(axis=0)
    summed = above.T.astype(np.float64) @ targets
    rest = targets.sum(axis=0) - summed
    gain = (summed**2).sum(axis=1) / count + (rest**2).sum(axis=1) / (len(rows) - count)
    best = int(gain.argmax())
    return int(tried[best]), float(thresholds[best]), above[:, best]
