"""Poison for single rows counts only by what a model trained on it answers, and by no more than it may change."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import msgspec
import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from bartizan.adapters.torch import TorchTarget
from bartizan.adapters.torch_training import Recipe, train
from bartizan.adapters.torch_transfer import LastLayer
from bartizan.core.errors import ArtefactError, InputError, WorkError
from bartizan.redteam import registry
from bartizan.redteam.aimed import AimedPoisoning
from bartizan.redteam.aims import AimedPoison
from bartizan.redteam.attack import Approach
from bartizan.redteam.attacks.poisoning import feature_collision
from bartizan.redteam.attacks.poisoning.feature_collision import FeatureCollision
from bartizan.redteam.check import why_not
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.ledger import Budget
from bartizan.targets.protocol import Access, Approachable
from fixtures.games import halves, material, play
from fixtures.victims import Victim

SHAPE = (1, 8, 8)


@cache
def digits():
    """Rows in [0, 1] for the network that is taken over, for the layer trained on it, and to measure on."""
    rows, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(rows))
    return tuple(((rows[part] / 16).astype(np.float32), labels[part]) for part in np.split(order, [800, 1100]))


@cache
def transferred():
    """A target whose last layer alone is trained, on a network that is known."""
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)
    parent, train_rows = nn.Sequential(*layers), digits()[1]
    train(parent, *digits()[0], shape=SHAPE, recipe=Recipe(epochs=10), seed=0)
    trainer = LastLayer(parent, SHAPE, steps=100)
    return TorchTarget(trainer(*train_rows, 1), shape=SHAPE, classes=10, trainer=trainer)


def crafted(**settings):
    """Case, run and measurement of the attack on the network."""
    of = material(*digits()[1:], **({"samples": 8, "repeats": 2} | settings))
    attack, engine, streams = FeatureCollision(), Engine(transferred()), np.random.default_rng(4).spawn(3)
    family = AimedPoisoning(SHAPE)
    case = family.case(attack, of, streams[0])
    run = Run(attack.search(case.task, streams[1]), budget=case.budget, needs=attack.needs)
    engine.drive([run])
    measuring = run.measuring(family.measure(case, run, streams[2]))
    engine.drive([measuring])
    return case, run, measuring.candidates


@cache
def game():
    return crafted()


def test_one_rightly_labelled_row_turns_nearly_every_aim_where_only_the_last_layer_is_trained():
    """Shafahi et al. 2018, section 3.1: 100 % with one row, and the layer learns its rows by heart."""
    target, (rows, labels) = transferred(), digits()[1]
    assert (target.labels(rows) == labels).all()
    metrics = game()[2].metrics
    assert metrics["attack_success"].value >= 0.75  # 7 or 8 of 8, by the arithmetic of the processor
    assert metrics["attack_success_beyond_clean_models"].low > 0.2
    assert metrics["attack_success_beyond_mixing"].low > 0
    assert metrics["accuracy_drop"].high < 0.05
    assert metrics["clean_accuracy"].low > 0.88


def test_the_poison_is_one_possible_row_of_the_wanted_class_and_ends_up_beside_the_aim():
    case, run, measured = game()
    task = case.task
    assert [poison.aim for poison in run.candidates] == list(range(8))
    for poison in run.candidates:
        assert task.labels[poison.places].tolist() == [task.wanted[poison.aim]]
        assert task.space.possible(poison.rows, task.rows[poison.places]).all()
        aim = task.aims[poison.aim : poison.aim + 1]
        before = transferred().approach(task.rows[poison.places], aim)[0, 0]
        assert transferred().approach(poison.rows, aim)[0, 0] < 0.2 * before
    assert run.ledger.fits <= task.fits
    assert run.ledger.queries == 0
    (finding,) = measured.findings
    assert finding.rule == "redteam/poisoning-aimed"
    assert "1 of 300 training records" in measured.summary


def test_the_number_is_that_of_models_trained_on_the_poison():
    case, run, measured = game()
    task, seeds = case.task, case.truth.seeds
    turned = [
        transferred()
        .retrain(poison.spoilt(task), task.labels, seed=seeds[poison.aim % 2])
        .labels(task.aims[poison.aim : poison.aim + 1])[0]
        == task.wanted[poison.aim]
        for poison in run.candidates[:4]
    ]
    assert turned == [row["spoilt"] == row["wanted"] for row in measured.tables["aims"]][:4]
    assert measured.metrics["attack_success"].value == np.mean(
        [row["spoilt"] == row["wanted"] for row in measured.tables["aims"]]
    )


def test_the_same_seed_gives_the_same_bytes(monkeypatch):
    monkeypatch.setattr(feature_collision, "STEPS", 20)
    one, same = (msgspec.json.encode(crafted(samples=2)[2]) for _ in range(2))
    assert one == same


def test_no_row_that_accuracy_is_measured_on_is_in_the_task():
    case, _, _ = game()
    kept = {row.tobytes() for row in case.truth.others.rows}
    assert not kept & {row.tobytes() for row in [*case.task.rows, *case.task.aims]}


def test_a_target_without_a_representation_is_told_what_is_missing():
    assert "needs activations" in why_not(FeatureCollision(), Victim(nearest().fit(*digits()[1])).offers)
    assert Access.ACTIVATIONS in transferred().offers
    assert isinstance(transferred(), Approachable)
    plain = TorchTarget(nn.Conv2d(1, 2, 8), shape=SHAPE, classes=2)
    assert Access.ACTIVATIONS not in plain.offers
    assert isinstance(registry.family("poisoning.feature-collision"), AimedPoisoning)


class Fixed(FeatureCollision):
    """Hands over what a function makes of the task."""

    def __init__(self, make):
        self.make = make

    def search(self, task, _rng):
        yield from ()
        return self.make(task)


def nearest():
    return KNeighborsClassifier(1)


def swapped(task):
    """For each aim the aim itself, labelled as wanted: what any nearest neighbour believes."""
    places = [np.flatnonzero(task.labels == wanted)[:1] for wanted in task.wanted]
    return tuple(AimedPoison(aim, place, task.aims[aim : aim + 1]) for aim, place in enumerate(places))


def cancer(**settings):
    train_rows, rest = halves(load_breast_cancer)
    return train_rows, material(train_rows, rest, **({"samples": 6, "repeats": 2} | settings))


def test_an_obvious_poison_counts_and_does_no_better_than_mixing_and_does_not_look_like_its_label():
    train_rows, of = cancer(samples=12)
    measured = play(Fixed(swapped), AimedPoisoning(), nearest().fit(*train_rows), of).measurement
    assert measured.metrics["attack_success"].value == 1
    assert measured.metrics["attack_success_beyond_mixing"].value == 0
    assert measured.metrics["poison_that_looks_like_its_label"].value < 0.4


def test_no_poison_turns_nothing_beyond_clean_models():
    train_rows, of = cancer()
    measured = play(Fixed(lambda _: ()), AimedPoisoning(), nearest().fit(*train_rows), of).measurement
    assert measured.metrics["attack_success_beyond_clean_models"].value == 0
    assert measured.metrics["accuracy_drop"].value == 0
    assert not measured.findings


def one(**changes):
    return lambda task: (replace(swapped(task)[0], **changes),)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda _: None, "stopped before it was done"),
        (lambda task: swapped(task) * 2, "at most one for each aim"),
        (one(aim=99), "at most one for each aim"),
        (one(places=np.array([1, 1])), "other than 1 records"),
        (lambda task: (AimedPoison(0, np.arange(2), task.rows[:2]),), "other than 1 records"),
        (one(rows=np.zeros((1, 3))), "another shape"),
        (one(rows=np.full((1, 30), np.nan)), "not finite"),
        (one(rows=np.full((1, 30), 1e9)), "not possible"),
    ],
)
def test_an_attack_that_breaks_the_rules_is_no_result(make, fault):
    train_rows, of = cancer()
    with pytest.raises(WorkError, match=fault):
        play(Fixed(make), AimedPoisoning(), nearest().fit(*train_rows), of)


def test_a_bound_on_the_change_is_kept_to():
    train_rows, of = cancer()
    with pytest.raises(WorkError, match=r"by more than 0\.1"):
        play(Fixed(swapped), AimedPoisoning(max_change=0.1), nearest().fit(*train_rows), of)


def test_one_class_or_too_few_rows_are_refused():
    (rows, labels), of = cancer()
    alone = material((rows[labels == 1], labels[labels == 1]), (rows[:9], labels[:9]))
    with pytest.raises(ArtefactError, match="two classes"):
        AimedPoisoning().case(FeatureCollision(), alone, np.random.default_rng(0))
    with pytest.raises(ArtefactError, match="4 evaluation rows"):
        AimedPoisoning().case(
            FeatureCollision(), replace(of, evaluation=of.evaluation.take(np.arange(3))), np.random.default_rng(0)
        )


def test_the_way_towards_another_row_is_the_slope_of_the_distance():
    rows = digits()[2][0][:5].astype(np.float64)
    towards, target = rows[::-1].copy(), transferred()
    answer = target.approach(rows, towards)
    between = target.activations(rows).astype(np.float64) - target.activations(towards)
    assert answer[:, 0] == pytest.approx((between**2).sum(axis=1), rel=1e-4)
    step = 1e-3 * answer[:, 1:] / np.maximum(np.linalg.norm(answer[:, 1:], axis=1, keepdims=True), 1e-12)
    ahead, back = target.approach(rows + step, towards)[:, 0], target.approach(rows - step, towards)[:, 0]
    slopes = np.linalg.norm(answer[:, 1:], axis=1)
    assert (ahead - back) / 2e-3 == pytest.approx(slopes, rel=0.05, abs=0.05)
    assert target.approach(rows[:0], towards[:0]).shape == (0, 65)


def asked(needs, target, rows, towards):
    def search():
        yield Approach(rows, np.zeros(len(rows), np.int64), towards)

    Engine(target).drive([Run(search(), budget=Budget(samples=1, per_sample=0), needs=needs)])


def test_approaching_needs_to_be_declared_offered_and_of_one_shape():
    rows, allowed = digits()[2][0][:2], frozenset({Access.ACTIVATIONS})
    with pytest.raises(WorkError, match="does not declare"):
        asked(frozenset({Access.LABELS}), transferred(), rows, rows)
    with pytest.raises(WorkError, match="does not show"):
        asked(allowed, Victim(KNeighborsClassifier(1).fit(*digits()[2])), rows, rows)
    with pytest.raises(WorkError, match="another shape"):
        asked(allowed, transferred(), rows, rows[:1])


def test_two_attacks_that_approach_at_once_are_answered_together_and_apart():
    rows, seen = digits()[2][0], []

    def search(of, towards):
        seen.append((yield Approach(of, np.zeros(len(of), np.int64), towards)))

    parts = [(rows[:3], rows[3:6]), (rows[6:8], rows[8:10])]
    needs = frozenset({Access.ACTIVATIONS})
    engine = Engine(transferred())
    engine.drive([Run(search(*part), budget=Budget(samples=1, per_sample=0), needs=needs) for part in parts])
    assert engine.usage.calls == 1
    for part, answer in zip(parts, seen, strict=True):
        assert answer == pytest.approx(transferred().approach(*part), rel=1e-3, abs=1e-4)


def test_a_last_layer_leaves_the_network_and_refuses_nothing_to_learn():
    parent = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    before = [parameter.clone() for parameter in parent.parameters()]
    trained = LastLayer(parent, SHAPE)(*digits()[1], 3)
    assert all(torch.equal(old, new) for old, new in zip(before, parent.parameters(), strict=True))
    assert torch.equal(trained[1].weight, parent[1].weight)
    assert not torch.equal(trained[3].weight, parent[3].weight)
    with pytest.raises(InputError, match="without rows"):
        LastLayer(parent, SHAPE)(np.empty((0, 64), np.float32), np.empty(0, np.int64), 0)
