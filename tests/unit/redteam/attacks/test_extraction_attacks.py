"""What each extraction attack claims: weights to rounding error, leaves one by one, copies without own rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from bartizan.adapters import sklearn_structure
from bartizan.redteam.attacks.extraction.equation_solving import CHECKED, EquationSolving, LinearCopy
from bartizan.redteam.attacks.extraction.knockoff import Copycat, Knockoff
from bartizan.redteam.attacks.extraction.path_finding import PathFinding
from bartizan.redteam.attacks.extraction.random import RandomExtraction, RandomExtractionFromLabels
from bartizan.redteam.learners import Learner
from bartizan.redteam.stealing import steal, stealing_task
from bartizan.targets.structure import boxes
from bartizan.targets.tailored import ROUNDED, Tailored
from fixtures.victims import Victim, space_around

EVERY = (RandomExtraction, RandomExtractionFromLabels, Knockoff, Copycat, EquationSolving, PathFinding)


def quarters(load):
    """Rows to train on, the adversary's, and those for measuring, with labels."""
    rows, labels = load(return_X_y=True)
    return (rows[::2], labels[::2]), rows[1::4], (rows[3::4], labels[3::4])


def logistic():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def task_on(own, classes, *checkpoints, **more):
    return stealing_task(own, space=space_around(own), classes=classes, checkpoints=checkpoints, **more)


@pytest.mark.parametrize("load", [load_breast_cancer, load_wine, load_iris, load_digits])
def test_equation_solving_recovers_weights_from_features_plus_one_queries_and_ten_to_see_that_they_hold(load):
    train, own, kept = quarters(load)
    model, classes = logistic().fit(*train), len(np.unique(train[1]))
    theft = steal(Victim(model), EquationSolving(), task_on(own, classes, own.shape[1] + 1 + CHECKED), kept)
    copy, truth = theft.last.substitute.predict, sklearn_structure.read(model)
    assert theft.last.queries == own.shape[1] + 1 + CHECKED
    assert theft.last.fidelity.value == 1.0
    weights = truth.weights if len(truth.weights) > 1 else np.vstack([0 * truth.weights, truth.weights])
    across = weights - weights[:1]
    np.testing.assert_allclose(copy.weights, across, rtol=0, atol=1e-6 * np.abs(across).max())
    np.testing.assert_allclose(copy.scores(kept[0]), model.predict_proba(kept[0]), atol=1e-6)


def test_equation_solving_stops_when_its_solution_holds():
    train, own, kept = quarters(load_breast_cancer)
    theft = steal(Victim(logistic().fit(*train)), EquationSolving(), task_on(own, 2, 400), kept)
    assert theft.last.queries == 31 + 10


def test_equation_solving_is_not_fooled_by_another_kind_of_model():
    train, own, kept = quarters(load_breast_cancer)
    forest = RandomForestClassifier(20, random_state=0).fit(*train)
    theft = steal(Victim(forest), EquationSolving(), task_on(own, 2, 31, 120), kept)
    assert theft.last.queries == 120
    assert theft.last.fidelity.value > 0.9


@pytest.mark.parametrize("queries", [31, 36, 41])
def test_a_solution_that_was_not_tried_or_does_not_hold_is_not_handed_over(queries):
    train, own, kept = quarters(load_breast_cancer)
    forest = RandomForestClassifier(20, random_state=0).fit(*train)
    theft = steal(Victim(forest), EquationSolving(), task_on(own, 2, queries), kept)
    assert theft.last.queries == queries
    assert not isinstance(theft.last.substitute.predict, LinearCopy)
    untried = steal(Victim(logistic().fit(*train)), EquationSolving(), task_on(own, 2, 31, 41), kept)
    assert [isinstance(copy.substitute.predict, LinearCopy) for copy in untried.copies] == [False, True]


def test_equation_solving_fails_on_rounded_scores():
    train, own, kept = quarters(load_wine)
    target = Victim(logistic().fit(*train))
    task = task_on(own, 3, 14 + CHECKED)
    first, second = np.random.default_rng(0).integers(0, len(kept[0]), (2, 500))
    between = (kept[0][first] + kept[0][second]) / 2
    kept = (between, kept[1][first])
    whole, rounded = (
        steal(target, EquationSolving(), task, kept),
        steal(Tailored(target, ROUNDED), EquationSolving(), task, kept),
    )
    assert whole.last.fidelity.value == 1.0 > rounded.last.fidelity.value


@pytest.mark.parametrize("load", [load_wine, load_iris])
def test_path_finding_recovers_every_leaf_where_scores_name_them(load):
    train, own, kept = quarters(load)
    tree = DecisionTreeClassifier(min_samples_leaf=5, random_state=0).fit(*train)
    names = np.unique(tree.tree_.value[tree.tree_.children_left < 0], axis=0)
    assert len(names) == tree.get_n_leaves()
    classes = len(np.unique(train[1]))
    theft = steal(Victim(tree), PathFinding(), task_on(own, classes, 100, 2000), kept)
    copy, truth = theft.last.substitute.predict, boxes(sklearn_structure.read(tree))
    assert len(copy.low) == tree.get_n_leaves()
    assert theft.last.fidelity.value == 1.0
    order, expected = np.lexsort(copy.told.T), np.lexsort(tree.tree_.value[truth.leaf, 0].T)
    width = own.max(axis=0) - own.min(axis=0)
    for found, real in ((copy.low[order], truth.low[expected]), (copy.high[order], truth.high[expected])):
        both = np.isfinite(found) & np.isfinite(real)
        assert both.any()
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(real))
        assert (np.abs(np.where(both, found, 0) - np.where(both, real, 0)) <= 1e-6 * width).all()


def test_path_finding_mends_boxes_that_leaves_with_equal_scores_made_too_wide():
    train, own, kept = quarters(load_breast_cancer)
    tree = DecisionTreeClassifier(random_state=0).fit(*train)
    assert len(np.unique(tree.tree_.value[tree.tree_.children_left < 0], axis=0)) == 2
    theft = steal(Victim(tree), PathFinding(), task_on(own, 2, 300, 6000), kept)
    assert theft.copies[0].fidelity.value < 0.9
    assert theft.last.fidelity.value == 1.0


def test_random_and_foreign_rows_copy_a_model():
    train, own, kept = quarters(load_breast_cancer)
    target = Victim(logistic().fit(*train))
    task = task_on(own, 2, 25, 100)
    fidelity = {
        attack.name: steal(target, attack, task, kept).last.fidelity.value
        for attack in (RandomExtraction(), RandomExtractionFromLabels(), Knockoff(), Copycat())
    }
    assert fidelity["extraction.random"] >= 0.97
    assert fidelity["extraction.random-labels"] >= 0.9
    assert fidelity["extraction.knockoff"] >= 0.9
    assert fidelity["extraction.copycat"] >= 0.7
    assert fidelity["extraction.random"] >= fidelity["extraction.copycat"]


def test_knockoff_asks_about_foreign_rows_only():
    train, own, kept = quarters(load_iris)
    asked = []

    class Listening(Victim):
        def scores(self, rows):
            asked.append(rows)
            return super().scores(rows)

    foreign = np.random.default_rng(0).uniform(0, 8, (20, 4))
    steal(Listening(logistic().fit(*train)), Knockoff(), task_on(own, 3, 20, foreign=foreign), kept)
    assert {row.tobytes() for row in np.concatenate(asked)} == {row.tobytes() for row in foreign}
    asked.clear()
    steal(Listening(logistic().fit(*train)), Knockoff(), task_on(own, 3, 30), kept)
    rows = np.concatenate(asked)
    assert rows.shape == (30, 4)
    assert not {row.tobytes() for row in rows} & {row.tobytes() for row in own}


@pytest.mark.parametrize("attack", EVERY)
def test_every_attack_hands_over_copies_at_its_checkpoints_and_is_seeded(attack):
    train, own, kept = quarters(load_iris)
    target = Victim(logistic().fit(*train))
    task = task_on(own, 3, 7, 20, learner=Learner("radial", 1e-3).fit)
    first, second = (steal(target, attack(), task, kept, seed=4) for _ in range(2))
    assert first.copies[0].queries == 7
    assert first.last.queries == first.ledger.queries <= 20
    for one, two in zip(first.copies, second.copies, strict=True):
        np.testing.assert_array_equal(one.substitute.predict(kept[0]), two.substitute.predict(kept[0]))


@pytest.mark.parametrize("attack", EVERY)
def test_a_single_query_and_a_constant_model_do_no_harm(attack):
    _, own, kept = quarters(load_iris)

    class Constant(Victim):
        def scores(self, rows):
            return np.tile([0.2, 0.5, 0.3], (len(rows), 1))

    target = Constant(answer=lambda rows: np.ones(len(rows)), features=4, classes=3)
    for budget in (1, 60):
        theft = steal(target, attack(), task_on(own, 3, budget, learner=Learner("linear", 1e-3).fit), kept)
        assert theft.last.fidelity.value == 1.0
