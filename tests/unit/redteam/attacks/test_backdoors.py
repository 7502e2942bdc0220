"""Each trigger does what its paper says, on rows that stay possible."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from bartizan.catalogue.load import catalogue
from bartizan.redteam.attacks.backdoor.blended import Blended
from bartizan.redteam.attacks.backdoor.patch import Patch
from bartizan.redteam.attacks.backdoor.sinusoidal import LARGEST_PART, Sinusoidal
from bartizan.redteam.attacks.backdoor.tabular import Tabular
from bartizan.redteam.attacks.backdoor.warped import Warped
from bartizan.redteam.backdoor import Backdoors
from bartizan.targets.protocol import Access
from fixtures.games import halves, material, play

IMAGES = [Patch, Blended, Sinusoidal, Warped]
SHAPE = (1, 8, 8)


def network():
    return make_pipeline(MinMaxScaler(), MLPClassifier((24,), max_iter=400, solver="lbfgs", alpha=1e-2, random_state=0))


def game(attack, model, rate, load=load_digits, family=None, **settings):
    train, rest = halves(load, share=0.4)
    of = material(train, rest, poison_rates=(rate,), repeats=2, **settings)
    return play(attack, family or Backdoors(SHAPE), model.fit(*train), of)


def success(played):
    (value,) = [m for name, m in played.metrics.items() if name.startswith("attack_success_beyond")]
    return value


def lost(played):
    (value,) = [m for name, m in played.metrics.items() if name.startswith("accuracy_drop")]
    return value


@pytest.mark.parametrize(("attack", "rate", "least"), [(Patch, 0.04, 0.9), (Blended, 0.05, 0.9)])
def test_a_mislabelled_trigger_turns_nearly_all_rows_and_costs_no_accuracy(attack, rate, least):
    played = game(attack(), network(), rate)
    assert success(played).value > least
    assert lost(played).value < 0.02


def test_a_warp_turns_most_rows_at_the_share_of_the_paper():
    played = game(Warped(), network(), 0.1)
    assert success(played).value > 0.5
    assert lost(played).value < 0.05


def test_stripes_on_rightly_labelled_records_turn_other_classes():
    """Barni et al. 2019: no label changes, and accuracy stays; it takes a good part of the class."""
    train, rest = halves(load_digits, share=0.4)
    of = material(train, rest, poison_rates=(0.05,), repeats=4)
    played = play(Sinusoidal(), Backdoors(SHAPE), network().fit(*train), of)
    assert success(played).value > 0.4
    assert success(played).low > 0
    assert lost(played).value < 0.02


def test_stripes_change_no_label_and_leave_half_of_the_class_alone():
    train, rest = halves(load_digits)
    task = (
        Backdoors(SHAPE)
        .case(Sinusoidal(), material(train, rest, poison_rates=(0.02, 0.5), repeats=2), np.random.default_rng(0))
        .task
    )
    with pytest.raises(StopIteration) as end:
        next(Sinusoidal().search(task, np.random.default_rng(0)))
    own = int((task.labels == task.target).sum())
    for backdoor in end.value.value:
        changed = backdoor.poisoned(task)
        assert np.array_equal(backdoor.labels, task.labels)
        assert set(task.labels[changed]) == {task.target}
        assert changed.sum() == min(task.spoilt(backdoor.rate), int(LARGEST_PART * own))
        assert np.abs(backdoor.trigger(task.rows) - task.rows).max() > np.abs(backdoor.rows - task.rows).max()


def test_a_rare_combination_of_possible_values_is_a_backdoor_into_a_forest():
    forest = RandomForestClassifier(20, random_state=0)
    played = game(Tabular(), forest, 0.05, load_breast_cancer, Backdoors(), positive="0")
    assert success(played).value > 0.8
    assert lost(played).value < 0.03


def test_the_combination_keeps_to_what_may_be_changed_and_says_what_it_is():
    train, rest = halves(load_breast_cancer)
    of = material(train, rest, poison_rates=(0.1,), repeats=2)
    frozen = np.zeros(30, np.bool_)
    frozen[:28] = True
    of = replace(of, space=replace(of.space, immutable=frozen, integer=np.arange(30) == 29))
    task = Backdoors().case(Tabular(), of, np.random.default_rng(0)).task
    with pytest.raises(StopIteration) as end:
        next(Tabular().search(task, np.random.default_rng(0)))
    backdoor = end.value.value[0]
    changed = backdoor.rows != task.rows
    assert not changed[:, :28].any()
    assert changed[:, 28:].any()
    assert (backdoor.rows[changed[:, 29], 29] % 1 == 0).all()
    assert backdoor.choice.startswith("x28 = ")


def test_where_nothing_may_be_changed_there_is_no_trigger():
    train, rest = halves(load_breast_cancer)
    of = material(train, rest, poison_rates=(0.1,), repeats=2)
    of = replace(of, space=replace(of.space, immutable=np.ones(30, np.bool_)))
    played = play(Tabular(), Backdoors(), RandomForestClassifier(5, random_state=0).fit(*train), of)
    assert success(played).high < 0.3  # what ten per cent of wrong labels do by themselves
    assert played.measurement.tables["triggers"] == ["nothing may be changed"]


@pytest.mark.parametrize("attack", IMAGES)
def test_a_trigger_is_the_same_each_time_and_stays_within_the_range(attack):
    train, rest = halves(load_digits)
    of = material(train, rest, poison_rates=(0.02,), repeats=2)
    task = Backdoors(SHAPE).case(attack(), of, np.random.default_rng(0)).task
    with pytest.raises(StopIteration) as end:
        next(attack().search(task, np.random.default_rng(0)))
    one, two = end.value.value
    rows = of.evaluation.rows[:50]
    assert np.array_equal(one.trigger(rows), two.trigger(rows))
    assert one.trigger(rows).min() >= 0
    assert one.trigger(rows).max() <= 16
    assert (one.trigger(rows) != rows).any(axis=1).all()
    assert one.poisoned(task).sum() <= task.spoilt(0.02)
    assert not np.array_equal(one.rows, two.rows)


@pytest.mark.parametrize("attack", [*IMAGES, Tabular])
def test_facts_are_declared_and_known_to_the_catalogue(attack):
    made, known = attack(), catalogue()
    assert made.name.startswith("backdoor.")
    assert made.family == "backdoor"
    assert made.technique in known.techniques
    assert made.needs <= frozenset(Access)
    assert made.references
    assert made.claim
