"""Budgets that replicas share through leases: a comparison of integers for most requests, a call of the store for few.

A request takes its cost out of every budget or out of none. What a replica may spend was taken out of the shared
count before, so that all together never spend more than there is, whatever happens at the same time. A replica that
dies takes its leases with it; nobody gets more by it. When the store is out of reach nothing is let by, unless a
budget is declared to go on with what was leased.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from bartizan.core.errors import InputError, StoreError
from bartizan.lifecycle.deploy.gateway.budget import Cost, Denied
from bartizan.lifecycle.deploy.gateway.budgets.purse import Purse
from bartizan.lifecycle.deploy.gateway.budgets.refusal import Standing
from bartizan.lifecycle.deploy.gateway.budgets.settings import AFTERWARDS, BudgetSettings, key_of
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.state import SharedState

MOST_PLANS = 50_000
"""Pairs of caller and model whose budgets are remembered; beyond it all are worked out anew."""
MOST_PURSES = 100_000
LOOK_AGAIN = 1.0
"""Seconds after which a budget that was spent is looked at again, since others may have given something back."""
PROBE = 0.25
"""Seconds between two calls of a store that is out of reach."""
PATIENCE = 5.0
"""Seconds that a request waits for units that others take away before it."""
ROUNDS = 10_000
"""So many times it may lose against others meanwhile."""
SWEEP = 1.0
"""Seconds between two looks for leases that ended."""
UNREACHABLE = "the service cannot answer at present"
_LOG = logging.getLogger("bartizan.gateway")


class _Plan:
    """The budgets that requests of one caller about one model draw on."""

    __slots__ = ("caller", "getters", "later", "names", "only", "purses")

    def __init__(self, caller: Caller, names: tuple[str, ...], purses: Sequence[Purse]) -> None:
        self.caller, self.names, self.purses = caller, names, tuple(purses)
        self.getters: tuple[Callable[[Cost], int], ...] = tuple(attrgetter(each.settings.unit) for each in purses)
        self.later = tuple(place for place, each in enumerate(purses) if each.settings.unit in AFTERWARDS)
        self.only = (self.purses[0], self.getters[0]) if len(self.purses) == 1 and not self.later else None
        """The budget, where there is one whose cost is known beforehand: no other has to be looked at."""

    def fits(self, caller: Caller) -> bool:
        """Whether it is the plan of this caller still."""
        own = self.caller
        return (own.role, own.groups, own.attributes) == (caller.role, caller.groups, caller.attributes)


class LeasedBudgets:
    """See ``Budgets``.

    Args:
        budgets: by name.
        state: what replicas share.
        steady: seconds; never jumps. The calendar is used for nothing but to say when to come again.
    """

    def __init__(
        self, budgets: Mapping[str, BudgetSettings], state: SharedState, *, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._budgets, self._state, self._steady = dict(budgets), state, steady
        self.settles = any(each.unit in AFTERWARDS for each in self._budgets.values())
        self._always = tuple(name for name, each in self._budgets.items() if each.always)
        self._plans: dict[tuple[str, str], _Plan] = {}
        self._purses: dict[str, Purse] = {}
        self._retired: list[Purse] = []
        self._shut = False
        """Whether the store was out of reach when it was last asked."""
        self._probe = 0.0
        self._sweeper: asyncio.Task[None] | None = None

    def check(self, names: Sequence[str]) -> None:
        """Raises InputError: a budget is named that is not configured."""
        if missing := sorted(set(names) - self._budgets.keys()):
            raise InputError(
                f"no budget is called {missing[0]!r}", remedy=f"write [budget.{missing[0]}], or take the name out."
            )

    # ---- the hot path

    def reserve(
        self, caller: Caller, names: tuple[str, ...], model: str, cost: Cost, now: float
    ) -> Denied | Awaitable[Denied | None] | None:
        """See ``Budgets``. A budget in ``microseconds`` or ``tokens`` takes what rows of this caller used to cost.

        Raises:
            RequestError: 503, a budget is not configured.
        """
        plan = self._plan(caller, names, model)
        if plan.only is not None and not self._shut:
            purse, get = plan.only
            need = get(cost)
            if purse.left >= need and (not need or self._steady() < purse.until):
                purse.left -= need
                return None
        needs = [get(cost) for get in plan.getters]
        if plan.later:
            _expect(plan, needs, cost)
        steady = self._steady()
        if self._shut:
            return self._slowly(plan, needs, cost, now, steady)
        for purse, need in zip(plan.purses, needs, strict=True):
            if purse.left < need or (need and steady >= purse.until):
                return self._slowly(plan, needs, cost, now, steady)
        for purse, need in zip(plan.purses, needs, strict=True):
            purse.left -= need
        if plan.later:
            _hold(plan, needs, cost)
        return None

    def settle(self, caller: Caller, names: tuple[str, ...], model: str, more: Cost, now: float) -> None:
        """See ``Budgets``. ``more.requests`` does not count: the request was taken when it was reserved."""
        del now
        plan = self._plan(caller, names, model)
        if not plan.later:
            return
        for purse, get in zip(plan.purses, plan.getters, strict=True):
            unit = purse.settings.unit
            amount = 0 if unit == "requests" else get(more)
            if unit in AFTERWARDS:
                amount = purse.settled(amount)
            if amount:
                purse.left = min(purse.left - amount, max(purse.left, purse.granted))
                if purse.left < 0 and (purse.filling is None or purse.filling.done()):
                    self._work(purse, self._pay(purse))

    def _plan(self, caller: Caller, names: tuple[str, ...], model: str) -> _Plan:
        plan = self._plans.get((caller.id, model))
        if (
            plan is None
            or (plan.names is not names and plan.names != names)
            or (plan.caller is not caller and not plan.fits(caller))
        ):
            return self._planned(caller, names, model)
        return plan

    def _planned(self, caller: Caller, names: tuple[str, ...], model: str) -> _Plan:
        purses = []
        for name in dict.fromkeys((*names, *self._always)):
            settings = self._budgets.get(name)
            if settings is None:
                raise RequestError(503, UNREACHABLE, reason=f"the budget {name} is not configured")
            if settings.covers(model):
                purses += [self._purse(name, settings, subject) for subject in settings.subjects(caller, model)]
        if len(self._plans) >= MOST_PLANS:
            self._plans.clear()
        plan = self._plans[caller.id, model] = _Plan(caller, names, purses)
        return plan

    def _purse(self, name: str, settings: BudgetSettings, subject: str) -> Purse:
        key = key_of(name, settings, subject)
        purse = self._purses.get(key)
        if purse is None:
            if len(self._purses) >= MOST_PURSES:
                self._retire(MOST_PURSES // 4)
            purse = self._purses[key] = Purse(key, name, settings)
        return purse

    def _retire(self, count: int) -> None:
        """Make room: the oldest purses give back what they hold. Plans may hold them still, which harms nobody."""
        oldest = [purse for purse in self._purses.values() if purse.filling is None][:count]
        for purse in oldest:
            del self._purses[purse.key]
        self._retired += [purse for purse in oldest if purse.left]
        self._plans.clear()

    # ---- the slow path

    async def _slowly(self, plan: _Plan, needs: list[int], cost: Cost, now: float, began: float) -> Denied | None:
        """Lease what is lacking, and take all or nothing."""
        for _ in range(ROUNDS):
            steady = self._steady()
            if steady - began >= PATIENCE:
                break
            lacking = [
                (purse, need)
                for purse, need in zip(plan.purses, needs, strict=True)
                if need and not (purse.covers(need, steady) and not (self._shut and _is_strict(purse)))
            ]
            if not lacking:
                for purse, need in zip(plan.purses, needs, strict=True):
                    purse.left -= need
                _hold(plan, needs, cost)
                return None
            for purse, need in lacking:
                resets = await self._filled(purse, need)
                if resets is not None:
                    return _denied(purse, now + resets - began)
        raise RequestError(503, UNREACHABLE, headers={"retry-after": "1"}, reason="too many requests for one budget")

    async def _filled(self, purse: Purse, need: int) -> float | None:
        """Lease for a purse, together with all who wait for it; the moment to come again when there is nothing.

        Raises:
            RequestError: 503, the store is out of reach.
        """
        steady = self._steady()
        if need > purse.settings.largest:
            return math.inf
        fresh = steady < min(purse.refused_at + LOOK_AGAIN, purse.refused_until)
        if purse.refused_need and need >= purse.refused_need and fresh:
            return purse.refused_until
        if self._shut and steady < self._probe:
            raise _unreachable("the shared state was out of reach a moment ago")
        purse.waiting += need
        filling = purse.filling
        if filling is None or filling.done():
            filling = self._work(purse, self._fill(purse, need))
        try:
            await asyncio.shield(filling)
        except StoreError as error:
            raise _unreachable(error.message) from error
        refused = purse.refused_need and need >= purse.refused_need and not purse.covers(need, self._steady())
        return purse.refused_until if refused else None

    def _work(self, purse: Purse, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have something done for a purse; one thing at a time."""
        task = asyncio.get_running_loop().create_task(work)

        def done(ended: asyncio.Task[None]) -> None:
            if purse.filling is ended:
                purse.filling = None
            if not ended.cancelled() and (error := ended.exception()) is not None:
                purse.waiting = 0
                _LOG.warning("the budget %s cannot be counted: %s", purse.name, getattr(error, "message", error))

        purse.filling = task
        task.add_done_callback(done)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep())
        return task

    async def _fill(self, purse: Purse, need: int) -> None:
        settings, steady = purse.settings, self._steady()
        if purse.left > 0 and steady >= purse.until:
            await self._give_back(purse)
        await self._pay(purse)
        units, least = purse.wanted(need)
        steady = self._steady()
        with self._reached():
            lease = await self._state.lease(
                purse.key,
                units,
                limit=settings.limit,
                window=settings.seconds,
                now=steady,
                burst=settings.burst,
                least=least,
            )
        if purse.left > 0 and lease.granted and purse.lease is not None and lease.mark != purse.lease.mark:
            await self._give_back(purse)
        purse.put(lease, steady, least)

    async def _pay(self, purse: Purse) -> None:
        """Charge what was spent beyond the lease."""
        debt = -purse.left
        if debt <= 0:
            return
        settings = purse.settings
        with self._reached():
            await self._state.charge(
                purse.key, debt, limit=settings.limit, window=settings.seconds, burst=settings.burst
            )
        purse.left += debt

    async def _give_back(self, purse: Purse) -> None:
        lease, unspent = purse.lease, purse.over()
        if lease is not None and unspent > 0:
            with self._reached():
                await self._state.give_back(purse.key, lease, unspent)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Take note of whether the store can be reached."""
        try:
            yield
        except StoreError:
            self._shut, self._probe = True, self._steady() + PROBE
            raise
        self._shut = False

    # ---- besides

    async def _sweep(self) -> None:
        """Give back, now and then, what leases that ended have left; until nothing is leased."""
        while True:
            await asyncio.sleep(SWEEP)
            await self.tidy()
            if not self._retired and not any(purse.left > 0 for purse in self._purses.values()):
                self._sweeper = None
                return

    async def tidy(self) -> None:
        """Give back what leases that ended have left, and forget who has not asked for long."""
        steady = self._steady()
        retired, self._retired = self._retired, []
        for purse in retired:
            await self._emptied(purse)
        for purse in list(self._purses.values()):
            if purse.filling is None and purse.left > 0 and steady >= purse.until:
                await self._emptied(purse)

    async def _emptied(self, purse: Purse) -> None:
        try:
            await (self._give_back(purse) if purse.left > 0 else self._pay(purse))
        except StoreError as error:
            _LOG.warning("what is left of the budget %s cannot be given back: %s", purse.name, error.message)

    def standing(self, caller: Caller, names: tuple[str, ...], model: str, now: float) -> list[Standing]:
        """What is left of the caller's own budgets as far as this replica knows; of budgets with others, nothing."""
        plan = self._plans.get((caller.id, model))
        if plan is None or plan.names != names:
            return []
        steady = self._steady()
        return [
            Standing(
                budget=purse.name,
                unit=purse.settings.unit,
                limit=purse.settings.limit,
                window=purse.settings.seconds,
                left=max(0, purse.left) + max(0, purse.shared),
                resets=now + max(0.0, purse.lease.resets - steady),
            )
            for purse in plan.purses
            if purse.settings.personal and purse.lease is not None and not math.isinf(purse.lease.resets)
        ]

    async def close(self) -> None:
        """Give everything back. The shared state stays open."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
            self._sweeper = None
        for purse in [*self._purses.values(), *self._retired]:
            if purse.filling is not None:
                await asyncio.wait([purse.filling])
            if purse.left:
                await self._emptied(purse)
        self._purses.clear()
        self._plans.clear()


def _expect(plan: _Plan, needs: list[int], cost: Cost) -> None:
    """Put in what is expected where nothing is known beforehand."""
    for place in plan.later:
        needs[place] = needs[place] or plan.purses[place].expected(cost.rows)


def _hold(plan: _Plan, needs: list[int], cost: Cost) -> None:
    for place in plan.later:
        plan.purses[place].hold(needs[place], cost.rows)


def _is_strict(purse: Purse) -> bool:
    return purse.settings.when_unreachable == "refuse"


def _denied(purse: Purse, resets: float) -> Denied:
    settings = purse.settings
    return Denied(budget=purse.name, unit=settings.unit, limit=settings.limit, window=settings.seconds, resets=resets)


def _unreachable(reason: str) -> RequestError:
    return RequestError(503, UNREACHABLE, headers={"retry-after": "1"}, reason=reason)


__all__ = ["LeasedBudgets"]
