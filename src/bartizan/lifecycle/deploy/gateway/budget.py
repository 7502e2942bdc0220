"""What requests cost, and the word of the budgets."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import msgspec

from bartizan.lifecycle.deploy.gateway.caller import Caller


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one request takes, in every unit that can be budgeted."""

    requests: int = 1
    rows: int = 0
    labels: int = 0
    """Labels that are disclosed."""
    bits: int = 0
    """Bits of score that are disclosed."""
    bytes: int = 0
    """Bytes of the request's body."""
    tokens: int = 0
    microseconds: int = 0
    """Processor time of the model; known afterwards only."""


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """A budget that is spent."""

    budget: str
    unit: str
    limit: int
    resets: float
    """Seconds since the epoch at which the same request would be let by; infinite when it asks for more than is ever
    there."""
    window: float = 0.0
    """Seconds in which the limit counts."""


class Budgets(Protocol):
    """All budgets of the configuration. Reserve first, settle afterwards; both on the event loop."""

    settles: bool
    """Whether anything that only turns out afterwards is counted."""

    def reserve(
        self, caller: Caller, names: tuple[str, ...], model: str, cost: Cost, now: float
    ) -> Denied | Awaitable[Denied | None] | None:
        """Take the cost out of every named budget, or out of none. At once when the replica's leases last."""

    def settle(self, caller: Caller, names: tuple[str, ...], model: str, more: Cost, now: float) -> None:
        """Take what only turned out afterwards (processor time, tokens); a budget may go below nothing by it."""


__all__ = ["Budgets", "Cost", "Denied"]
