"""A circuit breaker: an upstream that fails again and again is left alone, then probed by one request at a time.

After M. Nygard, Release It! (2007): closed, open for a rest, half-open.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from bartizan.lifecycle.deploy.gateway.upstream.port import Kind, UpstreamError

State = Literal["closed", "open", "half-open"]
MOST_DOUBLINGS = 3
BLAMED: frozenset[Kind] = frozenset({"unreachable", "late", "failed", "wrong", "large"})
"""Failures that speak against the upstream. A refusal (4xx) or a limit speaks against what was asked: a caller who
could open the circuit by sending what the upstream refuses would shut everybody else out."""


class Circuit:
    """Whether an upstream may be asked now."""

    def __init__(self, failures: int, rest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._rest, self._clock = failures, rest, clock
        self._failed, self._opened, self._doublings = 0, 0.0, 0
        self._probing = False

    @property
    def state(self) -> State:
        """Where it stands now."""
        if self._failed < self._most:
            return "closed"
        return "half-open" if self._clock() >= self._until else "open"

    @property
    def _until(self) -> float:
        return self._opened + self._rest * 2.0**self._doublings

    def enter(self) -> bool:
        """Ask for leave to ask; True when this request is the probe. Follow with exactly one ``leave``.

        Raises:
            UpstreamError: it is left alone, or another request probes it already.
        """
        if self._failed < self._most:
            return False
        left = self._until - self._clock()
        if left > 0 or self._probing:
            raise UpstreamError("resting", "it failed too often and is left alone", retry_after=max(left, 1.0))
        self._probing = True
        return True

    def leave(self, *, probe: bool, kind: Kind | None = None, undecided: bool = False) -> None:
        """Say how it went: ``kind`` of the failure, None for an answer; undecided when nobody waited for it."""
        if probe:
            self._probing = False
        if undecided:
            return
        if kind in BLAMED:
            self._blame(probe=probe)
        else:
            self._failed, self._doublings = 0, 0

    def _blame(self, *, probe: bool) -> None:
        self._failed += 1
        if self._failed >= self._most:
            self._doublings = min(self._doublings + 1, MOST_DOUBLINGS) if probe else self._doublings
            self._opened = self._clock()


__all__ = ["BLAMED", "Circuit", "State"]
