from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from bartizan.adapters.torch import TorchTarget
from bartizan.redteam import registry
from bartizan.redteam.attacks.evasion.apgd import APGD
from bartizan.redteam.attacks.evasion.autoattack import AutoAttack
from bartizan.redteam.attacks.evasion.fab import FAB
from bartizan.redteam.attacks.evasion.pgd import PGD
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.play import play, task_of
from bartizan.targets.feasible import TOLERANCE, image_space
from bartizan.targets.protocol import Loss
from fixtures.digits_nets import SHAPE, attacked, least_change, linear, net, target

LIGHT = (
    APGD(steps=25),
    APGD(steps=15, loss=Loss.DLR_TOWARDS, targets=3),
    FAB(steps=10, targets=3, settle=True),
    Square(),
)


@cache
def found(eps=0.15, count=80, budget=200, **more):
    task = attacked(count, eps=eps, budget=budget, **more)
    return play(target(net(0.15)), AutoAttack(LIGHT), task)


def test_nothing_that_any_member_breaks_stands():
    together = found().robust
    for member in (*LIGHT, PGD(steps=10)):
        alone = play(target(net(0.15)), member, attacked(80, eps=0.15, budget=200)).robust
        assert together.mean() <= alone.mean()


def test_a_sample_that_is_fooled_is_not_given_to_the_next_member():
    run = found()
    broken = ~run.robust
    first = play(target(net(0.15)), LIGHT[0], attacked(80, eps=0.15)).robust
    assert (run.ledger.slopes[broken & ~first] <= 26).mean() > 0.8
    assert run.ledger.spent[~broken].min() > 100
    wrong = run.clean != run.task.labels
    assert (run.ledger.slopes[wrong] == 0).all()


def test_everything_it_finds_counts():
    broken = np.isfinite(found().change) & ~found().robust
    assert (found().change[broken] <= 0.15 * (1 + TOLERANCE)).all()


@pytest.mark.parametrize(("norm", "members"), [(np.inf, 4), (2, 4), (1, 3)])
def test_the_standard_members_are_those_of_the_paper(norm, members):
    names = [member.name for member in AutoAttack().standard(attacked(2, norm=norm))]
    assert names == ["evasion.apgd", "evasion.apgd", "evasion.fab", "evasion.square"][:members]


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
def test_the_standard_ensemble_leaves_at_most_what_pgd_leaves(norm):
    task = attacked(12, norm=norm, eps={np.inf: 0.15, 2: 0.8, 1: 2.5}[norm], budget=50)
    ours = play(target(net(0.15)), AutoAttack(), task).robust
    pgd = play(target(net(0.15)), PGD(), task).robust
    assert ours.sum() <= pgd.sum()


def test_the_budget_is_never_exceeded_and_the_seed_decides():
    task = attacked(20, eps=0.1, budget=30, gradients=60)
    first, second = (play(target(net(0.15)), AutoAttack(LIGHT), task, seed=2) for _ in range(2))
    assert first.ledger.slopes.max() <= 60
    assert first.ledger.spent.max() <= 30
    assert first.rows.tobytes() == second.rows.tobytes()


def test_without_any_budget_nothing_is_broken():
    run = play(target(), AutoAttack(LIGHT), attacked(10, budget=1, gradients=0))
    assert np.array_equal(run.robust, run.clean == run.task.labels)


def test_victims_with_two_classes_are_attacked_too():
    rows, truth, module = linear()
    space = image_space(SHAPE, -9.0, 10.0)
    task = task_of(rows[:60], truth[:60], space=space, classes=2, max_change=0.1, shape=SHAPE, budget=20)
    run = play(TorchTarget(module, shape=SHAPE, classes=2), AutoAttack(), task)
    least = least_change(rows[:60], truth[:60], module, np.inf)
    assert not run.robust[least < 0.0999].any()
    assert run.robust[least > 0.1].all()


def test_the_ensemble_for_random_models_is_an_attack_of_its_own_and_says_that_it_averages():
    attack = registry.attack("evasion.autoattack-random")
    assert attack.averages
    assert [member.draws for member in attack.standard(None)] == [20, 20]
    assert not getattr(registry.attack("evasion.autoattack"), "averages", False)
