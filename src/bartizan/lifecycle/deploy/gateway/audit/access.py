"""Reads of datasets: which are usual, and what about one is not.

Three signs, each against what the log holds of the same dataset (NCSC principle 2.2: access logging in development;
ATLAS AML.T0002, AML.T0035: collecting artefacts and data):

- a reader who never read it, once there is a history at all;
- more rows than usual: above the median by six robust standard deviations (1.4826 times the median absolute
  deviation; Hampel 1974) and by half, of single reads and of all reads of a day;
- an hour of the day at which this reader was never active within two hours, after twenty reads.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

HOUR = 3_600_000_000_000
"""Nanoseconds."""
DAY = 24 * HOUR
LEAST_READS = 5
"""Reads of the dataset, before a new reader is remarkable."""
LEAST_VOLUMES = 8
LEAST_HOURS = 20
NEAR_HOURS = 2
DEVIATIONS = 6.0
MORE = 1.5
_NORMAL = 1.4826


class Access(NamedTuple):
    """One read of a dataset."""

    at: int
    """Nanoseconds since the epoch."""
    reader: str
    rows: int


def unusual(history: Sequence[Access], now: Access) -> tuple[str, ...]:
    """What is unusual about a read, in words that name nobody; empty when nothing is."""
    signs = (_stranger(history, now), _volume(history, now), _day(history, now), _hour(history, now))
    return tuple(sign for sign in signs if sign)


def _stranger(history: Sequence[Access], now: Access) -> str:
    if len(history) < LEAST_READS or any(past.reader == now.reader for past in history):
        return ""
    return f"first read by this reader, after {len(history)} reads by others"


def _volume(history: Sequence[Access], now: Access) -> str:
    own = [past.rows for past in history if past.reader == now.reader]
    usual = own if len(own) >= LEAST_VOLUMES else [past.rows for past in history]
    if len(usual) < LEAST_VOLUMES:
        return ""
    bound = upper(usual)
    return f"{now.rows} rows in one read, usual are at most {bound:.0f}" if now.rows > bound else ""


def _day(history: Sequence[Access], now: Access) -> str:
    """All rows of this reader in one day (UTC), against those of the days before: many small reads add up."""
    days: dict[int, int] = {}
    for past in history:
        if past.reader == now.reader:
            days[past.at // DAY] = days.get(past.at // DAY, 0) + past.rows
    today = now.rows + days.pop(now.at // DAY, 0)
    if len(days) < LEAST_VOLUMES:
        return ""
    bound = upper(list(days.values()))
    return f"{today} rows in one day, usual are at most {bound:.0f}" if today > bound else ""


def upper(usual: Sequence[int]) -> float:
    """The largest number that is still usual."""
    middle = statistics.median(usual)
    spread = _NORMAL * statistics.median(abs(value - middle) for value in usual)
    return max(middle + DEVIATIONS * spread, MORE * middle)


def _hour(history: Sequence[Access], now: Access) -> str:
    hours = [past.at // HOUR % 24 for past in history if past.reader == now.reader]
    if len(hours) < LEAST_HOURS:
        return ""
    hour = now.at // HOUR % 24
    if any(min((hour - past) % 24, (past - hour) % 24) <= NEAR_HOURS for past in hours):
        return ""
    return f"read at {hour} o'clock UTC, and never before within {NEAR_HOURS} hours of it in {len(hours)} reads"


__all__ = ["Access", "unusual", "upper"]
