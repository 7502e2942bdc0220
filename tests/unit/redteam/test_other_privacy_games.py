"""Attributes, properties and inversion: what a model gives away beyond what could be guessed without it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace

import joblib
import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.statement import make
from bartizan.redteam import registry
from bartizan.redteam.attacks.privacy.attribute import AttributeByLabels, AttributeByScores
from bartizan.redteam.attacks.privacy.canaries import Improbable, Mislabelled
from bartizan.redteam.attacks.privacy.inversion import InversionByGradients, InversionByScores
from bartizan.redteam.attacks.privacy.properties import PropertyByShadows
from bartizan.redteam.attribute import AttributeInference, choose
from bartizan.redteam.check import AttackCheck
from bartizan.redteam.inversion import Inversion
from bartizan.redteam.properties import PropertyInference, draw
from bartizan.targets.feasible import Codes, OneHot
from bartizan.targets.protocol import Access
from fixtures.games import arrays_in, halves, material, play
from fixtures.victims import Victim, declare, desk

CANCER, DIGITS = halves(load_breast_cancer), halves(load_digits)
ATTACKS = [AttributeByScores(), AttributeByLabels(), PropertyByShadows(), InversionByScores()]


def linear(**settings):
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, **settings))


def played(attack, model, data, *, seed=0, **settings):
    return play(attack, registry.family(attack.name), model.fit(*data[0]), material(*data, **settings), seed=seed)


# -- attributes ------------------------------------------------------------------------------------


def secret(seed=0, records=1500):
    """A yes-or-no feature and four numbers, none of which has anything to do with another or with the class."""
    rng = np.random.default_rng(seed)
    rows, labels = rng.normal(size=(records, 5)), rng.integers(0, 2, records)
    rows[:, 0] = 3 * rng.integers(0, 2, records)
    third = records // 3
    return (rows[:third], labels[:third]), (rows[third:], labels[third:])


@pytest.mark.parametrize("attack", [AttributeByScores(), AttributeByLabels()])
def test_a_model_that_knows_its_records_by_heart_gives_their_attributes_away(attack):
    game = played(attack, KNeighborsClassifier(1), secret())
    assert game.metrics["leak"].low > 0.05
    assert game.metrics["gain_on_members"].low > 0.1
    assert game.metrics["gain_on_others"].low <= 0
    assert abs(game.metrics["accuracy_without_model"].value - 0.5) < 0.06
    assert [finding.rule for finding in game.measurement.findings] == ["redteam/attribute"]


def test_a_smooth_model_gives_none_away():
    game = played(AttributeByScores(), KNeighborsClassifier(100), secret())
    assert game.metrics["leak"].low < 0 < game.metrics["leak"].high
    assert not game.measurement.findings


def test_what_statistics_tell_is_not_held_against_the_model():
    """Features of a tumour tell one another; a guess that needs no model is right nine times in ten."""
    game = played(AttributeByScores(), linear(), CANCER)
    assert game.metrics["accuracy"].value > 0.85
    assert game.metrics["accuracy_without_model"].value > 0.85
    assert game.metrics["leak"].low < 0 < game.metrics["leak"].high
    assert not game.measurement.findings


def test_the_attribute_asked_is_in_no_row_of_the_task():
    of = material(*secret())
    case = AttributeInference().case(AttributeByScores(), of, np.random.default_rng(0))
    task = case.task
    for place, attribute in enumerate(task.attributes):
        people = task.asked == place
        assert (attribute.of(task.rows[people]) == 0).all()
        assert 0.3 < case.truth.truth[people].mean() < 0.7
    shared = [array for array in arrays_in(task) if np.shares_memory(array, case.truth.truth)]
    assert not shared
    held = {row.tobytes() for row in task.known}
    assert not held & {row.tobytes() for row in of.training.rows}


def test_declared_categories_come_first_and_are_tried_as_a_whole():
    of = material(*secret())
    rows = of.training.rows.copy()
    rows[:, 1:4] = np.eye(3)[np.arange(len(rows)) % 3]
    table = replace(of.training, rows=rows)
    space = replace(
        of.space, one_hot=(OneHot(np.array([1, 2, 3]), may_be_empty=False),), codes=(Codes(0, np.array([0.0, 3.0])),)
    )
    group, code, half = choose(space, table)
    assert (group.name, len(group.values), code.name, len(code.values)) == ("x1", 3, "x0", 2)
    assert half.name == "x4 (half)"
    np.testing.assert_array_equal(group.of(rows), np.arange(len(rows)) % 3)
    np.testing.assert_array_equal(group.of(group.filled(rows, 2)), 2)


# -- properties ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [linear(C=0.1), GaussianNB()])
def test_models_give_away_what_their_training_data_were_like(model):
    game = played(PropertyByShadows(), model, CANCER, shadow_models=32)
    assert game.metrics["accuracy"].low > 0.6
    assert [finding.rule for finding in game.measurement.findings] == ["redteam/property"]


def test_a_constant_model_gives_no_property_away_and_neither_does_a_smooth_one_of_what_it_does_not_use():
    constant = played(PropertyByShadows(), DummyClassifier(strategy="uniform", random_state=0), CANCER)
    assert constant.metrics["accuracy"].low < 0.5 < constant.metrics["accuracy"].high
    unused = played(PropertyByShadows(), KNeighborsClassifier(100), secret(), shadow_models=32)
    assert unused.metrics["accuracy"].low < 0.6
    assert not [*constant.measurement.findings, *unused.measurement.findings]


def test_the_victims_are_trained_on_nothing_that_the_adversary_has():
    case = PropertyInference().case(PropertyByShadows(), material(*CANCER), np.random.default_rng(0))
    mine = {row.tobytes() for row in (*case.task.rows, *case.task.probes)}
    assert not mine & {row.tobytes() for row in case.truth.rows}
    assert not {row.tobytes() for row in case.task.rows} & {row.tobytes() for row in case.task.probes}


def test_a_draw_has_the_share_that_was_asked_for_and_every_class():
    rng = np.random.default_rng(0)
    holds, labels = rng.random(400) < 0.5, rng.integers(0, 3, 400)
    drawn = draw(holds, labels, 0.25, 100, rng)
    assert holds[drawn].sum() == 25
    assert len(set(drawn)) == 100
    labels[:] = 0
    labels[np.flatnonzero(~holds)[:1]] = 1
    with pytest.raises(ArtefactError, match="too rare"):
        draw(holds, labels, 1.0, 100, rng)


# -- inversion -------------------------------------------------------------------------------------


def test_scores_show_what_the_classes_look_like():
    game = played(InversionByScores(), linear(C=0.01), DIGITS)
    assert game.metrics["similarity"].low > 0.7
    assert game.metrics["classes_identified"].value == 1
    assert game.metrics["similarity_without_model"].high < 0.15
    assert [finding.rule for finding in game.measurement.findings] == ["redteam/inversion"]


def test_a_constant_model_shows_nothing():
    game = played(InversionByScores(), DummyClassifier(), DIGITS)
    assert game.metrics["similarity"].value == 0
    assert not game.measurement.findings


def test_the_climb_stays_possible_and_within_the_budget():
    game = played(InversionByScores(), linear(), DIGITS, query_budget=200)
    rows = game.run.candidates
    centre = np.broadcast_to(game.case.task.centre, rows.shape)
    assert game.case.task.space.possible(rows, centre).all()
    assert game.run.ledger.spent.max() <= 200


class Smooth(Victim):
    """Multinomial logistic regression that answers gradients as well."""

    offers = frozenset({Access.LABELS, Access.SCORES, Access.LOGITS, Access.GRADIENTS})
    dtype, shape = np.dtype(np.float64), (64,)

    def logits(self, rows):
        return self.model.decision_function(rows)

    def gradients(self, rows, loss, labels, targets=None):
        assert (loss, targets) == ("cross_entropy", None)
        scores = self.model.predict_proba(rows)
        slopes = (scores - np.eye(self.classes)[labels]) @ (self.model[-1].coef_ / self.model[0].scale_)
        return np.column_stack([self.logits(rows), slopes])


def test_gradients_show_as_much_and_need_no_scores():
    victim = Smooth(make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(*DIGITS[0]))
    victim.model[0].scale_[victim.model[0].var_ == 0] = 1.0
    game = play(InversionByGradients(), Inversion(), victim, material(*DIGITS))
    assert game.metrics["similarity"].low > 0.7
    assert game.run.ledger.queries == 0


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_same_seed_gives_the_same_bytes(attack):
    model = DecisionTreeClassifier(max_depth=4, random_state=0)
    one, same = (
        msgspec.json.encode(played(attack, model, CANCER, seed=3, shadow_models=8).measurement) for _ in range(2)
    )
    assert one == same


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_that_gives_up_is_no_result(attack):
    class Idle(type(attack)):
        def search(self, task, rng):  # noqa: ARG002 - it does nothing
            yield from ()

    with pytest.raises(WorkError, match="stopped before it was done"):
        played(Idle(), DecisionTreeClassifier(random_state=0), CANCER, shadow_models=8)


@pytest.mark.parametrize("attack", [AttributeByScores(), PropertyByShadows()])
def test_too_few_records_are_refused(attack):
    few = tuple((rows[:30], labels[:30]) for rows, labels in CANCER)
    with pytest.raises(ArtefactError, match="too few"):
        registry.family(attack.name).case(attack, material(*few), np.random.default_rng(0))


class InProcess:
    """Loads declared models in this process, for speed. They were made by the test itself."""

    @contextmanager
    def open(self, _system, model):
        yield Victim(joblib.load(model.path))


@pytest.mark.parametrize("attack", [*ATTACKS, Mislabelled(), Improbable()], ids=lambda attack: attack.name)
def test_each_runs_as_a_check_of_a_declared_system(attack, tmp_path):
    model = DecisionTreeClassifier(max_depth=4, random_state=0).fit(*CANCER[0])
    system = declare(tmp_path, model, *CANCER, classes=("malignant", "benign"), shadow_models=8)
    check = AttackCheck(registry.family(attack.name), attack)
    outcome = check.run(system, system.of_kind("model")[0], desk(InProcess()))
    assessment = make(outcome.predicate_type, system.of_kind("model")[0], outcome.predicate).read()
    assert (assessment.family, assessment.method) == ("privacy", attack.name)
    assert assessment.techniques == (attack.technique, *attack.atlas)
    assert assessment.threat.knowledge
    assert all(metric.low <= metric.value <= metric.high for metric in assessment.metrics.values())
    assert json.loads(outcome.report.data)["references"]
