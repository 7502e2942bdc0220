"""Every installed family: binary, several classes, one class, a missing class, the same seed twice."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_wine

from bartizan.adapters import sklearn_pruning
from bartizan.adapters.sklearn_families import InstalledFamilies, Tools
from bartizan.core.errors import WorkError
from bartizan.lifecycle.develop.choose.candidate import Fitted, Interpretability

TOOLS = Tools(why_not_pruned=sklearn_pruning.why_not_pruned, pruned=sklearn_pruning.pruned)
FAMILIES = {family.name: family for family in InstalledFamilies(TOOLS).candidates()}
WINE, KINDS = load_wine(return_X_y=True)


def fit(name, rows=WINE, labels=KINDS, classes=3, seed=1, **settings):
    return FAMILIES[name].fit(rows, labels.astype(np.int64), classes=classes, seed=seed, settings=settings)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_learns_and_answers_what_a_target_has_to(name):
    model = fit(name)
    assert isinstance(model, Fitted)
    scores, labels = model.scores(WINE), model.labels(WINE)
    assert scores.shape == (len(WINE), 3)
    assert np.allclose(scores.sum(axis=1), 1)
    assert labels.dtype == np.int64
    assert (labels == KINDS).mean() > (0.3 if FAMILIES[name].is_floor else 0.9)
    assert model.labels(WINE[:0]).shape == (0,)
    assert model.scores(WINE[:0]).shape == (0, 3)
    assert model.facts.parameters > 0
    assert model.facts.size_bytes > 100
    again = fit(name)
    assert (again.scores(WINE) == scores).all()
    assert (model.retrain(WINE, KINDS, seed=1).scores(WINE) == scores).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_bears_one_class_and_a_missing_one(name):
    one = fit(name, WINE[:20], np.full(20, 2))
    assert (one.labels(WINE) == 2).all()
    assert (one.scores(WINE)[:, 2] == 1).all()
    kept = KINDS != 1
    two = fit(name, WINE[kept], KINDS[kept])
    assert set(two.labels(WINE).tolist()) <= {0, 2}
    assert (two.scores(WINE)[:, 1] == 0).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_settings_of_a_family_can_all_be_chosen(name):
    for axis in FAMILIES[name].axes:
        for value in axis.values:
            assert fit(name, WINE[::3], KINDS[::3], **{axis.setting: value}).classes == 3


def test_numbers_are_those_of_the_estimator():
    rows, labels = load_breast_cancer(return_X_y=True)
    linear, tree = fit("logistic", rows, labels, 2), fit("tree", rows, labels, 2, max_depth=2, min_samples_leaf=1)
    assert linear.facts.parameters == 31
    assert linear.facts.interpretability is Interpretability.GLASS_BOX
    assert tree.facts.parameters == 2 * 3 + 4
    assert tree.facts.why == "a tree of 4 leaves"
    assert fit("forest", rows, labels, 2).facts.interpretability is Interpretability.BLACK_BOX
    wide = np.tile(rows, 5)
    assert fit("logistic", wide, labels, 2).facts.interpretability is Interpretability.GREY_BOX


def test_no_records_teach_nothing():
    with pytest.raises(WorkError, match="no records"):
        fit("tree", WINE[:0], KINDS[:0])


@pytest.mark.parametrize("name", ["tree", "forest", "boosting", "network"])
def test_pruning_makes_a_model_smaller_and_keeps_it_so(name):
    settings = {"max_depth": None, "min_samples_leaf": 1} if name in {"tree", "forest"} else {}
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(len(KINDS)) < 0.1, rng.integers(0, 3, len(KINDS)), KINDS)
    model = fit(name, WINE, labels, **settings)
    assert model.why_not_pruned() == ""
    pruned = model.pruned(WINE, labels, seed=0)
    assert pruned.facts.parameters < model.facts.parameters
    assert pruned.retrain(WINE, labels, seed=1).facts.parameters < model.facts.parameters
    assert (pruned.labels(WINE) == KINDS).mean() > 0.6


def test_what_cannot_be_pruned_says_why():
    assert "lose features" in fit("logistic").why_not_pruned()


def test_code_of_a_family_is_named_with_its_version():
    for family in FAMILIES.values():
        assert family.supply.code.split()[-1][0].isdigit()
