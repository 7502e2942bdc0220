"""What a transform has to know of the rows that it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating[Any]]
"""``(batch, features)``; images lie flat by channel, row and column."""
PLANES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The bounds and the form of rows."""

    low: NDArray[np.float64]
    """``(features,)``: least value of each feature; of images one for all."""
    high: NDArray[np.float64]
    shape: tuple[int, ...] = ()
    """``(channels, height, width)`` of images; empty for tables."""
    whole: NDArray[np.bool_] | None = None
    """``(features,)``: which hold whole numbers; None for none."""
    names: NDArray[np.bool_] | None = None
    """``(features,)``: which hold numbers that stand for categories, and are never changed; None for none."""

    @property
    def is_image(self) -> bool:
        """Whether rows are images."""
        return len(self.shape) == PLANES

    @property
    def span(self) -> NDArray[np.float64]:
        """``(features,)``: width of each range; 1 where there is none."""
        width = self.high - self.low
        return np.where(np.isfinite(width) & (width > 0), width, 1.0)


__all__ = ["PLANES", "Frame", "Rows"]
