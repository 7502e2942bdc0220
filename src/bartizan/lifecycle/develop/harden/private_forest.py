"""A forest with differential privacy: trees that know nothing of the data, and noisy counts in their leaves.

Splits are drawn at random from the ranges of the features (Fan et al. 2003, Is random model better? On its accuracy
and efficiency; Jagannathan et al. 2012, A practical differentially private random decision tree classifier, TDP
5:273-295), so only the counts in the leaves spend privacy. Changing one record moves it from one count to another in
each tree, so a tree whose counts get two-sided geometric noise of scale ``2 / share`` is ``share``-private (Ghosh et
al. 2009, arXiv:0811.2841), and all trees together spend the sum of the shares. The noise is of whole numbers:
Mironov's attack on the last bits (2012) has nothing to hold on to.

The ranges cost no privacy only when they are declared and not read off the data. The number of records is taken to be
public. Whoever knows the seed knows the noise: the guarantee is against everybody else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import InputError
from bartizan.lifecycle.develop.choose.candidate import Facts, Interpretability
from bartizan.lifecycle.develop.harden.audit import Promise
from bartizan.lifecycle.develop.harden.defence import Wrapped
from bartizan.redteam.family import Material
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target

EPSILON = 1.0
FEWEST_TREES, MOST_TREES = 3, 30
SHALLOWEST, DEEPEST = 2, 10
MOVED = 2
"""Counts of a tree that one changed record changes by one: where it was, and where it is."""
_BYTES = 8


@dataclass(frozen=True, slots=True, eq=False)
class RandomTree:
    """A complete tree, its inner nodes one level after the other."""

    feature: NDArray[np.int64]
    """``(2 ** depth - 1,)``"""
    threshold: NDArray[np.float64]
    depth: int

    def leaf(self, rows: Rows) -> NDArray[np.int64]:
        """Leaf that each row comes to, ``(batch,)``, from 0."""
        node, each = np.zeros(len(rows), np.int64), np.arange(len(rows))
        for _ in range(self.depth):
            node = 2 * node + 1 + (rows[each, self.feature[node]] > self.threshold[node])
        return node - len(self.feature)


def random_tree(low: Rows, high: Rows, depth: int, rng: np.random.Generator) -> RandomTree:
    """A tree whose questions are drawn from the ranges ``(features,)`` that are left at each node."""
    inner = 2**depth - 1
    feature = rng.integers(len(low), size=inner)
    threshold = np.empty(inner)
    boxes = {0: (low, high)}
    for node in range(inner):
        below, above = boxes.pop(node)
        asked = feature[node]
        threshold[node] = rng.uniform(below[asked], above[asked])
        less, more = above.copy(), below.copy()
        less[asked] = more[asked] = threshold[node]
        boxes[2 * node + 1], boxes[2 * node + 2] = (below, less), (more, above)
    return RandomTree(feature, threshold, depth)


def two_sided_geometric(scale: float, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.int64]:
    """Whole numbers with probability proportional to ``exp(-|number| / scale)``."""
    stop = -math.expm1(-1 / scale)
    return rng.geometric(stop, shape) - rng.geometric(stop, shape)


def trees_for(epsilon: float) -> int:
    """How many trees share a budget: with little of it, few, so that each count is worth something."""
    return int(np.clip(round(10 * math.sqrt(epsilon)), FEWEST_TREES, MOST_TREES))


def depth_for(records: int) -> int:
    """Depth at which leaves of a balanced tree still have about eight records."""
    return int(np.clip(round(math.log2(max(records, 1))) - 3, SHALLOWEST, DEEPEST))


class PrivateForest(Wrapped):
    """The private model. ``inner`` is what it stands in for, and is never asked."""

    def __init__(
        self,
        inner: Target,
        trees: tuple[tuple[RandomTree, NDArray[np.int64]], ...],
        ranges: tuple[Rows, Rows],
        epsilon: float,
    ) -> None:
        super().__init__(inner)
        self.trees, self._ranges, self.epsilon = trees, ranges, epsilon
        self._logs = [(tree, _logs(counts)) for tree, counts in trees]

    @property
    def promise(self) -> Promise:
        """See ``Promising``."""
        return Promise(self.epsilon)

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        return frozenset({Access.LABELS, Access.SCORES, Access.TRAINING})

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        labels: Labels = self.scores(rows).argmax(axis=1).astype(np.int64)
        return labels

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``: the geometric mean of what the trees answer."""
        inside = np.clip(rows, *self._ranges)
        mean = sum((logs[tree.leaf(inside)] for tree, logs in self._logs), np.zeros(self.classes)) / len(self.trees)
        powers = np.exp(mean - mean.max(axis=1, keepdims=True))
        scores: Scores = powers / powers.sum(axis=1, keepdims=True)
        return scores

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``."""
        rng = np.random.default_rng(seed)
        return private_forest(self.inner, rows, labels, ranges=self._ranges, epsilon=self.epsilon, rng=rng)

    @property
    def facts(self) -> Facts:
        """See ``Fitted.facts``: the counts are what is learnt."""
        count = sum(counts.size for _, counts in self.trees)
        size = _BYTES * (count + sum(2 * len(tree.feature) for tree, _ in self.trees))
        return Facts(count, size, Interpretability.BLACK_BOX, f"{len(self.trees)} random trees with noisy counts")


def _logs(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logarithms of the shares of the classes in each leaf ``(leaves, classes)``, one added to each count."""
    least = np.maximum(counts, 0) + 1.0
    logs: NDArray[np.float64] = np.log(least / least.sum(axis=1, keepdims=True))
    return logs


def private_forest(
    base: Target, rows: Rows, labels: Labels, *, ranges: tuple[Rows, Rows], epsilon: float, rng: np.random.Generator
) -> PrivateForest:
    """A private forest of records ``(records, features)``; ``epsilon`` altogether.

    Raises:
        InputError: epsilon is not above 0, there are no records, or a range is none.
    """
    low, high = np.asarray(ranges[0], np.float64), np.asarray(ranges[1], np.float64)
    if not (epsilon > 0 and math.isfinite(epsilon) and len(rows)):
        raise InputError(f"epsilon {epsilon} and {len(rows)} records: both must be above 0")
    if not (np.isfinite(low) & np.isfinite(high) & (low <= high)).all():
        raise InputError("a private forest needs the range of every feature", remedy="declare ranges of the features.")
    count, depth = trees_for(epsilon), depth_for(len(rows))
    inside = np.clip(rows, low, high)
    trees = []
    for _ in range(count):
        tree = random_tree(low, high, depth, rng)
        counts = np.zeros((2**depth, base.classes), np.int64)
        np.add.at(counts, (tree.leaf(inside), labels), 1)
        trees.append((tree, counts + two_sided_geometric(MOVED * count / epsilon, counts.shape, rng)))
    return PrivateForest(base, tuple(trees), (low, high), epsilon)


class PrivateTrees:
    """Replace the model by a forest with differential privacy."""

    kind, credit = "training", True
    references: tuple[str, ...] = (
        "Jagannathan et al. 2012, A practical differentially private random decision tree classifier, TDP 5:273-295",
        "Ghosh et al. 2009, Universally utility-maximizing privacy mechanisms, arXiv:0811.2841",
    )

    def __init__(self, epsilon: float = EPSILON) -> None:
        self.epsilon = epsilon
        self.name = "private-forest" if epsilon == EPSILON else f"private-forest-{epsilon:g}"
        self.title = f"Private forest (epsilon {epsilon:g})"

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {"epsilon": self.epsilon, "trees": trees_for(self.epsilon), "mechanism": "two-sided geometric counts"}

    def why_not(self, base: Target, material: Material) -> str:
        """See ``Defence.why_not``."""
        del base, material
        return ""

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        training, space = material.training, material.space
        return private_forest(
            base, training.rows, training.labels, ranges=(space.low, space.high), epsilon=self.epsilon, rng=rng
        )
