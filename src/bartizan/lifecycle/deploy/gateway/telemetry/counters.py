"""Numbers of a running gateway, counted for a microsecond a request and read when somebody asks.

Labels are names of the configuration and words of the program, never callers or anything that comes with a request:
an attacker must not be able to make up series (CWE-770).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

import msgspec

from bartizan.lifecycle.deploy.gateway.audit.record import Record

BOUNDS = (
    100,
    200,
    300,
    500,
    750,
    1_000,
    2_000,
    3_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    5_000_000,
    30_000_000,
)
"""Upper bounds of the classes of durations, in microseconds."""
MOST_SERIES = 2_000
"""Of each kind; what would be one more is counted under ``other``."""
OTHER = "other"
Labels = tuple[str, ...]


class Gauge(msgspec.Struct, frozen=True, kw_only=True):
    """A number that somebody else knows, asked for whenever it is read."""

    name: str
    """Such as ``budget_remaining``; ``bartizan_`` goes before it."""
    help: str
    labels: Labels = ()
    """Names of the labels."""
    read: Callable[[], Iterable[tuple[Labels, float]]]
    """Values of the labels, and the number. Must not block; what it raises is taken for no reading."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All numbers at one moment."""

    requests: Mapping[Labels, int]
    """By model, role, operation and decision."""
    rows: Mapping[Labels, int]
    """By model and role."""
    durations: Mapping[Labels, tuple[tuple[int, ...], int]]
    """By model and operation: how many fell into each class of ``BOUNDS`` and above, and the sum in microseconds."""
    verdicts: Mapping[Labels, int]
    """By guard, action and mode."""
    happened: Mapping[Labels, int]
    """By what happened and to what: a switch of a model, an event that was suppressed ..."""
    gauges: Iterable[tuple[Gauge, tuple[tuple[Labels, float], ...]]]
    started: float
    """Seconds since the epoch."""


class Counters:
    """Counts. Written on the event loop only; may be read from any thread."""

    def __init__(self, gauges: Iterable[Gauge] = (), clock: Callable[[], float] = time.time) -> None:
        self._requests: dict[Labels, int] = {}
        self._rows: dict[Labels, int] = {}
        self._durations: dict[Labels, list[int]] = {}
        self._verdicts: dict[Labels, int] = {}
        self._happened: dict[Labels, int] = {}
        self._gauges = list(gauges)
        self._started = clock()

    def add(self, gauge: Gauge) -> None:
        """Read one more number."""
        self._gauges.append(gauge)

    def observed(self, record: Record) -> None:
        """Count one request."""
        model, role, operation = record.model, record.role, record.operation
        _count(self._requests, (model, role, operation, record.decision), 1)
        if record.rows:
            _count(self._rows, (model, role), record.rows)
        series = self._durations.get((model, operation))
        if series is None:
            series = self._series(model, operation)
        series[bisect_left(BOUNDS, record.microseconds)] += 1
        series[-1] += record.microseconds
        for ruling in record.rulings:
            _count(self._verdicts, (ruling.guard, ruling.action, "shadow" if ruling.shadow else "enforce"), 1)

    def _series(self, *labels: str) -> list[int]:
        if len(self._durations) >= MOST_SERIES:
            labels = (OTHER,) * len(labels)
        return self._durations.setdefault(labels, [0] * (len(BOUNDS) + 2))

    def happened(self, what: str, to: str = "", times: int = 1) -> None:
        """Count something that happened to the gateway itself."""
        _count(self._happened, (what, to), times)

    def snapshot(self) -> Snapshot:
        """Everything as it is now."""
        return Snapshot(
            requests=dict(self._requests),
            rows=dict(self._rows),
            durations={key: (tuple(series[:-1]), series[-1]) for key, series in dict(self._durations).items()},
            verdicts=dict(self._verdicts),
            happened=dict(self._happened),
            gauges=tuple((gauge, _reading(gauge)) for gauge in self._gauges),
            started=self._started,
        )


def _count(series: dict[Labels, int], key: Labels, by: int) -> None:
    if key in series:
        series[key] += by
        return
    if len(series) >= MOST_SERIES:
        key = (OTHER,) * len(key)
    series[key] = series.get(key, 0) + by


def _reading(gauge: Gauge) -> tuple[tuple[Labels, float], ...]:
    try:
        return tuple(gauge.read())[:MOST_SERIES]
    except Exception:  # noqa: BLE001 - a part that is broken must not blind operators to the rest
        return ()


__all__ = ["BOUNDS", "Counters", "Gauge", "Labels", "Snapshot"]
