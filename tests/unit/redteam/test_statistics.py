"""Intervals must cover what they claim to cover, and stay sound in the corners."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bartizan.core.errors import WorkError
from bartizan.redteam import statistics
from bartizan.redteam.statistics import Interval


def coverage(hits):
    """Share of hits and the least share that a 95 % interval may show by bad luck (1 in 10 000)."""
    hits = np.asarray(hits, bool)
    return hits.mean(), stats.binom.ppf(1e-4, len(hits), 0.95) / len(hits)


@given(n=st.integers(1, 400), data=st.data())
@settings(deadline=None)
def test_proportion_intervals_hold_the_estimate_and_the_exact_one_is_the_wider(n, data):
    k = data.draw(st.integers(0, n))
    for interval in (statistics.wilson(k, n), statistics.clopper_pearson(k, n)):
        assert 0 <= interval.low <= k / n <= interval.high <= 1
    exact = statistics.clopper_pearson(k, n)
    assert exact.low == pytest.approx(stats.binomtest(k, n).proportion_ci(method="exact").low)
    assert exact.high == pytest.approx(stats.binomtest(k, n).proportion_ci(method="exact").high)
    wilson = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert statistics.wilson(k, n).low == pytest.approx(wilson.low, abs=1e-12)
    assert statistics.wilson(k, n).high == pytest.approx(wilson.high, abs=1e-12)


def test_nothing_observed_means_nothing_known():
    assert statistics.wilson(0, 0) == Interval(0.0, 1.0)
    assert statistics.clopper_pearson(0, 0) == Interval(0.0, 1.0)
    assert statistics.proportion(0, 0).interval == Interval(0.0, 1.0)
    assert statistics.bootstrap([3.0], np.mean, np.random.default_rng(0)) == Interval(-np.inf, np.inf)


@pytest.mark.parametrize(("n", "p"), [(60, 0.05), (60, 0.5), (25, 0.9)])
def test_wilson_covers_on_average_and_clopper_pearson_always(n, p):
    ks = np.arange(n + 1)
    weights = stats.binom.pmf(ks, n, p)
    assert weights @ [p in statistics.wilson(k, n) for k in ks] >= 0.925
    assert weights @ [p in statistics.clopper_pearson(k, n) for k in ks] >= 0.95


def test_newcombe_covers_a_difference_of_shares():
    rng = np.random.default_rng(1)
    one, two = rng.binomial(80, 0.3, 1500), rng.binomial(120, 0.1, 1500)
    hits = [0.2 in statistics.difference((int(a), 80), (int(b), 120)).interval for a, b in zip(one, two, strict=True)]
    share, least = coverage(hits)
    assert share >= least
    assert statistics.difference((8, 10), (2, 10)).value == pytest.approx(0.6)


def test_bootstrap_covers_a_median_and_is_seeded():
    rng = np.random.default_rng(3)
    samples = [rng.normal(size=40) for _ in range(400)]
    hits = [0.0 in statistics.bootstrap(values, np.median, rng, resamples=300) for values in samples]
    share, least = coverage(hits)
    assert share >= least
    first, second = (
        statistics.bootstrap(samples[0], np.median, np.random.default_rng(9), resamples=50) for _ in range(2)
    )
    assert first == second


def test_bootstrap_accepts_attacks_that_found_nothing():
    values = np.array([0.1, 0.2, 0.4, np.inf, np.inf, np.inf])
    interval = statistics.bootstrap(values, np.median, np.random.default_rng(0), resamples=200)
    assert interval.low <= 0.4
    assert interval.high == np.inf


def _scores(rng, shift, members, others):
    scores = np.concatenate([rng.normal(shift, 1, members), rng.normal(0, 1, others)])
    return scores, np.arange(members + others) < members


@pytest.mark.parametrize(("shift", "members", "others"), [(0.0, 100, 100), (0.5, 300, 200), (2.0, 60, 500)])
def test_auc_interval_covers_the_true_area(shift, members, others):
    rng = np.random.default_rng(4)
    truth = stats.norm.cdf(shift / np.sqrt(2))
    hits = [truth in statistics.auc(statistics.roc(*_scores(rng, shift, members, others))).interval for _ in range(400)]
    share, least = coverage(hits)
    assert share >= least


@pytest.mark.parametrize("fpr", [0.01, 0.001])
@pytest.mark.parametrize(("shift", "members", "others"), [(0.0, 100, 100), (2.0, 500, 450), (3.0, 1000, 900)])
def test_tpr_interval_covers_the_true_rate_although_the_threshold_is_estimated(fpr, shift, members, others):
    rng = np.random.default_rng(5)
    truth = stats.norm.sf(stats.norm.isf(fpr) - shift)
    hits = [
        truth in statistics.tpr_at(statistics.roc(*_scores(rng, shift, members, others)), fpr).interval
        for _ in range(250)
    ]
    share, least = coverage(hits)
    assert share >= least


def test_a_plain_interval_would_have_promised_too_much():
    """Why ``tpr_at`` mixes over thresholds: a Clopper-Pearson interval at the chosen one covers far less."""
    rng = np.random.default_rng(6)
    truth, hits = stats.norm.sf(stats.norm.isf(0.01) - 2), []
    for _ in range(300):
        estimate = statistics.tpr_at(statistics.roc(*_scores(rng, 2.0, 500, 450)), 0.01)
        hits.append(truth in statistics.clopper_pearson(round(estimate.value * 500), 500))
    assert np.mean(hits) < 0.85


def test_too_few_non_members_leave_low_rates_without_a_lower_bound():
    scores, members = _scores(np.random.default_rng(7), 50.0, 100, 100)
    estimate = statistics.tpr_at(statistics.roc(scores, members), 0.001)
    assert estimate.value == 1.0
    assert estimate.interval == Interval(0.0, 1.0)
    enough, truth = _scores(np.random.default_rng(7), 50.0, 100, 5000)
    assert statistics.tpr_at(statistics.roc(enough, truth), 0.001).interval.low > 0.9


def test_auc_counts_pairs_and_ties_half():
    rng = np.random.default_rng(8)
    scores = rng.integers(0, 6, 200).astype(float)
    members = rng.random(200) < 0.4
    curve = statistics.roc(scores, members)
    gaps = scores[members][:, None] - scores[~members][None, :]
    assert statistics.auc(curve).value == pytest.approx(((gaps > 0) + 0.5 * (gaps == 0)).mean())
    assert curve.fpr[0] == curve.tpr[0] == 0
    assert curve.fpr[-1] == curve.tpr[-1] == 1
    assert (np.diff(curve.thresholds) < 0).all()


def test_roc_agrees_with_scikit_learn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    scores, members = _scores(np.random.default_rng(9), 1.0, 90, 70)
    curve = statistics.roc(scores, members)
    fpr, tpr, thresholds = sklearn_metrics.roc_curve(members, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.fpr, fpr)
    np.testing.assert_allclose(curve.tpr, tpr)
    np.testing.assert_allclose(curve.thresholds, thresholds)


def test_perfect_separation_keeps_an_interval_with_width():
    curve = statistics.roc(np.arange(20.0), np.arange(20) >= 10)
    estimate = statistics.auc(curve)
    assert estimate.value == 1.0
    assert estimate.interval.low == pytest.approx(0.025 ** (1 / 10))
    tied = statistics.auc(statistics.roc(np.zeros(20), np.arange(20) >= 10))
    assert tied.value == 0.5
    assert tied.interval.low < 0.3


@pytest.mark.parametrize(
    ("scores", "members"), [([1.0, 2.0], [True, True]), ([1.0, 2.0], [False, False]), ([1.0, np.nan], [True, False])]
)
def test_a_curve_without_both_kinds_or_with_nan_is_refused(scores, members):
    with pytest.raises(WorkError):
        statistics.roc(scores, members)


def test_metric_keeps_six_digits_and_refuses_what_json_cannot_say():
    metric = statistics.Estimate(0.123456789, Interval(0.1, 0.2), 60, "wilson").metric()
    assert metric.value == 0.123457
    assert (metric.low, metric.high, metric.n, metric.method) == (0.1, 0.2, 60, "wilson")
    with pytest.raises(WorkError, match="not finite"):
        statistics.metric(np.inf, Interval(0.0, np.inf), 3, "bootstrap")


def test_jackknife_is_students_interval_for_a_mean():
    values = np.random.default_rng(10).normal(size=12)
    without = [np.delete(values, place).mean() for place in range(12)]
    found, known = statistics.jackknife(values.mean(), without), stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    assert statistics.jackknife(1.0, [1.0]) == Interval(-np.inf, np.inf)


@pytest.mark.parametrize(
    ("repeats", "rows", "spread", "share"), [(5, 171, 0.02, 0.05), (5, 600, 0.1, 0.2), (3, 60, 0.05, 0.1)]
)
def test_crossed_covers_when_rows_and_repeats_both_vary(repeats, rows, spread, share):
    """Each repeat has its own error rate; most rows fail or hold in all repeats alike."""
    rng, truth, hits = np.random.default_rng(11), None, []
    truth = np.clip(share + rng.normal(0, spread, 200_000), 0, 1).mean()
    for _ in range(400):
        rate = np.clip(share + rng.normal(0, spread, repeats), 0, 1)[:, None]
        alike = rng.random(rows) < 0.7
        draws = np.where(alike, rng.random(rows), rng.random((repeats, rows)))
        hits.append(truth in statistics.crossed(draws < rate, (0, 1)).interval)
    got, least = coverage(hits)
    assert got >= least


def test_crossed_does_not_promise_certainty_when_all_rows_agree():
    estimate = statistics.crossed(np.zeros((5, 50)), (-1, 1))
    assert estimate.value == 0
    assert -0.1 < estimate.interval.low < -0.02
    assert 0.02 < estimate.interval.high < 0.1
    assert estimate.n == 50


def test_a_single_repeat_says_that_it_is_one():
    assert statistics.crossed(np.ones((1, 30)), (0, 1)).method == "rows of a single repeat"
