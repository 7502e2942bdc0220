"""Paired tests against statsmodels, and the coverage of the paired interval."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats import contingency_tables, multitest

from bartizan.lifecycle.develop.choose.paired import all_pairs, holm, mcnemar, paired_difference


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (5, 12), (30, 9)])
def test_mcnemar_is_the_exact_test(only_first, only_second):
    table = [[40, only_first], [only_second, 8]]
    assert mcnemar(only_first, only_second) == pytest.approx(contingency_tables.mcnemar(table, exact=True).pvalue)


def test_holm_is_holm():
    chances = [0.04, 0.001, 0.3, 0.012, 0.012]
    assert holm(chances) == pytest.approx(multitest.multipletests(chances, method="holm")[1])
    assert holm([]) == []


def test_the_paired_interval_covers():
    rng = np.random.default_rng(5)
    # Four kinds of rows: both right, only the first, only the second, neither.
    kinds = rng.choice(4, (1000, 120), p=[0.8, 0.1, 0.04, 0.06])
    found = [paired_difference((each == 0) | (each == 1), (each == 0) | (each == 2)) for each in kinds]
    assert np.mean([each.low <= 0.06 <= each.high for each in found]) > 0.935
    assert all(each.low <= each.value <= each.high for each in found)


def test_pairs_of_equal_candidates_are_not_told_apart():
    same = np.array([True, False] * 30)
    (pair,) = all_pairs({"a": same, "b": same.copy()})
    assert pair.p == 1
    assert not pair.told_apart
    assert pair.difference.low < 0 < pair.difference.high
    (apart,) = all_pairs({"a": np.ones(40, bool), "b": np.zeros(40, bool)})
    assert apart.told_apart
    assert apart.only_first == 40


def test_nothing_to_compare_gives_no_pairs():
    assert all_pairs({}) == ()
    assert all_pairs({"a": np.ones(3, bool)}) == ()
