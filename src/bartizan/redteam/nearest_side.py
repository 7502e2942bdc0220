"""The nearest point on the other side of a plane, within a box: exact by every norm, without any search.

What a change may be in each feature is an interval around 0; what it gains is a weighted sum. The least change
that gains enough is found by sorting: by the norm inf all features move alike until they reach their ends, by the
norm 1 and 0 the best feature first, by the norm 2 each in proportion to its weight until it reaches its end.
"""

from __future__ import annotations

import numpy as np

from bartizan.core.errors import WorkError
from bartizan.targets.feasible import Space
from bartizan.targets.structure import Floats

EUCLID = 2


def least(weights: Floats, low: Floats, high: Floats, need: Floats, norm: float) -> Floats:
    """The least changes ``(batch, features)`` that gain at least ``need``; NaN where nothing gains enough.

    Args:
        weights: ``(batch, features)``: gain of a change of one unit.
        low: ``(batch, features)``: the least change of each feature, at most 0 and finite.
        high: ``(batch, features)``: the largest, at least 0 and finite.
        need: ``(batch,)``: what is to be gained; nothing is changed where it is not above 0.
        norm: inf, 2, 1 or 0.
    """
    room = np.where(weights > 0, high, -low)
    gain = np.abs(weights)
    room = np.where(gain > 0, room, 0.0)
    size = {np.inf: _together, EUCLID: _in_proportion, 1: _best_first, 0: _whole}[norm](gain, room, need)
    reached = (gain * size).sum(axis=1) >= need - _rounding(gain, room)
    return np.where(reached[:, None], np.sign(weights) * size, np.nan)


def refuse_dependents(name: str, space: Space) -> None:
    """What is proven feature by feature says nothing of columns that follow from others.

    Raises:
        WorkError: there are such.
    """
    if space.dependent:
        raise WorkError(
            f"{name} changes each column by itself, and column {space.columns[space.dependent[0].column]!r} follows "
            "from others",
            remedy="use an attack by gradients or by queries.",
        )


def _rounding(gain: Floats, room: Floats) -> Floats:
    """What sums of so many terms may be off, ``(batch,)``."""
    error: Floats = 1e-12 * (gain * room).sum(axis=1)
    return error


def _together(gain: Floats, room: Floats, need: Floats) -> Floats:
    """All features by the same step, none further than it can: the gain is concave and in pieces linear."""
    return np.minimum(_step(gain, room, need), room)


def _in_proportion(gain: Floats, room: Floats, need: Floats) -> Floats:
    """Each feature by the same multiple of its weight, none further than it can (Karush-Kuhn-Tucker)."""
    ends = np.divide(room, gain, out=np.zeros_like(room), where=gain > 0)
    return gain * np.minimum(_step(gain**2, ends, need), ends)


def _step(weight: Floats, ends: Floats, need: Floats) -> Floats:
    """``(batch, 1)``: the least ``t`` at which ``sum(weight * min(t, ends))`` reaches ``need``."""
    order = np.argsort(ends, axis=1, kind="stable")
    ends, weight = np.take_along_axis(ends, order, 1), np.take_along_axis(weight, order, 1)
    # Before the k-th end: what has reached its own end already, and how fast the rest goes on.
    full = np.cumsum(weight * ends, axis=1) - weight * ends
    rest = np.cumsum(weight[:, ::-1], axis=1)[:, ::-1]
    place = np.minimum((full + rest * ends < need[:, None]).sum(axis=1), ends.shape[1] - 1)
    every = np.arange(len(ends))
    pace, missing = rest[every, place], np.maximum(need, 0.0) - full[every, place]
    step: Floats = np.divide(missing, pace, out=np.zeros(len(ends)), where=pace > 0)
    return np.maximum(step, 0.0)[:, None]


def _best_first(gain: Floats, room: Floats, need: Floats) -> Floats:
    """Features to their ends in falling order of their weight, the last one only as far as it must."""
    order = np.argsort(-gain, axis=1, kind="stable")
    sorted_gain, sorted_room = np.take_along_axis(gain, order, 1), np.take_along_axis(room, order, 1)
    most = sorted_gain * sorted_room
    before = np.cumsum(most, axis=1) - most
    missing = np.maximum(need[:, None] - before, 0.0)
    size = np.minimum(np.divide(missing, sorted_gain, out=np.zeros_like(missing), where=sorted_gain > 0), sorted_room)
    unsorted = np.empty_like(size)
    np.put_along_axis(unsorted, order, size, 1)
    return unsorted


def _whole(gain: Floats, room: Floats, need: Floats) -> Floats:
    """As few features as can be, each to its end."""
    most = gain * room
    order = np.argsort(-most, axis=1, kind="stable")
    best = np.take_along_axis(most, order, 1)
    moved = (np.cumsum(best, axis=1) - best < need[:, None]) & (best > 0)
    size = np.where(moved, np.take_along_axis(room, order, 1), 0.0)
    unsorted = np.empty_like(size)
    np.put_along_axis(unsorted, order, size, 1)
    return unsorted
