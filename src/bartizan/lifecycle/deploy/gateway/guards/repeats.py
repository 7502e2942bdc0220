"""Limits how often one caller asks about much the same thing: near-duplicates of their own rows in a time.

Attacks that search for an input, or average noise away, ask about one neighbourhood again and again (Chen, Carlini and
Wagner 2019, arXiv:1907.05587, look for it by distances to the nearest earlier queries). This is the plain limit that
needs nothing fitted: rows are scaled by the declared ranges, projected to few numbers (Johnson and Lindenstrauss 1984)
and compared with the last rows of the same caller. Who searches over many accounts is for the guard ``sequence``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Annotated, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked, Material, Numbers, Verdict

WIDTH = 16
"""Numbers that a row is projected to."""
CHUNK = 256
"""Rows of a batch that are compared with one another at once."""
FARTHEST = 30.0
"""Ranges by which a number is told from another."""
HUGE = 1e15
"""Numbers beyond it are taken for it."""
SEED = 20261121
Floats = NDArray[np.float32]


class RepeatsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``[[guard]] use = "repeats"`` may say."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 30
    """Near-duplicates of one row that a caller may send in a window, the row itself included."""
    seconds: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 60.0
    """The window."""
    near: Annotated[float, msgspec.Meta(gt=0, le=0.5)] = 0.05
    """Mean distance of two near-duplicates, as a share of each feature's range (root of the mean square)."""
    remembered: Annotated[int, msgspec.Meta(ge=16, le=4096)] = 256
    """Rows of each caller that are compared with; 72 bytes each."""
    callers: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 2000
    """Callers that are remembered; the one who has been silent for longest makes room."""


class _Trace:
    """The last rows of one caller."""

    __slots__ = ("at", "lengths", "next", "points")

    def __init__(self, size: int) -> None:
        self.points: Floats = np.zeros((size, WIDTH), np.float32)
        self.lengths: Floats = np.zeros(size, np.float32)
        """Squared, of each point."""
        self.at: NDArray[np.float64] = np.full(size, -math.inf)
        """When each row came."""
        self.next = 0

    def add_one(self, point: Floats, length: float, now: float) -> None:
        """Remember a row in the place of the oldest."""
        place = self.next
        self.points[place], self.lengths[place], self.at[place] = point, length, now
        self.next = (place + 1) % len(self.at)

    def add(self, points: Floats, now: float) -> None:
        """Remember rows in the place of the oldest."""
        size = len(self.at)
        points = points[-size:]
        places = (self.next + np.arange(len(points))) % size
        self.points[places], self.lengths[places], self.at[places] = points, _lengths(points), now
        self.next = (self.next + len(points)) % size


class RepeatsGuard:
    """See ``Guard`` and ``GuardMaker``."""

    Settings: ClassVar[type[msgspec.Struct]] = RepeatsSettings
    name = "repeats"
    cost = 15.0
    for_requests = True

    def __init__(self, settings: RepeatsSettings, material: Material) -> None:
        self._settings = settings
        self._traces: OrderedDict[str, _Trace] = OrderedDict()
        self._basis = _basis(material)
        self._radius = settings.near**2

    def on_request(self, asked: Asked) -> Verdict | None:
        """Count near-duplicates; a request that goes beyond the limit is not let by, and does not count."""
        points, trace = self._projected(asked.rows), self._trace(asked.caller.id)
        return self._one(points[0], trace, asked.now) if len(points) == 1 else self._many(points, trace, asked.now)

    def _one(self, point: Floats, trace: _Trace, now: float) -> Verdict | None:
        length = float(point @ point)
        close = trace.lengths - 2.0 * (trace.points @ point) <= self._radius - length
        close &= trace.at > now - self._settings.seconds
        most = int(np.count_nonzero(close)) + 1
        if most > self._settings.limit:
            return self._refused(most, trace.at[close], now)
        trace.add_one(point, length, now)
        return None

    def _many(self, points: Floats, trace: _Trace, now: float) -> Verdict | None:
        fresh, most, times = trace.at > now - self._settings.seconds, 0, trace.at[:0]
        for begin in range(0, len(points), CHUNK):
            part = points[begin : begin + CHUNK]
            before = _near(part, trace.points, self._radius) & fresh
            counts = before.sum(axis=1) + _earlier(part, self._radius) + 1
            worst = int(counts.argmax())
            if counts[worst] > most:
                most, times = int(counts[worst]), trace.at[before[worst]]
        if most > self._settings.limit:
            return self._refused(most, times, now)
        trace.add(points, now)
        return None

    def _refused(self, count: int, times: NDArray[np.float64], now: float) -> Verdict:
        reason = f"{count} near-duplicates of one row within {self._settings.seconds:g} s"
        return Verdict(
            action=Action.THROTTLE, reason=reason, measures={"near": float(count)}, wait=self._wait(times, now, count)
        )

    def on_response(self, asked: Asked, answer: Answer) -> Verdict | None:
        """Nothing to say."""
        del asked, answer
        return None

    def _projected(self, rows: Numbers) -> Floats:
        if not float(np.abs(rows).max()) < HUGE:
            rows = np.clip(np.nan_to_num(rows), -HUGE, HUGE)
        points: Floats = (rows @ self._basis).astype(np.float32)
        # What is far out of every range is near to all else that is.
        return points if float(np.abs(points).max()) < FARTHEST else np.clip(points, -FARTHEST, FARTHEST)

    def _trace(self, caller: str) -> _Trace:
        trace = self._traces.get(caller)
        if trace is None:
            if len(self._traces) >= self._settings.callers:
                self._traces.popitem(last=False)
            trace = self._traces[caller] = _Trace(self._settings.remembered)
        else:
            self._traces.move_to_end(caller)
        return trace

    def _wait(self, times: NDArray[np.float64], now: float, count: int) -> float:
        """Seconds until so many of them are over that one more would be let by."""
        over = min(max(count - self._settings.limit, 1), len(times))
        if not over:
            return self._settings.seconds
        return float(np.sort(times)[over - 1]) + self._settings.seconds - now


def _basis(material: Material) -> NDArray[np.float64]:
    """``(features, WIDTH)``: scales by the declared ranges and projects, so that lengths are root mean squares."""
    low, high = material.value_range or (None, None)
    spans = [_span(each.low if low is None else low, each.high if high is None else high) for each in material.columns]
    features = len(spans)
    if features <= WIDTH:
        directions = np.eye(features, WIDTH)
    else:
        directions = np.random.default_rng(SEED).standard_normal((features, WIDTH)) / math.sqrt(WIDTH)
    basis: NDArray[np.float64] = directions / math.sqrt(features) / np.array(spans)[:, None]
    return basis


def _span(low: float | None, high: float | None) -> float:
    span = 1.0 if low is None or high is None else high - low
    return span if math.isfinite(span) and span > 0 else 1.0


def _near(some: Floats, others: Floats, radius: float) -> NDArray[np.bool_]:
    """``(some, others)``: which lie close together, by squared distances."""
    lengths = _lengths(some)[:, None] + _lengths(others)[None, :]
    near: NDArray[np.bool_] = lengths - 2.0 * (some @ others.T) <= radius
    return near


def _lengths(points: Floats) -> Floats:
    lengths: Floats = np.einsum("ij,ij->i", points, points)
    return lengths


def _earlier(part: Floats, radius: float) -> NDArray[np.int64]:
    """How many rows of the batch before each row lie close to it."""
    counts: NDArray[np.int64] = np.tril(_near(part, part, radius), -1).sum(axis=1)
    return counts


__all__ = ["RepeatsGuard", "RepeatsSettings"]
