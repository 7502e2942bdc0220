"""The smaller defences: what goes in and comes out of a defended model, and that it can be trained again."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from bartizan.adapters import sklearn_pruning
from bartizan.adapters.sklearn_families import InstalledFamilies, Tools
from bartizan.lifecycle.develop.choose.candidate import Fitted
from bartizan.lifecycle.develop.harden.answers import Clip, Quantise, Rounding, Temperature, tempered
from bartizan.lifecycle.develop.harden.box_forest import RobustTrees
from bartizan.lifecycle.develop.harden.ensemble import Ensemble, Redundancy
from bartizan.lifecycle.develop.harden.simpler import Distil, Features, Prune, importance
from bartizan.lifecycle.develop.harden.sites import compare_sites
from bartizan.lifecycle.develop.harden.transfer import asked_of, broken, evasion_task
from bartizan.targets.protocol import Access
from bartizan.targets.table import Table
from fixtures.games import halves, material

TOOLS = Tools(why_not_pruned=sklearn_pruning.why_not_pruned, pruned=sklearn_pruning.pruned)
FAMILIES = {family.name: family for family in InstalledFamilies(TOOLS).candidates()}
TRAIN, REST = halves(load_breast_cancer)
MATERIAL = material(TRAIN, REST, samples=30, query_budget=150, max_change=0.4)
DEFENCES = (Features(), Prune(), Distil(), Temperature(), Rounding(), Quantise(), Clip(), Redundancy(), RobustTrees())


def base(name="tree"):
    return FAMILIES[name].fit(*TRAIN, classes=2, seed=0, settings={})


def apply(defence, of=None):
    return defence.apply(of or base(), MATERIAL, np.random.default_rng(0))


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda each: each.name)
def test_a_defended_model_answers_as_a_target_and_trains_again(defence):
    assert defence.why_not(base(), MATERIAL) == ""
    model = apply(defence)
    assert isinstance(model, Fitted)
    for each in (model, model.retrain(*TRAIN, seed=5)):
        scores = each.scores(REST[0])
        assert scores.shape == (len(REST[0]), 2)
        assert scores.sum(axis=1) == pytest.approx(1)
        assert (each.labels(REST[0]) == REST[1]).mean() > 0.85
        assert (each.labels(REST[0]) == scores.argmax(axis=1)).mean() > 0.98
    assert Access.TRAINING in model.offers
    assert (apply(defence).scores(REST[0]) == model.scores(REST[0])).all()
    assert defence.references


def test_rounded_scores_are_coarse_and_keep_the_answer():
    exact, coarse = base("logistic"), apply(Rounding(), base("logistic"))
    scores = coarse.scores(REST[0])
    assert (scores.argmax(axis=1) == exact.labels(REST[0])).all()
    assert len(np.unique(np.round(scores[:, 1], 4))) <= 12


def test_quantised_inputs_hide_changes_within_a_cell_and_clipped_ones_the_tails():
    model = apply(Quantise())
    given = model.squeezed(REST[0])
    assert np.allclose(model.squeezed(given), given)
    assert len(np.unique(given[:, 0])) < 30
    clipped = apply(Clip()).squeezed(REST[0] * 100)
    assert (clipped <= TRAIN[0].max(axis=0)).all()


def test_temperature_mends_a_boasting_model():
    scores = np.array([[0.99, 0.01], [0.4, 0.6]])
    assert tempered(scores, 1.0) == pytest.approx(scores)
    assert tempered(scores, 3.0)[0, 0] < 0.9
    assert (tempered(scores, 3.0).argmax(axis=1) == [0, 1]).all()
    assert apply(Temperature(), base("network")).temperature > 0


def test_features_that_matter_are_kept():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 6))
    labels = (rows[:, 1] + rows[:, 4] > 0).astype(np.int64)
    model = FAMILIES["logistic"].fit(rows, labels, classes=2, seed=0, settings={"C": 1.0})
    need = importance(model, rows, labels, rng)
    assert set(np.argsort(-need)[:2]) == {1, 4}
    kept = apply(Features())
    assert len(kept.columns) == 15
    changed = REST[0].copy()
    changed[:, np.setdiff1d(np.arange(30), kept.columns)] = 1e9
    assert (kept.labels(changed) == kept.labels(REST[0])).all()


def test_rows_made_for_one_member_fool_the_others():
    model = apply(Redundancy(), base("logistic"))
    assert isinstance(model, Ensemble)
    task = evasion_task(MATERIAL, np.random.default_rng(0))
    rows, found = broken(model.members[0], task, 0)
    assert (model.members[0].labels(rows[found]) != task.labels[found]).all()
    assert (task.change(rows, np.arange(len(rows)))[found] <= task.max_change * (1 + 1e-9)).all()
    for judge in (*model.members[1:], model):
        fooled, count = asked_of(judge, rows, task, found)
        assert count >= 4
        assert fooled > 0.5 * count
    assert not Redundancy().credit


def test_sites_with_own_models_stop_transfer_that_a_shared_model_cannot():
    """Each site has its own coding of the measurements, so that one site's boundary is not the other's."""
    rng = np.random.default_rng(7)

    def site(turn, count):
        rows = rng.normal(size=(count, 4))
        labels = (rows[:, 0] + turn * 3 * rows[:, 1] + rng.normal(0, 0.2, count) > 0).astype(np.int64)
        return Table(tuple("abcd"), rows, labels, ("0", "1"))

    parts = {"north": (site(1, 200), site(1, 60)), "south": (site(-1, 200), site(-1, 60)), "tiny": (site(0, 9),) * 2}
    train = (
        np.concatenate([each[0].rows for each in parts.values()]),
        np.concatenate([each[0].labels for each in parts.values()]),
    )
    given = material(train, train, samples=30, query_budget=150, max_change=1.0)
    found = compare_sites(FAMILIES["logistic"], given, parts, settings={"C": 1.0}, tell=lambda *_: None)
    assert found.left_out == ("tiny",)
    assert found.shared_transfer.value > 0.99
    assert found.own_transfer.high < found.shared_transfer.low
    assert found.reduction.low > 0
    assert all(each.own_accuracy.value > each.shared_accuracy.value for each in found.sites)
    assert set(found.table) == {"north", "south"}
