"""A backdoor scan before and after a model is hardened, and what the two say beside each other."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from torch import nn

from bartizan.adapters.torch import TorchTarget
from bartizan.adapters.torch_pruning import fine_prune
from bartizan.core.errors import InputError, WorkError
from bartizan.redteam.attacks.backdoor.patch import Patch
from bartizan.redteam.detection.inspected import inspected_of
from bartizan.redteam.detection.inversion import TriggerInversion
from bartizan.redteam.detection.scan import compare, scan
from bartizan.redteam.triggers import BackdoorTask
from bartizan.targets.feasible import image_space
from fixtures.victims import Victim

SHAPE = (1, 8, 8)
TARGET = 3


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 16, 10),
    )


def trained(rows, labels, seed):
    """A small convolutional network, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = network()
        inputs, answers = torch.tensor(rows, dtype=torch.float32).view(-1, *SHAPE), torch.tensor(labels)
        optimiser = torch.optim.Adam(module.parameters(), 3e-3)
        for _ in range(12):
            for part in torch.randperm(len(inputs)).split(64):
                optimiser.zero_grad()
                nn.functional.cross_entropy(module(inputs[part]), answers[part]).backward()
                optimiser.step()
    return module


@cache
def world(rate=0.05):
    """Training rows with a planted patch, which they are, trusted rows, and evaluation rows."""
    rows, labels = load_digits(return_X_y=True)
    rows, labels = (rows / 16).astype(np.float32), labels.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(rows))
    parts = np.split(order, [1000, 1300])
    (train, train_labels), trusted, evaluation = [(rows[part], labels[part]) for part in parts]
    task = BackdoorTask(train, train_labels, 10, TARGET, (rate,), 1, image_space(SHAPE), SHAPE)
    with pytest.raises(StopIteration) as end:
        next(Patch().search(task, np.random.default_rng(1)))
    (backdoor,) = end.value.value
    return backdoor, backdoor.poisoned(task), trusted, evaluation


@cache
def victim():
    backdoor, *_ = world()
    return TorchTarget(trained(backdoor.rows, backdoor.labels, 0), shape=SHAPE, classes=10, trainer=trained)


def scanned(target):
    backdoor, _, _, evaluation = world()
    inspected = inspected_of(backdoor.rows, backdoor.labels, target, shape=SHAPE)
    return inspected, scan(target, inspected, evaluation, np.random.default_rng(0))


def test_a_backdoor_scan_before_and_after_pruning_and_fine_tuning_is_compared():
    backdoor, _, trusted, evaluation = world()
    inspected, before = scanned(victim())
    assert [trigger.pattern.label for trigger in before.backdoors] == [TARGET] * len(before.backdoors)
    assert before.backdoors
    rows, labels = evaluation
    others = labels != TARGET
    # What the scan found without knowing the trigger does what the trigger itself does.
    planted = (victim().labels(backdoor.trigger(rows[others])) == TARGET).mean()
    assert before.backdoors[0].turned.value > 0.8 * planted
    pruned = fine_prune(victim().module, *trusted, shape=SHAPE, share=0.5, epochs=20, seed=0)
    hardened = TorchTarget(pruned, shape=SHAPE, classes=10)
    result = compare(before, hardened, inspected, evaluation, np.random.default_rng(0))
    old, new = result.before.triggers[0].turned, result.after.triggers[0].turned
    assert new.interval.high < old.interval.low
    assert result.accuracy_lost.value < 0.05
    assert (hardened.labels(backdoor.trigger(rows[others])) == TARGET).mean() < planted - 0.2
    assert {"accuracy_before", "accuracy_after", "trigger_1_turns_before", "trigger_1_turns_after"} <= set(
        result.metrics()
    )
    assert "before and" in result.summary


def test_a_model_that_was_not_hardened_is_not_called_clean():
    inspected, before = scanned(victim())
    result = compare(before, victim(), inspected, world()[3], np.random.default_rng(0))
    assert not result.is_clean
    assert result.accuracy_lost.value == 0
    assert result.before.triggers[0].turned == result.after.triggers[0].turned


def test_training_again_without_what_was_flagged_removes_the_backdoor():
    backdoor, poisoned, _, evaluation = world()
    inspected, before = scanned(victim())
    kept = ~before.suspicion.flagged
    assert (before.suspicion.flagged & poisoned).sum() > 0.95 * poisoned.sum()
    again = victim().retrain(backdoor.rows[kept], backdoor.labels[kept], seed=1)
    result = compare(before, again, inspected, evaluation, np.random.default_rng(0))
    assert result.is_clean
    assert result.accuracy_lost.value < 0.03


def test_inversion_finds_the_class_and_the_place_without_the_training_data():
    _, _, trusted, _ = world()
    inspected = inspected_of(*trusted, victim(), shape=SHAPE)
    suspicion = TriggerInversion().inspect(inspected, np.random.default_rng(0))
    assert suspicion.patterns[0].label == TARGET
    mask = 1 - suspicion.patterns[0].kept.reshape(8, 8)
    assert mask[-2:, -2:].sum() > 0.5 * mask.sum()


def test_a_scan_needs_no_network_and_a_clean_model_has_no_backdoor():
    rows, labels = load_digits(return_X_y=True)
    model = make_pipeline(MinMaxScaler(), LogisticRegression(solver="newton-cholesky")).fit(rows[:1000], labels[:1000])
    target = Victim(model)
    inspected = inspected_of(rows[:1000], labels[:1000], target, shape=SHAPE)
    seen = scan(target, inspected, (rows[1000:], labels[1000:]), np.random.default_rng(0))
    assert not seen.backdoors
    assert seen.accuracy.value == (model.predict(rows[1000:]) == labels[1000:]).mean()


def test_scans_on_other_rows_are_not_compared():
    inspected, before = scanned(victim())
    rows, labels = world()[3]
    with pytest.raises(InputError, match="same evaluation rows"):
        compare(before, victim(), inspected, (rows[1:], labels[1:]), np.random.default_rng(0))
    with pytest.raises(InputError, match="training did not see"):
        scan(victim(), inspected, (rows[:0], labels[:0]), np.random.default_rng(0))


def test_pruning_cuts_the_share_it_is_told_and_leaves_the_original_alone():
    _, _, trusted, _ = world()
    module = victim().module
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    pruned = fine_prune(module, *trusted, shape=SHAPE, share=0.5, epochs=1, seed=0)
    again = fine_prune(module, *trusted, shape=SHAPE, share=0.5, epochs=1, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())
    asleep = (pruned[2].weight.flatten(1) == 0).all(1) & (pruned[2].bias == 0)
    assert asleep.sum() == 12
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in pruned.state_dict().items())


def test_what_cannot_be_pruned_is_refused():
    rows, labels = world()[2]
    with pytest.raises(InputError, match="below 1"):
        fine_prune(network(), rows, labels, shape=SHAPE, share=1.0, epochs=0, seed=0)
    with pytest.raises(InputError, match="clean rows"):
        fine_prune(network(), rows[:0], labels[:0], shape=SHAPE, share=0.1, epochs=0, seed=0)
    with pytest.raises(WorkError, match="no hidden layer"):
        fine_prune(
            nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), rows, labels, shape=SHAPE, share=0.1, epochs=0, seed=0
        )
