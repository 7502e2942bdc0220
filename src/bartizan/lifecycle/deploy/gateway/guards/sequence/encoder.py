"""The short form of a row: sixteen numbers in which likeness is measured.

The numbers are the row's coordinates along the directions in which natural rows differ most (principal components of
the reference), so that what differs otherwise, as noise does, hardly counts. The map is linear and never lengthens a
difference: two rows within a distance of each other, in units of the features' scale, are at most as far apart here,
however an attacker chooses them. Large images are first averaged over small areas.
"""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.deploy.gateway.guard import Numbers

Floats = NDArray[np.float32]
WIDTH = 16
"""Coordinates of the short form."""
WIDE = 4096
"""Features above which images are averaged over areas first."""
SIDE = 32
"""Least height and width of what is left of a large image, about."""


class Pooling:
    """Averages an image ``(channels, height, width)`` over areas as equal as whole pixels allow."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        channels, height, width = shape
        step = max(1, min(height, width) // SIDE)
        self._down, self._across = _average(height, step), np.ascontiguousarray(_average(width, step).T)
        self.features = channels * len(self._down) * self._across.shape[1]

    def __call__(self, row: Floats) -> Floats:
        """One row ``(features,)``; the same sums whatever it comes with, so that equal rows stay equal."""
        narrow = (row.reshape(-1, self.shape[2]) @ self._across).reshape(self.shape[0], self.shape[1], -1)
        small: Floats = np.matmul(self._down, narrow).ravel()
        return small


def _average(length: int, step: int) -> Floats:
    """The matrix that averages ``step`` neighbours, ``(areas, length)``; scaled so that no difference grows."""
    areas = max(1, length // step)
    edges = np.linspace(0, length, areas + 1).round().astype(int)
    matrix = np.zeros((areas, length), np.float32)
    for area, (begin, end) in enumerate(pairwise(edges)):
        matrix[area, begin:end] = 1 / np.sqrt(end - begin)
    return matrix


class Encoding(msgspec.Struct, frozen=True, kw_only=True):
    """An encoder as it is kept: little-endian float32 throughout."""

    features: int
    """Of a row as the model takes it."""
    shape: tuple[int, ...] = ()
    """``(channels, height, width)`` where rows are averaged first."""
    scale: bytes
    """One number for each feature that is left; rows are divided by it."""
    centre: bytes
    directions: bytes
    """``(features left, width)``."""


class Encoder:
    """Rows ``(batch, features)`` to ``(batch, 17)``: the short form, and a 1 that lets one product compare."""

    def __init__(self, kept: Encoding) -> None:
        self.kept = kept
        self.pool = Pooling(kept.shape) if kept.shape else None
        left = self.pool.features if self.pool else kept.features
        scale, centre, directions = (
            np.frombuffer(part, "<f4").astype(np.float32) for part in (kept.scale, kept.centre, kept.directions)
        )
        if scale.shape != (left,) or centre.shape != (left,) or directions.size % max(1, left) or not directions.size:
            raise ArtefactError(
                "the reference of the guard sequence does not fit the model's features",
                remedy="run the check gateway.sequence again.",
            )
        self._map = np.ascontiguousarray((directions.reshape(left, -1) / scale[:, None]).astype(np.float32))
        self._shift = (centre / scale) @ directions.reshape(left, -1)
        self.width = self._map.shape[1]
        if not (np.isfinite(self._map).all() and np.isfinite(self._shift).all()):
            raise ArtefactError("the reference of the guard sequence holds numbers that are not finite")
        self._one = np.ones(self.width + 1, np.float32)

    def one(self, row: Floats) -> Floats:
        """One row ``(features left,)``. What is given is overwritten by the next call."""
        head = self._one[:-1]
        np.dot(row, self._map, out=head)
        np.subtract(head, self._shift, out=head)
        return self._one

    def many(self, rows: Floats) -> Floats:
        """Rows ``(batch, features left)``."""
        out = np.ones((len(rows), self.width + 1), np.float32)
        np.subtract(rows @ self._map, self._shift, out=out[:, : self.width])
        return out

    def left(self, rows: Numbers) -> Floats:
        """Rows as single precision, averaged where they are large images: ``(batch, features left)``."""
        single = np.ascontiguousarray(rows, np.float32)
        if self.pool is None:
            return single
        return np.stack([self.pool(row) for row in single])
