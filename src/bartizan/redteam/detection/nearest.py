"""Nearest neighbours by exact search, in blocks of bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import WorkError

BLOCK_CELLS = 1 << 23
"""Distances held at a time."""
MOST_DISTANCES = 1 << 36
"""Distances computed altogether: all pairs of some 260,000 rows, about an hour for images of 784 pixels."""


def blocks(rows: int, columns: int) -> range:
    """First rows of blocks whose tables of distances fit the memory set aside; the step is the block's size.

    Raises:
        WorkError: there are so many pairs that an exact search would take hours.
    """
    if rows * columns > MOST_DISTANCES:
        raise WorkError(
            f"exact neighbours of {rows:,} among {columns:,} rows would take hours",
            remedy="inspect the records in batches, by source or by contributor.",
        )
    return range(0, rows, max(1, min(1024, BLOCK_CELLS // max(1, columns))))


def squared_distances(some: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(some, others)``: squared Euclidean distances."""
    sizes = np.einsum("ij,ij->i", some, some), np.einsum("ij,ij->i", others, others)
    distances = sizes[0][:, None] + sizes[1] - 2 * (some @ others.T)
    return np.asarray(np.maximum(distances, 0), dtype=np.float32)


def nearest(rows: NDArray[np.float32], count: int, others: NDArray[np.float32] | None = None) -> NDArray[np.int64]:
    """``(rows, count)``: places of the nearest ``others``, nearest first; among the rows themselves without any.

    A row is never its own neighbour. ``count`` is cut to what there is.
    """
    pool = rows if others is None else others
    count = min(count, len(pool) - (others is None))
    found = np.empty((len(rows), max(count, 0)), np.int64)
    if count <= 0:
        return found
    starts = blocks(len(rows), len(pool))
    for start in starts:
        distances = squared_distances(rows[start : start + starts.step], pool)
        if others is None:
            np.fill_diagonal(distances[:, start:], np.inf)
        found[start : start + starts.step] = _smallest(distances, count)
    return found


def _smallest(distances: NDArray[Any], count: int) -> NDArray[np.int64]:
    few = np.argpartition(distances, count - 1, axis=1)[:, :count]
    order = np.argsort(np.take_along_axis(distances, few, axis=1), axis=1, kind="stable")
    return np.take_along_axis(few, order, axis=1).astype(np.int64)
