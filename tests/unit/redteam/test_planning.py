"""Sample sizes, paired comparisons and stopping: against exact enumeration, published numbers and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from bartizan.core.errors import InputError, WorkError
from bartizan.redteam.planning import Threshold, anytime, claim, fewest, holm, paired, samples_for, stopped
from bartizan.redteam.statistics import wilson


def power_of(n, at_least, expected):
    """By enumeration: the chance that the Wilson interval of n samples begins at ``at_least`` or above."""
    enough = [k for k in range(n + 1) if wilson(k, n).low >= at_least]
    return sum(stats.binom.pmf(k, n, expected) for k in enough)


@pytest.mark.parametrize(("at_least", "expected"), [(0.6, 0.8), (0.6, 0.9), (0.9, 0.97), (0.5, 0.7), (0.05, 0.2)])
def test_the_number_of_samples_is_the_least_from_which_on_the_chance_stays(at_least, expected):
    n = samples_for(at_least, expected)
    assert power_of(n - 1, at_least, expected) < 0.8
    assert all(power_of(n + more, at_least, expected) >= 0.8 for more in range(12))


def test_the_fewest_samples_are_those_without_a_failure():
    for at_least in (0.1, 0.5, 0.6, 0.9, 0.99):
        n = fewest(at_least)
        assert wilson(n, n).low >= at_least - 1e-12
        assert n == 1 or wilson(n - 1, n - 1).low < at_least


def test_a_certain_outcome_takes_the_fewest_samples():
    assert samples_for(0.6, 1.0) == fewest(0.6)


@pytest.mark.parametrize(
    ("at_least", "expected"), [(0.6, 0.6), (0.7, 0.6), (0.0, 0.5), (0.6, 1.2), (float("nan"), 0.5)]
)
def test_what_cannot_be_shown_is_refused(at_least, expected):
    with pytest.raises(InputError, match="no number of samples"):
        samples_for(at_least, expected)


def test_a_hair_of_a_difference_takes_more_samples_than_there_are():
    with pytest.raises(WorkError, match="more than 5,000,000"):
        samples_for(0.6, 0.6002)


def test_a_claim_is_made_when_the_sample_carries_it_and_refused_with_the_number_that_would():
    assert claim(55, 60, 0.6).startswith("at least 60% are robust, with 95% confidence (55 of 60")
    with pytest.raises(WorkError, match="40 of 60 samples do not show") as refused:
        claim(40, 60, 0.6)
    assert f"about {samples_for(0.6, 40 / 60)} samples" in refused.value.remedy
    with pytest.raises(WorkError) as hopeless:
        claim(30, 60, 0.6)
    assert "does not do what is to be shown" in hopeless.value.remedy
    with pytest.raises(WorkError) as nothing:
        claim(0, 0, 0.6)
    assert "at least 6 samples" in nothing.value.remedy


def test_the_paired_test_is_the_exact_one_of_mcnemar():
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, two = rng.random(40) < 0.6, rng.random(40) < 0.8
        found = paired(one, two)
        counts = [[int((one & two).sum()), found.only_first], [found.only_second, int((~one & ~two).sum())]]
        assert found.p_value == pytest.approx(mcnemar(counts, exact=True).pvalue)
        assert found.difference.value == pytest.approx(one.mean() - two.mean())
        assert found.difference.interval.low <= found.difference.value <= found.difference.interval.high


def test_the_paired_interval_is_that_of_newcombe():
    """Newcombe 1998 (paired), table III, method 10: counts 36, 12, 2, 0 give 0.0569 to 0.3404 by methods 8 to 10."""
    table = [(True, True)] * 36 + [(True, False)] * 12 + [(False, True)] * 2
    one, two = np.array(table).T
    interval = paired(one, two).difference.interval
    assert interval.low == pytest.approx(0.0569, abs=2e-3)
    assert interval.high == pytest.approx(0.3404, abs=2e-3)


def test_the_paired_interval_holds_what_it_promises():
    rng, n = np.random.default_rng(1), 60
    missed = 0
    for _ in range(1500):
        hard = rng.random(n)
        one, two = hard < 0.75, (hard < 0.6) ^ (rng.random(n) < 0.05)
        truth = 0.75 - (0.6 * 0.95 + 0.4 * 0.05)
        missed += truth not in paired(one, two).difference.interval
    assert missed / 1500 < 0.065


def test_results_of_different_samples_are_not_compared():
    with pytest.raises(InputError):
        paired([True], [True, False])
    with pytest.raises(InputError):
        paired([], [])


def test_holm_adjusts_as_others_do():
    rng = np.random.default_rng(2)
    for size in (1, 2, 7):
        values = rng.random(size) ** 3
        assert holm(values) == pytest.approx(multipletests(values, method="holm")[1])
    assert holm([]) == []
    with pytest.raises(InputError):
        holm([0.5, 1.5])


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_all_looks_together_miss_the_truth_rarely(share):
    rng, runs, n = np.random.default_rng(3), 300, 200
    missed = 0
    for _ in range(runs):
        successes = np.cumsum(rng.random(n) < share)
        missed += any(share not in anytime(int(successes[i]), i + 1) for i in range(4, n, 15))
    assert missed / runs <= 0.05


def test_an_anytime_interval_is_wider_and_is_consistent():
    for successes, n in itertools.product((0, 3, 10), (10, 40)):
        at_once, always = wilson(successes, n), anytime(successes, n)
        assert always.low <= at_once.low
        assert always.high >= at_once.high
    assert (anytime(0, 0).low, anytime(0, 0).high) == (0.0, 1.0)
    assert anytime(900, 1000).high - anytime(900, 1000).low < 0.1
    with pytest.raises(InputError):
        anytime(5, 4)


def test_a_threshold_is_decided_early_when_it_is_clear_and_never_wrongly_often():
    rng, wrong, used = np.random.default_rng(4), 0, []
    for _ in range(200):
        threshold, successes = Threshold(at_least=0.6), 0
        for n in range(1, 401):
            successes += rng.random() < 0.6
            if threshold.decided(successes, n) == "missed":
                wrong += 1
                break
    assert wrong / 200 <= 0.05
    for _ in range(50):
        successes = 0
        for n in range(1, 401):
            successes += rng.random() < 0.9
            if verdict := Threshold(at_least=0.6).decided(successes, n):
                assert verdict == "met"
                used.append(n)
                break
    assert np.mean(used) < 60
    assert stopped(9, 10).method == "anytime valid (mixture)"
