"""Spans of time: what is read, what is refused, and how the calendar is followed."""

import re
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan.core.durations import (
    DURATION_PATTERN,
    TERM_PATTERN,
    Duration,
    deadline,
    parse_duration,
    parse_term,
)
from bartizan.core.errors import InputError

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("12h", datetime(2026, 2, 1, 0, 0, tzinfo=UTC)),
        ("90d", datetime(2026, 5, 1, 12, 0, tzinfo=UTC)),
        ("2w", datetime(2026, 2, 14, 12, 0, tzinfo=UTC)),
        ("1m", datetime(2026, 2, 28, 12, 0, tzinfo=UTC)),
        ("11m", datetime(2026, 12, 31, 12, 0, tzinfo=UTC)),
        ("25m", datetime(2028, 2, 29, 12, 0, tzinfo=UTC)),
        ("5y", datetime(2031, 1, 31, 12, 0, tzinfo=UTC)),
        ("100y", datetime(2126, 1, 31, 12, 0, tzinfo=UTC)),
    ],
)
def test_durations_follow_the_calendar(text, ends):
    assert NOON + parse_duration(text) == ends
    assert deadline(text, NOON) == ends


def test_a_leap_day_ends_on_the_last_of_february():
    assert datetime(2028, 2, 29, tzinfo=UTC) + parse_duration("1y") == datetime(2029, 2, 28, tzinfo=UTC)


def test_a_date_runs_to_the_end_of_its_day():
    assert parse_term("2031-12-31") == date(2031, 12, 31)
    assert deadline("2031-12-31", NOON) == datetime(2032, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "d",
        "0d",
        "-1d",
        "1.5y",
        "90",
        "90 d",
        "90D",
        "1d\n",
        "٣d",
        "1s",
        "1000000d",
        "101y",
        "1201m",
        "5y1m",
        "never",
    ],
)
def test_what_is_no_duration_is_refused_with_examples(text):
    with pytest.raises(InputError) as caught:
        parse_duration(text)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "text", ["2031-02-30", "2031-13-01", "0000-01-01", "31-12-2031", "20311231", "2031-W01-1", "9999-12-31"]
)
def test_days_that_do_not_exist_are_refused(text):
    with pytest.raises(InputError):
        deadline(text, NOON)


def test_a_duration_adds_to_moments_only():
    with pytest.raises(TypeError):
        "tomorrow" + Duration(hours=1)


def test_a_span_that_leaves_the_calendar_is_refused():
    with pytest.raises(InputError, match="9999"):
        deadline("100y", datetime(9950, 1, 1, tzinfo=UTC))


@settings(deadline=None)
@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text):
    try:
        parse_term(text)
    except InputError:
        return
    assert re.fullmatch(TERM_PATTERN[1:-1], text)


@settings(deadline=None)
@given(st.from_regex(DURATION_PATTERN[:-1] + r"\Z"))
def test_everything_that_is_read_lies_ahead(text):
    try:
        ends = NOON + parse_duration(text)
    except InputError:
        amount = int(text[:-1])
        assert amount * {"h": 1, "d": 24, "w": 168, "m": 732, "y": 8784}[text[-1]] > 100 * 8784
        return
    assert timedelta(0) < ends - NOON <= timedelta(days=366 * 100)
