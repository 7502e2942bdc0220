"""Telemetry of a gateway, put together from its settings; what is not declared is not even imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.telemetry.counters import Counters, Gauge
from bartizan.lifecycle.deploy.gateway.telemetry.port import Listener, Telemetry, Tracer
from bartizan.lifecycle.deploy.gateway.telemetry.settings import TelemetrySettings
from bartizan.wiring.workspace import load


class Exposition(Protocol):
    """Answers ``/metrics``."""

    def write(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and body."""


class Observed(msgspec.Struct, frozen=True):
    """What a gateway keeps of its telemetry: the watcher of records, and what its admin side answers."""

    telemetry: Telemetry
    metrics: Exposition


def telemetry(settings: TelemetrySettings, gauges: Iterable[Gauge] = ()) -> Observed:
    """Put everything together that is declared. Call it before serving; webhooks start by themselves.

    Raises:
        InputError: a file or address cannot be used, or an extra is not installed.
    """
    counters = Counters(gauges)
    listeners: list[Listener] = []
    if settings.events:
        lost = _counted(counters, "event lost", "events")
        listeners.append(
            load("bartizan.adapters.telemetry.lines:Lines")(settings.events, settings.events_each_second, lost)
        )
    for number, webhook in enumerate(settings.webhook):
        lost = _counted(counters, "event lost", f"webhook {number + 1}")
        listeners.append(_made("bartizan.adapters.telemetry.webhooks:Webhook", "serve", webhook, lost))
    tracer: Tracer | None = None
    if settings.collector:
        tracer = _made("bartizan.adapters.telemetry.otlp:Collector", "telemetry", settings, counters)
    metrics = _made("bartizan.adapters.telemetry.prometheus:Exposition", "serve", counters)
    return Observed(Telemetry(counters, listeners, tracer), metrics)


def _made(name: str, extra: str, *parts: object) -> Any:
    try:
        return load(name)(*parts)
    except ImportError as error:
        raise InputError("telemetry is not installed", remedy=f"pip install 'bartizan[{extra}]'.") from error


def _counted(counters: Counters, what: str, to: str) -> Callable[[], None]:
    return lambda: counters.happened(what, to)


__all__ = ["Exposition", "Observed", "telemetry"]
