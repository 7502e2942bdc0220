"""What a measure of dataset quality returns: counts, a metric, the records concerned, findings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from bartizan.core.finding import Finding, Severity
from bartizan.core.predicates import Metric
from bartizan.lifecycle.develop.data.reading import Sample
from bartizan.redteam.statistics import Interval, metric, proportion

LISTED = 200
"""Records that a report lists at most for one measure."""
NAMED = 12
"""Records or columns that a finding names at most."""

Dimension = Literal["completeness", "timeliness", "validity", "consistency", "integrity", "balance", "size"]


class Records(msgspec.Struct, frozen=True, kw_only=True):
    """Records concerned, by number only: 1 is the first after the header."""

    count: int
    listed: tuple[int, ...]
    """The first, or the worst first where ``scores`` are given; at most ``LISTED``."""
    scores: tuple[float, ...] = ()
    """One for each listed record, where the measure ranks them."""

    def __str__(self) -> str:
        named = ", ".join(map(str, self.listed[:NAMED]))
        more = self.count - min(len(self.listed), NAMED)
        return f"records {named}" + (f" and {more} more" if more > 0 else "")


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one measure."""

    name: str
    dimension: Dimension
    method: str
    """How it was measured, with every threshold, in one or two sentences."""
    examined: int
    """How many records, cells or columns were looked at."""
    faults: int
    """How many of them are concerned."""
    metrics: dict[str, Metric] = {}
    records: Records | None = None
    details: dict[str, Any] = {}
    findings: tuple[Finding, ...] = ()


class NotMeasured(msgspec.Struct, frozen=True, kw_only=True):
    """A measure that does not apply, with the reason. It is no result and counts as none."""

    name: str
    reason: str


def records(indices: ArrayLike, scores: ArrayLike | None = None) -> Records:
    """Numbers of the records at ``indices``; with ``scores`` ``(indices,)`` the lowest score comes first."""
    places = np.asarray(indices, np.int64).ravel()
    if scores is None:
        return Records(count=len(places), listed=tuple((np.sort(places)[:LISTED] + 1).tolist()))
    values = np.asarray(scores, float).ravel()
    order = np.lexsort((places, values))[:LISTED]
    return Records(
        count=len(places),
        listed=tuple((places[order] + 1).tolist()),
        scores=tuple(round(float(value), 4) for value in values[order]),
    )


def counted(good: int, of: int) -> Metric:
    """A share that was counted over the whole set: exact, so the interval has no width."""
    share = good / of if of else 0.0
    return metric(share, Interval(share, share), of, "counted", unit="share")


def estimated(found: int, of: int) -> Metric:
    """A share seen in a sample or by an uncertain test, with its Wilson interval."""
    return proportion(found, of).metric("share")


def shared(found: int, of: int, *, sampled: bool) -> Metric:
    """A share that is exact when every record was looked at, and an estimate otherwise."""
    return estimated(found, of) if sampled else counted(found, of)


def finding(
    sample: Sample,
    rule: str,
    severity: Severity,
    *,
    title: str,
    detail: str,
    remedy: str,
    techniques: tuple[str, ...] = (),
) -> Finding:
    """A finding about a dataset; ``rule`` comes without its ``data/``."""
    return Finding(
        rule=f"data/{rule}",
        severity=severity,
        title=title,
        where=sample.name,
        detail=detail,
        remedy=remedy,
        techniques=techniques,
    )


def names(items: Iterable[str]) -> str:
    """A few names in a sentence."""
    listed = list(items)
    more = len(listed) - NAMED
    return ", ".join(listed[:NAMED]) + (f" and {more} more" if more > 0 else "")


def count(number: int, noun: str) -> str:
    """``1 record``, ``2 records``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
