"""Axes: values to positions, linear or logarithmic, with few round ticks."""

from __future__ import annotations

import math
from dataclasses import dataclass

MOST_TICKS = 6
SMALLEST, LARGEST = 1e-9, 1e15
"""Ends of an axis are kept within these; no chart of ours needs more."""
WIDEST = 1e12
"""Largest ratio of the ends of a logarithmic axis; smaller values are drawn at its edge."""
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: values from ``low`` to ``high`` lie at positions from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Position of a value; values beyond the ends are drawn at the ends."""
        inside = min(max(value, self.low), self.high)
        share = (self._scaled(inside) - self._scaled(self.low)) / (self._scaled(self.high) - self._scaled(self.low))
        return self.start + share * (self.end - self.start)

    def ticks(self) -> tuple[float, ...]:
        """Round values inside the axis: whole decades when logarithmic, else four to six even steps."""
        return self._decades() if self.log else self._steps()

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def _decades(self) -> tuple[float, ...]:
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        step = math.ceil((last - first + 1) / MOST_TICKS)
        return tuple(10.0**power for power in range(first, last + 1, step))

    def _steps(self) -> tuple[float, ...]:
        rough = (self.high - self.low) / 5
        scale = 10.0 ** math.floor(math.log10(rough))
        step = next(scale * factor for factor in _STEPS if scale * factor >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return tuple(round(index * step, 12) for index in range(first, last + 1))


def linear(values: list[float], start: float, end: float) -> Axis:
    """A linear axis from 0 to the largest value."""
    top = max([value for value in values if value > 0], default=1.0)
    return Axis(0.0, _drawable(top), start, end)


def logarithmic(values: list[float], start: float, end: float) -> Axis:
    """A logarithmic axis over whole decades around the positive values."""
    positive = [_drawable(value) for value in values if value > 0] or [1.0, 10.0]
    high = 10.0 ** math.ceil(math.log10(max(positive)) - 1e-9)
    low = max(10.0 ** math.floor(math.log10(min(positive)) + 1e-9), high / WIDEST)
    return Axis(low, max(high, low * 10), start, end, log=True)


def _drawable(value: float) -> float:
    return min(max(value, SMALLEST), LARGEST)
