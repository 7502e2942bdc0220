"""State that replicas of the gateway share: counters in leases, small facts with an end, and news.

In one process it lies in memory (``stores/shared/memory.py``); several replicas share it in Valkey
(``stores/shared/valkey.py``). Nothing here is ever evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a shared allowance that one replica may spend without asking again."""

    granted: int
    """Units; 0 when nothing is left."""
    until: float
    """Seconds since the epoch until which the units may be spent."""
    resets: float
    """Seconds since the epoch: when units were granted, the next moment at which more come free; when none were, the
    moment at which as many as were needed at least are there again. Infinite when that never comes to pass."""
    left: int = 0
    """Units that are left for everybody after this."""
    mark: int = 0
    """By which the store knows the part of the window that the units were taken from."""


class SharedState(Protocol):
    """What replicas share. Every call is bounded in time; raises StoreError when the store is out of reach."""

    async def lease(
        self, key: str, units: int, *, limit: int, window: float, now: float, burst: int = 0, least: int = 1
    ) -> Lease:
        """Take up to ``units``, at least ``least`` or none, of an allowance of ``limit`` units in ``window`` seconds.

        What all replicas spend in any ``window`` seconds, whenever these begin, never exceeds the allowance, whatever
        happens at the same time. With ``burst`` it is a token bucket of that size that ``limit`` units run into in a
        window. Little is granted beyond ``least`` when little is left. The store counts time by a clock of its own,
        which does not jump; ``now`` is the moment by the caller's clock, by which the lease is dated.
        """

    async def charge(self, key: str, units: int, *, limit: int, window: float, burst: int = 0) -> None:
        """Take what was spent already, even where it is more than is left."""

    async def give_back(self, key: str, lease: Lease, unspent: int) -> None:
        """Return units of a lease that were not spent."""

    async def keys(self, prefix: str, most: int) -> list[str]:
        """Allowances whose names begin so, at most ``most`` of them, in order."""

    async def forget(self, key: str) -> bool:
        """Fill an allowance up; false when nothing was spent of it."""

    async def count(self, key: str, by: int, *, lasts: float) -> int:
        """Add to a counter that is forgotten ``lasts`` seconds after it was last added to; gives the new value."""

    async def remember(self, key: str, value: bytes, *, lasts: float) -> None:
        """Keep a small fact (at most 64 KiB) for so many seconds."""

    async def recall(self, key: str) -> bytes | None:
        """The fact, when it is still kept."""

    async def publish(self, topic: str, news: bytes) -> None:
        """Tell all other replicas. Best effort: nothing may rest on its arrival."""

    def subscribe(self, topic: str, heard: Callable[[bytes], None]) -> None:
        """Call ``heard`` on the event loop for everything that other replicas publish."""

    async def close(self) -> None:
        """Let go of connections, and give back what is leased."""


__all__ = ["Lease", "SharedState"]
