"""The one thing of telemetry that the hot path knows: it tells of every record, and goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from bartizan.lifecycle.deploy.gateway.audit.record import Record
from bartizan.lifecycle.deploy.gateway.telemetry import events
from bartizan.lifecycle.deploy.gateway.telemetry.counters import Counters
from bartizan.lifecycle.deploy.gateway.telemetry.events import Event
from bartizan.lifecycle.deploy.gateway.telemetry.rate import Rate
from bartizan.lifecycle.deploy.gateway.telemetry.settings import Kind

_LOG = logging.getLogger("bartizan.gateway")


class Listener(Protocol):
    """Somebody who hears of events: a file, a webhook."""

    each_second: float
    """Events of one kind a second."""
    kinds: frozenset[Kind]

    def tell(self, event: Event, suppressed: int) -> None:
        """Take it in; ``suppressed`` of its kind were left out before it. Must not block."""

    async def close(self) -> None:
        """Write or send what waits, in bounded time."""


class Tracer(Protocol):
    """Somebody who makes spans of records."""

    def traced(self, record: Record) -> None:
        """Take it in. Must not block."""

    async def close(self) -> None:
        """Send what waits, in bounded time."""


class Telemetry:
    """Hears of every record. ``observed`` costs about a microsecond for a plain answer, and never fails."""

    def __init__(
        self,
        counters: Counters,
        listeners: Iterable[Listener] = (),
        tracer: Tracer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counters = counters
        self._listeners = tuple(listeners)
        self._tracer, self._clock = tracer, clock
        self._rates: Mapping[Kind, tuple[tuple[Listener, Rate], ...]] = {
            kind: tuple((one, Rate(one.each_second)) for one in self._listeners if kind in one.kinds)
            for kind in events.SEVERITIES
        }

    def observed(self, record: Record) -> None:
        """Count it, and tell of it where it is worth an event."""
        self.counters.observed(record)
        if self._tracer is not None:
            self._tracer.traced(record)
        if record.decision != "answered" or record.rulings or record.operation.startswith("admin."):
            self._note(record)

    def happened(self, what: str, to: str = "", detail: str = "") -> None:
        """Something happened to the gateway itself: ``switch``, ``withdrawn``, ``stepped down``, ``start`` ..."""
        self.counters.happened(what, to)
        self._tell("state", lambda: events.of_state(what, to, self._clock(), detail))

    def _note(self, record: Record) -> None:
        kind = events.kind_of(record)
        if kind is not None:
            self._tell(kind, lambda: events.of_record(kind, record))

    def _tell(self, kind: Kind, make: Callable[[], Event]) -> None:
        event = None
        for listener, rate in self._rates[kind]:
            before = rate.take()
            if before is None:
                self.counters.happened("event suppressed", kind)
                continue
            try:
                event = event or make()
                listener.tell(event, before)
            except Exception:  # noqa: BLE001 - a request must not fail because nobody could be told of it
                _LOG.exception("an event could not be told")

    async def close(self) -> None:
        """Let everybody finish."""
        for one in (*self._listeners, *((self._tracer,) if self._tracer else ())):
            await one.close()


__all__ = ["Listener", "Telemetry", "Tracer"]
