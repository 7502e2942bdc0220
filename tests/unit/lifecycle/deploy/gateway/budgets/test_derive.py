"""Budgets out of attacks: no copy made within one is good enough, also none by runs that it was not derived from."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tomllib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.budgets.derive import FROM_LABELS, FROM_SCORES, Derived, as_toml, derive, rising
from bartizan.lifecycle.deploy.gateway.budgets.settings import BudgetSettings
from bartizan.redteam.learners import Learner
from bartizan.redteam.stealing import steal, stealing_task
from bartizan.targets.tailored import FULL, LABELS, Tailored
from fixtures.victims import Victim, space_around

ROWS, TRUTH = load_digits(return_X_y=True)
ROWS = ROWS / 16
KEPT = (ROWS[1000:], TRUTH[1000:])
WANTED = 0.8


@pytest.fixture(scope="module")
def target():
    return Victim(LogisticRegression(max_iter=300).fit(ROWS[:600], TRUTH[:600]))


@pytest.fixture(scope="module")
def task():
    own = ROWS[600:1000]
    quick = Learner("linear", 1e-3).fit
    return stealing_task(own, space=space_around(own), classes=10, checkpoints=(10, 25, 50, 100, 200), learner=quick)


@pytest.fixture(scope="module")
def derived(target, task):
    return derive(target, task, KEPT, fidelity=WANTED, details=(FULL, LABELS))


def test_less_detail_allows_more_answers(derived):
    full, labels = derived
    assert 0 < full.limit < labels.limit
    assert full.bits > labels.bits == pytest.approx(math.log2(10), abs=1e-3)
    for each in derived:
        assert each.too_many > each.limit
        assert 0.08 < each.constant < 0.2


def test_no_run_that_a_budget_was_not_derived_from_buys_more(target, task, derived):
    """New seeds, the whole budget spent at once: all attacks stay below what is wanted."""
    for each, detail, attacks in zip(derived, (FULL, LABELS), (FROM_SCORES, FROM_LABELS), strict=True):
        spent = dataclasses.replace(task, budget=each.limit, checkpoints=(each.limit,))
        best = max(
            steal(Tailored(target, detail), attack, spent, KEPT, seed=seed).last.fidelity.value
            for attack in attacks
            for seed in range(900, 904)
        )
        assert best <= WANTED


def test_ten_times_as_many_answers_buy_the_copy(target, task, derived):
    """The budget is no empty word: it is not far below what is needed."""
    for each, detail, attacks in zip(derived, (FULL, LABELS), (FROM_SCORES, FROM_LABELS), strict=True):
        spent = dataclasses.replace(task, budget=10 * each.limit, checkpoints=(10 * each.limit,))
        runs = [
            steal(Tailored(target, detail), attack, spent, KEPT, seed=900).last.fidelity.value for attack in attacks
        ]
        assert max(runs) > WANTED


def test_curves_and_bounds_never_fall(derived):
    for each in derived:
        assert [mark.queries for mark in each.curve] == sorted({mark.queries for mark in each.curve})
        for one, two in zip(each.curve, each.curve[1:], strict=False):
            assert one.fidelity <= two.fidelity
            assert one.bound <= two.bound
        for mark in each.curve:
            assert (mark.bound <= WANTED) == (mark.queries <= each.limit)
            assert mark.fidelity <= mark.bound


def test_where_no_budget_helps_none_is_given(target, task):
    (found,) = derive(target, task, KEPT, fidelity=0.2, details=(LABELS,), seeds=1)
    assert found.limit == 0
    assert "# labels only: no budget" in as_toml([found], 0.2)
    assert tomllib.loads(as_toml([found], 0.2)) == {}


def test_what_is_printed_can_be_taken_over(derived):
    written = tomllib.loads(as_toml(derived, WANTED))["budget"]
    assert set(written) == {"copy-from-all-scores", "copy-from-labels-only"}
    for table, each in zip(written.values(), derived, strict=True):
        settings = msgspec.convert(table, BudgetSettings)
        assert (settings.limit, settings.unit, settings.window) == (each.limit, "labels", "365d")


def test_a_budget_that_was_never_too_large_says_so():
    found = Derived(detail="labels only", limit=200, too_many=0, curve=(), constant=0.1, rows=10, bits=1)
    assert "more were not tried" in as_toml([found], WANTED)


@pytest.mark.parametrize("fidelity", [0, 1, -1, 1.5])
def test_shares_that_are_none_are_refused(target, task, fidelity):
    with pytest.raises(InputError, match="fidelity"):
        derive(target, task, KEPT, fidelity=fidelity)


@given(st.lists(st.floats(0, 1), max_size=30))
def test_a_rising_curve_is_the_closest_one(values):
    fitted = rising(values)
    assert len(fitted) == len(values)
    assert all(one <= two + 1e-12 for one, two in itertools.pairwise(fitted))
    assert sum(fitted) == pytest.approx(sum(values))
    # Optimality of the projection onto a cone: what is left stands upright on the fit.
    assert np.dot(np.subtract(values, fitted), fitted) == pytest.approx(0, abs=1e-9)
