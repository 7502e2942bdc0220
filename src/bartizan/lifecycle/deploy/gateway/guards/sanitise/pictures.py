"""Transforms for images: what a small change rarely survives, and what is seen does."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.deploy.gateway.guards.sanitise.frame import Frame, Rows

BLOCK = 8
COLOURS = 3
WHITE = 255.0
AT_ONCE = 1 << 13
"""Numbers that medians are worked out of at the same time: all their neighbours stay near the processor."""
MIDDLE = np.float32(128)

# Quantisation tables of ITU-T T.81 (1992), annex K: for brightness, and for colour.
_BRIGHTNESS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_COLOUR = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# Full-range BT.601, as JFIF (ITU-T T.871, section 7) has it.
_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_GREY = np.array([0.0, 128.0, 128.0])


class Median:
    """Each pixel to the median of its neighbourhood, ``size`` by ``size``; at the edge pixels are repeated."""

    def __init__(self, frame: Frame, size: int) -> None:
        self._near = _neighbours(frame.shape, size)
        self._middle = size**2 // 2
        self._nine = size == 3  # noqa: PLR2004 - the usual size has a way of its own

    def __call__(self, rows: Rows) -> Rows:
        """``(batch, features)`` to the same."""
        most = max(1, AT_ONCE // rows.shape[1])
        if len(rows) > most:
            return np.concatenate([self._of(rows[start : start + most]) for start in range(0, len(rows), most)])
        return self._of(rows)

    def _of(self, rows: Rows) -> Rows:
        near = [rows.take(places, axis=1) for places in self._near]
        if self._nine:
            return _median_of_nine(near)
        middle: Rows = np.partition(np.stack(near, axis=-1), self._middle, axis=-1)[..., self._middle]
        return middle


class Average:
    """Each pixel to the mean of its neighbourhood, ``size`` by ``size``; at the edge pixels are repeated."""

    def __init__(self, frame: Frame, size: int) -> None:
        self._near = _neighbours(frame.shape, size)

    def __call__(self, rows: Rows) -> Rows:
        """``(batch, features)`` to the same."""
        total = rows.take(self._near[0], axis=1)
        for places in self._near[1:]:
            total += rows.take(places, axis=1)
        total /= len(self._near)
        return total


class Jpeg:
    """What is left of an image once it was stored as JPEG: its frequencies, rounded by the tables of a quality.

    The coding itself loses nothing and is left out; colours are not made coarser than brightness is. As a defence:
    Guo et al. 2018, arXiv:1711.00117; Das et al. 2018, arXiv:1802.06816.
    """

    def __init__(self, frame: Frame, quality: int) -> None:
        self._low, self._span = float(frame.low[0]), float(frame.span[0])
        self._shape = frame.shape
        channels = frame.shape[0]
        self._gather, self._scatter = _blocks(frame.shape)
        self._turn = _cosines()
        self._colours = channels == COLOURS
        tables = [_scaled(_BRIGHTNESS, quality)] + [_scaled(_COLOUR, quality)] * (channels - 1)
        self._tables = np.stack(tables if self._colours else tables[:1])[:, None, :]

    def __call__(self, rows: Rows) -> Rows:
        """``(batch, features)`` to the same."""
        values = np.rint((rows - self._low) * (WHITE / self._span)).astype(np.float32)
        if self._colours:
            values = np.rint(_mixed(values, _TO_YCC, before=0.0, after=_GREY)).astype(np.float32)
        kept = self._quantised(values)
        if self._colours:
            kept = _mixed(kept, np.linalg.inv(_TO_YCC), before=_GREY, after=0.0)
        kept = np.minimum(np.maximum(np.rint(kept), 0.0), WHITE) * (self._span / WHITE) + self._low
        return np.asarray(kept).astype(rows.dtype, copy=False)

    def _quantised(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """By blocks of eight by eight, each turned into frequencies, rounded and turned back."""
        flat = values.take(self._gather, axis=1).reshape(len(values), self._shape[0], -1, BLOCK * BLOCK)
        flat -= MIDDLE
        frequencies = flat @ self._turn.T
        frequencies /= self._tables
        np.rint(frequencies, out=frequencies)
        frequencies *= self._tables
        back = frequencies @ self._turn
        back += MIDDLE
        return np.asarray(back.reshape(len(values), -1).take(self._scatter, axis=1))


def _cosines() -> NDArray[np.float32]:
    """``(64, 64)``: the orthonormal cosine transform of a block of 8 by 8 that lies flat."""
    place, wave = np.arange(BLOCK), np.arange(BLOCK)[:, None]
    one = np.sqrt(2 / BLOCK) * np.cos((2 * place + 1) * wave * np.pi / (2 * BLOCK))
    one[0] /= np.sqrt(2)
    return np.kron(one, one).astype(np.float32)


def _scaled(table: tuple[tuple[int, ...], ...], quality: int) -> NDArray[np.float32]:
    """A table at a quality of 1 to 100, as the reference coder of the Independent JPEG Group scales it."""
    factor = 5000 / quality if quality < 50 else 200 - 2 * quality  # noqa: PLR2004 - the coder's own middle
    scaled = np.floor((np.array(table) * factor + 50) / 100)
    return np.clip(scaled, 1, 255).astype(np.float32).ravel()


def _mixed(
    values: NDArray[np.floating], matrix: NDArray[np.float64], *, before: Any, after: Any
) -> NDArray[np.floating]:
    """Channels of images ``(batch, 3 * pixels)`` combined anew; ``before`` is taken off, ``after`` is added."""
    images = values.reshape(len(values), COLOURS, -1).swapaxes(1, 2)
    return np.asarray(((images - before) @ matrix.T + after).swapaxes(1, 2).reshape(values.shape))


def _neighbours(shape: tuple[int, ...], size: int) -> list[NDArray[np.int64]]:
    """``(features,)`` for each of ``size * size`` neighbours: where it lies, or at the edge the nearest that does."""
    channels, height, width = shape
    places = np.arange(channels * height * width).reshape(shape)
    steps = range(-(size // 2), size - size // 2)
    down = [np.clip(np.arange(height) + step, 0, height - 1) for step in steps]
    right = [np.clip(np.arange(width) + step, 0, width - 1) for step in steps]
    return [places[:, rows][:, :, columns].ravel() for rows in down for columns in right]


def _median_of_nine(nine: list[Rows]) -> Rows:
    """By columns of three that are put in order first (Smith: Implementing median filters. 1996)."""
    lows, middles, highs = zip(*(_in_order(*nine[place::3]) for place in range(3)), strict=True)
    low = np.maximum(np.maximum(lows[0], lows[1]), lows[2])
    high = np.minimum(np.minimum(highs[0], highs[1]), highs[2])
    return _in_order(low, _in_order(*middles)[1], high)[1]


def _in_order(one: Rows, two: Rows, three: Rows) -> tuple[Rows, Rows, Rows]:
    less, more = np.minimum(one, two), np.maximum(one, two)
    return np.minimum(less, three), np.maximum(less, np.minimum(more, three)), np.maximum(more, three)


def _blocks(shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the pixels of each block lie, and back. What a block lacks at the edge is the nearest pixel there is."""
    channels, height, width = shape
    high, wide = -(-height // BLOCK) * BLOCK, -(-width // BLOCK) * BLOCK
    places = np.arange(channels * height * width).reshape(shape)
    rows, columns = np.minimum(np.arange(high), height - 1), np.minimum(np.arange(wide), width - 1)
    blocked = (channels, high // BLOCK, BLOCK, wide // BLOCK, BLOCK)
    gather = places[:, rows][:, :, columns].reshape(blocked).swapaxes(2, 3).ravel()
    order = np.empty(channels * high * wide, dtype=np.int64)
    padded = np.arange(channels * high * wide).reshape(blocked).swapaxes(2, 3).ravel()
    order[padded] = np.arange(len(order))
    return gather, order.reshape(channels, high, wide)[:, :height, :width].ravel()


__all__ = ["Average", "Jpeg", "Median"]
