"""The door and its schedule: verified at load, at every switch and every so often, and shut when in doubt.

The door is what requests see: a model that is in service, or the reason why none is. The schedule
alone moves it, after it has verified anew everything that admission rests on. A verification that
does not come to an end shuts the door as well, since nothing is known any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from bartizan.core.digest import Digest
from bartizan.core.errors import BartizanError, WorkError
from bartizan.lifecycle.deploy.gateway.admission import Admission, refusal
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.guard import Answer, Numbers
from bartizan.lifecycle.deploy.gateway.hosting import Host
from bartizan.lifecycle.deploy.gateway.pipeline import Pipeline
from bartizan.lifecycle.deploy.gateway.protocol import Description

HEARTBEAT = timedelta(days=1)
"""How often an unchanged state is recorded."""
GRACE_SECONDS = 60.0
"""How much later than due a verification may end before the door shuts by itself."""
DRAIN_SECONDS = 30.0
"""How long a model that was replaced is kept for requests that are on their way through it."""
LEAST_PAUSE_SECONDS = 5.0
"""Between two verifications, however often a model fails."""
_LOG = logging.getLogger("bartizan.gateway")


class Served:
    """A model in service, with the guards that are about it."""

    def __init__(
        self,
        description: Description,
        host: Host,
        pipeline: Pipeline | None = None,
        explain: Callable[[Numbers], dict[str, Any]] | None = None,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self.description, self.host = description, host
        self.gather: Callable[[Numbers], Callable[[], Answer]] | None = getattr(host, "gather", None)
        """Puts rows to a model that answers at once, together with those of others; see ``hosting.Direct``."""
        self.pipeline = pipeline or Pipeline(())
        self._explain = explain
        self.thread = thread
        """Where it is asked what takes long; None: anywhere."""
        self.withdrawn = False
        """Its answers are not given any more."""
        self.busy = 0
        """Requests that are on their way through it."""

    def explain(self, rows: Numbers) -> dict[str, Any]:
        """Why the model answers so. Blocks. Raises RequestError when there is nothing to compare with."""
        if self._explain is None:
            raise RequestError(403, "explanations are granted to nobody here", reason="see exposure.explanations")
        return self._explain(rows)

    def close(self) -> None:
        """Let go of the model. Blocks."""
        if self.thread is not None:
            self.thread.shutdown(wait=True)
        self.host.close()


class Works(Protocol):
    """What the schedule needs done, all of it on one thread that may block."""

    def examine(self) -> Admission:
        """Verify everything now. Never raises: what cannot be found out is not admitted."""

    def open(self, admission: Admission) -> Served:
        """Open what was just admitted. Raises BartizanError."""

    def confirm(self, admission: Admission) -> None:
        """Take over what may change while the model stays: who holds which keys. Raises BartizanError."""

    def record(self, admission: Admission) -> None:
        """Leave an observation in the ledger if one is due. Raises BartizanError."""


class Door:
    """What requests see."""

    def __init__(self, admission: Admission, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.admission = admission
        self._clock, self._patience = clock, patience
        self._verified_at = clock()
        self._served: Served | None = None
        self.wake = asyncio.Event()
        """Set to have everything verified soon: something went wrong meanwhile."""
        self._trouble = self._withdrawn = ""
        self._restored = False
        """It was put back here, and the ledger was not looked at since."""
        self.last: Description | None = None
        """What was in service last, and may be again."""

    @property
    def served(self) -> Served | None:
        """The model, when it may be asked now."""
        return None if self.reason else self._served

    @property
    def reason(self) -> str:
        """Why nothing is served; empty when something is."""
        if self._withdrawn or (self.admission.withdrawn and not self._restored):
            return self._withdrawn or self.admission.withdrawn
        if self._served is None:
            return self.admission.reason or self._trouble or "it is being opened"
        if not self._served.host.alive:
            self.take_out(self._served, "its process is gone")
        if self._trouble:
            return self._trouble
        late = self._clock() - self._verified_at
        return f"it was last verified {late:.0f} seconds ago, and should have been since" if self._late() else ""

    def _late(self) -> bool:
        return self._clock() - self._verified_at > self._patience

    @property
    def digest(self) -> Digest | None:
        """Digest of the model in service, or of the bytes that were found last."""
        return self._served.description.digest if self._served else self.admission.digest

    def serves(self, admission: Admission) -> bool:
        """Whether what was admitted is in service already."""
        return self._served is not None and not self._trouble and self.admission.inputs == admission.inputs

    def move(self, admission: Admission, served: Served | None) -> Served | None:
        """Serve something else, or nothing; gives what is to be closed."""
        old = self._served if self._served is not served else None
        if old is not None and served is None:
            old.withdrawn = True
        self.admission, self._served = admission, served
        if served is not None:
            self.last = served.description
        self._verified_at, self._trouble = self._clock(), ""
        self._heard(admission)
        return old

    def confirm(self, admission: Admission) -> None:
        """What is served was verified again; trouble that it made meanwhile stays."""
        self.admission, self._verified_at = admission, self._clock()
        self._heard(admission)

    def _heard(self, admission: Admission) -> None:
        """The ledger says whether somebody withdrew it: what was said here meanwhile is in it, or will be."""
        if not admission.withdrawn:
            self._restored = False
        elif not self._restored:
            self._withdrawn = ""

    @property
    def guards(self) -> tuple[str, ...]:
        """Names of the guards of what is in service."""
        return self._served.pipeline.guards if self._served else ()

    def withdraw(self, reason: str) -> None:
        """Somebody takes the model out of service. Verification does not bring it back."""
        self._withdrawn, self._restored = reason, False
        self.wake.set()

    def restore(self) -> None:
        """Whoever withdrew it puts it back; it is verified anew soon."""
        self._withdrawn, self._restored = "", True
        self.wake.set()

    def take_out(self, served: Served, trouble: str) -> None:
        """The model failed while it answered: shut, and verify and open it anew."""
        if self._served is served:
            served.withdrawn = True
            self._trouble = trouble
            self.wake.set()


class Schedule:
    """Moves the door. Everything that blocks is done on one thread for works and one for the model."""

    def __init__(
        self, works: Works, door: Door, *, seconds: float, changed: Callable[[Admission], None] = lambda _: None
    ) -> None:
        """``changed`` is called on the event loop after every switch."""
        self._works, self._door, self._seconds, self._changed = works, door, seconds, changed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verify")
        self._leaving: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Verify again and again, until cancelled."""
        pause = min(LEAST_PAUSE_SECONDS, self._seconds)
        while True:
            await asyncio.sleep(pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._door.wake.wait(), self._seconds - pause)
            self._door.wake.clear()
            try:
                await self.once()
            except Exception:  # noqa: BLE001 - the loop must live; the door shuts by itself when this goes on
                _LOG.exception("verification broke off")

    async def once(self) -> None:
        """One verification and what follows from it."""
        admission = await self._do(self._works.examine)
        if not admission.admitted:
            await self._move(admission, None)
            await self._record(admission)
        elif self._door.serves(admission):
            await self._confirm(await self._record(admission))
        else:
            await self._switch(admission)

    async def _confirm(self, admission: Admission) -> None:
        if admission.admitted:
            await self._take(admission)
        else:
            await self._move(admission, None)

    async def _take(self, admission: Admission) -> None:
        try:
            await self._do(lambda: self._works.confirm(admission))
        except BartizanError as error:
            await self._move(refusal(admission.model, admission.inputs, error, admission.at), None)
        else:
            self._door.confirm(admission)

    async def _switch(self, admission: Admission) -> None:
        """To what was admitted. What is in service stays so meanwhile: no request is dropped for a switch."""
        if self._door.served is None:
            between = WorkError("it is verified and being opened", remedy="ask again.")
            await self._move(refusal(admission.model, admission.inputs, between, admission.at, "opening"), None)
        opened, outcome = await self._do(lambda: opening(self._works, admission))
        await self._move(outcome, opened)

    async def _record(self, admission: Admission) -> Admission:
        recorded: Admission = await self._do(lambda: recording(self._works, admission))
        return recorded

    async def _move(self, admission: Admission, served: Served | None) -> None:
        if admission.reason != self._door.admission.reason:
            _LOG.warning("%s: %s", admission.model, admission.reason or "in service again")
        old = self._door.move(admission, served)
        self._changed(admission)
        if old is not None:
            task = asyncio.ensure_future(self._let_go(old))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _let_go(self, old: Served) -> None:
        """Close what was replaced, when nobody waits for its answer any more."""
        until = time.monotonic() + DRAIN_SECONDS
        while old.busy and time.monotonic() < until:  # noqa: ASYNC110 - rare, and counting has to be cheap
            await asyncio.sleep(0.01)
        old.withdrawn = True
        await asyncio.get_running_loop().run_in_executor(None, old.close)

    async def drained(self) -> None:
        """Wait until everything that was replaced is closed."""
        await asyncio.gather(*self._leaving)

    async def _do(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Wait for what is being verified."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def recording(works: Works, admission: Admission) -> Admission:
    """The admission, or that it could not be recorded: what leaves no trace is not served."""
    try:
        works.record(admission)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the ledger, the door shuts
        return refusal(admission.model, admission.inputs, error, admission.at) if admission.admitted else admission
    return admission


def opening(works: Works, admission: Admission) -> tuple[Served | None, Admission]:
    """Open what was admitted and record it, or say why that cannot be done."""
    try:
        served = works.open(admission)
    except Exception as error:  # noqa: BLE001 - whatever a model does to its process, the door stays shut
        outcome = refusal(admission.model, admission.inputs, error, admission.at, "opening")
        return None, recording(works, outcome)
    outcome = recording(works, admission)
    if not outcome.admitted:
        served.close()
        return None, outcome
    return served, outcome


class Remembered(msgspec.Struct, frozen=True):
    """What was recorded last."""

    alerts: tuple[str, ...]
    inputs: dict[str, Digest]
    at: datetime


def alerts(admission: Admission) -> tuple[str, ...]:
    """What is wrong, in words that are the same as long as the same is wrong."""
    return tuple(sorted(f"{item.condition} {item.artefact}" for item in admission.failed))


def worth_recording(last: Remembered | None, admission: Admission) -> bool:
    """Whether the state changed, or was not recorded for a day."""
    if last is None or (last.alerts, last.inputs) != (alerts(admission), admission.inputs):
        return True
    return admission.at - last.at >= HEARTBEAT


def patience(seconds: float) -> float:
    """How long a door stays open without being verified."""
    return 2 * seconds + GRACE_SECONDS


__all__ = ["Door", "Schedule", "Served", "Works", "alerts", "opening", "patience", "recording", "worth_recording"]
