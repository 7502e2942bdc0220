"""The guard ``schema``: ranges, whole numbers, categories, shapes; what it says, and to whom."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.guard import Action, Column
from bartizan.lifecycle.deploy.gateway.guards.schema import ColumnRule, SchemaGuard, SchemaSettings
from fixtures.guarding import asked, columns_of, material

COLUMNS = (
    Column(name="age", low=0, high=120, whole=True, unit="years"),
    Column(name="dose", low=0.0, high=2.5, unit="mg"),
    Column(name="site", categories=(1.0, 2.0, 7.0)),
    Column(name="free"),
)
GOOD = [40.0, 1.5, 7.0, -1e9]
ODD = st.sampled_from([0.0, 1.0, 2.0, 2.5, 7.0, 120.0, -1.0, 0.5, np.inf, -np.inf, np.nan])


def guard(**settings):
    return SchemaGuard(SchemaSettings(**settings), material(COLUMNS))


def said(rows, **settings):
    return guard(**settings).on_request(asked(rows))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_possible_passes_without_a_word(dtype):
    assert said(GOOD) is None
    assert said(np.array([GOOD, [0, 0, 1, 0], [120, 2.5, 2, 1e30]], dtype=dtype)) is None


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (0, -1, "row 1, column 'age' is below 0 years"),
        (0, 121, "row 1, column 'age' is above 120 years; in another unit it would fit"),
        (0, 40.5, "row 1, column 'age' is no whole number"),
        (1, 1500, "row 1, column 'dose' is above 2.5 mg; in another unit it would fit"),
        (1, 1e9, "row 1, column 'dose' is above 2.5 mg"),
        (2, 3, "row 1, column 'site' is none of its 3 categories"),
        (2, 1.5, "row 1, column 'site' is none of its 3 categories"),
        (3, np.nan, "row 1, column 'free' is not finite"),
        (3, np.inf, "row 1, column 'free' is not finite"),
        (3, -np.inf, "row 1, column 'free' is not finite"),
        (1, np.inf, "row 1, column 'dose' is not finite"),
        (0, np.nan, "row 1, column 'age' is not finite"),
        (2, np.nan, "row 1, column 'site' is not finite"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_wrong_cell_is_refused_and_named_for_the_record(place, value, reason, dtype):
    rows = np.array([GOOD, GOOD, GOOD], dtype=dtype)
    rows[1, place] = value
    verdict = said(rows)
    assert (verdict.action, verdict.reason) == (Action.REFUSE, reason)


def test_inputs_stay_out_of_the_reason():
    assert "1234.56789" not in said([[1234.56789, 1, 1, 1]]).reason


@pytest.mark.parametrize(
    "rows", [np.ones((0, 4)), np.ones((1, 3)), np.ones((1, 5)), np.ones((2, 2, 4)), np.ones((9, 4))]
)
def test_other_shapes_are_refused(rows):
    verdict = SchemaGuard(SchemaSettings(most_rows=8), material(COLUMNS)).on_request(_shaped(rows))
    assert verdict.action is Action.REFUSE
    assert "columns" in verdict.reason


def _shaped(rows):
    question = asked([[0.0]])
    question.rows = rows
    return question


@pytest.mark.parametrize(("outside", "action"), [("flag", Action.FLAG), ("hold", Action.HOLD)])
def test_the_configuration_says_what_follows(outside, action):
    assert said([[-1, 1, 1, 1]], outside=outside).action is action


def test_the_configuration_overrules_what_is_known():
    settings = {"columns": {"free": ColumnRule(low=0.0, high=1.0, whole=True), "age": ColumnRule(whole=False)}}
    assert said([40.5, 1, 1, 1], **settings) is None
    assert "free" in said([40, 1, 1, 2], **settings).reason
    with pytest.raises(InputError, match="no column 'nothing'"):
        guard(columns={"nothing": ColumnRule()})
    with pytest.raises(InputError, match="can hold nothing"):
        guard(columns={"free": ColumnRule(low=2.0, high=1.0)})


def test_images_take_the_range_of_a_pixel():
    judge = SchemaGuard(SchemaSettings(), material(columns_of(4), shape=(1, 2, 2), value_range=(0.0, 16.0)))
    assert judge.on_request(asked([[0, 16, 3, 4]])) is None
    assert judge.on_request(asked([[0, 16.01, 3, 4]])).reason == "row 0, column 'x1' is above 16"


def test_a_bound_that_single_precision_cannot_hold_lets_its_neighbour_pass_and_no_more():
    judge = SchemaGuard(SchemaSettings(), material([Column(name="x", low=0.1, high=0.3)]))
    for value in (0.1, 0.3):
        assert judge.on_request(asked(np.array([[value]], dtype=np.float32))) is None
    beyond = np.nextafter(np.nextafter(np.float32(0.3), np.float32(1)), np.float32(1))
    assert judge.on_request(asked(np.array([[beyond]], dtype=np.float32))) is not None


@given(arrays(np.float64, (3, 4), elements=ODD | st.floats()))
def test_it_agrees_with_the_plain_definition(rows):
    def fits(row):
        age, dose, site, free = (float(value) for value in row)
        return 0 <= age <= 120 and age == round(age) and 0 <= dose <= 2.5 and site in {1, 2, 7} and np.isfinite(free)

    wrong = [place for place, row in enumerate(rows) if not _all_finite_fits(row, fits)]
    verdict = guard().on_request(asked(rows))
    assert (verdict is None) == (not wrong)
    if wrong:
        assert verdict.reason.startswith(f"row {wrong[0]},")


def _all_finite_fits(row, fits):
    return bool(np.isfinite(row).all()) and fits(row)
