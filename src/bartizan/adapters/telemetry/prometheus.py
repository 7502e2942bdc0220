"""The numbers of a gateway as Prometheus and OpenMetrics read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from bartizan.lifecycle.deploy.gateway.telemetry.counters import BOUNDS, Counters, Labels, Snapshot

MICRO = 1e-6


class Exposition:
    """What ``/metrics`` answers; in a registry of its own, so that nothing else in the process slips in."""

    def __init__(self, counters: Counters) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Gateway(counters))
        ProcessCollector(registry=self._registry)

    def write(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and body, in the form that the header ``accept`` asks for."""
        encode, kind = choose_encoder(accept)
        return kind, encode(self._registry)


class _Gateway(Collector):
    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Any]:
        """See ``Collector.collect``."""
        found = self._counters.snapshot()
        yield _counter("requests", "Requests.", ("model", "role", "operation", "decision"), found.requests)
        yield _counter("rows", "Rows that were asked for.", ("model", "role"), found.rows)
        yield _durations(found)
        yield _counter("guard_verdicts", "What guards said.", ("guard", "action", "mode"), found.verdicts)
        yield _counter("happened", "What happened to the gateway itself.", ("what", "to"), found.happened)
        started = GaugeMetricFamily("bartizan_started_seconds", "When it started, seconds since the epoch.")
        started.add_metric((), found.started)
        yield started
        for gauge, readings in found.gauges:
            family = GaugeMetricFamily(f"bartizan_{gauge.name}", gauge.help, labels=gauge.labels)
            for labels, value in readings:
                family.add_metric(labels, value)
            yield family


def _counter(name: str, help_text: str, labels: Labels, series: Mapping[Labels, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"bartizan_{name}", help_text, labels=labels)
    for values, count in series.items():
        family.add_metric(values, count)
    return family


def _durations(found: Snapshot) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        "bartizan_request_duration_seconds", "From reading a request to its answer.", labels=("model", "operation")
    )
    for labels, (counts, total) in found.durations.items():
        running, buckets = 0, []
        for bound, count in zip((*BOUNDS, None), counts, strict=True):
            running += count
            buckets.append(("+Inf" if bound is None else repr(bound * MICRO), running))
        family.add_metric(labels, buckets, total * MICRO)
    return family


__all__ = ["Exposition"]
