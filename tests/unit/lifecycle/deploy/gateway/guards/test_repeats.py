"""Near-duplicates by one caller are limited; different rows, and other callers, are not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits

from bartizan.lifecycle.deploy.gateway.caller import ANONYMOUS
from bartizan.lifecycle.deploy.gateway.guard import Action, Column
from bartizan.lifecycle.deploy.gateway.guards.repeats import RepeatsGuard, RepeatsSettings
from bartizan.lifecycle.deploy.gateway.registry import maker
from fixtures.guarding import asked, columns_of, material

BEN = msgspec.structs.replace(ANONYMOUS, id="key:ben")
DICE = np.random.default_rng(20261121)


def guard_for(features, low=0.0, high=1.0, **settings):
    columns = columns_of(features, low=low, high=high)
    return RepeatsGuard(RepeatsSettings(**settings), material(columns))


def at(rows, now=0.0, caller=ANONYMOUS):
    question = asked(rows, caller=caller)
    question.now = now
    return question


def test_it_is_installed_by_name():
    assert maker("repeats") is RepeatsGuard


@pytest.mark.parametrize("features", [4, 16, 64, 784])
def test_near_duplicates_are_limited_and_then_let_by_again(features):
    guard = guard_for(features, limit=10, seconds=60)
    row = DICE.random(features)
    said = [guard.on_request(at(row + DICE.normal(0, 0.01, features), now)) for now in range(20)]
    assert [each is None for each in said] == [True] * 10 + [False] * 10
    last = said[-1]
    assert last.action is Action.THROTTLE
    assert last.wait == pytest.approx(60 - 19)
    assert last.measures == {"near": 11.0}
    assert guard.on_request(at(row, 19 + last.wait + 0.01)) is None
    assert guard.on_request(at(row, 19 + last.wait + 0.02)) is not None


def test_one_batch_of_near_duplicates_is_counted_row_by_row():
    guard = guard_for(64, limit=10)
    row = DICE.random(64)
    assert guard.on_request(at(np.tile(row, (10, 1)))) is None
    assert guard.on_request(at(row)) is not None
    fresh = guard_for(64, limit=10)
    assert fresh.on_request(at(row + DICE.normal(0, 0.01, (2000, 64)))).wait == 60
    assert fresh.on_request(at(DICE.random((2000, 64)))) is None


def test_other_callers_are_not_limited():
    guard = guard_for(64, limit=3)
    row = DICE.random(64)
    assert [guard.on_request(at(row)) is None for _ in range(5)] == [True] * 3 + [False] * 2
    assert guard.on_request(at(row, caller=BEN)) is None


@pytest.mark.parametrize("source", [load_digits, load_breast_cancer])
def test_different_records_of_a_real_table_are_let_by(source):
    """A fast caller who asks about records that all differ: none is refused."""
    rows = source().data
    columns = [
        Column(name=f"{place}", low=low, high=high)
        for place, (low, high) in enumerate(zip(rows.min(0), rows.max(0), strict=True))
    ]
    guard = RepeatsGuard(RepeatsSettings(), material(columns))
    assert sum(guard.on_request(at(row)) is not None for row in rows[:550]) == 0


def test_callers_and_rows_that_are_remembered_are_bounded():
    guard = guard_for(8, callers=5, remembered=16, limit=3)
    for number in range(50):
        guard.on_request(at(DICE.random((40, 8)), caller=msgspec.structs.replace(BEN, id=f"key:{number}")))
    assert len(guard._traces) == 5
    assert all(len(trace.at) == 16 for trace in guard._traces.values())


@pytest.mark.parametrize("value", [1e308, -1e308, 1e30, 0.0])
def test_odd_numbers_and_ranges_harm_nothing(value):
    guard = guard_for(64, low=0.0, high=0.0, limit=2)
    rows = np.full((1, 64), value)
    assert [guard.on_request(at(rows)) is None for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("settings", [{"limit": 0}, {"near": 0}, {"seconds": 0}, {"remembered": 10**6}, {"spare": 1}])
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(settings, RepeatsSettings)
