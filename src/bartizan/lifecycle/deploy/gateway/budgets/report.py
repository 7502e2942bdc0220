"""What is spent of each budget, out of the very counts that requests are held to."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.budgets.settings import BudgetSettings, key_of, prefix_of
from bartizan.lifecycle.deploy.gateway.state import SharedState

MOST = 10_000
"""Counts of one budget that are listed."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """One count of one budget."""

    budget: str
    subject: str
    """Caller, group, organisation ... or the digest of one."""
    unit: str
    limit: int
    window: str
    spent: int
    """Units spent in the window that ends now; what replicas hold leased counts as spent."""
    left: int
    resets: float
    """Seconds from now after which more comes free; 0 when nothing is spent."""


async def usage(state: SharedState, budgets: Mapping[str, BudgetSettings], name: str = "") -> list[Usage]:
    """Everything that is spent of every budget, or of the one named.

    Raises:
        InputError: there is no budget of that name.
        StoreError: the counts are out of reach.
    """
    found = []
    for each, settings in _named(budgets, name).items():
        start = key_of(each, settings, "")
        for key in await state.keys(start, MOST):
            seen = await state.lease(
                key, 0, limit=settings.limit, window=settings.seconds, now=0.0, burst=settings.burst, least=0
            )
            spent = settings.largest - seen.left
            found.append(
                Usage(
                    budget=each,
                    subject=key.removeprefix(start),
                    unit=settings.unit,
                    limit=settings.limit,
                    window=settings.window,
                    spent=spent,
                    left=max(0, seen.left),
                    resets=0.0 if spent <= 0 or math.isinf(seen.resets) else round(max(0.0, seen.resets), 1),
                )
            )
    return found


async def reset(state: SharedState, budgets: Mapping[str, BudgetSettings], name: str, subject: str = "") -> int:
    """Fill up what one subject has of a budget, or what all have of it; gives how many counts there were.

    Raises:
        InputError: there is no budget of that name, or nothing is counted for the subject.
        StoreError: the counts are out of reach.
    """
    _named(budgets, name)
    if not subject:
        return sum([await state.forget(key) for key in await state.keys(prefix_of(name), MOST)])
    key = key_of(name, budgets[name], subject)
    if not await state.forget(key):
        raise InputError(
            f"the budget {name!r} counts nothing for {subject[:80]!r}", remedy="see `bartizan gateway budget show`."
        )
    return 1


def _named(budgets: Mapping[str, BudgetSettings], name: str) -> Mapping[str, BudgetSettings]:
    if name and name not in budgets:
        known = ", ".join(sorted(budgets)) or "none"
        raise InputError(f"no budget is called {name!r}", remedy=f"configured are: {known}.")
    return {name: budgets[name]} if name else budgets


__all__ = ["Usage", "reset", "usage"]
