from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bartizan.adapters.torch import BATCH, StraightThrough, TorchTarget, losses
from bartizan.core.errors import WorkError
from bartizan.redteam.objective import values
from bartizan.targets.protocol import NEEDS_TARGETS, Access, Differentiable, Layered, Loss
from fixtures.digits_nets import CLASSES, SHAPE, digits, net, target


@pytest.mark.parametrize("count", [0, 1, 7, 9, 33, 64, 65, 200, BATCH, BATCH + 1, 2 * BATCH + 9])
def test_rows_are_answered_alike_in_batches_of_any_size(count):
    victim, rows = target(), np.resize(digits()[0], (count, 64))
    with torch.inference_mode():
        expected = net()(torch.from_numpy(rows).view(-1, *SHAPE)).numpy() if count else np.empty((0, CLASSES))
    assert np.allclose(victim.logits(rows), expected, atol=1e-4)
    assert victim.labels(rows).shape == (count,)
    answer = victim.gradients(rows, Loss.MARGIN, np.zeros(count, dtype=np.int64))
    assert answer.shape == (count, CLASSES + 64)
    assert np.allclose(answer[:, :CLASSES], expected, atol=1e-4)


def test_few_sizes_of_batches_are_passed():
    sizes = set()
    victim = target(nn.Sequential(net()))
    victim.module.register_forward_pre_hook(lambda _, given: sizes.add(len(given[0])))
    for count in range(1, 513):
        victim.logits(np.zeros((count, 64), dtype=np.float32))
    assert len(sizes) <= 50
    assert max(sizes) == 512


@pytest.mark.parametrize("loss", list(Loss))
def test_gradients_are_those_of_the_loss(loss):
    victim, rng = target(), np.random.default_rng(0)
    rows, labels = digits()[0][:20], rng.integers(0, 10, 20)
    targets = (labels + 1 + rng.integers(0, 9, 20)) % 10 if loss in NEEDS_TARGETS else None
    slope = victim.gradients(rows, loss, labels, targets)[:, CLASSES:]
    way = rng.standard_normal(rows.shape).astype(np.float32)
    way *= 1e-3 / np.linalg.norm(way, axis=1, keepdims=True)
    ahead, behind = (values(victim.logits(rows + side * way), loss, labels, targets) for side in (1, -1))
    predicted = 2 * np.einsum("ij,ij->i", slope.astype(np.float64), way)
    assert np.median(np.abs(ahead - behind - predicted) / (np.abs(predicted) + 1e-6)) < 0.02


@pytest.mark.parametrize("loss", list(Loss))
def test_losses_are_the_same_in_both_places(loss):
    rng = np.random.default_rng(1)
    logits, labels = rng.standard_normal((50, 10)), rng.integers(0, 10, 50)
    targets = (labels + 1) % 10 if loss in NEEDS_TARGETS else None
    aimed = None if targets is None else torch.from_numpy(targets)
    theirs = losses(torch.from_numpy(logits), loss, torch.from_numpy(labels), aimed).numpy()
    assert np.allclose(values(logits, loss, labels, targets), theirs)


def test_the_module_is_left_as_it_was():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5))
    module.train()
    module[2].eval()
    module[1].bias.requires_grad = False
    victim = TorchTarget(module, shape=(64,), classes=10)
    victim.gradients(digits()[0][:3], Loss.CROSS_ENTROPY, digits()[1][:3])
    assert module[1].training
    assert not module[2].training
    assert [parameter.requires_grad for parameter in module.parameters()] == [True, False]
    assert module[1].weight.grad is None


def test_it_says_what_it_offers():
    victim = target()
    assert isinstance(victim, Differentiable)
    assert isinstance(victim, Layered)
    assert Access.TRAINING not in victim.offers
    assert victim.activations(digits()[0][:70]).shape == (70, 64)
    with pytest.raises(WorkError, match="trained again"):
        victim.retrain(*digits(), seed=0)


def test_a_module_that_answers_something_else_is_refused():
    victim = TorchTarget(nn.Flatten(), shape=SHAPE, classes=10)
    with pytest.raises(WorkError, match="where logits"):
        victim.labels(digits()[0][:2])


def test_read_only_rows_and_rows_in_double_precision_are_taken():
    rows = digits()[0][:5].astype(np.float64)
    rows.setflags(write=False)
    assert np.allclose(target().logits(rows), target().logits(digits()[0][:5]))


def test_a_step_without_slopes_is_seen_through():
    rounded = nn.Sequential(StraightThrough(torch.round), net())
    rows, labels = digits()[0][:20], digits()[1][:20]
    slope = target(rounded).gradients(rows, Loss.MARGIN, labels)[:, CLASSES:]
    expected = target().gradients(np.round(rows), Loss.MARGIN, labels)[:, CLASSES:]
    assert np.allclose(slope, expected, atol=1e-4)
    assert np.array_equal(target(rounded).labels(rows), target().labels(np.round(rows)))
