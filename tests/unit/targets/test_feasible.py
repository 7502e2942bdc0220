from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bartizan.core.errors import ArtefactError
from bartizan.targets.feasible import TOLERANCE, space_of
from bartizan.targets.table import Table
from fixtures.victims import dataset_part

COLUMNS = ("age", "dose", "sex", "ward", "colour=red", "colour=green", "colour=blue", "site")
RED, BLUE = 4, 6


def patients(count=60, seed=0):
    rng = np.random.default_rng(seed)
    colour = np.eye(3)[rng.integers(0, 3, count)]
    rows = np.column_stack(
        [
            rng.integers(20, 90, count),
            rng.gamma(2.0, 3.0, count),
            rng.integers(0, 2, count),
            rng.choice([1, 4, 9], count),
            colour,
            np.full(count, 7.0),
        ]
    )
    return Table(COLUMNS, rows.astype(np.float64), rng.integers(0, 2, count), ("0", "1"))


TABLE = patients()
PART = dataset_part(integer=("age",), categorical=("ward", "colour"), immutable=("sex",), ranges={"age": (0, 110)})
SPACE = space_of(PART, TABLE)

any_rows = arrays(np.float64, (4, len(COLUMNS)), elements=st.floats(-200, 200))
some_origin = st.integers(0, len(TABLE) - 1).map(lambda place: TABLE.rows[place])
radii = st.floats(0.01, 5)


@given(any_rows, some_origin)
def test_a_projected_row_is_a_row_that_can_be(rows, origin):
    projected = SPACE.project(rows, origin)
    age, dose, sex, ward = projected[:, :4].T
    assert np.array_equal(age, np.rint(age))
    assert ((age >= 0) & (age <= 110)).all()
    assert ((dose >= TABLE.rows[:, 1].min()) & (dose <= TABLE.rows[:, 1].max())).all()
    assert (sex == origin[2]).all()
    assert np.isin(ward, [1, 4, 9]).all()
    assert (np.sort(projected[:, RED : BLUE + 1], axis=1) == [0, 0, 1]).all()
    assert (projected[:, 7] == 7).all()


@given(any_rows, some_origin)
def test_projecting_again_changes_nothing(rows, origin):
    once = SPACE.project(rows, origin)
    assert np.array_equal(SPACE.project(once, origin), once)
    assert SPACE.possible(once, origin).all()


@given(any_rows, some_origin, radii)
def test_a_radius_is_kept_whatever_the_types(rows, origin, radius):
    projected = SPACE.project(rows, origin, np.full(len(rows), radius))
    assert (SPACE.change(projected, origin) <= radius * (1 + TOLERANCE)).all()
    assert SPACE.possible(projected, origin).all()


@given(any_rows, some_origin)
def test_no_possible_row_is_nearer_in_the_numeric_columns(rows, origin):
    projected = SPACE.project(rows, origin)
    for place in (0, 1):
        candidates = np.arange(111.0) if place == 0 else TABLE.rows[:, 1]
        nearest = np.abs(candidates[None] - rows[:, [place]]).min(axis=1)
        assert (np.abs(projected[:, place] - rows[:, place]) <= nearest + 1e-9).all()


@given(some_origin)
def test_the_row_itself_is_possible_and_no_change(origin):
    assert np.array_equal(SPACE.project(origin[None], origin)[0], origin)
    assert SPACE.change(origin[None], origin).tolist() == [0]


def test_a_row_that_training_never_saw_keeps_its_odd_values():
    odd = np.array([130.5, 999.0, 1, 4, 1, 0, 0, 8.0])
    assert np.array_equal(SPACE.project(odd[None], odd)[0], odd)
    moved = odd.copy()
    moved[0] += 40
    assert SPACE.project(moved[None], odd)[0][0] == 130  # its own value is the end of the range, in whole numbers


def test_changes_count_in_standard_deviations_and_categories_as_one():
    origin = TABLE.rows[0]
    older, other_ward, other_colour = origin.copy(), origin.copy(), origin.copy()
    older[0] += 3 * TABLE.rows[:, 0].std()
    other_ward[3] = 9 if origin[3] != 9 else 1
    other_colour[RED : BLUE + 1] = np.roll(origin[RED : BLUE + 1], 1)
    rows = np.array([older, other_ward, other_colour])
    assert SPACE.change(rows, origin) == pytest.approx([3, 1, 1])
    assert SPACE.change(rows, origin, norm=2) == pytest.approx([3, 1, np.sqrt(2)])


def test_categories_stay_when_the_radius_is_below_one():
    origin = TABLE.rows[0]
    rows = np.where(SPACE.categorical, 1 - origin, origin)[None]
    below, at = SPACE.project(rows, origin, np.array([0.99])), SPACE.project(rows, origin, np.array([1.0]))
    assert np.array_equal(below[0], origin)
    assert not np.array_equal(at[0], origin)


def test_a_column_that_never_varied_cannot_be_changed():
    assert SPACE.immutable.tolist() == [False, False, True, False, False, False, False, True]


def test_an_immutable_category_keeps_all_its_columns():
    space = space_of(dataset_part(categorical=("colour",), immutable=("colour",)), TABLE)
    origin = TABLE.rows[0]
    assert np.array_equal(space.project(origin[None] + 5, origin)[0, RED : BLUE + 1], origin[RED : BLUE + 1])


def test_all_zeros_is_a_choice_where_training_has_it():
    rows = TABLE.rows.copy()
    rows[rows[:, RED] == 1, RED] = 0
    space = space_of(PART, Table(COLUMNS, rows, TABLE.labels, TABLE.label_values))
    origin = rows[rows[:, BLUE] == 1][0]
    faint = origin.copy()
    faint[RED : BLUE + 1] = [0.1, 0.2, 0.3]
    projected = space.project(faint[None], origin)[0, RED : BLUE + 1]
    assert projected.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"integer": ("agee",)}, "names the column 'agee', which the table has not"),
        ({"immutable": ("Sex",)}, "names the column 'Sex'"),
        ({"categorical": ("shape",)}, r"nor one-hot columns 'shape=\.\.\.'"),
        ({"ranges": {"age": (5, 1)}}, "gives the column 'age' the range 5 to 1"),
        ({"ranges": {"height": (1, 2)}}, "a range for the column 'height'"),
    ],
)
def test_a_declaration_that_the_table_contradicts_is_refused(said, fault):
    with pytest.raises(ArtefactError, match=fault):
        space_of(dataset_part(**said), TABLE)


def test_columns_that_are_not_one_hot_are_not_taken_for_it():
    rows = TABLE.rows.copy()
    rows[3, RED : BLUE + 1] = 1
    with pytest.raises(ArtefactError, match="says that 'colour' is one-hot"):
        space_of(PART, Table(COLUMNS, rows, TABLE.labels, TABLE.label_values))
