"""DP-SGD as a defence, and the column that audits every promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

from bartizan.lifecycle.develop.choose.trial import Trial
from bartizan.lifecycle.develop.harden.audit import Audit, Promise, Promising
from bartizan.lifecycle.develop.harden.networks import DELTA, WORDS, NetworkTraining, PrivateTraining
from bartizan.lifecycle.develop.harden.private import Private
from bartizan.targets.protocol import Access
from bartizan.wiring.networks import TorchNetwork
from fixtures.games import halves, material
from fixtures.victims import Victim

TRAIN, REST = halves(load_breast_cancer)
MATERIAL = material(TRAIN, REST, shadow_models=16, max_change=0.25)


@pytest.fixture(scope="module")
def network():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TorchNetwork().fit(*TRAIN, classes=2, seed=0, settings={})
    torch.set_num_threads(before)


class Liar(Victim):
    """A forest that learns by heart, and promises privacy."""

    promise = Promise(0.2)

    def retrain(self, rows, labels, *, seed):
        return Liar(RandomForestClassifier(20, random_state=seed).fit(rows, labels))


def audited(target):
    return Audit().measure(Trial(TorchNetwork(), target, MATERIAL))


def test_dp_sgd_replaces_the_training_of_a_network(network):
    defence = PrivateTraining(2.0)
    assert defence.name == "dp-sgd-2"
    assert defence.why_not(network, MATERIAL) == ""
    made = defence.apply(network, MATERIAL, np.random.default_rng(0))
    assert isinstance(made, Promising)
    assert made.promise == Promise(2.0, DELTA)
    assert (made.labels(REST[0]) == REST[1]).mean() > 0.85
    assert Access.TRAINING in made.offers
    one, two = (made.retrain(*TRAIN, seed=3) for _ in range(2))
    assert (one.scores(REST[0][:9]) == two.scores(REST[0][:9])).all()
    assert one.promise == made.promise
    assert np.isfinite(made.scores(REST[0] * 1e12)).all()


def test_what_is_no_network_or_too_many_records_is_not_trained_so(network):
    assert "--base torch" in PrivateTraining().why_not(Liar(RandomForestClassifier(2).fit(*TRAIN)), MATERIAL)

    class Many:
        training = range(200_000)

    assert "delta" in PrivateTraining().why_not(network, Many())


@pytest.mark.parametrize("way", WORDS)
def test_every_way_of_training_gives_a_network_that_works(network, way):
    defence = NetworkTraining(way)
    assert defence.why_not(network, MATERIAL) == ""
    made = defence.apply(network, MATERIAL, np.random.default_rng(0))
    assert (made.labels(REST[0]) == REST[1]).mean() > 0.85


def test_the_audit_refutes_who_promises_what_he_does_not_do():
    part = audited(Liar(RandomForestClassifier(20).fit(*TRAIN)))
    assert part.metrics["epsilon_lower_bound"].value > 0.2
    assert part.details == {"promised": {"epsilon": 0.2, "delta": 0.0}, "kept": False}


def test_the_audit_does_not_refute_who_keeps_the_promise():
    made = Private(1.0).apply(Victim(RandomForestClassifier(2).fit(*TRAIN)), MATERIAL, np.random.default_rng(0))
    part = audited(made)
    assert part.metrics["epsilon_lower_bound"].value <= 1.0
    assert part.details["kept"] is True


def test_what_cannot_be_trained_again_is_not_audited():
    class Frozen(Victim):
        offers = frozenset({Access.LABELS})

    assert "cannot be trained again" in audited(Frozen(RandomForestClassifier(2).fit(*TRAIN))).missing
