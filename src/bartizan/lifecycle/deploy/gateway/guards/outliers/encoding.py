"""Rows as points whose distance says how unlike they are.

Numbers are counted in standard deviations of the training data, images all by one scale; two rows with another
category each are one apart. Where that makes more than ``COORDINATES`` coordinates, the directions in which the
training data vary most are kept and the length of all that is left is added as one more: what lies beside everything
that was ever seen keeps its distance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

COORDINATES = 64
REACH = 1e6
"""Standard deviations beyond which a value counts no further; keeps all that follows within single precision."""
APART = 0.5**0.5
"""Coordinate of a row's own category: two rows with different ones are at a distance of one."""
MOST_ROWS = 5_000
"""Training rows from which directions are learnt."""

Points = NDArray[np.float32]
"""``(batch, coordinates)``."""


@dataclass(frozen=True, eq=False)
class Encoding:
    """How rows become points."""

    numbers: NDArray[np.int64]
    """Columns that hold numbers, rising."""
    centre: NDArray[np.float64]
    """``(numbers,)``."""
    inverse: NDArray[np.float64]
    """``(numbers,)``: one over the standard deviation."""
    code_columns: NDArray[np.int64]
    """``(codes,)``: the column of each category that is known."""
    code_values: NDArray[np.float64]
    """``(codes,)``: the number that stands for it."""
    basis: Points
    """``(kept, numbers + codes)``: orthonormal directions; ``(0, 0)`` where all coordinates are kept as they are."""

    @cached_property
    def _low(self) -> NDArray[np.float64]:
        return self.centre - REACH / self.inverse

    @cached_property
    def _high(self) -> NDArray[np.float64]:
        return self.centre + REACH / self.inverse

    @property
    def coordinates(self) -> int:
        """Coordinates of a point."""
        return len(self.basis) + 1 if self.basis.size else len(self.numbers) + len(self.code_columns)

    def points(self, rows: NDArray[np.floating[Any]]) -> Points:
        """Rows ``(batch, features)`` as points; what is no number stays none."""
        numbers = rows if len(self.numbers) == rows.shape[1] else rows[:, self.numbers]
        within = np.maximum(np.minimum(numbers, self._high), self._low)
        within -= self.centre
        within *= self.inverse
        points = within.astype(np.float32)
        if self.code_columns.size:
            same = (rows[:, self.code_columns] == self.code_values).astype(np.float32)
            points = np.concatenate([points, same * np.float32(APART)], axis=1)
        return self._turned(points) if self.basis.size else points

    def _turned(self, points: Points) -> Points:
        if len(points) == 1:
            return self._turned_one(points[0])
        kept = points @ self.basis.T
        rest = np.einsum("ij,ij->i", points, points) - np.einsum("ij,ij->i", kept, kept)
        return np.concatenate([kept, np.sqrt(np.maximum(rest, 0))[:, None]], axis=1)

    def _turned_one(self, point: Points) -> Points:
        """The same for one row, without what only many are worth."""
        found = np.empty((1, len(self.basis) + 1), dtype=np.float32)
        kept = self.basis.dot(point)
        found[0, :-1] = kept
        rest = float(point.dot(point)) - float(kept.dot(kept))
        found[0, -1] = math.sqrt(rest) if rest > 0 else rest * 0.0  # NaN stays NaN
        return found


def encoding_of(
    rows: NDArray[np.floating[Any]],
    *,
    codes: Sequence[tuple[int, Sequence[float]]] = (),
    flags: Sequence[int] = (),
    image: bool = False,
    rng: np.random.Generator,
) -> Encoding:
    """The encoding for rows like these ``(records, features)``.

    Args:
        rows: training data.
        codes: columns that hold categories, each with the numbers that stand for them.
        flags: columns that are 1 for one category and 0 for all others.
        image: whether all columns are of one kind.
        rng: chooses the rows from which directions are learnt, of very many.
    """
    seen = rows[np.sort(rng.permutation(len(rows))[:MOST_ROWS])].astype(np.float64)
    columns = {column for column, _ in codes}
    numbers = np.array([place for place in range(rows.shape[1]) if place not in columns], dtype=np.int64)
    values = seen[:, numbers]
    spread = values.std(axis=0)
    if image:
        spread = np.full(len(numbers), float(np.sqrt((spread**2).mean())))
    spread[np.isin(numbers, np.asarray(flags, dtype=np.int64))] = 1 / APART
    plain = Encoding(
        numbers=numbers,
        centre=values.mean(axis=0),
        inverse=1 / np.where(spread > 0, spread, 1.0),
        code_columns=np.array([column for column, each in codes for _ in each], dtype=np.int64),
        code_values=np.array([value for _, each in codes for value in each], dtype=np.float64),
        basis=np.empty((0, 0), dtype=np.float32),
    )
    return _with_basis(plain, seen) if plain.coordinates > COORDINATES else plain


def _with_basis(plain: Encoding, seen: NDArray[np.float64]) -> Encoding:
    """Keeps the principal directions of the points, about their origin."""
    points = plain.points(seen).astype(np.float64)
    _, directions = np.linalg.eigh(points.T @ points)
    basis = np.ascontiguousarray(directions[:, ::-1][:, : COORDINATES - 1].T, dtype=np.float32)
    return Encoding(plain.numbers, plain.centre, plain.inverse, plain.code_columns, plain.code_values, basis)


__all__ = ["COORDINATES", "Encoding", "Points", "encoding_of"]
