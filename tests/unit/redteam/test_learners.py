"""The adversary's own learners: right gradients, honest held-out scores, each good at what it is for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, special
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from bartizan.redteam import forest, learners
from bartizan.redteam.learners import Learner

EVERY = (*learners.LINEAR, *learners.RADIAL, *learners.NETWORK, *learners.FOREST)


def agreement(learner, rows, labels, new, truth):
    model = learner.fit(rows, learners.one_hot(labels, 2), np.random.default_rng(0))
    return (model(new).argmax(axis=1) == truth).mean()


def checkerboard(count, seed):
    rows = np.random.default_rng(seed).uniform(-1, 1, (count, 2))
    return rows, (rows.prod(axis=1) > 0).astype(int)


@pytest.mark.parametrize("learner", EVERY)
def test_every_learner_answers_with_probabilities_and_is_seeded(learner):
    rng = np.random.default_rng(0)
    rows, targets = rng.normal(size=(40, 3)), rng.dirichlet(np.ones(4), 40)
    first, second = (learner.fit(rows, targets, np.random.default_rng(5))(rows) for _ in range(2))
    assert first.shape == (40, 4)
    assert (first >= 0).all()
    np.testing.assert_allclose(first.sum(axis=1), 1)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("learner", EVERY)
def test_features_that_never_vary_and_targets_that_are_all_alike_do_no_harm(learner):
    rows, targets = np.ones((12, 3)), learners.one_hot(np.zeros(12, int), 2)
    assert (learner.fit(rows, targets, np.random.default_rng(0))(rows).argmax(axis=1) == 0).all()


@pytest.mark.parametrize("fit", ["_fit_softmax", "_fit_network"])
def test_gradients_are_those_of_the_loss(fit, monkeypatch):
    seen = []
    monkeypatch.setattr(learners, "_minimise", lambda loss, start: (seen.append((loss, start)), start)[1])
    rng = np.random.default_rng(0)
    rows, targets = rng.normal(size=(15, 3)), rng.dirichlet(np.ones(3), 15)
    if fit == "_fit_softmax":
        learners._fit_softmax(learners._plain(rows), targets, 0.1)
    else:
        learners._fit_network(rows, targets, 0.1, 4, rng)
    loss, start = seen[0]
    at = start + rng.normal(0, 0.5, len(start))
    error = optimize.check_grad(lambda x: loss(x)[0], lambda x: loss(x)[1], at)
    assert error < 1e-5


def test_the_linear_learner_is_logistic_regression():
    rows, labels = load_breast_cancer(return_X_y=True)
    ours = Learner("linear", 1e-2).fit(rows, learners.one_hot(labels, 2), np.random.default_rng(0))(rows)
    scaled = StandardScaler().fit_transform(rows)
    # Two opposite weights share the penalty of scikit-learn's single one.
    theirs = LogisticRegression(C=2 / (len(rows) * 1e-2), tol=1e-8, max_iter=5000).fit(scaled, labels)
    np.testing.assert_allclose(ours, theirs.predict_proba(scaled), atol=2e-3)


def test_soft_targets_recover_a_linear_model_from_few_rows():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(5, 3))
    rows, new = rng.normal(size=(12, 5)), rng.normal(size=(2000, 5))
    model = Learner("linear", 1e-6).fit(rows, special.softmax(rows @ weights, axis=1), rng)
    assert (model(new).argmax(axis=1) == (new @ weights).argmax(axis=1)).mean() > 0.98


@pytest.mark.parametrize("learner", [*learners.RADIAL, *learners.NETWORK, *learners.FOREST])
def test_bent_boundaries_need_more_than_a_line(learner):
    rows, labels = checkerboard(400, 0)
    new, truth = checkerboard(2000, 1)
    assert agreement(learner, rows, labels, new, truth) > 0.9
    assert agreement(learners.LINEAR[1], rows, labels, new, truth) < 0.65


def test_steps_are_copied_best_by_steps():
    rng = np.random.default_rng(0)
    rows, new = rng.uniform(size=(300, 6)), rng.uniform(size=(2000, 6))

    def steps(rows):
        return ((rows[:, 0] > 0.3) ^ (rows[:, 1] > 0.7)).astype(int)

    trees = agreement(learners.FOREST[0], rows, steps(rows), new, steps(new))
    assert trees > 0.88
    assert trees > agreement(learners.RADIAL[0], rows, steps(rows), new, steps(new))


def test_selection_takes_what_predicts_unseen_answers_best():
    rows, labels = checkerboard(200, 0)
    chosen = learners.select(
        (learners.LINEAR[1], learners.NETWORK[0]), rows, learners.one_hot(labels, 2), np.random.default_rng(0)
    )
    assert chosen.kind == "network"


def test_out_of_fold_scores_know_nothing_of_a_rows_own_label():
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(300, 10)), rng.integers(0, 2, 300)
    targets = learners.one_hot(labels, 2)
    parts = learners.folds(labels, rng)
    for learner in (learners.FOREST[0], learners.NETWORK[0]):
        scores = learners.out_of_fold(learner, rows, targets, parts, rng)
        assert 0.4 < (scores.argmax(axis=1) == labels).mean() < 0.6
        assert (learner.fit(rows, targets, rng)(rows).argmax(axis=1) == labels).mean() > 0.9


def test_folds_hold_the_same_mixture():
    labels = np.repeat([0, 1, 2], [30, 60, 9])
    parts = learners.folds(labels, np.random.default_rng(0))
    counts = np.array([np.bincount(labels[parts == part], minlength=3) for part in range(learners.FOLDS)])
    assert np.ptp(counts, axis=0).max() <= 1


def test_trees_stay_small_on_long_answers(monkeypatch):
    monkeypatch.setattr(forest, "LARGEST_TREE", 20)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2000, 3))
    grown = forest.grow(rows, rng.dirichlet(np.ones(2), 2000), rng, trees=2)
    assert max(len(tree.feature) for tree in grown.trees) < 400


def test_a_step_between_neighbouring_numbers_can_be_split():
    rows = np.array([[1.0], [np.nextafter(1.0, 2.0)]])
    grown = forest.grow(rows, np.eye(2), np.random.default_rng(0), trees=5)
    np.testing.assert_array_equal(grown(rows), np.eye(2))
