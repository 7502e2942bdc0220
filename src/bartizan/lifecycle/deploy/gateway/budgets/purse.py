"""A purse: what this replica may spend of one count of one budget without asking again."""

from __future__ import annotations

import asyncio
from collections import deque

from bartizan.lifecycle.deploy.gateway.budgets.settings import BudgetSettings
from bartizan.lifecycle.deploy.gateway.state import Lease

PORTION = 16
"""A lease asks for at most this part of the limit beyond what is needed now."""
MOST_HELD = 4096
LEARNING = 0.2
"""Weight of the newest request in what a row is expected to cost."""


class Purse:
    """Moments are by the replica's steady clock. Owned by the event loop."""

    __slots__ = (
        "chunk",
        "each_row",
        "filling",
        "granted",
        "held",
        "key",
        "lease",
        "left",
        "name",
        "refused_at",
        "refused_need",
        "refused_until",
        "settings",
        "shared",
        "until",
        "waiting",
    )

    def __init__(self, key: str, name: str, settings: BudgetSettings) -> None:
        self.key, self.name, self.settings = key, name, settings
        self.left = 0
        """Units that may be spent until ``until``; below 0: spent already and not yet charged."""
        self.until = 0.0
        self.lease: Lease | None = None
        self.granted = 0
        """Units of the lease that runs."""
        self.shared = settings.largest
        """What was left for everybody when the store was last asked."""
        self.chunk = 0
        """Units to ask for beyond what is needed."""
        self.waiting = 0
        """Units that requests wait for."""
        self.filling: asyncio.Task[None] | None = None
        """The one call of the store that is under way."""
        self.refused_need = 0
        """So many units were not to be had when the store was last asked; 0: it gave."""
        self.refused_at = self.refused_until = 0.0
        self.each_row = 0.0
        """Units that a row is expected to cost, where that turns out afterwards only."""
        self.held: deque[tuple[int, int]] = deque(maxlen=MOST_HELD)
        """Units taken beforehand and rows of requests that are under way, oldest first."""

    def covers(self, need: int, steady: float) -> bool:
        """Whether a request can be paid at once."""
        return self.left >= need and steady < self.until

    def wanted(self, need: int) -> tuple[int, int]:
        """Units to ask for, and the least that are of use. Grows while leases are spent before they end."""
        least = max(1, need - self.left)
        units = max(least, self.waiting + self.chunk - self.left)
        self.waiting = 0
        self.chunk = min(max(2 * self.chunk, need), max(1, self.settings.limit // PORTION))
        return units, least

    def put(self, lease: Lease, steady: float, least: int) -> None:
        """Take a lease in, or the answer that there is none."""
        self.shared = lease.left
        self.lease = self.lease if not lease.granted and self.left > 0 else lease
        if not lease.granted:
            self.refused_need, self.refused_at, self.refused_until = least + max(0, self.left), steady, lease.resets
            return
        self.until = min(self.until, lease.until) if self.left > 0 else lease.until
        self.left += lease.granted
        self.granted = self.left
        self.refused_need = 0

    def over(self) -> int:
        """Units of a lease that ended, to be given back; the purse is empty then. Small leases suit rare requests."""
        unspent, self.left = self.left, 0
        self.chunk = min(self.chunk, max(0, self.granted - unspent))
        return unspent

    # ---- what turns out afterwards

    def expected(self, rows: int) -> int:
        """Units to take beforehand for a request whose cost turns out afterwards: at least one, at most all."""
        return min(max(1, round(self.each_row * rows)), self.settings.largest)

    def hold(self, units: int, rows: int) -> None:
        """Remember what was taken beforehand."""
        self.held.append((units, rows))

    def settled(self, units: int) -> int:
        """What is still to be taken of a request that cost so much; negative when too much was taken."""
        taken, rows = self.held.popleft() if self.held else (0, 0)
        if rows:  # a mistake, or a look at the metadata, says nothing of what a row costs
            self.each_row += LEARNING * (units / rows - self.each_row)
        return units - taken


__all__ = ["Purse"]
