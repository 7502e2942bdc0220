"""The audit log on the event loop: takes records in, and lets answers go once they are recorded.

Recorded is what is on disk, or what the operating system was given (``AuditSettings.mode``). Records that arrive while
a batch is being written form the next one (group commit). All records of a batch share one future. When a batch cannot
be written, everybody who waits for it is told, nothing more is taken in, and the log tries again by itself until the
store works.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from bartizan.core.digest import Digest
from bartizan.core.errors import BartizanError, StoreError
from bartizan.lifecycle.deploy.gateway.audit import entries
from bartizan.lifecycle.deploy.gateway.audit.record import Record
from bartizan.lifecycle.deploy.gateway.audit.secrets import Secrets
from bartizan.lifecycle.deploy.gateway.audit.settings import AuditSettings
from bartizan.lifecycle.deploy.gateway.audit.writer import Item, Rhythm, Writer, item
from bartizan.lifecycle.deploy.gateway.turns import Shared

NO_DIGEST = Digest("")
RETRY_SECONDS = 0.5
TICK_SECONDS = 0.25
MOST_PUT = 256
"""Records that are written on the event loop; more would hold it up."""
TRIES, TRY_SECONDS = 8, 0.001
"""How often a batch that cannot be put is tried again: who holds the store holds it for a few milliseconds."""
GAP = "audit.gap"
SYSTEM = "gateway"
"""Who acts when nobody asked."""
_LOG = logging.getLogger("bartizan.gateway")
_REMEDY = "see why the audit store cannot be written; the gateway goes on by itself when it can."


class _Job(NamedTuple):
    """What the thread does next."""

    batch: Sequence[Item]
    put: bool
    """Whether the batch was put into the store already, and has to reach the disk alone."""
    answered: bool = False
    """Whether nobody waits for that."""


_FLUSH, _SIGN = _Job((), put=True, answered=True), _Job((), put=False, answered=True)


class Trail:
    """See ``record.AuditLog``. Made on any thread; used on one event loop."""

    def __init__(
        self,
        writer: Writer,
        secrets: Secrets,
        settings: AuditSettings,
        *,
        configuration: Digest = NO_DIGEST,
        mask: Callable[[bytes], bytes] = lambda content: content,
    ) -> None:
        """``mask`` takes personal data out of content before it is sealed.

        Raises:
            StoreError: the keys of today cannot be made.
        """
        self._settings, self._waits, self._durable = settings, settings.waits, settings.durable
        self._writer, self._secrets, self._mask = writer, secrets, mask
        self._configuration = configuration
        self._models: dict[str, str] = {}
        self._switched_at = 0
        secrets.prepare()
        self.keyed = secrets.keyed
        self._waiting: list[Item] = []
        self._bytes = self._in_flight = 0
        self._lost = 0
        """Requests that were not answered for want of the log, and of which it does not tell yet."""
        self._future: Shared | None = None
        self._flying: Shared | None = None
        self._tries = 0
        """How often it may still be tried to put a batch. None before one was put: then it has to be written."""
        self._unflushed = self._busy = self._flushing = self._signing = self._closed = False
        self._keeps = self._flying_keeps = False
        """Whether what waits, and what is under way, holds records of what was answered already."""
        self._before: tuple[Digest, dict[str, str]] | None = None
        """Configuration and models before the first switch that may not be in the log yet."""
        self._barred = ""
        self._failing: BartizanError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="audit", daemon=True)
        self._idle = asyncio.Event()
        self._complained = ""

    def adopt(self, settings: AuditSettings, mask: Callable[[bytes], bytes]) -> None:
        """Go on by other settings from the next record on. May be called on any thread."""
        self._mask, self._settings = mask, settings
        self._waits, self._durable = settings.waits, settings.durable
        self._secrets.adopt(settings)

    # ---- on the event loop

    @property
    def waiting(self) -> int:
        """Records that are not on disk yet."""
        return len(self._waiting) + self._in_flight

    @property
    def configuration(self) -> Digest:
        """Digest of the configuration in force, as far as requests have shown."""
        return self._configuration

    @property
    def trouble(self) -> str:
        """Why nothing can be recorded; empty when something can."""
        return self._failing.message if self._failing else self._barred

    def bar(self, reason: str) -> None:
        """Take nothing in any more: the log is not the one that it was. From any thread."""
        self._barred = reason

    def append(self, record: Record, content: bytes | None = None) -> Awaitable[None] | None:
        """See ``record.AuditLog``. ``content`` is kept, masked and sealed, where the settings say so."""
        if self._failing is not None or self._barred:
            self._lost += not self._barred
            raise StoreError(f"nothing can be recorded: {self.trouble}", remedy=_REMEDY)
        if record.model_digest != self._models.get(record.model, "") or record.configuration != self._configuration:
            self._switched(record)
        new = item(record)
        if content is not None and self._settings.content != "none":
            new = self._with_content(new, content)
        future = self._take(new)
        return future if self._waits else None

    def _take(self, new: Item) -> Shared:
        length = _length(new)
        waiting = len(self._waiting) + self._in_flight
        if waiting >= self._settings.queue or (self._bytes and self._bytes + length > self._settings.queue_bytes):
            self._lost += 1
            raise StoreError(f"{waiting} audit records of {self._bytes} bytes wait for the store", remedy=_REMEDY)
        self._waiting.append(new)
        self._bytes += length
        self._keeps |= not self._waits
        return self._future or self._begin()

    def _switched(self, record: Record) -> None:
        """The first request under another configuration, or of other bytes of a model: the switch comes before it.

        Requests that were read before the switch end after it; they are no switch back.
        """
        if record.at < self._switched_at or record.operation.startswith(entries.ADMIN_OPERATIONS):
            return
        if self._before is None:
            self._before = self._configuration, dict(self._models)
        if record.configuration and record.configuration != self._configuration:
            said = self._own("gateway.configuration", "answered")
            said = msgspec.structs.replace(
                said, configuration=record.configuration, reasons=(f"was {self._configuration or 'none'}",)
            )
            self._take(item(said))
            self._configuration, self._switched_at = record.configuration, record.at
        before = self._models.get(record.model, "")
        if record.model_digest and record.model_digest != before:
            said = self._own("gateway.model", "answered")
            said = msgspec.structs.replace(
                said, model=record.model, model_digest=record.model_digest, reasons=(f"was {before or 'none'}",)
            )
            self._take(item(said))
            self._models[record.model], self._switched_at = record.model_digest, record.at

    def _with_content(self, new: Item, content: bytes) -> Item:
        if self._settings.content == "flagged" and new.kind != entries.FLAGGED:
            return new
        kept = self._secrets.seal(self._mask(content), new.kind, new.record.at)
        return item(msgspec.structs.replace(new.record, content=kept.name), kept)

    def _begin(self) -> Shared:
        """The next batch has its first record."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        self._future = Shared(loop=self._loop)
        if not self._busy:
            self._schedule()
        return self._future

    def _schedule(self) -> None:
        """Let those that arrive in this turn of the loop, or within the time to linger, come along."""
        if self._loop is None:
            return
        self._busy = True
        if self._waits:
            self._loop.call_soon(self._hand_over)
        else:
            self._loop.call_later(self._settings.linger_ms / 1000, self._hand_over)

    def _hand_over(self) -> None:
        batch, future, put = self._waiting, self._future, False
        may_put = self._waits and len(batch) <= MOST_PUT
        error: BartizanError | None = None
        try:
            put = may_put and self._writer.put(batch)
        except BartizanError as failed:
            error = failed
        except Exception as failed:  # noqa: BLE001 - whatever happens here, nobody may wait for ever
            self._complain(type(failed).__name__)
            error = StoreError(type(failed).__name__)
        if put:
            self._tries = TRIES
        elif may_put and error is None and self._tries and self._loop and not self._writer.has_to_write:
            self._tries -= 1
            self._loop.call_later(TRY_SECONDS, self._hand_over)
            return
        self._waiting, self._future, self._bytes = [], None, 0
        self._in_flight, self._flying = len(batch), future
        self._keeps, self._flying_keeps = False, self._keeps
        if error is not None:
            self._landed(batch, error)
        else:
            if put and not self._durable:
                self._landed(batch, None)
                self._flush_soon()
            else:
                self._jobs.put(_Job(batch, put=put))
            if put and not self._signing and self._writer.is_overdue:
                self._signing = True
                self._jobs.put(_SIGN)

    def _flush_soon(self) -> None:
        """Have what was put on disk before long."""
        self._unflushed = True
        if self._loop is not None and not self._flushing:
            self._flushing = True
            self._loop.call_later(self._settings.linger_ms / 1000, self._flush)

    def _flush(self) -> None:
        self._unflushed = False  # what is put from here on may come too late for this one
        self._jobs.put(_FLUSH)

    def _done(self, job: _Job, error: BartizanError | None) -> None:
        """What was put and answered is on disk, or a checkpoint is signed; or not."""
        if job is _FLUSH:
            self._flushing = False
        else:
            self._signing = False
        if error is None:
            if self._unflushed:
                self._flush_soon()
            return
        if self._busy or (job is _SIGN and isinstance(error, StoreError)):
            # store and writer know: the batch that is on its way, or comes next, makes up for it or fails as well
            _LOG.error("the audit log is in doubt: %s", error.message)
        else:
            self._failed((), None, error, put=True)

    def _landed(self, batch: Sequence[Item], error: BartizanError | None, *, put: bool = False) -> None:
        """A batch was written, or could not be. One that was ``put`` is in the log, whether it is on disk or not."""
        future, self._flying, self._in_flight, self._busy = self._flying, None, 0, False
        if error is None:
            if self._failing is not None:
                _LOG.warning("the audit log works again")
            self._failing = None
            if future is not None:
                future.set_result(None)
            if self._lost:
                self._lost -= _told(batch)
            if self._lost:
                self._waiting.insert(0, self._gap())
            if self._waiting:
                self._schedule()
                return
            self._before = None
            if self._closed:
                self._idle.set()
            return
        self._failed(batch, future, error, put=put)

    def _failed(self, batch: Sequence[Item], future: Shared | None, error: BartizanError, *, put: bool) -> None:
        if self._failing is None:
            _LOG.error("the audit log failed, nothing is answered: %s", error.message)
        self._failing = error
        if put:
            self._lost -= _told(batch)
        kept = [*(batch if self._flying_keeps and not put else ()), *(self._waiting if self._keeps else ())]
        asked = sum(1 for one in (*batch, *self._waiting) if one.record.caller != SYSTEM)
        self._lost += asked - sum(1 for one in kept if one.record.caller != SYSTEM)
        self._waiting, self._keeps, self._flying_keeps = kept, bool(kept), False
        self._bytes = sum(map(_length, kept))
        if not kept and self._before is not None:  # the next request shows the switch again
            (self._configuration, self._models), self._before = self._before, None
        for told in (future, self._future):
            if told is not None:
                told.set_exception(StoreError(f"nothing could be recorded: {error.message}", remedy=_REMEDY))
                told.exception()  # who waits is told; nobody has to wait
        self._future = None
        if self._loop is not None and not self._closed:
            self._busy = True
            self._loop.call_later(RETRY_SECONDS, self._again)
        else:
            if self._waiting:
                _LOG.error("%d audit records were answered and could not be written", len(self._waiting))
            if self._lost:
                _LOG.error("%d requests were not answered, and the audit log does not tell of it", self._lost)
            self._idle.set()

    def _again(self) -> None:
        """Try with what was kept, and with a record of how many requests were not answered."""
        kept = [one for one in self._waiting if one.record.operation != GAP]
        self._waiting = kept if kept and not self._lost else [self._gap(), *kept]
        self._hand_over()

    def _gap(self) -> Item:
        return item(self._own(GAP, "failed", rows=self._lost))

    def _own(self, operation: str, decision: str, rows: int = 0) -> Record:
        return Record(
            id=f"{operation}-{time.time_ns():x}",
            at=time.time_ns(),
            caller=SYSTEM,
            role=SYSTEM,
            method="none",
            operation=operation,
            status=0,
            decision=decision,
            configuration=self._configuration,
            rows=rows,
        )

    async def close(self) -> None:
        """Write everything that waits, sign it, and end the thread."""
        self._closed, self._barred = True, self._barred or "the log is closed"
        if self._loop is not None:
            if self._busy:
                await self._idle.wait()
            self._jobs.put(None)
            await self._loop.run_in_executor(None, self._thread.join)
        else:
            await asyncio.get_running_loop().run_in_executor(None, self._finish)

    # ---- on the writer's thread

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=TICK_SECONDS)
            except queue.Empty:
                self._tick()
                continue
            if job is None:
                self._finish()
                return
            error = self._write(job)
            told = partial(self._landed, job.batch, error, put=job.put)
            if job.answered:
                told = partial(self._done, job, error)
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop was closed under us
                    self._loop.call_soon_threadsafe(told)

    def _write(self, job: _Job) -> BartizanError | None:
        try:
            if job is _SIGN:
                self._writer.sign()
                return None
            if job.put:
                self._writer.store.sync()
                self._prepare()
                return None
            self._secrets.prepare()
            self._writer.write(job.batch)
        except BartizanError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever happens here, nobody may wait for ever
            self._complain(type(error).__name__)
            return StoreError(type(error).__name__)
        return None

    def _prepare(self) -> None:
        """Have keys at hand; the batch is on disk, whether they can be had or not."""
        try:
            self._secrets.prepare()
        except BartizanError as error:
            self._complain(error.message)

    def _tick(self) -> None:
        """What is due while nothing arrives."""
        try:
            self._secrets.prepare()
            if self._writer.due():
                self._writer.write((), sign=True)
        except BartizanError as error:
            self._complain(error.message)
        except Exception as error:  # noqa: BLE001 - the thread must live
            self._complain(type(error).__name__)
        else:
            self._complained = ""

    def _complain(self, what: str) -> None:
        """Once for each trouble, not four times a second."""
        if what != self._complained:
            _LOG.warning("the audit log could not be signed: %s", what)
        self._complained = what

    def _finish(self) -> None:
        try:
            self._writer.write((), sign=True)
        except BartizanError as error:
            _LOG.error("the audit log could not be signed at its end: %s", error.message)


def _length(new: Item) -> int:
    """Bytes of a record, its content included."""
    return len(new.body) + (0 if new.kept is None else len(new.kept.sealed))


def _told(batch: Sequence[Item]) -> int:
    """Requests that were not answered, of which a batch tells."""
    return sum(one.record.rows for one in batch if one.record.operation == GAP)


def rhythm(settings: AuditSettings) -> Rhythm:
    """When checkpoints are due."""
    return Rhythm(settings.checkpoint_seconds, settings.checkpoint_records)


__all__ = ["NO_DIGEST", "Trail", "rhythm"]
