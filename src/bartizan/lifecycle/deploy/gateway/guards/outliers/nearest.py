"""Distance to the nearest of a few points: to rows that the model learnt from, or to the middle of each class."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.deploy.gateway.guards.outliers.encoding import Points

AT_ONCE = 512
"""Points that are compared together; bounds the memory of large batches."""


class Nearest:
    """``|z - r|² = |z|² + (|r|² - 2 r·z)``: all that depends on ``r`` is worked out beforehand."""

    def __init__(self, references: Points) -> None:
        self._twice = np.ascontiguousarray(-2 * references, dtype=np.float32)
        self._turned = np.ascontiguousarray(self._twice.T)
        self._square = np.einsum("ij,ij->i", references, references).astype(np.float32)

    def one(self, point: Points) -> float:
        """Euclidean distance of one point ``(coordinates,)``; NaN when it has a coordinate that is no number."""
        products = self._twice.dot(point)
        products += self._square
        square = float(products.min()) + float(point.dot(point))
        return math.sqrt(square) if square > 0 else (0.0 if square <= 0 else math.nan)

    def many(self, points: Points) -> NDArray[np.float64]:
        """``(batch,)``: the distance of each point ``(batch, coordinates)``."""
        found = np.empty(len(points))
        for start in range(0, len(points), AT_ONCE):
            part = points[start : start + AT_ONCE]
            least = (part @ self._turned + self._square).min(axis=1)
            found[start : start + len(part)] = least + np.einsum("ij,ij->i", part, part)
        return np.asarray(np.sqrt(np.maximum(found, 0)))


__all__ = ["Nearest"]
