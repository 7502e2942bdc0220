"""Trees seen from a little farther away: their mean around a row, which has a slope where they have none.

The mean over Gaussian noise is a sum over leaves of the chance to come to each: a product over the ranges of its
box. Value and slope are therefore exact and need no sampling. Following the slope finds the many small
changes at once that a search by single features misses, as the estimates of HopSkipJump (Chen et al. 2020,
arXiv:1904.02144) do with queries.
"""

from __future__ import annotations

import numpy as np
import scipy

from bartizan.redteam.cells import Cells
from bartizan.targets.structure import Floats

REACH = 3.0
"""Leaves farther than so many widths of the noise are left out."""
_LEAST = 1e-300


class Smoothed:
    """An ensemble's leaves under Gaussian noise."""

    def __init__(self, cells: Cells) -> None:
        leaf, feature = np.nonzero((cells.first > 0) | (cells.last < cells.counts))
        edges = np.column_stack(
            [np.full(len(cells.counts), -np.inf), cells.thresholds, np.full(len(cells.counts), np.inf)]
        )
        self._leaf, self._feature = leaf, feature
        self._low, self._high = (
            edges[feature, cells.first[leaf, feature]],
            edges[feature, cells.last[leaf, feature] + 1],
        )
        self._leaves = len(cells.leaf)
        self._features = len(cells.counts)

    def slope(self, row: Floats, width: Floats, margins: Floats) -> Floats:
        """Slope ``(features, aims)`` of the mean lead at a row ``(features,)``.

        Args:
            row: where.
            width: ``(features,)``: standard deviation of the noise.
            margins: ``(leaves, aims)``: what each leaf adds to each lead.
        """
        spread = width[self._feature]
        below, above = (self._low - row[self._feature]) / spread, (self._high - row[self._feature]) / spread
        away = np.maximum(np.maximum(below, -above), 0.0)
        far = np.bincount(self._leaf, np.square(away), self._leaves) > REACH**2
        used = ~far[self._leaf]
        below, above, leaf, feature = below[used], above[used], self._leaf[used], self._feature[used]
        chance = np.maximum(scipy.special.ndtr(above) - scipy.special.ndtr(below), _LEAST)
        reached = np.exp(np.bincount(leaf, np.log(chance), self._leaves))
        turn = (np.exp(-np.square(below) / 2) - np.exp(-np.square(above) / 2)) / (np.sqrt(2 * np.pi) * spread[used])
        weight = reached[leaf] * turn / chance
        columns = [np.bincount(feature, weight * margin[leaf], self._features) for margin in margins.T]
        return np.column_stack(columns)
