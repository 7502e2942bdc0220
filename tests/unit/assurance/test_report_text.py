"""Foreign text made harmless; numbers and times made readable."""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan.assurance.text import MAX_TEXT, clean, clean_all, counted, number, span

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@given(st.text(st.characters(codec=None), max_size=3000))
def test_nothing_invisible_survives_and_nothing_grows_without_bound(text):
    shown = clean(text)
    assert all(unicodedata.category(character)[0] != "C" for character in shown)
    assert "\n" not in shown
    assert len(shown) <= 8 * MAX_TEXT + 40


@given(st.text(st.characters(codec=None), max_size=200))
def test_cleaned_text_can_be_encoded(text):
    clean(text).encode("utf-8")


def test_a_direction_override_is_written_out():
    assert clean("model\u202elbojob.exe") == "model\\u202elbojob.exe"


def test_letters_of_right_to_left_scripts_are_left_alone():
    assert clean("نموذج الفرز") == "نموذج الفرز"


def test_what_is_cut_off_is_counted():
    assert clean("x" * 5000).endswith("… (3800 more characters)")


def test_keys_of_mappings_are_cleaned_too():
    assert clean_all({"a\u200bb": ["c\x00", 1, None]}) == {"a\\u200bb": ["c\\u0000", 1, None]}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.49, "0.49"),
        (0.95671, "0.957"),
        (0.0004567, "0.000457"),
        (0.00001, "1.00e-05"),
        (1000, "1,000"),
        (51342.0, "51,342"),
        (12.345, "12.3"),
        (1234.5678, "1,235"),
        (-0.0651, "-0.0651"),
        (math.nan, "not a number"),
        (math.inf, "unbounded"),
        (1e300, "1.00e+300"),
    ],
)
def test_numbers_have_three_significant_digits(value, shown):
    assert number(value) == shown


@given(st.floats(-1e300, 1e300))
def test_a_shown_number_is_close_to_the_number(value):
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=6e-3, abs=0)


@pytest.mark.parametrize(
    ("age", "shown"),
    [
        (timedelta(seconds=3), "less than a minute"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(hours=5, minutes=59), "5 hours"),
        (timedelta(days=1), "1 day"),
        (timedelta(days=400), "400 days"),
        (timedelta(days=-4), "less than a minute"),
    ],
)
def test_ages_are_said_in_one_unit(age, shown):
    assert span(NOW - age, NOW) == shown


def test_counts_agree_with_their_nouns():
    assert (counted(1, "rule"), counted(2, "rule"), counted(0, "entry", "entries")) == (
        "1 rule",
        "2 rules",
        "0 entries",
    )
