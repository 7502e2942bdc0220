"""Membership without training: what leaks is found, what does not leak is not, and nothing else is asked."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.redteam import registry
from bartizan.redteam.attacks.privacy.population import Population, PopulationFromLabels
from bartizan.redteam.check import why_not
from bartizan.redteam.population import PopulationMembership
from bartizan.redteam.tasks import MembershipGuess, MembershipResult
from bartizan.targets.protocol import Access
from fixtures.games import arrays_in, halves, material, noisy_digits, play

TRAIN, REST = halves(noisy_digits)


def forest():
    return RandomForestClassifier(40, random_state=0, n_jobs=1).fit(*TRAIN)


@pytest.fixture(scope="module")
def game():
    return play(Population(), PopulationMembership(), forest(), material(TRAIN, REST))


def test_an_overfitted_model_gives_its_members_away_and_the_comparison_by_class_sees_it(game):
    assert game.metrics["auc"].low > 0.75
    assert game.metrics["balanced_accuracy_advantage"].low > 0.3
    assert game.measurement.tables["headline_rule"] == "population"


def test_a_model_that_keeps_its_records_is_a_finding():
    model = KNeighborsClassifier(10, weights="distance").fit(*TRAIN)
    game = play(Population(), PopulationMembership(), model, material(TRAIN, REST))
    assert game.metrics["tpr_at_1_percent_fpr"].low > 0.05
    assert [finding.rule for finding in game.measurement.findings] == ["redteam/membership"]
    assert "over" in game.measurement.findings[0].detail


def test_each_record_is_asked_once_and_nothing_is_trained(game):
    asked = len(game.case.task.rows) + len(game.case.task.owned)
    assert game.run.ledger.queries == asked
    assert game.run.ledger.spent.max() == 1
    assert game.victim.fits == []


def test_owned_records_are_no_members_and_none_of_those_in_question(game):
    task = game.case.task
    owned = {row.tobytes() for row in task.owned}
    assert not owned & {row.tobytes() for row in np.asarray(TRAIN[0], np.float64)}
    assert not owned & {row.tobytes() for row in task.rows}


def test_the_task_does_not_hold_the_truth(game):
    members = game.case.truth.members
    for array in arrays_in(game.case.task):
        assert array.dtype != np.bool_ or len(array) != len(members)


@pytest.mark.parametrize("attack", [Population(), PopulationFromLabels()], ids=lambda attack: attack.name)
def test_a_model_that_learnt_nothing_by_heart_gives_nothing_away(attack):
    train, rest = halves(load_breast_cancer)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(*train)
    metrics = play(attack, PopulationMembership(), model, material(train, rest)).metrics
    assert metrics["auc"].low < 0.5 < metrics["auc"].high
    assert metrics["tpr_at_1_percent_fpr"].low < 0.05


def test_a_constant_model_is_a_coin(game):
    train, rest = halves(load_breast_cancer)
    model = DummyClassifier(strategy="prior").fit(*train)
    metrics = play(Population(), PopulationMembership(), model, material(train, rest)).metrics
    assert metrics["auc"].low <= 0.5 <= metrics["auc"].high


def test_labels_alone_show_who_is_answered_rightly():
    metrics = play(PopulationFromLabels(), PopulationMembership(), forest(), material(TRAIN, REST)).metrics
    assert metrics["auc"].low > 0.5


@pytest.mark.slow
def test_the_intervals_cover_the_truth_of_a_coin():
    """A victim that knows nothing: in 95 of 100 games the interval holds one half."""
    train, rest = halves(load_breast_cancer)
    model = DummyClassifier(strategy="uniform", random_state=0).fit(*train)

    class Coin:
        name, needs, title = "privacy.membership-population", Population.needs, "Coin"

        def search(self, task, rng):
            yield from ()
            scores = rng.random(len(task.rows))
            return MembershipResult((MembershipGuess("population", scores, scores > 0.5, headline=True),), ())

    of = material(train, rest)
    held = [
        (auc := play(Coin(), PopulationMembership(), model, of, seed=seed).metrics["auc"]).low <= 0.5 <= auc.high
        for seed in range(40)
    ]
    assert sum(held) >= 34


def test_what_cannot_be_played_is_said():
    train, rest = halves(load_breast_cancer)
    few = (rest[0][:30], rest[1][:30])
    with pytest.raises(ArtefactError, match="needs at least 40"):
        PopulationMembership().case(Population(), material(train, few), np.random.default_rng(0))

    class Idle(Population):
        def search(self, task, rng):
            del task, rng
            yield from ()

    with pytest.raises(WorkError, match="stopped before it was done"):
        play(Idle(), PopulationMembership(), forest(), material(TRAIN, REST))


def test_it_applies_where_nothing_can_be_trained():
    assert why_not(registry.attack("privacy.membership-population"), frozenset({Access.LABELS, Access.SCORES})) == ""
    assert registry.check("privacy.membership-population").variants[1].name == "privacy.membership-population-labels"
