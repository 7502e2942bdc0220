"""How rare a number is, counted in decades: 2 is reached by one usual row in a hundred, 3 by one in a thousand.

Learnt from rows that the model never saw. Within what was seen it is the rank, counted to the safe side (the p-value
of conformal prediction: Vovk, Gammerman and Shafer 2005); beyond, an exponential tail goes on from the largest number
with the mean excess of the highest tenth (peaks over a threshold: Pickands 1975).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

MOST = 1_000.0
"""Decades; more is not told apart. What is no number is as rare as can be."""
KNOTS = 256
"""Points of the curve, half of them in the highest tenth."""
TAIL = 0.1
"""Highest part of the numbers, by which the tail goes on."""
DOUBT = 2.0
"""Standard errors by which the tail is taken to be longer than what few numbers show of it."""
_SMALL = 1e-9
_DECADE = math.log(10)


class Rarity(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers, rising, and how rare each is; straight lines between them."""

    numbers: tuple[float, ...]
    decades: tuple[float, ...]
    slope: float
    """Decades for each unit beyond the last number."""

    def of(self, number: float) -> float:
        """Decades of one number."""
        numbers, decades = self.numbers, self.decades
        place = bisect_right(numbers, number)
        if number != number:  # noqa: PLR0124 - true of NaN alone
            return MOST
        if place == len(numbers):
            return min(decades[-1] + (number - numbers[-1]) * self.slope, MOST)
        if place == 0:
            return decades[0]
        low, high = numbers[place - 1], numbers[place]
        share = (number - low) / (high - low)
        return decades[place - 1] + share * (decades[place] - decades[place - 1])

    def many(self, numbers: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Decades of each number ``(batch,)``."""
        numbers = np.asarray(numbers, dtype=np.float64)
        within = np.interp(numbers, self.numbers, self.decades)
        with np.errstate(over="ignore", invalid="ignore"):  # so far out that no number holds it: MOST
            beyond = self.decades[-1] + (numbers - self.numbers[-1]) * self.slope
        found = np.where(numbers > self.numbers[-1], np.minimum(beyond, MOST), within)
        return np.where(np.isnan(numbers), MOST, found)

    def number_at(self, share: float) -> float:
        """The number that a ``share`` of usual rows exceeds."""
        decades = -math.log10(share)
        if decades >= self.decades[-1]:
            return self.numbers[-1] + (decades - self.decades[-1]) / self.slope
        return float(np.interp(decades, self.decades, self.numbers))


def rarity_of(numbers: NDArray[np.floating[Any]]) -> Rarity:
    """Learn it from the numbers ``(records,)`` of usual rows, at least one."""
    ordered = np.sort(np.asarray(numbers, dtype=np.float64))
    values, first = np.unique(ordered, return_index=True)
    count = len(ordered)
    decades = -np.log10((count - first + 1) / (count + 1))
    kept = _knots(len(values))
    highest = ordered[int((1 - TAIL) * count) :]
    excess = float((highest - highest[0]).mean()) * (1 + DOUBT / math.sqrt(len(highest)))
    spread = excess or float(ordered.std()) or abs(float(ordered[-1]))
    return Rarity(
        numbers=tuple(values[kept].tolist()),
        decades=tuple(decades[kept].tolist()),
        slope=1 / (max(spread, _SMALL) * _DECADE),
    )


def _knots(count: int) -> NDArray[np.int64]:
    """Which of ``count`` values are kept: all of few, else half of them among the highest."""
    if count <= KNOTS:
        return np.arange(count)
    start = int((1 - TAIL) * count)
    low = np.linspace(0, start, KNOTS // 2, endpoint=False)
    high = np.linspace(start, count - 1, KNOTS // 2)
    return np.unique(np.concatenate([low, high]).astype(np.int64))


__all__ = ["MOST", "Rarity", "rarity_of"]
