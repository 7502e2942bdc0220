"""Sets that guards are measured on: rows of another kind, attacks that really run, adversaries who know."""

from __future__ import annotations

import numpy as np
import pytest

from bartizan.core.errors import WorkError
from bartizan.lifecycle.deploy.gateway.evaluation.attacked import attacks_on, copied, jittered, run
from bartizan.lifecycle.deploy.gateway.evaluation.filtered import Filtered
from bartizan.lifecycle.deploy.gateway.evaluation.shifts import shifted
from bartizan.lifecycle.deploy.gateway.evaluation.toll import toll
from bartizan.lifecycle.deploy.gateway.evaluation.wary import wary_toll
from bartizan.lifecycle.deploy.gateway.expected import expected_columns
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.check import material_of
from bartizan.redteam.play import task_of
from bartizan.targets.protocol import Access, Loss
from fixtures.image_systems import declare_images
from fixtures.victims import Victim, dataset_part, declare, space_around

FAR = np.array([5.0, 0.0, 0.0])


class Plane:
    """Answers 1 where the first feature is above a bound."""

    classes_, n_features_in_ = np.array([0, 1]), 3

    def __init__(self, bound=0.0):
        self.bound = bound

    def predict(self, rows):
        return (np.asarray(rows)[:, 0] > self.bound).astype(np.int64)

    def predict_proba(self, rows):
        sure = 1 / (1 + np.exp(-4 * (np.asarray(rows)[:, 0] - self.bound)))
        return np.stack([1 - sure, sure], axis=1)


class Labels:
    """Offers nothing else."""

    offers = frozenset({Access.LABELS})


def victim(bound=0.0):
    return Victim(Plane(bound))


def task(count=6, budget=200, max_change=1.0):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, 3))
    rows[:, 0] = np.linspace(0.1, 0.9, count)
    starts = rng.normal(size=(40, 3))
    return task_of(
        rows,
        np.ones(count, dtype=np.int64),
        space=space_around(np.concatenate([rows, starts]), room=3.0),
        classes=2,
        max_change=max_change,
        budget=budget,
        starts=(starts, (starts[:, 0] > 0).astype(np.int64)),
    )


# -- shifts


def test_shifted_images_are_what_they_are_called(tmp_path):
    system = declare_images(tmp_path)
    material = material_of(system, system.of_kind("model")[0])
    rows, labels = material.evaluation.rows[:40], material.evaluation.labels[:40]
    sets = shifted(material, rows, labels, np.random.default_rng(0))
    assert set(sets) == {"turned", "inverted", "shuffled", "mosaic", "noise"}
    for made in sets.values():
        assert made.shape == rows.shape
        assert made.dtype == rows.dtype
        assert made.min() >= 0
        assert made.max() <= 1
    np.testing.assert_array_equal(np.rot90(rows[3].reshape(8, 8)).ravel(), sets["turned"][3])
    np.testing.assert_allclose(sets["inverted"], 1 - rows)
    np.testing.assert_array_equal(np.sort(sets["shuffled"], axis=1), np.sort(rows, axis=1))
    corners = {bytes(row.reshape(8, 8)[:4, 4:].tobytes()) for row in rows}
    assert all(bytes(row.reshape(8, 8)[:4, 4:].tobytes()) in corners for row in sets["mosaic"])


def test_shifted_tables_keep_categories_whole(tmp_path):
    rng = np.random.default_rng(0)
    site = np.eye(3)[rng.integers(0, 3, 80)]
    rows = np.column_stack([rng.normal(size=80), rng.integers(0, 4, 80), site])
    labels = rng.integers(0, 2, 80)
    columns = ["dose", "ward", "site=a", "site=b", "site=c"]
    training = {"categorical": ("ward", "site")}
    system = declare(tmp_path, None, (rows, labels), (rows, labels), columns=columns, training=training)
    material = material_of(system, system.of_kind("model")[0])
    sets = shifted(material, rows, labels, rng)
    assert set(sets) == {"recombined", "moved", "mixed", "noise"}
    for made in sets.values():
        assert set(np.unique(made[:, 1])) <= {0, 1, 2, 3}
        assert (made[:, 2:].sum(axis=1) == 1).all()
    np.testing.assert_allclose(np.abs(sets["moved"][:, 0] - rows[:, 0]), 2 * rows[:, 0].std())
    np.testing.assert_array_equal(np.sort(sets["recombined"][:, 0]), np.sort(rows[:, 0]))
    assert not np.array_equal(sets["recombined"][:, 0], rows[:, 0])


def test_what_is_expected_comes_from_the_declaration_and_else_from_the_data(tmp_path):
    rows = np.column_stack([np.linspace(10, 20, 50), np.arange(50), np.tile([1.0, 4.0], 25), np.linspace(-1, 1, 50)])
    labels = np.arange(50) % 2
    training = {"ranges": {"age": (0.0, 120.0)}, "integer": ("age",), "categorical": ("site",)}
    rows[:, 0] = np.rint(rows[:, 0])
    columns = ["age", "count", "site", "free"]
    system = declare(tmp_path, None, (rows, labels), (rows, labels), columns=columns, training=training)
    material = material_of(system, system.of_kind("model")[0])
    age, count, site, free = expected_columns(system.dataset_part("train"), material.space)
    assert (age.low, age.high, age.whole) == (0, 120, True)
    assert (count.low, count.high) == (0, 49 * 1.5)  # never negative: stays so
    assert site.categories == (1, 4)
    assert (free.low, free.high) == (-2, 2)
    assert expected_columns(dataset_part(), material.space)[0].high == 120 * 1.5  # the space has it, no declaration


# -- attacks


def test_attacks_run_and_what_they_asked_is_kept():
    target, want = victim(), task()
    assert [attack.name for attack in attacks_on(target, want)] == ["evasion.hopskipjump", "evasion.square"]
    seen = run(target, HopSkipJump(), want, np.random.default_rng(0))
    assert (seen.attack, seen.samples) == ("hopskipjump", 6)
    assert (target.labels(seen.rows) == 0).all()
    assert len(seen.queries) == len(seen.sample) <= 6 * 200
    assert set(seen.sample.tolist()) == set(range(6))
    assert copied(target, want, np.random.default_rng(0)).shape == (500, 3)
    moved = jittered(want, np.random.default_rng(0))
    assert np.allclose(want.space.change(moved, want.rows), 1.0, atol=1e-6)


def test_labels_alone_leave_the_attack_that_needs_no_more():
    target = Filtered(victim(), lambda rows: rows)
    target._target = Labels()
    assert [attack.name for attack in attacks_on(target, task())] == ["evasion.hopskipjump"]


def test_a_target_behind_a_chain_answers_as_if_asked_about_what_comes_out():
    target = victim()
    behind = Filtered(target, lambda rows: rows + FAR)
    rows = task().rows - [3.0, 0, 0]
    np.testing.assert_array_equal(behind.labels(rows), target.labels(rows + FAR))
    np.testing.assert_array_equal(behind.scores(rows), target.scores(rows + FAR))
    assert (behind.name, behind.classes, behind.features) == (target.name, 2, 3)
    assert Access.TRAINING not in behind.offers
    with pytest.raises(WorkError, match="no gradients"):
        behind.gradients(rows, Loss.CROSS_ENTROPY, np.zeros(6, int))


@pytest.mark.parametrize("attack", [HopSkipJump(), Square()])
def test_the_toll_counts_to_the_first_row_that_counts(attack):
    want = task(max_change=2.0)
    paid = toll(victim(), attack, want, np.random.default_rng(0))
    assert paid.right.all()
    fallen = np.isfinite(paid.first)
    assert fallen.sum() >= 4  # all can fall: a change of one deviation is enough
    assert (victim().labels(paid.rows[fallen]) == 0).all()
    assert (want.space.change(paid.rows[fallen], want.rows[fallen]) <= 2.0 + 1e-6).all()
    assert (paid.first[fallen] <= 200).all()
    estimate = paid.queries(np.random.default_rng(0))
    assert estimate.interval.low <= estimate.value <= estimate.interval.high


def test_what_cannot_fall_costs_everything():
    paid = toll(victim(bound=-100.0), HopSkipJump(), task(budget=60), np.random.default_rng(0))
    assert paid.robust.all()
    assert paid.queries(np.random.default_rng(0)).value == 60


@pytest.mark.parametrize(("attack", "reach"), [(HopSkipJump(), 0.2), (Square(), 1.5)])
def test_who_knows_of_a_detector_goes_around_it(attack, reach):
    """Noticed: what lies further than ``reach`` beyond the boundary. What lies before that still fools the model."""
    want, target = task(max_change=2.0), victim()
    paid = wary_toll(target, lambda rows, _: rows[:, 0] < -reach, attack, want, np.random.default_rng(0))
    fallen = np.isfinite(paid.first)
    assert fallen.any()
    assert (paid.rows[fallen][:, 0] >= -reach).all()
    assert (paid.rows[fallen][:, 0] <= 0).all()
    nothing = wary_toll(target, lambda rows, _: rows[:, 0] < 0, attack, want, np.random.default_rng(0))
    assert np.isinf(nothing.first).all()
