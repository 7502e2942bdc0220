"""Private logistic regression: the mechanism's own formulas, what it costs, and that it keeps its promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.linear_model import LogisticRegression

from bartizan.core.errors import InputError
from bartizan.lifecycle.develop.harden.private import PENALTY, dials, in_ball, learn, noise, private
from fixtures.victims import Victim

ROWS, LABELS = load_breast_cancer(return_X_y=True)
RANGES = ROWS.min(axis=0), ROWS.max(axis=0)


def model(rows=ROWS, labels=LABELS, epsilon=1.0, seed=0, classes=2):
    class Base:
        name, class_values, features = "model:base", (), rows.shape[1]

    Base.classes = classes
    rng = np.random.default_rng(seed)
    return private(Base(), rows, labels, ranges=(rows.min(axis=0), rows.max(axis=0)), epsilon=epsilon, rng=rng)


def test_the_budget_is_split_as_published():
    roomy = dials(1.0, 0.01, 1000)
    share = 0.25 / (1000 * 0.01)
    assert roomy.epsilon == pytest.approx(1 - math.log(1 + 2 * share + share**2))
    assert roomy.extra == 0
    tight = dials(0.01, 1e-4, 1000)
    assert tight.epsilon == 0.005
    assert tight.extra == pytest.approx(0.25 / (1000 * (math.exp(0.0025) - 1)) - 1e-4)
    for wrong in ((0, 1, 1), (1, 0, 1), (1, 1, 0), (math.inf, 1, 1)):
        with pytest.raises(InputError):
            dials(*wrong)


def test_noise_has_the_published_density():
    rng = np.random.default_rng(4)
    drawn = np.array([noise(0.8, 5, rng) for _ in range(3000)])
    lengths = np.linalg.norm(drawn, axis=1)
    assert stats.kstest(lengths, stats.gamma(5, scale=2 / 0.8).cdf).pvalue > 0.001
    assert np.abs((drawn / lengths[:, None]).mean(axis=0)).max() < 0.05


def test_rows_lie_inside_the_unit_ball_whatever_comes():
    wild = np.vstack([ROWS, ROWS * 1e6, -ROWS])
    assert np.linalg.norm(in_ball(wild, *RANGES), axis=1).max() <= 1 + 1e-12


def test_without_noise_it_is_the_usual_minimum():
    inside, signs = in_ball(ROWS, *RANGES), np.where(LABELS == 1, 1.0, -1.0)
    ours = learn(inside, signs, 1e7, PENALTY, np.random.default_rng(0))
    theirs = LogisticRegression(C=1 / (PENALTY * len(ROWS)), fit_intercept=False, tol=1e-8, max_iter=5000)
    assert ours == pytest.approx(theirs.fit(inside, LABELS).coef_[0], abs=1e-3)


def test_privacy_costs_accuracy_and_more_of_it_costs_more():
    def mean(epsilon):
        return np.mean([(model(epsilon=epsilon, seed=s).labels(ROWS) == LABELS).mean() for s in range(8)])

    assert mean(100.0) > 0.8
    assert mean(100.0) > mean(0.05) + 0.05


def test_one_record_more_or_less_can_hardly_be_told():
    """The promise itself, on the outcome that tells the two sets apart best: a lower bound of epsilon below it."""
    small, kinds = ROWS[:40], LABELS[:40]
    ranges = (ROWS.min(axis=0), ROWS.max(axis=0))
    other = kinds.copy()
    other[0] = 1 - other[0]

    class Base:
        name, class_values, features, classes = "model:base", (), ROWS.shape[1], 2

    def towards(labels, seed):
        rng = np.random.default_rng(seed)
        made = private(Base(), small, labels, ranges=ranges, epsilon=1.0, rng=rng)
        return float(in_ball(small[:1], *ranges)[0] @ made.weights[0])

    one = np.array([towards(kinds, seed) for seed in range(250)])
    two = np.array([towards(other, 1000 + seed) for seed in range(250)])
    threshold = np.median(np.concatenate([one, two]))
    first, second = np.sort([(one > threshold).mean(), (two > threshold).mean()])
    spread = 2 * math.sqrt(0.25 / 250)
    assert (second - spread) <= math.exp(1.0) * (first + spread)


def test_several_classes_share_the_budget():
    rows, labels = load_wine(return_X_y=True)
    made = model(rows, labels, epsilon=300.0, classes=3)
    assert made.weights.shape == (3, 14)
    assert made.scores(rows).sum(axis=1) == pytest.approx(1)
    assert (made.labels(rows) == labels).mean() > 0.8
    again = made.retrain(rows, labels, seed=7)
    assert (again.weights == made.retrain(rows, labels, seed=7).weights).all()
    assert again.facts.parameters == 42


def test_a_victim_can_stand_in_as_base():
    victim = Victim(LogisticRegression(max_iter=5000).fit(ROWS, LABELS))
    rng = np.random.default_rng(0)
    assert private(victim, ROWS, LABELS, ranges=RANGES, epsilon=1.0, rng=rng).features == 30
