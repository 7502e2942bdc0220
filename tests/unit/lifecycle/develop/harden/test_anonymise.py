"""k-anonymous training records: groups are large enough, values are shared, and linkage falls."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.tree import DecisionTreeClassifier

from bartizan.lifecycle.develop.harden.anonymise import Anonymise, generalised, groups, linked
from bartizan.targets.feasible import Codes, Space
from fixtures.games import halves, material
from fixtures.victims import Victim


@pytest.mark.parametrize("k", [2, 5, 17])
def test_every_group_has_enough_records_and_one_set_of_values(k):
    rows = np.random.default_rng(k).normal(size=(203, 4))
    columns = np.array([0, 2])
    group = groups(rows, columns, np.ones(4), k)
    counts = np.bincount(group)
    assert counts.min() >= k
    assert counts.max() < 4 * k
    given = generalised(rows, columns, space(4), k)
    assert (given[:, [1, 3]] == rows[:, [1, 3]]).all()
    _, sizes = np.unique(given[:, columns], axis=0, return_counts=True)
    assert sizes.min() >= k
    assert given[:, 0].mean() == pytest.approx(rows[:, 0].mean())


def space(features, **more):
    ones = np.ones(features)
    nothing = np.zeros(features, bool)
    kinds = {"integer": nothing, "immutable": nothing} | more
    return Space(tuple(f"x{place}" for place in range(features)), ones, -9 * ones, 9 * ones, **kinds)


def test_whole_numbers_stay_whole_and_codes_stay_codes():
    rng = np.random.default_rng(2)
    rows = np.column_stack([rng.integers(20, 80, 100), rng.choice([1.0, 4.0, 7.0], 100)]).astype(float)
    kinds = space(2, integer=np.array([True, False]), codes=(Codes(1, np.array([1.0, 4.0, 7.0])),))
    given = generalised(rows, np.array([0, 1]), kinds)
    assert (given[:, 0] == np.rint(given[:, 0])).all()
    assert set(given[:, 1]) <= {1.0, 4.0, 7.0}


def test_records_that_are_all_alike_or_too_few_stay_together():
    assert groups(np.ones((30, 2)), np.array([0, 1]), np.ones(2)).max() == 0
    assert groups(np.random.default_rng(0).normal(size=(7, 2)), np.array([0, 1]), np.ones(2)).max() == 0


def test_linkage_falls_to_about_one_in_a_group():
    rows = np.random.default_rng(3).normal(size=(300, 3))
    columns, scale = np.arange(3), np.ones(3)
    chance, alone = linked(rows, rows, columns, scale)
    assert chance.mean() == 1
    assert alone.all()
    chance, alone = linked(rows, generalised(rows, columns, space(3), 5), columns, scale)
    assert not alone.any()
    assert 0.02 < chance.mean() < 1 / 5


def test_the_model_inside_never_sees_a_value_of_one_person():
    train, rest = halves(load_breast_cancer)
    given = material(train, rest)

    class Spy(Victim):
        def retrain(self, rows, labels, *, seed):
            _, sizes = np.unique(rows, axis=0, return_counts=True)
            assert sizes.min() >= 5
            return super().retrain(rows, labels, seed=seed)

    base = Spy(DecisionTreeClassifier(max_depth=4, random_state=0).fit(*train))
    made = Anonymise().apply(base, given, np.random.default_rng(0))
    assert (made.labels(rest[0]) == rest[1]).mean() > 0.8
    assert (made.retrain(*train, seed=1).labels(rest[0]) == rest[1]).mean() > 0.8


def test_unknown_columns_are_refused():
    given = material(*halves(load_breast_cancer))
    assert "no column 'age'" in Anonymise(("age",)).why_not(Victim(features=30), given)
