"""Spans of time as people write them: ``90d``, ``12h``, ``2w``, ``6m``, ``5y``, or a date ``2031-12-31``.

Months and years follow the calendar: one month after 31 January is the last day of February.
Nothing here asks what time it is; the caller says from when to count.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, date, datetime, time, timedelta

import msgspec

from bartizan.core.errors import InputError

MAX_YEARS = 100
"""Longer spans are refused: they are slips of the pen, or mean that nobody wants to decide."""

DURATION_PATTERN = r"^[1-9][0-9]{0,5}[hdwmy]$"
"""What a duration looks like, for schemas."""
TERM_PATTERN = r"^([1-9][0-9]{0,5}[hdwmy]|[0-9]{4}-[0-9]{2}-[0-9]{2})$"
"""What a duration or a date looks like, for schemas."""
DURATION_ALLOWED = "a whole number and h, d, w, m (months) or y, such as 12h, 90d, 2w, 6m, 5y"
TERM_ALLOWED = f"{DURATION_ALLOWED}; or a date such as 2031-12-31"

_DURATION = re.compile(r"([1-9][0-9]{0,5})([hdwmy])")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_HOURS = {"h": 1, "d": 24, "w": 7 * 24}
_MONTHS = {"m": 1, "y": 12}
_HOURS_A_YEAR = 366 * 24


class Duration(msgspec.Struct, frozen=True, kw_only=True):
    """A positive span: calendar months and hours. Add it to a moment: ``now + parse_duration("90d")``."""

    months: int = 0
    hours: int = 0

    def __radd__(self, moment: datetime) -> datetime:
        if not isinstance(moment, datetime):
            return NotImplemented
        return _plus_months(moment, self.months) + timedelta(hours=self.hours)


def parse_duration(text: str) -> Duration:
    """Read ``90d``, ``12h``, ``2w``, ``6m`` (months) or ``5y``.

    Raises:
        InputError: it is none of these, is zero, or is longer than a hundred years.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InputError(f"not a duration: {text[:80]!r}", remedy=f"write {DURATION_ALLOWED}.")
    amount, unit = int(match[1]), match[2]
    duration = Duration(months=amount * _MONTHS.get(unit, 0), hours=amount * _HOURS.get(unit, 0))
    if duration.months > MAX_YEARS * 12 or duration.hours > MAX_YEARS * _HOURS_A_YEAR:
        raise InputError(f"{text} is longer than {MAX_YEARS} years", remedy="give a span that can be kept.")
    return duration


def parse_term(text: str) -> Duration | date:
    """Read a duration, or a date that ends the term.

    Raises:
        InputError: it is neither, or there is no such day.
    """
    if _DURATION.fullmatch(text):
        return parse_duration(text)
    if not _DATE.fullmatch(text):
        raise InputError(f"neither a duration nor a date: {text[:80]!r}", remedy=f"write {TERM_ALLOWED}.")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"no such day: {text} ({error})", remedy=f"write {TERM_ALLOWED}.") from error


def deadline(term: str, since: datetime) -> datetime:
    """When a term ends: ``since`` plus the duration, or the end (UTC) of the given day.

    Raises:
        InputError: ``term`` is neither a duration nor a date, or ends after the year 9999.
    """
    parsed = parse_term(term)
    try:
        if isinstance(parsed, Duration):
            return since + parsed
        return datetime.combine(parsed, time(), tzinfo=UTC) + timedelta(days=1)
    except OverflowError as error:
        raise InputError(f"{term} ends after the year 9999", remedy=f"write {TERM_ALLOWED}.") from error


def _plus_months(moment: datetime, months: int) -> datetime:
    """Same day and time ``months`` later, or the last day of that month where it is shorter."""
    if not months:
        return moment
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    if year > date.max.year:
        raise OverflowError(f"{months} months after {moment:%Y-%m-%d}")
    last = calendar.monthrange(year, month + 1)[1]
    return moment.replace(year=year, month=month + 1, day=min(moment.day, last))


__all__ = [
    "DURATION_ALLOWED",
    "DURATION_PATTERN",
    "MAX_YEARS",
    "TERM_ALLOWED",
    "TERM_PATTERN",
    "Duration",
    "deadline",
    "parse_duration",
    "parse_term",
]
