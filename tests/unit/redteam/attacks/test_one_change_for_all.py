"""Universal perturbations and patches: learnt on some rows, tried on others."""

from __future__ import annotations

import numpy as np
import pytest

from bartizan.core.errors import InputError
from bartizan.redteam.attacks.evasion.patch import Patch
from bartizan.redteam.attacks.evasion.universal import Universal
from bartizan.redteam.play import play
from bartizan.redteam.statistics import difference
from bartizan.targets.feasible import TOLERANCE, lengths
from fixtures.digits_nets import attacked, net, target


def fooled(found):
    right = found.clean == found.task.labels
    return int((right & ~found.robust).sum()), int(right.sum())


@pytest.mark.parametrize(("norm", "eps"), [(np.inf, 0.25), (2, 1.6)])
def test_one_change_fools_rows_that_were_not_learnt_from_far_above_chance(norm, eps):
    task = attacked(200, norm=norm, eps=eps, owned=300)
    found = play(target(), Universal(), task)
    rng = np.random.default_rng(0)
    noise = rng.choice([-1.0, 1.0], (1, 64)) if norm == np.inf else rng.standard_normal((1, 64))
    noise = (noise / lengths(noise, norm)[:, None] * eps).astype(np.float32)
    answers = target().labels(np.clip(task.rows + noise, 0, 1))
    by_noise = int(((found.clean == task.labels) & (answers != task.labels)).sum())
    gain = difference(fooled(found), (by_noise, fooled(found)[1]))
    assert gain.interval.low > 0.15


def test_it_is_one_and_the_same_change():
    task = attacked(50, eps=0.25, owned=200)
    found = play(target(), Universal(), task)
    broken = np.flatnonzero(~found.robust & (found.clean == task.labels))
    change = (found.rows - task.rows)[broken]
    free = (found.rows[broken] > 0) & (found.rows[broken] < 1)
    for pixel in range(64):
        values = change[free[:, pixel], pixel]
        assert values.size == 0 or np.ptp(values) < 1e-5


def test_a_universal_change_towards_a_class_leads_there():
    task = attacked(100, eps=0.3, owned=300)
    found = play(target(), Universal(aimed=8), task)
    broken = ~found.robust & (found.clean == task.labels)
    assert (found.answers[broken] == 8).mean() > 0.6


def test_the_bound_is_kept():
    for norm, eps in ((np.inf, 0.2), (2, 1.0), (1, 5.0)):
        found = play(target(), Universal(epochs=3), attacked(40, norm=norm, eps=eps, owned=100))
        broken = ~found.robust & (found.clean == found.task.labels)
        assert (found.change[broken] <= eps * (1 + TOLERANCE)).all()


def test_a_patch_fools_images_that_were_not_learnt_from_far_above_chance():
    task = attacked(200, norm=0, eps=9, owned=400)
    learnt = play(target(), Patch(), task)
    untrained = play(target(), Patch(epochs=0), task)
    gain = difference(fooled(learnt), fooled(untrained))
    assert gain.interval.low > 0.02


def test_a_patch_is_a_square_of_no_more_pixels_than_allowed():
    task = attacked(60, norm=0, eps=11, owned=100)
    found = play(target(), Patch(epochs=3), task)
    broken = np.flatnonzero(~found.robust & (found.clean == task.labels))
    assert broken.size
    for row in broken:
        down, across = np.nonzero((found.rows[row] != task.rows[row]).reshape(8, 8))
        assert np.ptp(down) < 3
        assert np.ptp(across) < 3


def test_more_places_break_more():
    few, many = (
        fooled(play(target(net(0.15)), Patch(places=places), attacked(80, norm=0, eps=9, owned=200)))[0]
        for places in (1, 8)
    )
    assert many > few


def test_without_rows_of_its_own_it_learns_from_the_samples():
    assert fooled(play(target(), Universal(), attacked(60, eps=0.25)))[0] > 5


@pytest.mark.parametrize("attack", [Universal(epochs=2), Patch(epochs=2)])
def test_the_same_seed_finds_the_same_bytes_within_the_budget(attack):
    norm = 0 if isinstance(attack, Patch) else np.inf
    task = attacked(20, norm=norm, eps=9 if norm == 0 else 0.2, owned=100, gradients=11, budget=2)
    first, second = (play(target(), attack, task, seed=1) for _ in range(2))
    assert first.rows.tobytes() == second.rows.tobytes()
    assert first.ledger.slopes.max() <= 11


def test_a_patch_wants_pixels():
    with pytest.raises(InputError, match="number of pixels"):
        play(target(), Patch(), attacked(5))
