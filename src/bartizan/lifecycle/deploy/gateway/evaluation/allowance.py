"""What budgets let an attacker ask, by the attacker's own clock."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from bartizan.lifecycle.deploy.gateway.budgets.settings import BudgetSettings

ONE = frozenset({"requests", "rows", "labels"})
"""Units of which a question with one row takes one."""
SHORTEST = 86_400.0
"""Seconds of the shortest window that counts: whoever attacks waits until a shorter one is over."""


@dataclass(slots=True)
class Allowance:
    """One budget, as somebody meets it who asks for one row at a time."""

    limit: int
    seconds: float
    shared: bool = False
    """One count for all of the attacker's accounts."""
    _asked: defaultdict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))

    def lets(self, account: str, now: float) -> bool:
        """Whether one more question is let by."""
        asked = self._of(account)
        while asked and asked[0] <= now - self.seconds:
            asked.popleft()
        return len(asked) < self.limit

    def take(self, account: str, now: float) -> None:
        """Count one."""
        self._of(account).append(now)

    def _of(self, account: str) -> deque[float]:
        return self._asked["" if self.shared else account]


def allowances(budgets: Iterable[BudgetSettings]) -> list[Allowance]:
    """Those of the budgets that count questions over a day or longer.

    A token bucket lets by, in one window, what is in it and what runs into it. Where the count is shared by others
    than the attacker, it is the attacker's alone here.
    """
    return [
        Allowance(each.limit + each.burst, each.seconds, "caller" not in each.scopes)
        for each in budgets
        if each.unit in ONE and each.seconds >= SHORTEST
    ]


__all__ = ["Allowance", "allowances"]
