"""DeepFool, FAB, Carlini-Wagner, EAD: the smallest change that fools a victim with gradients."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from bartizan.adapters.torch import TorchTarget
from bartizan.core.errors import InputError
from bartizan.redteam.attacks.evasion.carlini_wagner import CarliniWagner
from bartizan.redteam.attacks.evasion.deepfool import DeepFool
from bartizan.redteam.attacks.evasion.ead import EAD
from bartizan.redteam.attacks.evasion.fab import FAB
from bartizan.redteam.attacks.evasion.pgd import PGD
from bartizan.redteam.play import play, task_of
from bartizan.targets.feasible import image_space
from fixtures.digits_nets import SHAPE, attacked, least_change, linear, net, target

WIDE = {np.inf: 1.0, 2: 8.0, 1: 64.0}
ATTACKS = {
    "deepfool": DeepFool(),
    "fab-t": FAB(steps=20, targets=3),
    "fab": FAB(steps=15, targets=0),
    "carlini-wagner": CarliniWagner(searches=5, steps=80),
    "ead": EAD(searches=6, steps=60),
}


@cache
def change(name, norm, eps=0.0):
    found = play(target(net(eps)), ATTACKS[name], attacked(40, norm=norm, eps=WIDE[norm]))
    return found.change[found.clean == found.task.labels]


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
@pytest.mark.parametrize("name", ["deepfool", "fab-t", "fab"])
def test_on_a_linear_victim_they_find_the_least_change_there_is(name, norm):
    rows, truth, module = linear()
    # A wide range, so that no end of it is met and the least change is known.
    task = task_of(
        rows[:60],
        truth[:60],
        space=image_space(SHAPE, -9.0, 10.0),
        classes=2,
        max_change=WIDE[norm],
        norm=norm,
        shape=SHAPE,
    )
    found = play(TorchTarget(module, shape=SHAPE, classes=2), ATTACKS[name], task)
    least = least_change(rows[:60], truth[:60], module, norm)
    right = found.clean == truth[:60]
    assert right.sum() > 50
    ratio = found.change[right] / least[right]
    assert ratio.min() >= 1 - 1e-4
    assert np.median(ratio) < 1.01


def test_carlini_wagner_comes_close_to_the_least_change_of_a_linear_victim():
    rows, truth, module = linear()
    task = task_of(
        rows[:40], truth[:40], space=image_space(SHAPE, -9.0, 10.0), classes=2, max_change=8.0, norm=2, shape=SHAPE
    )
    # A range twenty times as wide as usual wants steps that are as much smaller.
    attack = CarliniWagner(searches=8, steps=150, rate=0.005, first_weight=0.01)
    found = play(TorchTarget(module, shape=SHAPE, classes=2), attack, task)
    least = least_change(rows[:40], truth[:40], module, 2)
    right = found.clean == truth[:40]
    assert 1 - 1e-4 <= np.median(found.change[right] / least[right]) < 1.1


@pytest.mark.parametrize("eps", [0.0, 0.15])
def test_carlini_wagner_changes_no_more_than_deepfool(eps):
    # The claim of the paper; measured 0.98 and 0.83 of DeepFool's mean.
    assert change("carlini-wagner", 2, eps).mean() < change("deepfool", 2, eps).mean()


@pytest.mark.parametrize("eps", [0.0, 0.15])
def test_ead_changes_no_more_than_deepfool_in_the_norm_1(eps):
    assert change("ead", 1, eps).mean() < change("deepfool", 1, eps).mean()


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
def test_fab_changes_no_more_than_deepfool(norm):
    assert change("fab-t", norm, 0.15).mean() < change("deepfool", norm, 0.15).mean()


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
def test_everything_that_is_found_fools_and_is_possible(norm):
    for name, attack in ATTACKS.items():
        if name == "carlini-wagner" and norm != 2:
            continue
        found = play(target(), attack, attacked(15, norm=norm, eps=WIDE[norm]))
        assert np.isfinite(found.change).all(), name
        assert found.rows.min() >= 0
        assert found.rows.max() <= 1


def test_fab_within_a_bound_breaks_what_pgd_breaks():
    task = attacked(80, eps=0.12)
    fab, pgd = (play(target(), attack, task).robust.mean() for attack in (FAB(steps=30, settle=True), PGD()))
    assert fab <= pgd + 0.02


def test_fab_spends_nothing_on_samples_that_are_settled():
    settled, all_ = (
        play(target(), FAB(steps=20, targets=3, settle=settle), attacked(30, eps=0.3)).ledger.gradients
        for settle in (True, False)
    )
    assert settled < 0.5 * all_


@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_seed_finds_the_same_bytes_within_the_budget(name):
    task = attacked(10, norm=2, eps=8.0, gradients=50, budget=20)
    first, second = (play(target(), ATTACKS[name], task, seed=1) for _ in range(2))
    assert first.rows.tobytes() == second.rows.tobytes()
    assert first.ledger.slopes.max() <= 50
    assert first.ledger.spent.max() <= 20


def test_carlini_wagner_refuses_other_norms():
    with pytest.raises(InputError, match="minimises the norm 2"):
        play(target(), CarliniWagner(), attacked(5))
