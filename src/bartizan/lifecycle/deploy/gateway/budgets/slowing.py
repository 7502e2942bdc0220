"""Callers whose requests are flagged are slowed: the more of them are, the longer they wait between two.

What is summed is evidence, as in a cumulative sum test (Page 1954, Continuous inspection schemes): a flagged request
adds its weight, every other takes ``pardon`` away, and never below nothing. A caller who is flagged on less than
that share of requests stays near nothing however much they ask; an attack that is flagged on most of its requests is
slowed after ``after`` of them. Whoever hides among clean requests pays ``1 / pardon`` of those for each that is
flagged. Replicas add into one sum; what is flagged at one counts at all, at the latest with the next that is flagged
there, or with the news of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec

from bartizan.core.errors import StoreError
from bartizan.lifecycle.deploy.gateway.audit.record import Record
from bartizan.lifecycle.deploy.gateway.budgets.settings import NOBODY, plain, seconds
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.guard import Action
from bartizan.lifecycle.deploy.gateway.state import SharedState

WEIGHTS = {Action.FLAG: 1000, Action.COARSEN: 1000, Action.HOLD: 1000, Action.THROTTLE: 1000, Action.REFUSE: 2000}
"""Thousandths that a verdict adds, by what a guard that enforces wanted."""
BY_NAME = {action.name.lower(): weight for action, weight in WEIGHTS.items()}
TOPIC = "standing"
MOST = 100_000
"""Callers of whom anything is remembered."""
SETTLE = 50
"""Clean requests after which a replica tells the shared sum of them."""
_LOG = logging.getLogger("bartizan.gateway")


class SlowingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[slowing]`` of the configuration."""

    after: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    """Flagged requests after which a caller is slowed."""
    pardon: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.02
    """What a clean request takes away again: the share of flagged requests that is thought innocent."""
    pause: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 2.0
    """Seconds between two requests of whoever is slowed; twice that after twice ``after``, and so on."""
    longest: Annotated[float, msgspec.Meta(ge=0.1, le=86_400)] = 600.0
    """Seconds that the pause grows to."""
    forgotten: Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,3}(min|h|d)$")] = "1h"
    """Time without a flagged request after which all is forgiven."""
    per: Annotated[str, msgspec.Meta(pattern=r"^(caller|group|role|attribute:[a-z0-9][a-z0-9_.-]{0,63})$")] = "caller"
    """Who stands and falls together: ``attribute:organisation`` holds several accounts of one owner together."""


class _Sum:
    """What is known of one caller, in thousandths."""

    __slots__ = ("own", "pending", "until")

    def __init__(self) -> None:
        self.own = 0
        """The sum as this replica knows it."""
        self.pending = 0
        """Thousandths of it that the others have not heard of."""
        self.until = 0.0
        """When it is forgotten, by the steady clock."""


class _News(msgspec.Struct, array_like=True):
    subject: str
    total: int


class Slowing:
    """The standing of callers. A watcher of records: it hears what guards that enforce said of each request.

    Args:
        settings: of the configuration.
        state: what replicas share.
        steady: seconds; never jumps.
    """

    def __init__(
        self, settings: SlowingSettings, state: SharedState, *, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._state, self._steady = settings, state, steady
        self._lasts = seconds(settings.forgotten)
        self._pardon = round(settings.pardon * 1000)
        self._sums: dict[str, _Sum] = {}
        self._subjects: dict[str, str] = {}
        """By caller, where that is not the same: records name callers only."""
        self._next: dict[str, float] = {}
        """When whoever is slowed may come again, where the shared state cannot be asked."""
        self._tasks: set[asyncio.Task[None]] = set()
        state.subscribe(TOPIC, self._heard)

    # ---- before a request

    def admit(self, caller: Caller) -> Awaitable[float] | float:
        """Seconds that a caller has to wait; 0 when the request may go on. At once for all who are not slowed."""
        if self._settings.per == "caller":
            if not self._sums:
                return 0.0
            subject = caller.id
        else:
            subject = self._subject(caller)
            if len(self._subjects) >= MOST:
                self._subjects.clear()
            self._subjects[caller.id] = subject
        pause = self.pause(subject)
        return self._paced(subject, pause) if pause else 0.0

    def pause(self, subject: str) -> float:
        """Seconds between two requests of a subject; 0 for whoever is not slowed."""
        known = self._sums.get(subject)
        if known is None or known.own < 1000 * self._settings.after:
            return 0.0
        if self._steady() >= known.until:
            del self._sums[subject]
            return 0.0
        doublings = min(known.own / (1000 * self._settings.after) - 1, 64.0)
        return float(min(self._settings.pause * 2**doublings, self._settings.longest))

    async def _paced(self, subject: str, pause: float) -> float:
        """One request in every pause, counted at all replicas together."""
        steady = self._steady()
        if steady < self._next.get(subject, 0.0):
            return self._next[subject] - steady
        try:
            # A bucket of one: the pause begins when a request is let by.
            lease = await self._state.lease(f"slowed:{subject}", 1, limit=1, window=pause, now=steady, burst=1)
        except StoreError as error:
            _LOG.warning("a slowed caller is paced by this replica alone: %s", error.message)
            wait = 0.0
        else:
            wait = 0.0 if lease.granted else max(lease.resets - steady, 0.0)
        self._next[subject] = steady + (wait or pause)
        if len(self._next) > MOST:
            self._next = {name: moment for name, moment in self._next.items() if moment > steady}
        return wait

    # ---- after a request

    def observed(self, record: Record) -> None:
        """Hear of a request that came to its end. See ``front.Watcher``."""
        weight = max((BY_NAME.get(each.action, 0) for each in record.rulings if not each.shadow), default=0)
        if weight or self._sums:
            self._take(self._subject_of(record), weight)

    def heard(self, caller: Caller, action: Action) -> None:
        """The same for whoever has no record at hand: what guards that enforce wanted done with a request."""
        weight = WEIGHTS.get(action, 0)
        if weight or self._sums:
            self._take(self._subject(caller), weight)

    def _take(self, subject: str, weight: int) -> None:
        known = self._sums.get(subject)
        if known is None:
            if not weight:
                return
            known = self._sums[subject] = _Sum()
            if len(self._sums) > MOST:
                self._forget_some()
        if not weight:
            step = min(self._pardon, known.own)
            known.own -= step
            known.pending -= step
            if known.pending <= -SETTLE * self._pardon and self._pardon:
                self._tell(subject, known)
            return
        known.own += weight
        known.pending += weight
        known.until = self._steady() + self._lasts
        self._tell(subject, known)

    def _forget_some(self) -> None:
        """Those who are over, and a tenth of those of whom least is known."""
        steady = self._steady()
        over = [subject for subject, known in self._sums.items() if steady >= known.until]
        least = sorted(self._sums, key=lambda subject: self._sums[subject].own)[: MOST // 10]
        for subject in {*over, *least}:
            del self._sums[subject]

    # ---- other replicas

    def _tell(self, subject: str, known: _Sum) -> None:
        """Add to the shared sum what it does not know, beside the requests."""
        change, known.pending = known.pending, 0
        task = asyncio.get_running_loop().create_task(self._told(subject, known, change))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _told(self, subject: str, known: _Sum, change: int) -> None:
        try:
            total = await self._state.count(f"standing:{subject}", change, lasts=self._lasts)
            if total < 0:
                total = await self._state.count(f"standing:{subject}", -total, lasts=self._lasts)
            known.own = max(0, total + known.pending)
            if change > 0:
                await self._state.publish(TOPIC, msgspec.json.encode(_News(subject, total)))
        except StoreError as error:
            known.pending += change
            _LOG.warning("the standing of a caller stays with this replica for now: %s", error.message)

    def _heard(self, news: bytes) -> None:
        """What another replica says that all replicas know of a caller."""
        try:
            said = msgspec.json.decode(news, type=_News)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        known = self._sums.get(said.subject)
        if known is None:
            if len(self._sums) >= MOST or said.total <= 0:
                return
            known = self._sums[said.subject] = _Sum()
        known.own = max(0, said.total + known.pending)
        known.until = self._steady() + self._lasts

    # ---- who it is

    def _subject(self, caller: Caller) -> str:
        match self._settings.per:
            case "caller":
                return caller.id
            case "group":
                return plain(min(caller.groups, default=NOBODY))
            case "role":
                return plain(caller.role)
            case scope:
                return plain(caller.attributes.get(scope.removeprefix("attribute:"), NOBODY))

    def _subject_of(self, record: Record) -> str:
        return record.caller if self._settings.per == "caller" else self._subjects.get(record.caller, NOBODY)

    async def pardon(self, caller: Caller) -> None:
        """Forget everything of a caller: a person has looked at the case."""
        subject = self._subject(caller)
        self._sums.pop(subject, None)
        self._next.pop(subject, None)
        total = await self._state.count(f"standing:{subject}", 0, lasts=self._lasts)
        await self._state.count(f"standing:{subject}", -total, lasts=self._lasts)
        await self._state.publish(TOPIC, msgspec.json.encode(_News(subject, 0)))

    async def close(self) -> None:
        """Let what is being told come to its end."""
        if self._tasks:
            await asyncio.wait(self._tasks)


__all__ = ["Slowing", "SlowingSettings"]
