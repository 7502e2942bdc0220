"""The nearest row of a tree is the optimum: compared with every combination of cells there is."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier

from bartizan.adapters import sklearn_structure
from bartizan.core.errors import WorkError
from bartizan.redteam.attacks.evasion.tree_exact import TreeExact, TreeSearch
from bartizan.redteam.cells import Cells, Ways
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.evasion import Evasion
from bartizan.redteam.ledger import Budget
from bartizan.redteam.play import play, task_of
from bartizan.redteam.tasks import Bounded
from bartizan.redteam.tree_proof import prove
from bartizan.redteam.tree_search import Searcher
from bartizan.redteam.trees import Nearest, nearest_leaf
from bartizan.targets.feasible import Codes, OneHot, Space
from bartizan.targets.protocol import Access
from fixtures.games import material
from fixtures.games import play as play_family
from fixtures.victims import Victim, space_around

NORMS = (np.inf, 2.0, 1.0, 0.0)


class Transparent(Victim):
    """A scikit-learn model in this process that shows its structure."""

    offers = frozenset({Access.LABELS, Access.SCORES, Access.WEIGHTS})

    def structure(self):
        return sklearn_structure.read(self.model)


def mixed(seed, *, may_be_empty):
    """A number, a whole number, three columns of which one holds 1, and codes, with labels that need all."""
    rng = np.random.default_rng(seed)
    category, code = rng.integers(0, 3, 60), rng.integers(0, 4, 60).astype(float)
    rows = np.column_stack([rng.normal(size=60).round(1), rng.integers(-3, 4, 60), np.eye(3)[category], code])
    worth = rows[:, 0] + rows[:, 1] / 2 + np.array([0, 0.5, 1])[category] + (code == 2) + rng.normal(0, 0.3, 60)
    labels = (
        np.digitize(worth, np.quantile(worth, [0.33, 0.66])) if seed % 2 else (worth > np.median(worth)).astype(int)
    )
    space = Space(
        columns=tuple("abcdef"),
        scale=np.array([rows[:, 0].std(), rows[:, 1].std(), 1, 1, 1, 1]),
        low=rows.min(axis=0),
        high=rows.max(axis=0),
        integer=np.array([False, True, False, False, False, False]),
        immutable=np.zeros(6, bool),
        codes=(Codes(5, np.unique(code)),),
        one_hot=(OneHot(np.array([2, 3, 4]), may_be_empty),),
    )
    return rows, labels, space


def least(cells, space, row, label, norm):
    """The least change of all combinations of cells, one possible row for each."""
    ways = Ways.of(cells, space, row, norm)
    choices = [np.flatnonzero(np.isfinite(ways.cost[feature])) for feature in range(len(row))]
    grid = np.array(list(itertools.product(*choices)))
    rows = ways.value[np.arange(len(row)), grid]
    change = space.change(rows, row, norm)
    change[(cells.ensemble.labels(rows) == label) | ~space.possible(rows, row)] = np.inf
    return change.min()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(4))
def test_a_single_tree_is_attacked_at_the_optimum(seed, norm):
    rows, labels, space = mixed(seed, may_be_empty=seed > 1)
    tree = DecisionTreeClassifier(max_leaf_nodes=12, random_state=seed).fit(rows, labels)
    ensemble = sklearn_structure.read(tree)
    cells = Cells.of(ensemble, space)
    for row in rows[:6]:
        label = int(tree.predict(row[None])[0])
        found = nearest_leaf(cells, space, row, label, norm)
        assert found.change == pytest.approx(least(cells, space, row, label, norm), abs=1e-9)
        assert found.exact
        assert tree.predict(found.row[None])[0] != label
        assert space.possible(found.row[None], row)[0]
        assert space.change(found.row[None], row, norm)[0] == pytest.approx(found.change)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(5, max_leaf_nodes=6, random_state=0),
        RandomForestClassifier(4, random_state=0),
        GradientBoostingClassifier(n_estimators=4, max_depth=2, random_state=0),
    ],
    ids=["forest", "votes", "boosting"],
)
def test_sums_of_trees_are_attacked_at_the_optimum_with_a_sound_bound(model, seed, norm):
    rows, labels, space = mixed(seed, may_be_empty=bool(seed))
    ensemble = sklearn_structure.read(model.fit(rows, labels))
    cells = Cells.of(ensemble, space)
    for row in rows[:3]:
        label = int(model.predict(row[None])[0])
        optimum = least(cells, space, row, label, norm)
        known = Searcher(cells).nearest(space, row, label, norm, np.random.default_rng(0))
        assert known.change >= optimum - 1e-9
        found = prove(cells, space, row, label, norm, known=known)
        assert found.change == pytest.approx(optimum, abs=1e-6)
        assert found.bound <= optimum + 1e-6
        assert model.predict(found.row[None])[0] != label
        assert space.possible(found.row[None], row)[0]


def test_a_program_that_is_stopped_leaves_a_bound_below_the_optimum():
    rows, labels = load_digits(return_X_y=True)
    forest = RandomForestClassifier(10, max_depth=4, random_state=0).fit(rows, labels)
    ensemble, space = sklearn_structure.read(forest), space_around(rows)
    cells = Cells.of(ensemble, space)
    row, label = rows[0], int(forest.predict(rows[:1])[0])
    known = Searcher(cells).nearest(space, row, label, np.inf, np.random.default_rng(0))
    stopped = prove(cells, space, row, label, np.inf, known=known, nodes=1)
    whole = prove(cells, space, row, label, np.inf, known=known)
    assert whole.exact
    assert 0 <= stopped.bound <= whole.change + 1e-6


def test_what_may_not_change_does_not():
    rows, labels, space = mixed(0, may_be_empty=False)
    tree = DecisionTreeClassifier(max_leaf_nodes=12, random_state=0).fit(rows, labels)
    cells = Cells.of(sklearn_structure.read(tree), space)
    stuck = replace(space, immutable=np.ones(6, bool), one_hot=(), codes=())
    found = nearest_leaf(cells, stuck, rows[0], int(tree.predict(rows[:1])[0]), 2.0)
    assert (found.change, found.bound) == (np.inf, np.inf)
    np.testing.assert_array_equal(found.row, rows[0])


def test_a_constant_model_is_proven_robust():
    rows, _, space = mixed(0, may_be_empty=False)
    constant = RandomForestClassifier(3, random_state=0).fit(rows, np.r_[np.zeros(59, int), 1])
    for tree in constant.estimators_:
        tree.tree_.value[:] = [[[1.0, 0.0]]]
    cells = Cells.of(sklearn_structure.read(constant), space)
    known = Searcher(cells).nearest(space, rows[0], 0, 2.0, np.random.default_rng(0))
    assert known.change == np.inf
    assert prove(cells, space, rows[0], 0, 2.0, known=known).bound == np.inf


def digits():
    rows, labels = load_digits(return_X_y=True)
    train, rest, train_labels, rest_labels = train_test_split(
        rows / 16, labels, train_size=1000, random_state=0, stratify=labels
    )
    ones = np.ones(64)
    space = Space(tuple(map(str, range(64))), ones, 0 * ones, ones, ones < 0, ones < 0)
    return train, train_labels, rest, rest_labels, space


def test_a_forest_of_100_trees_is_attacked_closer_than_queries_can():
    """Measured for HopSkipJump with 1000 queries a row: median L2 0.5 to 0.9."""
    train, train_labels, rest, rest_labels, space = digits()
    forest = RandomForestClassifier(100, random_state=0).fit(train, train_labels)
    task = task_of(rest[:10], rest_labels[:10], space=space, classes=10, max_change=1.0, norm=2.0, budget=1)
    played = play(Transparent(forest), TreeSearch(), task)
    assert (played.answers != task.labels).all()
    assert np.median(played.change) < 0.5
    assert played.ledger.queries == 10
    again = play(Transparent(forest), TreeSearch(), task)
    np.testing.assert_array_equal(played.rows, again.rows)


def candidates(attack, target, task, budget=1):
    run = Run(
        attack.search(task, np.random.default_rng(0)),
        budget=Budget(samples=len(task.rows), per_sample=budget),
        needs=attack.needs,
    )
    Engine(target).drive([run])
    return run.candidates


def test_the_attack_hands_over_rows_and_bounds():
    train, train_labels, rest, rest_labels, space = digits()
    tree = DecisionTreeClassifier(random_state=0).fit(train, train_labels)
    task = task_of(rest[:30], rest_labels[:30], space=space, classes=10, max_change=0.1, norm=2.0, budget=1)
    found = candidates(TreeExact(), Transparent(tree), task)
    assert isinstance(found, Bounded)
    right = tree.predict(task.rows) == task.labels
    assert (tree.predict(found.rows) != task.labels).all()
    np.testing.assert_allclose(found.bound[right], space.change(found.rows, task.rows, 2.0)[right])
    np.testing.assert_array_equal(found.rows[~right], task.rows[~right])
    without_queries = candidates(TreeExact(), Transparent(tree), task, budget=0)
    np.testing.assert_array_equal(without_queries.rows, found.rows)


def test_other_models_are_refused():
    train, train_labels, rest, rest_labels, space = digits()
    linear = LogisticRegression(max_iter=50, tol=1).fit(train, train_labels)
    task = task_of(rest[:2], rest_labels[:2], space=space, classes=10, max_change=0.1)
    with pytest.raises(WorkError, match="attacks trees"):
        play(Transparent(linear), TreeExact(), task)


def test_nearest_says_whether_it_is_exact():
    row = np.zeros(1)
    assert Nearest(row, 1.0, 1.0).exact
    assert not Nearest(row, 1.0, 0.5).exact
    assert Nearest(row, np.inf, np.inf).exact


def test_the_family_reports_what_is_proven_beside_what_was_found():
    train, train_labels, rest, rest_labels, _ = digits()
    tree = DecisionTreeClassifier(max_depth=6, random_state=0).fit(train, train_labels)
    of = material((train, train_labels), (rest[:200], rest_labels[:200]), samples=60, max_change=0.2)
    metrics = play_family(TreeExact(), Evasion(), Transparent(tree), of).metrics
    assert metrics["proven_robust_accuracy"].value == metrics["robust_accuracy"].value
    assert 0 < metrics["robust_accuracy"].value < metrics["clean_accuracy"].value
    searched = play_family(TreeSearch(), Evasion(), Transparent(tree), of).metrics
    assert searched["proven_robust_accuracy"].value == metrics["proven_robust_accuracy"].value
    forest = Transparent(RandomForestClassifier(5, max_depth=4, random_state=0).fit(train, train_labels))
    assert play_family(TreeSearch(), Evasion(), forest, of).metrics["proven_robust_accuracy"].value == 0
