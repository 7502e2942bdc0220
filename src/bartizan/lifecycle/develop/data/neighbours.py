"""Nearest neighbours among a bounded reference, in chunks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.targets.protocol import Rows

CHUNK_DISTANCES = 1 << 23
"""Distances held at one time: 32 MiB."""


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The ``k`` nearest reference points of each query, nearest first."""

    places: NDArray[np.int64]
    """``(queries, k)``: indices into the reference."""
    distances: NDArray[np.float32]
    """``(queries, k)``: Euclidean; infinite where there is no further neighbour."""


def nearest(reference: Rows, queries: Rows, k: int, *, own: NDArray[np.int64] | None = None) -> Neighbours:
    """Nearest reference points of each query, by exhaustive search.

    Args:
        reference: ``(references, dimensions)``.
        queries: ``(queries, dimensions)``.
        k: how many neighbours; fewer when the reference is smaller.
        own: ``(queries,)``: place of the query itself in the reference, which is no neighbour; -1 for none.
    """
    k = min(k, len(reference))
    places = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k), np.float32)
    for start, squared in _squared_distances(reference, queries):
        stop = start + len(squared)
        if own is not None:
            inside = np.flatnonzero(own[start:stop] >= 0)
            squared[inside, own[start:stop][inside]] = np.inf
        near = np.argpartition(squared, k - 1, axis=1)[:, :k]
        found = np.take_along_axis(squared, near, axis=1)
        order = np.lexsort((near, found), axis=1)
        places[start:stop] = np.take_along_axis(near, order, axis=1)
        distances[start:stop] = np.sqrt(np.take_along_axis(found, order, axis=1))
    return Neighbours(places, distances)


def _squared_distances(reference: Rows, queries: Rows) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Place of the first query of each chunk, and its squared distances to the whole reference."""
    single = np.ascontiguousarray(reference, np.float32)
    norms = np.einsum("ij,ij->i", single, single)
    step = max(1, CHUNK_DISTANCES // max(1, len(single)))
    for start in range(0, len(queries), step):
        chunk = queries[start : start + step].astype(np.float32)
        squared = chunk @ single.T
        squared *= -2
        squared += norms
        squared += np.einsum("ij,ij->i", chunk, chunk)[:, None]
        yield start, np.maximum(squared, 0, out=squared)
