"""Telemetry of a gateway: who is told, by its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.telemetry.counters import Counters
from bartizan.lifecycle.deploy.gateway.telemetry.port import Telemetry
from bartizan.lifecycle.deploy.gateway.telemetry.settings import TelemetrySettings
from bartizan.wiring.workspace import load


def telemetry_of(settings: TelemetrySettings, counters: Counters, folder: Path) -> Telemetry:
    """Everybody whom the configuration names; relative paths start from ``folder``.

    Raises:
        InputError: somebody cannot be told, or what is needed for it is not installed.
    """

    def lost() -> None:
        counters.happened("event lost")

    listeners: list[Any] = []
    if settings.events:
        where = settings.events if settings.events == "-" else str(folder / settings.events)
        listeners.append(load("bartizan.adapters.telemetry.lines:Lines")(where, settings.events_each_second, lost))
    for webhook in settings.webhook:
        placed = msgspec.structs.replace(webhook, secret_file=str(folder / webhook.secret_file))
        listeners.append(load("bartizan.adapters.telemetry.webhooks:Webhook")(placed, lost))
    tracer = None
    if settings.collector:
        key = str(folder / settings.collector_key_file) if settings.collector_key_file else ""
        placed_collector = msgspec.structs.replace(settings, collector_key_file=key)
        try:
            tracer = load("bartizan.adapters.telemetry.otlp:Collector")(placed_collector, counters)
        except ImportError as error:
            raise InputError(
                "the collector needs a library that is not installed", remedy="pip install 'bartizan[telemetry]'."
            ) from error
    return Telemetry(counters, listeners, tracer)


__all__ = ["telemetry_of"]
