"""The nearest row of a linear model is the optimum: compared with solvers, and with whatever else can be found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import optimize
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from bartizan.adapters import sklearn_structure
from bartizan.core.errors import WorkError
from bartizan.redteam.attacks.evasion.linear_exact import LinearExact
from bartizan.redteam.evasion import Evasion
from bartizan.redteam.nearest_side import least
from bartizan.redteam.play import play, task_of
from bartizan.targets.feasible import Codes, OneHot, Space, image_space
from bartizan.targets.protocol import Access
from fixtures.games import halves, material
from fixtures.games import play as play_family
from fixtures.victims import Victim, space_around

NORMS = (np.inf, 2, 1, 0)


class Transparent(Victim):
    offers = frozenset({Access.LABELS, Access.SCORES, Access.WEIGHTS})

    def structure(self):
        return sklearn_structure.read(self.model)


def solved(weights, low, high, need, norm):
    """The length of the least change, by solvers and by trying."""
    count = len(weights)
    if norm == 0:
        most = np.maximum(weights * low, weights * high)
        sizes = [size for size in range(count + 1) if np.sort(most)[::-1][:size].sum() >= need]
        return sizes[0] if sizes else None
    if norm == 2:
        found = optimize.minimize(
            lambda change: (change**2).sum() / 2,
            np.where(weights > 0, high, low),
            jac=lambda change: change,
            bounds=list(zip(low, high, strict=True)),
            constraints={"type": "ineq", "fun": lambda change: weights @ change - need, "jac": lambda _: weights},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        return np.linalg.norm(found.x) if found.success else None
    sizes = np.ones(1) if norm == np.inf else np.ones(count)
    spread = np.ones((count, 1)) if norm == np.inf else np.eye(count)
    found = optimize.linprog(
        np.r_[np.zeros(count), sizes],
        A_ub=np.vstack(
            [np.r_[-weights, np.zeros(len(sizes))], np.c_[np.eye(count), -spread], np.c_[-np.eye(count), -spread]]
        ),
        b_ub=np.r_[-need, np.zeros(2 * count)],
        bounds=[*zip(low, high, strict=True), *[(0, None)] * len(sizes)],
    )
    return found.fun if found.success else None


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(6))
def test_the_least_change_is_that_of_a_solver(norm, seed):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=7) * (rng.random(7) > 0.2)
    low, high = -rng.random(7) * (rng.random(7) > 0.2), rng.random(7) * (rng.random(7) > 0.2)
    need = rng.uniform(0.05, 1.2) * np.maximum(weights * low, weights * high).sum()
    (change,) = least(weights[None], low[None], high[None], np.array([need]), norm)
    expected = solved(weights, low, high, need, norm)
    if expected is None:
        assert np.isnan(change).any()
        return
    assert weights @ change >= need - 1e-9
    assert (change >= low - 1e-12).all()
    assert (change <= high + 1e-12).all()
    length = (change != 0).sum() if norm == 0 else np.linalg.norm(change, ord=norm)
    assert length == pytest.approx(expected, abs=1e-6)


def test_nothing_is_changed_where_nothing_is_needed():
    change = least(np.ones((2, 3)), -np.ones((2, 3)), np.ones((2, 3)), np.array([0.0, -1.0]), np.inf)
    assert (change == 0).all()


def table(load, model, *, samples=30, norm=np.inf, **more):
    rows, labels = load(return_X_y=True)
    model = model.fit(rows[:300], labels[:300])
    space = space_around(rows[:300], room=1.0)
    part = slice(300, 300 + samples)
    task = task_of(
        rows[part], labels[part], space=space, classes=len(model.classes_), max_change=1.0, norm=norm, **more
    )
    return Transparent(model), task


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("load", "model"),
    [
        (load_breast_cancer, make_pipeline(StandardScaler(), LogisticRegression())),
        (load_digits, make_pipeline(StandardScaler(), LogisticRegression(max_iter=50))),
        (load_digits, RidgeClassifier()),
    ],
    ids=["two classes", "ten", "ten without probabilities"],
)
def test_what_is_found_is_no_further_than_the_bound(load, model, norm):
    target, task = table(load, model, norm=norm)
    found = play(target, LinearExact(), task)
    right = target.labels(task.rows) == task.labels
    assert right.sum() > 20
    assert np.isfinite(found.change[right]).all()
    np.testing.assert_allclose(found.change[right], found.bound[right], rtol=1e-6, atol=1e-9)
    assert (found.bound[~right] == 0).all()


def test_nothing_found_by_trying_is_nearer_than_the_bound_of_rows_with_whole_numbers_and_categories():
    rng = np.random.default_rng(0)
    category, code = rng.integers(0, 3, 200), rng.integers(0, 4, 200).astype(float)
    rows = np.column_stack([rng.normal(size=200), rng.integers(-3, 4, 200), np.eye(3)[category], code])
    labels = (rows[:, 0] + rows[:, 1] / 2 + category / 2 + (code == 2) > 0.8).astype(int)
    space = Space(
        columns=tuple("abcdef"),
        scale=np.array([rows[:, 0].std(), rows[:, 1].std(), 1, 1, 1, 1]),
        low=rows.min(axis=0),
        high=rows.max(axis=0),
        integer=np.array([False, True, False, False, False, False]),
        immutable=np.zeros(6, bool),
        codes=(Codes(5, np.unique(code)),),
        one_hot=(OneHot(np.array([2, 3, 4]), False),),  # noqa: FBT003 - a field
    )
    model = LogisticRegression().fit(rows, labels)
    choices = itertools.product(np.linspace(*np.quantile(rows[:, 0], [0, 1]), 61), range(-3, 4), np.eye(3), range(4))
    every = np.array([[number, whole, *hot, one] for number, whole, hot, one in choices])
    answers = model.predict(every)
    for norm in NORMS:
        task = task_of(rows[:40], labels[:40], space=space, classes=2, max_change=1.0, norm=norm)
        found = play(Transparent(model), LinearExact(), task)
        right = model.predict(task.rows) == task.labels
        fooled = np.isfinite(found.change) & right
        assert fooled.sum() > 0.8 * right.sum()
        assert space.possible(found.rows[fooled], task.rows[fooled]).all()
        for place in np.flatnonzero(right):
            others = every[answers != task.labels[place]]
            assert space.change(others, task.rows[place], norm).min() >= found.bound[place] - 1e-9
        assert (found.change[fooled] >= found.bound[fooled] - 1e-9).all()


def test_a_colour_image_counts_pixels_and_not_channels():
    rng = np.random.default_rng(0)
    rows = rng.random((60, 12)).astype(np.float32)
    labels = (rows.sum(axis=1) > 6).astype(int)
    model = LogisticRegression(C=100).fit(rows, labels)
    task = task_of(
        rows[:20], labels[:20], space=image_space((3, 2, 2)), classes=2, max_change=2, norm=0, shape=(3, 2, 2)
    )
    found = play(Transparent(model), LinearExact(), task)
    fooled = np.isfinite(found.change)
    assert fooled.any()
    assert (found.bound[fooled] <= found.change[fooled]).all()


def test_where_there_is_no_other_side_the_bound_is_infinite():
    rows, labels = np.array([[0.2], [0.8]]), np.array([0, 1])
    model = LogisticRegression().fit(rows, labels)
    model.coef_, model.intercept_ = np.array([[1.0]]), np.array([-5.0])
    task = task_of(rows[:1], labels[:1], space=space_around(rows), classes=2, max_change=1.0)
    found = play(Transparent(model), LinearExact(), task)
    assert found.bound.tolist() == [np.inf]
    assert found.robust.all()


def test_trees_are_sent_elsewhere():
    target, task = table(load_breast_cancer, DecisionTreeClassifier(max_depth=2))
    with pytest.raises(WorkError, match="attacks linear models, and the model is a TreeEnsemble"):
        play(target, LinearExact(), task)


def test_the_family_reports_the_exact_robust_accuracy_beside_the_one_found():
    train, rest = halves(load_breast_cancer)
    target = Transparent(make_pipeline(StandardScaler(), LogisticRegression()).fit(*train))
    game = play_family(LinearExact(), Evasion(), target, material(train, rest, samples=40, max_change=0.5))
    metrics = game.metrics
    certified = next(name for name in metrics if "certified" in name or "proven" in name)
    assert metrics[certified].value == pytest.approx(metrics["robust_accuracy"].value)
