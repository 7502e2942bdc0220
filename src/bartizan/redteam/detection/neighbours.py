"""Records whose neighbours carry other labels: disagreement, and the exact Shapley value of each record.

Both look at the records alone. They find wrong labels, whatever the reason, and no poison whose
labels are right. A trigger that many records share makes them neighbours of one another and hides
them; ``common_cause`` is for these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.detection.inspected import FPR, Inspected, Suspicion, highest
from bartizan.redteam.detection.nearest import blocks, nearest, squared_distances
from bartizan.targets.protocol import Access, Labels

NEIGHBOURS = 20
SHAPLEY_NEIGHBOURS = 5


@dataclass(frozen=True, slots=True)
class NeighbourDisagreement:
    """Share of the nearest records that carry another label. See ``Detector``."""

    neighbours: int = NEIGHBOURS
    fpr: float = FPR
    name: ClassVar[str] = "neighbours"
    title: ClassVar[str] = "Records whose nearest neighbours carry another label"
    needs: ClassVar[frozenset[Access]] = frozenset()
    techniques: ClassVar[tuple[str, ...]] = ("T16", "T17", "T19", "T21")
    references: ClassVar[tuple[str, ...]] = (
        "Wilson 1972, Asymptotic properties of nearest neighbor rules using edited data, IEEE Trans. SMC 2(3)",
        "Paudice et al. 2018, Label sanitization against label flipping poisoning attacks, arXiv:1803.00992",
    )

    def inspect(self, inspected: Inspected, rng: np.random.Generator) -> Suspicion:
        """See ``Detector.inspect``."""
        del rng
        scores = disagreement(inspected, nearest(inspected.scaled, self.neighbours))
        return Suspicion(scores, highest(scores, self.fpr))


def disagreement(inspected: Inspected, neighbours: NDArray[np.int64]) -> NDArray[np.float64]:
    """``(records,)``: share of each record's ``neighbours`` ``(records, count)`` with another label; 0 without any."""
    if not neighbours.shape[1]:
        return np.zeros(len(inspected.rows))
    share: NDArray[np.float64] = (inspected.labels[neighbours] != inspected.labels[:, None]).mean(axis=1)
    return share


@dataclass(frozen=True, slots=True)
class NeighbourShapley:
    """What each record adds to the accuracy of a nearest-neighbour classifier, lowest first. See ``Detector``.

    Valued on trusted records where there are any, else on all the others: then a record that
    contradicts many neighbours loses value, and so do they, a little.
    """

    neighbours: int = SHAPLEY_NEIGHBOURS
    fpr: float = FPR
    name: ClassVar[str] = "shapley"
    title: ClassVar[str] = "Records that a nearest-neighbour classifier would be better without"
    needs: ClassVar[frozenset[Access]] = frozenset()
    techniques: ClassVar[tuple[str, ...]] = ("T16", "T17", "T21")
    references: ClassVar[tuple[str, ...]] = (
        "Jia et al. 2019, Efficient task-specific data valuation for nearest neighbor algorithms, arXiv:1908.08619",
    )

    def inspect(self, inspected: Inspected, rng: np.random.Generator) -> Suspicion:
        """See ``Detector.inspect``."""
        del rng
        rows = inspected.scaled
        judges, labels = (rows, inspected.labels)
        if inspected.trusted is not None:
            judges, labels = inspected.like(inspected.trusted[0]), inspected.trusted[1]
        scores = -shapley_values(rows, inspected.labels, judges, labels, self.neighbours, own=inspected.trusted is None)
        return Suspicion(scores, highest(scores, self.fpr))


def shapley_values(
    rows: NDArray[np.float32],
    labels: Labels,
    judges: NDArray[np.float32],
    judge_labels: Labels,
    neighbours: int,
    *,
    own: bool = False,
) -> NDArray[np.float64]:
    """``(records,)``: exact Shapley values of records for nearest neighbours' accuracy on ``judges``.

    Jia et al. 2019, theorem 1: in the order of their distance from a judge, the value of the last record is
    ``right / n``, and that of the one before differs by ``(right[i] - right[i + 1]) / k * min(k, i) / i``.

    Args:
        rows: ``(records, features)``.
        labels: ``(records,)``.
        judges: ``(judges, features)``.
        judge_labels: ``(judges,)``.
        neighbours: How many vote.
        own: The judges are the records; none judges itself.
    """
    total, players = np.zeros(len(rows)), len(rows) - own
    if players <= 0 or not len(judges):
        return total
    rank = np.arange(1, players)
    weight = np.minimum(neighbours, rank) / (neighbours * rank)
    starts = blocks(len(judges), len(rows))
    for start in starts:
        distances = squared_distances(judges[start : start + starts.step], rows)
        if own:
            np.fill_diagonal(distances[:, start:], np.inf)
        order = np.argsort(distances, axis=1, kind="stable")[:, :players]
        right = (labels[order] == judge_labels[start : start + starts.step, None]).astype(np.float64)
        steps = (right[:, :-1] - right[:, 1:]) * weight
        value = right[:, -1:] * min(neighbours, players) / (neighbours * players) + np.zeros_like(right)
        value[:, :-1] += np.cumsum(steps[:, ::-1], axis=1)[:, ::-1]
        np.add.at(total, order, value)
    return total / len(judges)
