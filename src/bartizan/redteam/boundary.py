"""Decision boundaries, taken for planes where a row stands: how far they are and the shortest way onto them.

Shared by attacks that look for the smallest change. Rows, slopes and rooms are in units of the
space's scale here, so that lengths are the lengths that count.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.attack import Gradient, slope
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Labels, Loss, Rows

Sizes = NDArray[np.float64]
Samples = NDArray[np.int64]
TINY = 1e-12
EUCLID = 2.0
MAX_ROUNDS = 50
SOLVED = 1e-6
"""Relative error at which a way counts as ending on the plane."""


def shortest(slopes: Rows, gap: Sizes, rows: Rows, ends: tuple[Rows, Rows], norm: float) -> Rows:
    """The shortest change, by the norm inf, 2 or 1, that brings each row onto its plane without leaving the ranges.

    Args:
        slopes: ``(batch, features)``: the planes' normals.
        gap: ``(batch,)``: by how much ``slopes @ change`` has to grow; negative where it has to fall.
        rows: ``(batch, features)``: where the rows stand.
        ends: least and greatest value of each feature, ``(batch, features)`` each.
        norm: of the change.

    Returns:
        ``(batch, features)``; where the plane cannot be reached, the change that comes nearest to it.
    """
    uphill = slopes * np.sign(gap).astype(slopes.dtype)[:, None]
    room = np.where(uphill > 0, ends[1] - rows, rows - ends[0])
    weight = np.abs(slopes)
    wanted = np.abs(gap)
    size = _heaviest(weight, wanted, room) if norm == 1 else _evenly(weight, wanted, room, norm)
    return np.asarray(np.sign(uphill) * size)


def _evenly(weight: Rows, wanted: Sizes, room: Rows, norm: float) -> Rows:
    """Sizes of the entries under Linf (all alike) or L2 (by their slopes), cut at their room.

    What is gained grows ever more slowly with the one multiplier that they share: Newton's steps from
    below never overshoot, and end after a few.
    """
    share = weight if norm == EUCLID else np.sign(weight)
    multiplier = np.zeros(len(weight), dtype=np.float64)
    open_ = np.flatnonzero(wanted > 0)
    for _ in range(MAX_ROUNDS):
        if not open_.size:
            break
        full = len(open_) == len(weight)
        heavy, even, space = (weight, share, room) if full else (weight[open_], share[open_], room[open_])
        size = np.minimum(even * multiplier[open_, None].astype(weight.dtype), space)
        free = np.where(size < space, even, 0)
        gain = np.einsum("ij,ij->i", heavy, size, dtype=np.float64)
        steep = np.einsum("ij,ij->i", heavy, free, dtype=np.float64)
        missing = wanted[open_] - gain
        going = (missing > SOLVED * wanted[open_]) & (steep > 0)
        multiplier[open_[going]] += missing[going] / steep[going]
        open_ = open_[going]
    return np.asarray(np.minimum(share * multiplier[:, None].astype(weight.dtype), room))


def _heaviest(weight: Rows, wanted: Sizes, room: Rows) -> Rows:
    """Sizes of the entries under L1: the steepest features first, each as far as it can."""
    order = np.argsort(-weight, axis=1)
    gains = np.take_along_axis(weight * room, order, axis=1).astype(np.float64)
    before = np.cumsum(gains, axis=1) - gains
    part = np.clip((wanted[:, None] - before) / np.maximum(gains, TINY), 0, 1)
    size = np.empty_like(weight)
    np.put_along_axis(size, order, (part * np.take_along_axis(room, order, axis=1)).astype(weight.dtype), axis=1)
    return size


def distances(gap: Sizes, slopes: Rows, norm: float) -> Sizes:
    """How far planes are when ranges are ignored: ``|gap|`` over the dual norm of the slopes (last axis)."""
    size = np.abs(slopes)
    if norm == np.inf:
        dual = size.sum(axis=-1, dtype=np.float64)
    elif norm == EUCLID:
        dual = np.sqrt(np.square(slopes, dtype=np.float64).sum(axis=-1))
    else:
        dual = size.max(axis=-1).astype(np.float64)
    return np.asarray(np.abs(gap) / (dual + TINY))


def differences(
    task: EvasionTask, sample: Samples, rows: Rows, aimed: Labels
) -> Generator[Gradient, Any, tuple[Sizes, NDArray[np.floating]]]:
    """How far each class aimed at ``(batch, count)`` lies behind the true one, and the slopes of these gaps.

    Costs ``count`` gradients a row.

    Returns:
        ``(batch, count)``, negative as long as the true class leads, and ``(batch, count, features)``.
    """
    count = aimed.shape[1]
    every = np.repeat(sample, count)
    answer = yield Gradient(
        np.repeat(rows, count, axis=0), every, Loss.DIFFERENCE, task.labels[every], np.ascontiguousarray(aimed.ravel())
    )
    logits, gradient = slope(answer, task.classes)
    places = np.arange(len(logits))
    lead = logits[places, aimed.ravel()] - logits[places, task.labels[every]]
    gaps: Sizes = lead.reshape(-1, count).astype(np.float64)
    return gaps, gradient.reshape(len(rows), count, -1)


def others(task: EvasionTask, sample: Samples) -> Labels:
    """``(batch, classes - 1)``: all classes but the true one."""
    every = np.arange(task.classes - 1)
    labels = task.labels[sample][:, None]
    return np.asarray(every + (every >= labels), dtype=np.int64)
