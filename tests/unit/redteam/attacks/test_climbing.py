"""FGSM, PGD and APGD: what they find within bounds, and what they spend on it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from bartizan.core.errors import InputError, WorkError
from bartizan.redteam.attacks.evasion.apgd import APGD, _checks
from bartizan.redteam.attacks.evasion.fgsm import FGSM
from bartizan.redteam.attacks.evasion.pgd import PGD
from bartizan.redteam.play import play
from bartizan.targets.feasible import TOLERANCE
from bartizan.targets.protocol import Access, Loss
from fixtures.digits_nets import SHAPE, attacked, net, target

ATTACKS = {
    "fgsm": FGSM(),
    "fgsm from a random start": FGSM(start=0.5),
    "pgd": PGD(steps=10),
    "pgd with momentum": PGD(steps=10, momentum=1.0),
    "pgd with nesterov": PGD(steps=10, momentum=1.0, nesterov=True),
    "pgd with draws": PGD(steps=5, draws=3),
    "apgd-ce": APGD(steps=20),
    "apgd-dlr": APGD(steps=20, loss=Loss.DLR),
    "apgd-t": APGD(steps=10, loss=Loss.DLR_TOWARDS, targets=3),
}


class Seen:
    """What a target was asked."""

    def __init__(self, victim):
        self.victim, self.rows = victim, []

    def __getattr__(self, name):
        return getattr(self.victim, name)

    def gradients(self, rows, loss, labels, targets=None):
        self.rows.append(rows)
        return self.victim.gradients(rows, loss, labels, targets)

    def logits(self, rows):
        return self.victim.logits(rows)

    def labels(self, rows):
        return self.victim.labels(rows)

    def scores(self, rows):
        return self.victim.scores(rows)

    def retrain(self, rows, labels, *, seed):
        raise NotImplementedError


@cache
def robust(module, name, norm, eps, seed=0):
    return play(target(module), {**ATTACKS, **STRONG}[name], attacked(150, norm=norm, eps=eps), seed=seed).robust


STRONG = {
    "pgd-40": PGD(),
    "pgd-40 as published": PGD(step_size=1 / 10, falling=False, climbs=1),
    "pgd-10": PGD(steps=10),
    "apgd-100": APGD(),
    "apgd-t-100": APGD(loss=Loss.DLR_TOWARDS, targets=9),
}
CLIMBS = ("apgd-100", "apgd-t-100")


def returned(victim, search):
    """What an attack itself hands back, without an engine that has seen more."""
    try:
        question = next(search)
        while True:
            question = search.send(victim.gradients(question.rows, question.loss, question.labels))
    except StopIteration as end:
        return end.value


def plain_pgd(module, task, seed):
    """The textbook's loop: forty steps of a tenth, no sample leaves."""
    images, labels = torch.from_numpy(task.rows).view(-1, *SHAPE), torch.from_numpy(task.labels)
    torch.manual_seed(seed)
    seen, eps = (images + torch.empty_like(images).uniform_(-task.max_change, task.max_change)), task.max_change
    for _ in range(40):
        given = seen.clamp(0, 1).requires_grad_()
        (slope,) = torch.autograd.grad(functional.cross_entropy(module(given), labels, reduction="sum"), given)
        seen = images + (given.detach() + 0.1 * eps * slope.sign() - images).clamp(-eps, eps)
    with torch.inference_mode():
        return float((module(seen.clamp(0, 1)).argmax(1) == labels).float().mean())


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(("norm", "eps"), [(np.inf, 0.15), (2, 0.8), (1, 3.0)])
def test_they_break_samples_within_the_bound(name, norm, eps):
    found = play(target(), ATTACKS[name], attacked(norm=norm, eps=eps))
    broken = np.isfinite(found.change)
    assert found.robust.mean() < 0.75 * found.clean_accuracy.value
    if not (norm == 1 and name.startswith("apgd")):
        assert (found.change[broken] <= eps * (1 + TOLERANCE)).all()


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
def test_every_row_that_is_asked_is_possible(norm):
    task = attacked(20, norm=norm, eps=0.5)
    for attack in ATTACKS.values():
        seen = Seen(target())
        play(seen, attack, task)
        rows = np.concatenate(seen.rows)
        assert rows.min() >= 0
        assert rows.max() <= 1


@pytest.mark.parametrize("eps", [0.0, 0.15])
def test_pgd_is_as_strong_as_the_textbook(eps):
    module = net(eps)
    ours = np.mean([robust(module, "pgd-40", np.inf, 0.15, seed).mean() for seed in range(3)])
    task = attacked(150, eps=0.15)
    theirs = np.mean([plain_pgd(module, task, seed) for seed in range(3)])
    assert ours <= theirs + 0.02


def test_samples_that_are_fooled_cost_nothing_more():
    found = play(target(), PGD(), attacked(150, eps=0.15))
    broken = ~found.robust
    assert broken.mean() > 0.3
    assert found.ledger.slopes[~broken].min() == 41
    assert found.ledger.slopes[broken].mean() < 20


def test_more_steps_break_more_than_one():
    one, many = (robust(net(0.15), name, np.inf, 0.15).mean() for name in ("fgsm", "pgd-40"))
    assert many < one


@pytest.mark.parametrize(("norm", "eps"), [(np.inf, 0.15), (2, 0.8)])
def test_adapting_steps_and_many_targets_break_at_least_as_much(norm, eps):
    # Croce and Hein 2020: APGD at most PGD's robust accuracy, its targeted variant less still.
    module = net(0.15)
    pgd, apgd, targeted = (robust(module, name, norm, eps).mean() for name in ("pgd-40 as published", *CLIMBS))
    assert apgd <= pgd + 0.02
    assert targeted <= apgd
    assert targeted < pgd


@pytest.mark.parametrize(("norm", "eps"), [(np.inf, 0.15), (2, 0.8), (1, 2.0)])
def test_steps_that_fall_break_as_much_with_a_quarter_of_the_gradients(norm, eps):
    module = net(0.15)
    published, falling, few = (
        np.mean([robust(module, name, norm, eps, seed).mean() for seed in range(2)])
        for name in ("pgd-40 as published", "pgd-40", "pgd-10")
    )
    assert falling < published
    assert few <= published + 0.01


def test_step_sizes_are_checked_where_the_paper_checks_them():
    assert sorted(_checks(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(_checks(1)) == [1]


def test_restarts_only_add():
    task = attacked(80, eps=0.15)
    once, thrice = (play(target(net(0.15)), PGD(steps=10, restarts=count), task).robust for count in (1, 3))
    assert not (thrice & ~once).any()


def test_averaging_draws_breaks_a_victim_that_answers_at_random():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, images):
            return self.net(images + 0.3 * torch.randn_like(images))

    torch.manual_seed(0)
    task, victim, share = attacked(100, eps=0.2), target(Noisy()), []
    for draws in (1, 16):
        rows = returned(victim, PGD(steps=15, draws=draws).search(task, np.random.default_rng(0)))
        # Judged by many fresh draws: is the sample really across, or was one draw lucky?
        answers = np.stack([victim.labels(rows) == task.labels for _ in range(20)])
        share.append((answers.mean(axis=0) > 0.5).mean())
    assert share[1] < share[0] - 0.1


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_seed_finds_the_same_bytes(name):
    first, second = (play(target(), ATTACKS[name], attacked(20), seed=3).rows for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_budget_of_gradients_is_never_exceeded(name):
    found = play(target(net(0.15)), ATTACKS[name], attacked(30, eps=0.05, gradients=4, budget=3))
    assert found.ledger.slopes.max() <= 4
    assert found.ledger.spent.max() <= 3


def test_one_class_and_constant_victims_are_survived():
    constant = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        constant[1].weight.zero_()
    for attack in ATTACKS.values():
        found = play(target(constant), attack, attacked(20))
        assert np.array_equal(found.robust, found.clean == found.task.labels)


def test_answers_that_are_no_numbers_are_an_error():
    with pytest.raises(WorkError, match="no number"):
        play(target(_Nan()), PGD(steps=2), attacked(5))


class _Nan(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :10] * float("nan")


def test_losses_and_targets_must_fit():
    with pytest.raises(InputError, match="needs a class to aim at"):
        PGD(loss=Loss.DLR_TOWARDS)
    with pytest.raises(InputError, match="classes to aim at"):
        APGD(loss=Loss.DLR_TOWARDS)
    with pytest.raises(InputError, match="classes to aim at"):
        APGD(targets=3)


def test_they_say_that_they_need_gradients():
    assert all(Access.GRADIENTS in attack.needs for attack in ATTACKS.values())
