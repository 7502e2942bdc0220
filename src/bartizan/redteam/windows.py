"""Square windows of images that lie flat, ``(batch, channels * height * width)``."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bartizan.targets.protocol import Rows

Places = NDArray[np.int64]


class Windows:
    """All windows of ``side`` by ``side`` pixels in images of one shape."""

    def __init__(self, shape: tuple[int, ...], side: int) -> None:
        self.channels, self.height, self.width = shape
        self.side = min(side, self.height, self.width)
        self.down, self.across = self.height - self.side + 1, self.width - self.side + 1
        offsets = np.arange(self.side)[:, None] * self.width + np.arange(self.side)
        planes = np.arange(self.channels)[:, None] * (self.height * self.width)
        self._offsets: Places = planes + offsets.ravel()

    @property
    def count(self) -> int:
        """Number of places where a window can lie."""
        return self.down * self.across

    def pixels(self, window: Places) -> Places:
        """``(batch, channels, side * side)``: places in a flat row of each ``window`` ``(batch,)``, named from 0."""
        corner = window // self.across * self.width + window % self.across
        places: Places = corner[:, None, None] + self._offsets
        return places


@lru_cache(maxsize=64)
def windows_of(shape: tuple[int, ...], side: int) -> Windows:
    """All windows of ``side`` by ``side`` pixels, or as large as the image allows."""
    return Windows(shape, side)


def stripes(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """``(count, features)``: one sign for each column and colour of an image."""
    channels, height, width = shape
    signs = rng.choice((-1.0, 1.0), (count, channels, 1, width))
    return np.broadcast_to(signs, (count, channels, height, width)).reshape(count, -1)


def hills(side: int, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """``(count, side * side)``: of length 1; one hill and one hollow, side by side or one above the other.

    The pattern that an L2 change is made of in Square (Andriushchenko et al. 2020, section 4): it
    mimics what gradients of networks look like.
    """
    pattern = np.concatenate([_hill(side // 2, side), -_hill(side - side // 2, side)])
    pattern /= np.linalg.norm(pattern)
    upright = rng.random(count) < 0.5  # noqa: PLR2004 - an even chance
    return np.where(upright[:, None], pattern.ravel(), pattern.T.ravel())


def _hill(height: int, width: int) -> NDArray[np.float64]:
    """Rectangles that grow around the middle, each weighing the inverse square of its number; of length 1."""
    hill = np.zeros((height, width))
    down, across = height // 2, width // 2
    for ring in range(max(down, across) + 1):
        rows = slice(max(down - ring, 0), down + ring + 1)
        columns = slice(max(across - ring, 0), across + ring + 1)
        hill[rows, columns] += 1.0 / (ring + 1) ** 2
    return hill / max(float(np.linalg.norm(hill)), np.finfo(np.float64).tiny)


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether rows of this shape are images."""
    return len(shape) == 3  # noqa: PLR2004 - channels, height, width


def as_pictures(rows: Rows, shape: tuple[int, ...]) -> Rows:
    """Flat rows as ``(batch, channels, height, width)``."""
    return rows.reshape(len(rows), *shape)
