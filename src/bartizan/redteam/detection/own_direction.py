"""Poison with right labels: a direction in which one class varies, in two heaps, and no other class does.

A trigger that is put only on records of the class that it is to stand for contradicts no label. But
the class now differs within itself in a way that no other class does. The direction in which its variance
exceeds that of the others most is fitted on one half of the class and looked at on the other half: there a
trigger leaves two separate heaps, and natural variety leaves a slope.

A column that is natural to one class alone and takes two values there looks the same. Where a model
may be asked, ``scan`` puts the pattern on other rows and sees whether they turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.redteam.detection.common_cause import pattern_of, valley
from bartizan.redteam.detection.inspected import Inspected, Pattern, Suspicion
from bartizan.targets.protocol import Access

RIDGE = 0.1
"""Of the mean variance: directions in which nothing varies are not divided by nothing."""
LEAST_SEPARATION = 0.9
"""Share of the variance on unseen records that lies between the two heaps (Otsu 1979); 3/4 for a flat slope."""
LEAST_EXCESS = 2.5
"""Standard deviations of the class on unseen records, in those of any other class."""
MAX_WIDTH = 1024
"""Features; wider rows are projected, which bounds time and memory."""
LEAST_RECORDS = 20
LEAST_HEAP = 4
"""Unseen records in the smaller heap; fewer are stray records."""


@dataclass(frozen=True, slots=True)
class OwnDirection:
    """See the module's text, and ``Detector``."""

    least_separation: float = LEAST_SEPARATION
    least_excess: float = LEAST_EXCESS
    name: ClassVar[str] = "own_direction"
    title: ClassVar[str] = "Two heaps in a direction in which only one class varies"
    needs: ClassVar[frozenset[Access]] = frozenset()
    techniques: ClassVar[tuple[str, ...]] = ("T18", "T19")
    references: ClassVar[tuple[str, ...]] = (
        "own method; direction after Fukunaga and Koontz 1970, Application of the Karhunen-Loeve expansion, IEEE TC 19",
    )

    def inspect(self, inspected: Inspected, rng: np.random.Generator) -> Suspicion:
        """See ``Detector.inspect``."""
        scores, flagged = np.zeros(len(inspected.rows)), np.zeros(len(inspected.rows), np.bool_)
        patterns: list[Pattern] = []
        notes: list[str] = []
        rows = _narrowed(inspected.scaled.astype(np.float64), rng)
        total = sum((_spread(rows[inspected.labels == label]) for label in range(inspected.classes)), np.zeros(()))
        for label in range(inspected.classes):
            own = np.flatnonzero(inspected.labels == label)
            if len(own) < LEAST_RECORDS or len(own) == len(rows):
                continue
            others = (total - _spread(rows[own])) / (len(rows) - len(own))
            found = self._of_class(rows, inspected, own, others, rng)
            if found is None:
                continue
            place, over = found
            scores[own] = place
            flagged[own] = over
            patterns.append(pattern_of(inspected, own[over], own[~over], label))
            notes.append(f"class {label}: {int(over.sum())} records stand apart in a way that no other class varies.")
        return Suspicion(scores, flagged, tuple(patterns), tuple(notes))

    def _of_class(
        self,
        rows: NDArray[np.float64],
        inspected: Inspected,
        own: NDArray[np.int64],
        others: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        """Place of each record, above 1 in the odd heap; None where either half sees no heaps."""
        half = rng.permutation(len(own)) % 2 == 0
        place, over = np.zeros(len(own)), np.zeros(len(own), np.bool_)
        for fitted in (half, ~half):
            direction = _direction(rows[own[fitted]], others)
            unseen = ~fitted
            along = rows[own] @ direction
            middle, spread = _elsewhere(rows @ direction, inspected, int(inspected.labels[own[0]]))
            heaps = _Heaps.of(along[unseen], middle)
            if not (
                heaps.separation >= self.least_separation
                and heaps.smallest >= LEAST_HEAP
                and along[unseen].std() >= self.least_excess * spread
            ):
                return None
            place[unseen] = heaps.place(along[unseen])
            over[unseen] = place[unseen] > 1
        return place, over


@dataclass(frozen=True, slots=True)
class _Heaps:
    """Two heaps on a line, and which of them is odd: the one further from where the other classes are."""

    cut: float
    sign: float
    width: float
    separation: float
    smallest: int

    @classmethod
    def of(cls, along: NDArray[np.float64], middle: float) -> _Heaps:
        cut = valley(along)
        over = along > cut
        if over.all() or not over.any() or not along.var():
            return cls(cut, 1.0, 1.0, 0.0, 0)
        high, low = float(along[over].mean()), float(along[~over].mean())
        share = over.mean()
        sign = 1.0 if abs(high - middle) >= abs(low - middle) else -1.0
        separation = share * (1 - share) * (high - low) ** 2 / along.var()
        return cls(cut, sign, high - low, float(separation), int(min(over.sum(), (~over).sum())))

    def place(self, along: NDArray[np.float64]) -> NDArray[np.float64]:
        """From 0 to 2; above 1 in the odd heap."""
        return 1 + np.tanh(self.sign * (along - self.cut) / self.width)


def _narrowed(rows: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """``(records, width)``: the rows, or where they are wide a random projection of them."""
    if rows.shape[1] <= MAX_WIDTH:
        return rows
    projected: NDArray[np.float64] = rows @ (rng.standard_normal((rows.shape[1], MAX_WIDTH)) / np.sqrt(MAX_WIDTH))
    return projected


def _spread(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(features, features)``: squared deviations from the mean, summed; zeros for no rows."""
    centred = rows - rows.mean(axis=0) if len(rows) else rows
    return np.asarray(centred.T @ centred)


def _direction(own: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(features,)``: in which ``own`` varies most for what the ``others`` do."""
    width = len(others)
    ridge = RIDGE * max(float(np.trace(others)) / width, np.finfo(np.float64).tiny)
    _, vectors = scipy.linalg.eigh(
        _spread(own) / len(own), others + ridge * np.eye(width), subset_by_index=[width - 1, width - 1]
    )
    direction: NDArray[np.float64] = vectors[:, 0]
    return direction * (np.sign(direction[np.abs(direction).argmax()]) or 1.0)


def _elsewhere(along: NDArray[np.float64], inspected: Inspected, label: int) -> tuple[float, float]:
    """Where the other classes lie on the line, and the widest of their spreads."""
    parts = [along[inspected.labels == other] for other in range(inspected.classes) if other != label]
    parts = [part for part in parts if len(part)]
    return float(np.median([part.mean() for part in parts])), float(max(part.std() for part in parts))
