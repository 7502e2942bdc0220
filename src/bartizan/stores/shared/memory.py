"""Shared state of one process: nothing outlives it, and nobody else sees it."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from bartizan.core.errors import StoreError
from bartizan.lifecycle.deploy.gateway.state import Lease
from bartizan.stores.shared import allowance
from bartizan.stores.shared.allowance import MILLION, Drawn, Kept, Wanted

T = TypeVar("T")
MAX_KEYS = 200_000
"""Allowances, counters and facts each. One more is refused, since to forget an older one would fill it up again."""
MAX_FACT_BYTES = 64 * 1024
_FULL = "share the state in Valkey, or bound how many callers there can be."


class MemoryState:
    """See ``SharedState``. ``steady`` gives seconds and never jumps; ``began`` is its zero since the epoch."""

    def __init__(self, steady: Callable[[], float] = time.monotonic, began: float | None = None) -> None:
        self._steady = steady
        self._began = time.time() - steady() if began is None else began
        self._allowances: dict[str, Kept] = {}
        self._ends: dict[str, int] = {}
        """Microsecond from which an allowance is full and may be forgotten."""
        self._counts = _Lasting[int]()
        self._facts = _Lasting[bytes]()

    async def lease(
        self, key: str, units: int, *, limit: int, window: float, now: float, burst: int = 0, least: int = 1
    ) -> Lease:
        """See ``SharedState``."""
        wanted = Wanted(units=units, least=least, limit=limit, window=round(window * MILLION), burst=burst)
        moment = self._now()
        return dated(self._draw(key, wanted, moment), now - moment / MILLION)

    async def charge(self, key: str, units: int, *, limit: int, window: float, burst: int = 0) -> None:
        """See ``SharedState``."""
        wanted = Wanted(units=units, least=0, limit=limit, window=round(window * MILLION), burst=burst, force=True)
        self._draw(key, wanted, self._now())

    def _draw(self, key: str, wanted: Wanted, moment: int) -> Drawn:
        kept = self._allowances.get(key)
        if kept is None:
            kept = Kept()
            if wanted.units:
                self._make_room(moment)
                self._allowances[key] = kept
        drawn = allowance.draw(kept, wanted, moment)
        self._ends[key] = forgotten(kept, wanted, moment)
        return drawn

    def _make_room(self, moment: int) -> None:
        if len(self._allowances) < MAX_KEYS:
            return
        for key in [key for key, end in self._ends.items() if end <= moment]:
            del self._ends[key]
            self._allowances.pop(key, None)
        if len(self._allowances) >= MAX_KEYS:
            raise StoreError(f"{MAX_KEYS} allowances are in use at once", remedy=_FULL)

    async def give_back(self, key: str, lease: Lease, unspent: int) -> None:
        """See ``SharedState``."""
        kept = self._allowances.get(key)
        if kept is not None and unspent > 0:
            allowance.give_back(kept, lease.mark, unspent)

    async def keys(self, prefix: str, most: int) -> list[str]:
        """See ``SharedState``."""
        return heapq.nsmallest(most, (key for key in self._allowances if key.startswith(prefix)))

    async def forget(self, key: str) -> bool:
        """See ``SharedState``."""
        self._ends.pop(key, None)
        return self._allowances.pop(key, None) is not None

    async def count(self, key: str, by: int, *, lasts: float) -> int:
        """See ``SharedState``."""
        moment = self._steady()
        total = (self._counts.get(key, moment) or 0) + by
        self._counts.put(key, total, moment, lasts)
        return total

    async def remember(self, key: str, value: bytes, *, lasts: float) -> None:
        """See ``SharedState``."""
        small(value)
        self._facts.put(key, value, self._steady(), lasts)

    async def recall(self, key: str) -> bytes | None:
        """See ``SharedState``."""
        return self._facts.get(key, self._steady())

    async def publish(self, topic: str, news: bytes) -> None:
        """See ``SharedState``: there is nobody else."""

    def subscribe(self, topic: str, heard: Callable[[bytes], None]) -> None:
        """See ``SharedState``: there is nobody else."""

    async def close(self) -> None:
        """See ``SharedState``."""
        self._allowances.clear()
        self._ends.clear()

    def _now(self) -> int:
        return round((self._began + self._steady()) * MILLION)


class _Lasting(Generic[T]):
    """A bounded table of what is kept for a while."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, T]] = {}

    def get(self, key: str, moment: float) -> T | None:
        found = self._kept.get(key)
        return found[1] if found and found[0] > moment else None

    def put(self, key: str, value: T, moment: float, lasts: float) -> None:
        if key not in self._kept and len(self._kept) >= MAX_KEYS:
            self._kept = {name: pair for name, pair in self._kept.items() if pair[0] > moment}
            if len(self._kept) >= MAX_KEYS:
                raise StoreError(f"{MAX_KEYS} facts are kept at once", remedy=_FULL)
        self._kept[key] = (moment + lasts, value)


def dated(drawn: Drawn, shift: float) -> Lease:
    """A lease by the caller's clock, which is ``shift`` seconds ahead of the store's."""
    never = drawn.resets == allowance.NEVER
    return Lease(
        granted=drawn.granted,
        until=drawn.until / MILLION + shift,
        resets=math.inf if never else drawn.resets / MILLION + shift,
        left=drawn.left,
        mark=drawn.mark,
    )


def forgotten(kept: Kept, wanted: Wanted, moment: int) -> int:
    """Microsecond at which an allowance is full again whatever is still leased."""
    return max(int(kept.full) + MILLION, moment + 2 * wanted.window)


def small(value: bytes) -> None:
    """Raises StoreError: a fact is too large."""
    if len(value) > MAX_FACT_BYTES:
        raise StoreError(f"a fact of {len(value)} bytes; {MAX_FACT_BYTES} are kept at most")


__all__ = ["MAX_KEYS", "MemoryState"]
