"""Two versions of a model: paired where the same records were attacked, honest about chance everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from bartizan.redteam.statistics import difference, proportion
from bartizan.redteam.versions import Measured, compare, summary

CHECK = "redteam.evasion.square"


def version(robust, *, check=CHECK, records="data", conditions=None, first=0, **metrics):
    """A version whose samples withstood or not."""
    robust = np.asarray(robust, dtype=bool)
    share = proportion(int(robust.sum()), len(robust)).metric()
    return Measured(
        check=check,
        title=check,
        digest="d",
        metrics={"robust_accuracy": share, **metrics},
        robust={first + place: bool(each) for place, each in enumerate(robust)},
        conditions=conditions or {"max change": "0.25"},
        records=records,
    )


def test_the_same_records_are_compared_pairwise_and_show_what_two_separate_measurements_cannot():
    before, now = np.r_[np.ones(60), np.zeros(40)], np.r_[np.ones(70), np.zeros(30)]
    (paired,) = compare([version(before)], [version(now)])
    assert (paired.n, paired.difference, paired.verdict) == (100, pytest.approx(0.1), "better")
    assert paired.p_value == pytest.approx(2 / 2**10)  # ten records of one kind, none of the other
    (apart,) = compare([version(before)], [version(now, records="other data")])
    assert apart.n == 0
    assert apart.verdict == "no difference shown"
    assert apart.low < 0 < apart.high


def test_only_the_records_of_both_are_paired():
    (change,) = compare([version([1, 1, 0, 0])], [version([1, 0, 1], first=2)])
    assert change.n == 2
    assert change.difference == pytest.approx(0.5)


def test_the_intervals_of_independent_shares_are_those_of_newcombe():
    (change,) = compare([version(np.arange(80) < 40, records="")], [version(np.arange(50) < 35, records="")])
    expected = difference((35, 50), (40, 80))
    assert (change.low, change.high) == (
        pytest.approx(expected.interval.low, abs=1e-5),
        pytest.approx(expected.interval.high, abs=1e-5),
    )


def test_less_is_better_where_an_adversary_gains():
    little, much = proportion(5, 200).metric(), proportion(60, 200).metric()
    robust = np.ones(20)
    changes = compare(
        [version(robust, tpr_at_1_percent_fpr=much, fidelity=little)],
        [version(robust, tpr_at_1_percent_fpr=little, fidelity=much)],
    )
    assert {change.metric: change.verdict for change in changes} == {
        "robust_accuracy": "no difference shown",
        "tpr_at_1_percent_fpr": "better",
        "fidelity": "worse",
    }


def test_twenty_attacks_on_two_equal_models_rarely_find_a_difference():
    rng, wrong, runs = np.random.default_rng(0), 0, 120
    for _ in range(runs):
        names = [f"redteam.evasion.{index}" for index in range(20)]
        old = [version(rng.random(60) < 0.6, check=name) for name in names]
        new = [version(rng.random(60) < 0.6, check=name) for name in names]
        wrong += any(change.verdict != "no difference shown" for change in compare(old, new))
    assert wrong / runs <= 0.05


def test_the_interval_of_a_paired_difference_holds_the_truth():
    rng, missed, runs = np.random.default_rng(1), 0, 400
    for _ in range(runs):
        base = rng.random(80)
        (change,) = compare([version(base < 0.5)], [version(base < rng.choice([0.55, 0.75], 80))])
        missed += not change.low <= 0.15 <= change.high
    assert missed / runs <= 0.075


def test_what_was_not_equal_is_said_and_keeps_a_verdict_out_of_the_summary():
    old = version(np.zeros(50), conditions={"max change": "1", "norm": "linf"})
    new = version(np.ones(50), conditions={"max change": "0.1"})
    changes = compare([old], [new])
    assert changes[0].caveat == "max change 1, now 0.1; norm linf, now not said"
    assert summary(changes) == (
        "No evasion attack was run on both versions under equal conditions. "
        "Of 1 numbers compared, 0 are shown to be better and 0 worse."
    )


def test_the_summary_speaks_of_the_attack_that_does_most_to_the_new_version():
    strong, weak = np.arange(100) < 30, np.arange(100) < 90
    old = [version(weak, check="redteam.evasion.a"), version(np.zeros(100), check="redteam.evasion.b")]
    new = [version(weak, check="redteam.evasion.a"), version(strong, check="redteam.evasion.b")]
    said = summary(compare(old, new))
    assert said.startswith("Under evasion.b, which does most to it, the new version is more robust: +30.0%")
    assert said.endswith("Of 2 numbers compared, 1 are shown to be better and 0 worse.")


def test_nothing_in_common_is_said_so():
    assert compare([version([1])], [version([1], check="other")]) == ()
    assert compare([], []) == ()
    assert summary(()) == "Nothing was measured on both versions, so nothing can be compared."


def test_accuracy_without_an_attack_is_compared_once():
    clean = proportion(90, 100).metric()
    names = ("redteam.evasion.a", "redteam.evasion.b")
    both = [version([1, 0], check=name, clean_accuracy=clean) for name in names]
    assert [change.metric for change in compare(both, both)].count("clean_accuracy") == 1


def test_measurements_without_any_width_do_not_break_it():
    sure = proportion(5, 5).metric()
    exact = type(sure)(value=1.0, low=1.0, high=1.0, n=5)
    other = type(sure)(value=0.5, low=0.5, high=0.5, n=5)
    changes = compare([version([1], leak=exact)], [version([1], leak=exact)])
    assert changes[-1].p_value == 1
    changes = compare([version([1], leak=exact)], [version([1], leak=other)])
    assert changes[-1].p_value == 0
    assert changes[-1].verdict == "better"
