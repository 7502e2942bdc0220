"""The private forest: what its noise is, what it costs, and that its promise survives an audit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_digits

from bartizan.core.errors import InputError
from bartizan.lifecycle.develop.harden.private_forest import (
    depth_for,
    private_forest,
    random_tree,
    trees_for,
    two_sided_geometric,
)
from bartizan.redteam.audit import epsilon_from_rates

ROWS, LABELS = load_breast_cancer(return_X_y=True)
RANGES = ROWS.min(axis=0), ROWS.max(axis=0)


class Base:
    """What a private model stands in for."""

    name, class_values = "model:base", ()

    def __init__(self, features=30, classes=2):
        self.features, self.classes = features, classes


def forest(rows=ROWS, labels=LABELS, *, epsilon=1.0, seed=0, ranges=RANGES, classes=2):
    base = Base(rows.shape[1], classes)
    return private_forest(base, rows, labels, ranges=ranges, epsilon=epsilon, rng=np.random.default_rng(seed))


def test_noise_is_two_sided_geometric():
    drawn = two_sided_geometric(4.0, (60_000,), np.random.default_rng(0))
    kept = math.exp(-1 / 4)
    seen = np.array([(drawn == number).mean() for number in range(-8, 9)])
    wanted = np.array([(1 - kept) / (1 + kept) * kept ** abs(number) for number in range(-8, 9)])
    assert np.abs(seen - wanted).max() < 4 * math.sqrt(0.25 / 60_000)


def test_every_record_is_in_one_leaf_of_each_tree_and_splits_know_nothing_of_the_data():
    tree = random_tree(*RANGES, 6, np.random.default_rng(3))
    leaves = tree.leaf(ROWS)
    assert leaves.min() >= 0
    assert leaves.max() < 64
    for row, leaf in zip(ROWS[:30], leaves[:30].tolist(), strict=True):
        node = 0
        for _ in range(6):
            node = 2 * node + 1 + int(row[tree.feature[node]] > tree.threshold[node])
        assert node - 63 == leaf
    other = np.random.default_rng(9).permuted(ROWS, axis=0)
    one, two = forest(seed=5), forest(other, 1 - LABELS, seed=5)
    for (mine, _), (theirs, _) in zip(one.trees, two.trees, strict=True):
        assert (mine.feature == theirs.feature).all()
        assert (mine.threshold == theirs.threshold).all()


def test_one_changed_record_moves_two_counts_of_each_tree_by_one():
    changed = ROWS.copy()
    changed[0] = ROWS[ROWS[:, 0].argmax()]
    one, two = forest(seed=1), forest(changed, seed=1)
    for (_, mine), (_, theirs) in zip(one.trees, two.trees, strict=True):
        assert np.abs(mine - theirs).sum() in {0, 2}
        assert np.abs(mine - theirs).max() <= 1
    scale = 2 * len(one.trees) / one.epsilon
    assert scale == 20


def test_much_budget_buys_accuracy_and_little_costs_it():
    rng = np.random.default_rng(0)
    order = rng.permutation(len(ROWS))
    train, test = order[:420], order[420:]

    def mean(epsilon):
        made = [forest(ROWS[train], LABELS[train], epsilon=epsilon, seed=seed) for seed in range(8)]
        return np.mean([(each.labels(ROWS[test]) == LABELS[test]).mean() for each in made])

    assert mean(10.0) > 0.88
    assert mean(1.0) > 0.8
    assert mean(10.0) > mean(0.05) + 0.1


def test_ten_classes():
    rows, labels = load_digits(return_X_y=True)
    made = forest(rows, labels, epsilon=10.0, ranges=(np.zeros(64), np.full(64, 16.0)), classes=10)
    assert made.scores(rows[:50]).sum(axis=1) == pytest.approx(1)
    assert (made.labels(rows) == labels).mean() > 0.75
    again = made.retrain(rows, labels, seed=4)
    assert (again.scores(rows[:9]) == made.retrain(rows, labels, seed=4).scores(rows[:9])).all()
    assert again.promise.epsilon == 10.0


def test_the_promise_survives_the_outcome_that_tells_most():
    """Of two sets that differ in one record, by the likelihood ratio of the very counts that it moves."""
    rows = np.zeros((20, 1))
    ranges = (np.zeros(1), np.ones(1))
    labels, other = np.zeros(20, np.int64), np.zeros(20, np.int64)
    other[0] = 1

    def tells(truth, seed, epsilon):
        made = forest(rows, truth, epsilon=epsilon, seed=seed, ranges=ranges)
        return sum(int(counts[tree.leaf(rows[:1])[0]] @ [-1, 1]) for tree, counts in made.trees)

    def bound(epsilon, runs=600):
        one = np.array([tells(labels, seed, epsilon) for seed in range(runs)])
        two = np.array([tells(other, 10**6 + seed, epsilon) for seed in range(runs)])
        cut = np.median(np.concatenate([one, two])) + 0.5
        return epsilon_from_rates((int((two > cut).sum()), runs), (int((one > cut).sum()), runs))

    assert bound(1.0) <= 1.0
    # The audit is no rubber stamp: it sees what a hundred times the budget gives away.
    assert bound(100.0, 100) > 1.0


@pytest.mark.parametrize(
    ("epsilon", "ranges", "rows"),
    [(0.0, RANGES, ROWS), (math.inf, RANGES, ROWS), (1.0, RANGES, ROWS[:0]), (1.0, (RANGES[1], RANGES[0]), ROWS)],
)
def test_what_cannot_be_promised_is_refused(epsilon, ranges, rows):
    with pytest.raises(InputError):
        forest(rows, LABELS[: len(rows)], epsilon=epsilon, ranges=ranges)


def test_one_class_and_constant_columns_are_no_obstacle():
    made = forest(np.ones((30, 2)), np.zeros(30, np.int64), ranges=(np.ones(2), np.ones(2)), epsilon=5.0)
    assert (made.labels(np.ones((3, 2))) == 0).all()


def test_trees_and_depth_follow_from_what_is_public():
    assert [trees_for(epsilon) for epsilon in (0.01, 1, 100)] == [3, 10, 30]
    assert [depth_for(records) for records in (1, 426, 10**6)] == [2, 6, 10]


def test_rows_outside_the_ranges_are_answered():
    made = forest(epsilon=3.0)
    assert np.isfinite(made.scores(ROWS[:5] * 1e9)).all()
    assert stats.entropy(made.scores(ROWS[:5]).T).max() <= math.log(2) + 1e-9
