"""Transforms for any row: clipping to the declared ranges, and fewer values."""

from __future__ import annotations

import numpy as np

from bartizan.lifecycle.deploy.gateway.guards.sanitise.frame import Frame, Rows


class Clip:
    """Each value to the nearest end of its range when it lies beyond."""

    def __init__(self, frame: Frame) -> None:
        self._low, self._high = frame.low, frame.high

    def __call__(self, rows: Rows) -> Rows:
        """``(batch, features)`` to the same."""
        clipped: Rows = np.minimum(np.maximum(rows, self._low), self._high)
        return clipped.astype(rows.dtype, copy=False)


class Levels:
    """Each value to the nearest of a few that lie evenly over its range (feature squeezing: Xu, Evans and Qi 2018).

    Of images that is a smaller depth of colour, 2 to the power of the bits; of tables a coarser measurement. Whole
    numbers stay whole, what stands for a category stays as it is, and so does a feature without a range.
    """

    def __init__(self, frame: Frame, levels: int) -> None:
        width = frame.high - frame.low
        bounded = np.isfinite(width) & (width > 0)
        if frame.names is not None:
            bounded &= ~frame.names
        step = np.where(bounded, np.where(bounded, width, 1.0) / (levels - 1), 1.0)
        if frame.whole is not None:
            step = np.where(frame.whole, np.maximum(np.rint(step), 1.0), step)
        self._low, self._step, self._bounded = np.where(bounded, frame.low, 0.0), step, bounded
        self._every = bool(bounded.all())

    def __call__(self, rows: Rows) -> Rows:
        """``(batch, features)`` to the same."""
        squeezed = rows - self._low
        squeezed /= self._step
        np.rint(squeezed, out=squeezed)
        squeezed *= self._step
        squeezed += self._low
        kept = squeezed if self._every else np.where(self._bounded, squeezed, rows)
        return kept.astype(rows.dtype, copy=False)


__all__ = ["Clip", "Levels"]
