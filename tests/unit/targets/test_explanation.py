"""Explanations: exact where they can be, adding up everywhere, and telling the same each time."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from bartizan.adapters.sklearn_structure import read
from bartizan.core.errors import InputError
from bartizan.targets.explanation import Unit, explain, shapley, usual_row
from bartizan.targets.protocol import Access
from fixtures.victims import Victim

ROWS, LABELS = load_breast_cancer(return_X_y=True)
USUAL = usual_row(ROWS, np.zeros(30, bool))


def victim(model, rows=ROWS, labels=LABELS):
    return Victim(model.fit(rows, labels))


class Open(Victim):
    """A victim that shows what it is made of."""

    offers = frozenset({Access.LABELS, Access.SCORES, Access.WEIGHTS})

    def structure(self):
        return read(self.model)


def by_every_order(value, row, usual):
    """Shapley values by their definition: the mean over all orders."""
    total, orders = np.zeros(len(row)), list(itertools.permutations(range(len(row))))
    for order in orders:
        now, before = usual.copy(), value(usual[None])[0]
        for feature in order:
            now[feature] = row[feature]
            after = value(now[None])[0]
            total[feature] += after - before
            before = after
    return total / len(orders)


def test_a_logistic_model_is_explained_by_its_log_odds():
    target = Open(make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, LABELS))
    for place in (0, 19, 100):
        row = ROWS[place]
        found = explain(target, row, USUAL)
        scores = target.scores(np.stack([USUAL, row]))[:, found.answered]
        odds = np.log(scores) - np.log1p(-scores)
        assert found.answered == target.labels(row[None])[0]
        assert found.unit is Unit.MARGIN
        assert found.exact
        assert [found.usual, found.here] == pytest.approx(odds, rel=1e-6)
        assert found.usual + found.contributions.sum() == pytest.approx(found.here)


def test_of_several_classes_the_lead_over_the_next_one_is_explained():
    rows, labels = load_wine(return_X_y=True)
    target = Open(make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels))
    usual = usual_row(rows, np.zeros(13, bool))
    for row in rows[::20]:
        found = explain(target, row, usual)
        logits = np.log(target.scores(np.stack([usual, row])))
        runner = np.argsort(logits[1])[-2]
        assert found.answered == np.argmax(logits[1])
        lead = logits[:, found.answered] - logits[:, runner]
        assert [found.usual, found.here] == pytest.approx(lead, rel=1e-6)
        assert found.usual + found.contributions.sum() == pytest.approx(found.here)


def test_estimates_agree_with_the_definition():
    rows, labels = load_wine(return_X_y=True)
    rows = rows[:, :4]
    target = victim(RandomForestClassifier(20, random_state=0), rows, labels)
    usual, row = usual_row(rows, np.zeros(4, bool)), rows[3]
    answered = target.labels(row[None])[0]

    def value(given):
        return target.scores(given)[:, answered]

    exact = by_every_order(value, row, usual)
    found, errors = shapley(value, row, usual)
    assert (np.abs(found - exact) <= 4 * errors + 1e-9).all()
    assert np.abs(found - exact).max() < 0.03
    assert found.sum() == pytest.approx(value(row[None])[0] - value(usual[None])[0])


def test_additive_games_are_exact_after_one_order():
    weights = np.arange(5.0)
    found, errors = shapley(lambda rows: rows @ weights, np.ones(5), np.zeros(5))
    assert found == pytest.approx(weights)
    assert errors == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("model", [RandomForestClassifier(10, random_state=0), GaussianNB()])
def test_parts_add_up_and_the_same_row_is_explained_alike(model):
    target = victim(model)
    one, two = (explain(target, ROWS[5], USUAL) for _ in range(2))
    assert one.unit is Unit.PROBABILITY
    assert one.usual + one.contributions.sum() == pytest.approx(one.here)
    assert (one.contributions == two.contributions).all()
    assert not one.exact


def test_a_tree_shows_the_way_that_the_row_takes():
    model = DecisionTreeClassifier(max_depth=4, random_state=0)
    target = Open(model.fit(ROWS, LABELS))
    for row in ROWS[:20]:
        path = explain(target, row, USUAL).path
        places = model.decision_path(row[None]).indices[:-1]
        assert [step.feature for step in path] == model.tree_.feature[places].tolist()
        for step, place in zip(path, places, strict=True):
            assert step.above == (row[step.feature] > step.threshold)
            assert step.threshold == pytest.approx(model.tree_.threshold[place], rel=1e-6)


def test_a_usual_row_explains_nothing_and_a_model_without_scores_is_explained_by_its_answers():
    target = victim(GaussianNB())
    assert not explain(target, USUAL, USUAL).contributions.any()

    class Silent(Victim):
        @property
        def offers(self):
            return frozenset({Access.LABELS})

    said = explain(Silent(GaussianNB().fit(ROWS, LABELS)), ROWS[0], USUAL)
    assert said.unit is Unit.ANSWER
    assert said.here == 1
    assert said.contributions.sum() == pytest.approx(1 - said.usual)


def test_the_usual_row_takes_the_most_frequent_category():
    rows = np.array([[1.0, 3], [2, 3], [9, 7], [4, 3]])
    assert usual_row(rows, np.array([False, True])).tolist() == [3.0, 3.0]
    with pytest.raises(InputError):
        usual_row(rows[:0], np.array([False, True]))


@pytest.mark.parametrize("row", [np.ones(29), np.ones((1, 30)), np.full(30, math.nan)])
def test_what_is_no_row_is_refused(row):
    with pytest.raises(InputError):
        explain(victim(GaussianNB()), row, USUAL)
