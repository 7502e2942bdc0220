"""Numbers behind ``Measured`` are the range over five seeds; a bar lies a few per cent above."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bartizan.core.errors import BudgetError
from bartizan.redteam.attack import Query
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.closest import Closest
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.ledger import Budget
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Access
from fixtures.victims import Arena, Victim, space_around


def linear():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


@cache
def cancer():
    """Two classes, 30 features, and no bounds but those of the attack, so that the least change is known."""
    return Arena.of(load_breast_cancer, linear(), room=100)


@cache
def forest():
    return Arena.of(load_breast_cancer, RandomForestClassifier(30, random_state=0), samples=20)


def median_ratio(arena, norm, budget, seed=0):
    """Median of the change found over the least change there is, over the rows that the model gets right."""
    run, _, _ = arena.attack(HopSkipJump(norm), budget, seed=seed)
    return float(np.median(arena.ratios(run.candidates, norm)))


@pytest.mark.parametrize(("norm", "bar"), [(2, 1.05), (np.inf, 1.08)])
def test_a_thousand_queries_come_close_to_the_least_change_there_is(norm, bar):
    # Measured: 1.03 (L2) and 1.04 to 1.06 (Linf).
    assert 1 <= median_ratio(cancer(), norm, 1000) < bar


@pytest.mark.parametrize(("norm", "bar"), [(2, 1.15), (np.inf, 1.30)])
def test_ten_classes_and_64_features_do_not_throw_it_off(norm, bar):
    # Measured: 1.07 to 1.08 (L2) and 1.17 to 1.21 (Linf); the walk may end at a class that is not the nearest.
    arena = Arena.of(load_digits, linear(), room=100)
    assert 1 <= median_ratio(arena, norm, 1000) < bar


def test_four_features_are_enough():
    # Measured: 1.02 to 1.03.
    arena = Arena.of(load_iris, linear(), room=100, samples=40)
    assert 1 <= median_ratio(arena, 2, 300) < 1.06


def test_more_queries_find_smaller_changes():
    ratios = [median_ratio(cancer(), 2, budget) for budget in (30, 100, 300, 1000)]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 1.3 * ratios[-1]


class Boundary:
    """The attack that HopSkipJump improves on: Brendel, Rauber, Bethge 2018, arXiv:1712.04248."""

    needs = frozenset({Access.LABELS})

    def search(self, task, rng):
        closest, left = Closest(task, 2), np.full(len(task.rows), task.budget)
        spherical = towards = np.full(len(task.rows), 0.1)

        def ask(sample, rows):
            nonlocal left
            sample, rows = sample[left[sample] > 0], task.space.project(rows, task.rows[sample])[left[sample] > 0]
            labels = yield Query(rows, sample)
            left = left - np.bincount(sample, minlength=len(left))
            fooled = labels != task.labels[sample]
            closest.offer(sample[fooled], rows[fooled])
            return sample, fooled

        each = np.arange(len(task.rows))
        distance = np.array([task.space.change(task.starts, row, 2) for row in task.rows])
        distance[task.start_labels[None] == task.labels[:, None]] = np.inf
        for nearest in distance.argsort(axis=1).T[:10]:
            yield from ask(each[np.isinf(closest.change)], task.starts[nearest][np.isinf(closest.change)])
        try:
            while (live := each[(left > 0) & np.isfinite(closest.change) & (closest.change > 0)]).size:
                back = (task.rows - closest.rows)[live] / task.space.scale
                length = np.linalg.norm(back, axis=1, keepdims=True)
                noise = rng.normal(size=back.shape)
                noise *= spherical[live, None] * length / np.linalg.norm(noise, axis=1, keepdims=True)
                noise -= (noise * back).sum(axis=1, keepdims=True) / length**2 * back
                step = noise + towards[live, None] * back
                sample, fooled = yield from ask(live, closest.rows[live] + step * task.space.scale)
                towards = towards.copy()
                towards[sample] *= np.where(fooled, 1.1, 0.93)
        except BudgetError:
            pass
        return closest.rows


def test_on_a_forest_that_has_no_gradient_it_beats_the_boundary_attack():
    # Measured: 1.54 to 1.73 against 1.83 to 2.62.
    arena = forest()
    hop, _, _ = arena.attack(HopSkipJump(2), 1000)
    boundary, _, _ = arena.attack(Boundary(), 1000)
    ours, theirs = arena.change(hop.candidates, 2), arena.change(boundary.candidates, 2)
    assert np.isfinite(ours).all()
    assert np.median(ours) < 0.85 * np.median(theirs)


def test_many_samples_cost_no_more_calls_than_one():
    # Measured: 66 calls for twenty samples with 1000 queries each; the boundary attack takes 1004.
    run, victim, _ = forest().attack(HopSkipJump(), 1000)
    assert victim.calls == run.ledger.calls <= 75
    assert victim.rows > 18_000


def test_the_budget_is_used_up_and_never_exceeded():
    for budget in (1, 2, 7, 50, 333):
        run, victim, _ = cancer().attack(HopSkipJump(), budget)
        right = victim.model.predict(cancer().rows) == cancer().labels
        assert (run.ledger.spent[right] == budget).all()
        assert (run.ledger.spent[~right] == 1).all()
        assert run.stopped == ""


def test_the_same_seed_walks_the_same_way():
    first, second, other = (cancer().attack(HopSkipJump(), 200, seed=seed)[0].candidates for seed in (1, 1, 2))
    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != other.tobytes()


class Witness:
    def __init__(self):
        self.queries = []

    def see(self, query, _answer, _ordinal):
        self.queries.append(query)


def mixed():
    """Whole numbers, an immutable column, and a class that depends on both kinds and on a category."""
    rng = np.random.default_rng(0)
    rows = np.column_stack(
        [rng.integers(0, 12, 300), rng.normal(size=300), rng.normal(size=300), rng.integers(0, 3, 300)]
    ).astype(float)
    space = Space(
        columns=("visits", "dose", "age", "ward"),
        scale=np.array([rows[:, 0].std(), 1.0, 1.0, 1.0]),
        low=rows.min(axis=0),
        high=rows.max(axis=0),
        integer=np.array([True, False, False, False]),
        immutable=np.array([False, False, True, False]),
        codes=(),
    )
    labels = (rows[:, 0] / 4 + rows[:, 1] + 2 * rows[:, 2] > 2).astype(int)
    return rows, labels, space


def test_every_row_that_is_asked_can_be_and_whole_numbers_are_moved():
    rows, labels, space = mixed()
    victim = Victim(answer=lambda asked: asked[:, 0] / 4 + asked[:, 1] + 2 * asked[:, 2] > 2, features=4)
    task = EvasionTask(rows[:50], labels[:50], 2, rows[50:], labels[50:], space, 1.0, 400)
    witness, attack = Witness(), HopSkipJump(2)
    run = Run(attack.search(task, np.random.default_rng(0)), budget=Budget(samples=50, per_sample=400), watch=witness)
    Engine(victim).drive([run])
    for query in witness.queries:
        assert space.possible(query.rows, task.rows[query.sample]).all()
    fooled = victim.labels(run.candidates) != task.labels
    assert fooled.mean() > 0.6  # those whose immutable column decides cannot be flipped
    assert (run.candidates[fooled, 0] != task.rows[fooled, 0]).mean() > 0.3


def test_a_model_that_cannot_be_fooled_is_left_with_the_rows_as_they_are():
    rows, labels, space = mixed()
    task = EvasionTask(rows[:5], np.zeros(5, int), 2, rows[50:], labels[50:], space, 1.0, 100)
    run = Run(HopSkipJump().search(task, np.random.default_rng(0)), budget=Budget(samples=5, per_sample=100))
    Engine(Victim(answer=lambda asked: np.zeros(len(asked)), features=4)).drive([run])
    assert np.array_equal(run.candidates, task.rows)
    assert run.ledger.spent.max() <= 100


def test_an_adversary_who_owns_no_row_starts_from_random_ones():
    arena = cancer()
    task = dataclasses.replace(arena.task(300), starts=arena.starts[:0], start_labels=arena.start_labels[:0])
    task = dataclasses.replace(task, space=space_around(arena.train[0]))
    run = Run(HopSkipJump().search(task, np.random.default_rng(0)), budget=Budget(samples=40, per_sample=300))
    Engine(Victim(arena.model)).drive([run])
    assert (arena.model.predict(run.candidates) != task.labels).mean() > 0.9


def test_rows_without_any_start_and_constant_features_are_no_reason_to_fail():
    rows = np.ones((6, 2))
    task = EvasionTask(rows[:3], np.zeros(3, int), 2, np.empty((0, 2)), np.empty(0, int), space_around(rows), 1.0, 50)
    run = Run(HopSkipJump().search(task, np.random.default_rng(0)), budget=Budget(samples=3, per_sample=50))
    Engine(Victim(answer=lambda asked: np.zeros(len(asked)), features=2)).drive([run])
    assert np.array_equal(run.candidates, rows[:3])


def test_the_baseline_is_a_fair_one():
    """On a smooth model the boundary attack of this file comes close too. Measured: 1.05 to 1.06."""
    run, _, _ = cancer().attack(Boundary(), 1000)
    assert np.median(cancer().ratios(run.candidates, 2)) < 1.1
