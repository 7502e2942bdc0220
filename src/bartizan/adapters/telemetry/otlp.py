"""Traces and numbers to an OpenTelemetry collector, over HTTP (OTLP 1.x). Needs the extra ``telemetry``.

Spans are made of records, of a declared share of those that were answered and of a bounded number of the others, and
sent by a thread of the SDK. A span carries what the configuration names and the program says: no input, no output,
no caller.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, Status, StatusCode

from bartizan import __version__
from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.audit.record import Record
from bartizan.lifecycle.deploy.gateway.telemetry.counters import Counters, Labels, Snapshot
from bartizan.lifecycle.deploy.gateway.telemetry.rate import Rate
from bartizan.lifecycle.deploy.gateway.telemetry.settings import TelemetrySettings, declared

SECONDS = 5.0
"""For one attempt to send, and for sending the rest at the end."""
MOST_WAITING = 2048
SPANS_EACH_SECOND = 100.0
"""A span costs some 40 microseconds: a flood of refusals must not make the gateway slower than it is."""
MOST_KEY_BYTES = 8192
BROKEN = 500


class Collector:
    """Sends to one collector. See ``telemetry.port.Tracer``."""

    def __init__(
        self, settings: TelemetrySettings, counters: Counters, draw: Callable[[], float] = random.random
    ) -> None:
        """Raises InputError: the address is none that may be told, or the credential cannot be read."""
        base = declared(settings.collector, "the collector").rstrip("/")
        self._share, self._draw = settings.traced, draw
        self._rate = Rate(SPANS_EACH_SECOND)
        credential = _credential(settings.collector_key_file)
        resource = Resource({"service.name": "bartizan-gateway", "service.version": __version__})
        self._traces = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False, span_limits=SpanLimits(max_attributes=32)
        )
        spans = OTLPSpanExporter(f"{base}/v1/traces", headers=credential, timeout=SECONDS, session=_Session())
        self._spans = BatchSpanProcessor(spans, max_queue_size=MOST_WAITING, export_timeout_millis=SECONDS * 1000)
        self._traces.add_span_processor(self._spans)
        self._tracer = self._traces.get_tracer("bartizan.gateway", __version__)
        numbers = OTLPMetricExporter(f"{base}/v1/metrics", headers=credential, timeout=SECONDS, session=_Session())
        reader = PeriodicExportingMetricReader(
            numbers, export_interval_millis=settings.metrics_seconds * 1000, export_timeout_millis=SECONDS * 1000
        )
        self._numbers = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        _instruments(self._numbers.get_meter("bartizan.gateway", __version__), counters)

    def traced(self, record: Record) -> None:
        """See ``telemetry.port.Tracer``."""
        if (record.decision == "answered" and self._draw() >= self._share) or self._rate.take() is None:
            return
        span = self._tracer.start_span(
            f"{record.operation} {record.model}".strip(),
            kind=SpanKind.SERVER,
            start_time=record.at,
            attributes=_attributes(record),
        )
        for ruling in record.rulings:
            mode = "shadow" if ruling.shadow else "enforce"
            span.add_event(
                ruling.guard, {"action": ruling.action, "mode": mode}, record.at + record.microseconds * 1000
            )
        if record.status >= BROKEN:
            span.set_status(Status(StatusCode.ERROR))
        span.end(record.at + record.microseconds * 1000)

    async def close(self) -> None:
        """See ``telemetry.port.Tracer``. A collector that is away does not hold the end up."""
        ending = threading.Thread(target=self._shut, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, SECONDS)

    def _shut(self) -> None:
        self._traces.shutdown()
        self._numbers.shutdown(timeout_millis=SECONDS * 1000)


class _Session(requests.Session):
    """Goes where it is told and nowhere else: no redirects, no proxies or passwords from the environment."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.max_redirects = 0

    def request(self, *args: Any, **more: Any) -> requests.Response:
        """See ``requests.Session.request``."""
        return super().request(*args, **{**more, "allow_redirects": False})


def _credential(path: str) -> dict[str, str]:
    if not path:
        return {}
    try:
        with Path(path).open("rb") as file:
            key = file.read(MOST_KEY_BYTES).strip().decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the credential {path} cannot be read", remedy="mend it.") from error
    if not key.isprintable() or not key:
        raise InputError(f"{path} is no credential", remedy="put one line of printable characters into it.")
    return {"authorization": key}


def _attributes(record: Record) -> dict[str, Any]:
    """Names of OpenTelemetry where it has them (semantic conventions, HTTP)."""
    return {
        "bartizan.request.id": record.id,
        "bartizan.role": record.role,
        "bartizan.operation": record.operation,
        "bartizan.decision": record.decision,
        "bartizan.model": record.model,
        "bartizan.model.digest": record.model_digest,
        "bartizan.configuration.digest": record.configuration,
        "bartizan.source": record.source,
        "bartizan.rows": record.rows,
        "http.response.status_code": record.status,
    }


def _instruments(meter: Any, counters: Counters) -> None:
    """Numbers are read from the same counters that Prometheus reads."""

    def sums(read: Callable[[Snapshot], Iterable[tuple[Labels, float]]], names: Labels) -> Any:
        def observe(_: CallbackOptions) -> list[Observation]:
            return [
                Observation(value, dict(zip(names, labels, strict=True))) for labels, value in read(counters.snapshot())
            ]

        return [observe]

    four = ("model", "role", "operation", "decision")
    meter.create_observable_counter("bartizan.requests", sums(lambda found: found.requests.items(), four))
    meter.create_observable_counter("bartizan.rows", sums(lambda found: found.rows.items(), four[:2]))
    verdicts = sums(lambda found: found.verdicts.items(), ("guard", "action", "mode"))
    meter.create_observable_counter("bartizan.guard.verdicts", verdicts)
    meter.create_observable_counter("bartizan.happened", sums(lambda found: found.happened.items(), ("what", "to")))
    spent = sums(
        lambda found: ((labels, total / 1e6) for labels, (_, total) in found.durations.items()), ("model", "operation")
    )
    meter.create_observable_counter("bartizan.request.seconds", spent, unit="s")
    meter.create_observable_gauge("bartizan.gauge", [_gauges(counters)])


def _gauges(counters: Counters) -> Callable[[CallbackOptions], list[Observation]]:
    def observe(_: CallbackOptions) -> list[Observation]:
        found = ((gauge, labels, value) for gauge, readings in counters.snapshot().gauges for labels, value in readings)
        return [
            Observation(value, {"name": gauge.name, **dict(zip(gauge.labels, labels, strict=True))})
            for gauge, labels, value in itertools.islice(found, MOST_WAITING)
        ]

    return observe


__all__ = ["Collector"]
