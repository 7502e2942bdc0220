"""A bound on how often something is told; what is left out is counted."""

from __future__ import annotations

import time
from collections.abc import Callable


class Rate:
    """A bucket that fills at a rate and holds ten seconds of it."""

    def __init__(self, each_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = each_second, clock
        self._most = max(1.0, each_second * 10)
        self._left, self._at = self._most, clock()
        self.suppressed = 0
        """How many were left out since the last one that was told."""

    def take(self) -> int | None:
        """How many were left out before this one, which may be told; None when it may not."""
        now = self._clock()
        self._left = min(self._most, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            self.suppressed += 1
            return None
        self._left -= 1
        before, self.suppressed = self.suppressed, 0
        return before


__all__ = ["Rate"]
