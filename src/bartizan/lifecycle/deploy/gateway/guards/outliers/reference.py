"""What is known of usual rows: fitted once at release, and all that the guard needs to judge a row.

It is small whatever it was fitted on, and holds no labels and no code. Of data about people it holds no record as it
is, only means of several that are alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.deploy.gateway.guards.outliers.detectors import DETECTORS, Detector, Scores, energy, softmax
from bartizan.lifecycle.deploy.gateway.guards.outliers.encoding import Encoding, Points
from bartizan.lifecycle.deploy.gateway.guards.outliers.nearest import Nearest
from bartizan.lifecycle.deploy.gateway.guards.outliers.surprise import Rarity

TWO = math.log10(2)
"""Decades that the rarer of two counts less: what either finds rare is at most twice as common as what one does."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Usual rows of one model."""

    features: int
    prior: tuple[float, ...]
    """Share of each class in the training data."""
    encoding: Encoding
    prototypes: Points
    """``(references, coordinates)``: rows that the model learnt from, or means of a few; turned where ``turned``."""
    whitening: Points
    """``(coordinates, coordinates)``: turns points so that classes are round."""
    middles: Points
    """``(classes, coordinates)``: the middle of each class, turned."""
    turned: bool
    """Whether neighbours are looked for among turned points: in tables, whose columns hang together, that shows rows
    whose single values are usual and whose combination is not."""
    temperature: float
    """At which the highest score is least wrong about how sure it is."""
    rarities: dict[str, Rarity] = field(default_factory=dict)
    """Of each detector: how rare its numbers are among usual rows. Without scores only of those that need none."""

    @cached_property
    def nearest(self) -> Nearest:
        """Distances to the prototypes."""
        return Nearest(self.prototypes)

    @cached_property
    def nearest_class(self) -> Nearest:
        """Distances to the middles of classes, of turned points."""
        return Nearest(self.middles)

    @property
    def detectors(self) -> tuple[Detector, ...]:
        """Those that were fitted; ``combined`` rests on two of the others."""
        both = "neighbours" in self.rarities and "energy" in self.rarities
        return tuple(name for name in DETECTORS if name in self.rarities or (name == "combined" and both))

    def neighbours(self, rows: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """``(batch,)``: distance of each row to the nearest prototype."""
        points = self.encoding.points(rows)
        return self.nearest.many(points @ self.whitening if self.turned else points)

    def mahalanobis(self, rows: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """``(batch,)``: distance of each row to the nearest class."""
        return self.nearest_class.many(self.encoding.points(rows) @ self.whitening)

    def raw(self, detector: Detector, rows: NDArray[np.floating[Any]], scores: Scores | None) -> NDArray[np.float64]:
        """``(batch,)``: what a detector makes of each row; of ``combined`` the rarer of its two."""
        if detector == "neighbours":
            return self.neighbours(rows)
        if detector == "mahalanobis":
            return self.mahalanobis(rows)
        if scores is None:
            raise AssertionError(detector)
        if detector == "energy":
            return energy(scores)
        if detector == "softmax":
            return softmax(scores, self.temperature)
        near, calm = self.rarities["neighbours"], self.rarities["energy"]
        return np.maximum(near.many(self.neighbours(rows)), calm.many(energy(scores)))

    def decades(
        self, detector: Detector, rows: NDArray[np.floating[Any]], scores: Scores | None
    ) -> NDArray[np.float64]:
        """``(batch,)``: how rare each row is, see ``surprise``."""
        raw = self.raw(detector, rows, scores)
        return np.asarray(np.maximum(raw - TWO, 0)) if detector == "combined" else self.rarities[detector].many(raw)


__all__ = ["TWO", "Reference"]
