"""The ball around each row of a batch, cut to what is possible: where gradient attacks step and are put back.

Everything here is computed for many rows together, in the precision of the rows. Directions and
lengths are in units of the space's scale, rows in their own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import InputError
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.feasible import Space, inside, lengths
from bartizan.targets.protocol import Rows

Samples = NDArray[np.int64]
Sizes = NDArray[np.float64]
Mask = NDArray[np.bool_]

EUCLID = 2.0
STEPPED = frozenset({np.inf, EUCLID, 1.0})
"""Norms by which steps along gradients are known."""
FLAT = 1e-30
"""A gradient no longer than this has no direction."""
SOLVED = 1e-7
"""Relative error at which a threshold or a multiplier is taken as found."""
MAX_ROUNDS = 60
"""Rounds in which one is looked for at most; Newton's steps on piecewise linear functions take about six."""


class Ball:
    """All rows within ``radius`` of each sample's row that an adversary can make, and moves among them.

    A sample may stand in the batch several times. ``keep`` narrows the batch down as samples leave it.
    """

    def __init__(self, task: EvasionTask, sample: Samples, radius: float | None = None) -> None:
        self.space, self.norm = task.space, task.norm
        if self.norm not in {np.inf, EUCLID, 1}:
            raise InputError(
                f"steps along gradients are known for the norms inf, 2 and 1, not for {self.norm:g}",
                remedy="use an attack that changes few features, such as evasion.patch.",
            )
        self.radius = task.max_change if radius is None else radius
        self.origin: Rows = task.rows[sample]
        """``(batch, features)``."""
        self._plain = self.space.is_plain
        self.low, self.high = box(self.space, self.origin)
        """``(batch, features)``: the range of each feature; under Linf its part within the radius."""
        if self.norm == np.inf:
            reach = (inside(np.array(self.radius), self.origin.dtype) * self.space.scale).astype(self.origin.dtype)
            np.maximum(self.low, self.origin - reach, out=self.low)
            np.minimum(self.high, self.origin + reach, out=self.high)
        unit = self.space.scale == 1
        self._scale = None if unit.all() else self.space.scale.astype(self.origin.dtype)

    def keep(self, kept: Mask | Samples) -> None:
        """Go on with these rows of the batch."""
        self.origin, self.low, self.high = self.origin[kept], self.low[kept], self.high[kept]

    def inside(self, rows: Rows) -> Rows:
        """The nearest rows of the ball; ``rows`` may be overwritten."""
        if not self._plain:
            return self.space.within(rows, self.origin, np.full(len(rows), self.radius), self.norm)
        if self.norm == 1:
            return self._inside_diamond(rows)
        if self.norm == EUCLID:
            change = self._scaled(rows - self.origin)
            length = np.maximum(lengths(change, EUCLID), FLAT)
            part = np.minimum(1.0, inside(np.array(self.radius), rows.dtype) / length).astype(rows.dtype)
            rows = self.origin + self._raw(change * part[:, None])
        return clipped(rows, self.low, self.high)

    def steepest(self, gradient: NDArray[np.floating], rows: Rows, density: Sizes | float = 0.05) -> Rows:
        """The step of unit length in which a linear function with this gradient grows most.

        Under L1 that would move a single feature; instead the ``density`` (a share of the features,
        ``(batch,)`` or one for all) with the largest slopes that still have room share the length
        (Tramer and Boneh 2019, arXiv:1904.13000; Croce and Hein 2021, arXiv:2103.01208).
        """
        if self.norm == np.inf:
            return self._raw(np.sign(gradient))
        slope = self._raw(gradient)
        if self.norm == 1:
            slope = np.where(gradient > 0, rows < self.high, rows > self.low) * slope
            slope = np.sign(slope) * largest(np.abs(slope), density)
        # Scaled by its largest entry first: squares of tiny gradients vanish in single precision.
        slope = slope / np.maximum(np.abs(slope).max(axis=1, initial=0.0), FLAT)[:, None]
        length = np.maximum(lengths(slope, self.norm), FLAT).astype(gradient.dtype)
        return self._raw(slope / length[:, None])

    def anywhere(self, rng: np.random.Generator) -> Rows:
        """Random rows: uniform in the cube (Linf), at the rim in a random direction (L2, L1)."""
        shape, dtype = self.origin.shape, self.origin.dtype
        if self.norm == np.inf:
            noise = rng.random(shape, dtype=np.float32).astype(dtype) * 2 - 1
        else:
            noise = rng.standard_normal(shape, dtype=np.float32).astype(dtype)
        if self.norm == EUCLID:
            noise /= np.maximum(lengths(noise, EUCLID), FLAT).astype(dtype)[:, None]
        reach = 1.0 if self.norm == 1 else self.radius
        return self.inside(self.origin + self._raw(noise * np.asarray(reach, dtype)))

    def change(self, rows: Rows) -> Sizes:
        """``(batch,)``: how far ``rows`` are from their samples."""
        return self.space.change(rows, self.origin, self.norm)

    def _inside_diamond(self, rows: Rows) -> Rows:
        """The nearest rows within the radius by the norm 1 and within the ranges, both at once."""
        change = self._scaled(rows - self.origin)
        room = self._scaled(np.where(change > 0, self.high - self.origin, self.origin - self.low))
        radius = np.full(len(rows), float(inside(np.array(self.radius), rows.dtype)))
        return clipped(self.origin + self._raw(capped_diamond(change, room, radius)), self.low, self.high)

    def _scaled(self, change: Rows) -> Rows:
        return change if self._scale is None else change / self._scale

    def _raw(self, change: NDArray[np.floating]) -> Rows:
        return change.astype(self.origin.dtype, copy=False) if self._scale is None else change * self._scale


def box(space: Space, origin: Rows) -> tuple[Rows, Rows]:
    """Least and greatest value of each feature that small steps can reach from ``origin`` ``(batch, features)``.

    Categories and fixed features have no room: a gradient says nothing about another category.
    """
    low = np.minimum(space.low.astype(origin.dtype), origin)
    high = np.maximum(space.high.astype(origin.dtype), origin)
    if not space.is_plain:
        fixed = space.immutable | space.categorical
        low[:, fixed] = high[:, fixed] = origin[:, fixed]
    return low, high


def clipped(rows: Rows, low: Rows, high: Rows) -> Rows:
    """``rows``, cut to the ranges in place; two plain passes are faster than ``numpy.clip`` with arrays."""
    np.maximum(rows, low, out=rows)
    return np.minimum(rows, high, out=rows)


def largest(size: NDArray[np.floating], density: Sizes | float) -> Mask:
    """``(batch, features)``: which entries of ``size``, all at least 0, are among the largest share and not 0."""
    count = size.shape[1]
    kept = np.clip((np.broadcast_to(density, len(size)) * count).astype(np.int64), 1, count)
    threshold = -np.sort(-size, axis=1)[np.arange(len(size)), kept - 1]
    return np.asarray((size >= threshold[:, None]) & (size > 0))


def capped_diamond(change: Rows, room: Rows, radius: Sizes) -> Rows:
    """The nearest change with length at most ``radius`` ``(batch,)`` by the norm 1 and entries of size up to ``room``.

    Entries shrink by one threshold for each row and are cut at their room (Croce and Hein 2021, arXiv:2103.01208,
    proposition 2.1). The threshold is found by Newton's steps that a bracket keeps in bounds.
    """
    size = np.abs(change)
    capped = np.minimum(size, room)
    threshold = np.zeros(len(change), dtype=change.dtype)
    low, high = threshold.copy(), size.max(axis=1, initial=0.0)
    open_ = np.flatnonzero(capped.sum(axis=1, dtype=np.float64) > radius)
    for round_ in range(MAX_ROUNDS):
        if not open_.size:
            break
        left = size[open_] - threshold[open_, None]
        kept = np.clip(left, 0, room[open_])
        excess = kept.sum(axis=1, dtype=np.float64) - radius[open_]
        above = excess > 0
        low[open_[above]], high[open_[~above]] = threshold[open_[above]], threshold[open_[~above]]
        slope = ((left > 0) & (left < room[open_])).sum(axis=1)
        step = threshold[open_] + excess / np.maximum(slope, 1)
        middle = (low[open_] + high[open_]) / 2
        # Caps make the sum neither convex nor concave: halving now and then ends what would creep.
        between = (slope > 0) & (step > low[open_]) & (step < high[open_]) & (round_ % 3 < 2)  # noqa: PLR2004
        going = np.abs(excess) > SOLVED * radius[open_]
        open_ = open_[going]
        threshold[open_] = np.where(between, step, middle)[going]
    kept = np.clip(size - threshold[:, None], 0, room)
    # Single precision leaves the sum a little off: what is too much comes off every entry.
    part = np.minimum(1.0, radius / np.maximum(kept.sum(axis=1, dtype=np.float64), FLAT)).astype(change.dtype)
    return np.asarray(np.sign(change) * kept * part[:, None])
