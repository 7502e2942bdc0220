from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bartizan.core.errors import InputError
from bartizan.redteam.ball import Ball, capped_diamond
from bartizan.redteam.boundary import shortest
from bartizan.targets.feasible import TOLERANCE, lengths
from fixtures.digits_nets import attacked


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
def test_rows_are_put_back_into_the_ball_and_the_ranges(norm):
    task, rng = attacked(30, norm=norm, eps=0.7), np.random.default_rng(0)
    ball = Ball(task, np.arange(30))
    for rows in (ball.anywhere(rng), ball.inside(task.rows + rng.normal(size=task.rows.shape).astype(np.float32))):
        assert rows.dtype == np.float32
        assert (task.space.change(rows, task.rows, norm) <= task.max_change * (1 + TOLERANCE)).all()
        assert rows.min() >= 0
        assert rows.max() <= 1
        assert np.array_equal(ball.inside(rows.copy()), rows) or np.allclose(ball.inside(rows.copy()), rows, atol=1e-5)


@pytest.mark.parametrize("norm", [np.inf, 2])
def test_no_step_of_unit_length_gains_more_than_the_steepest(norm):
    task, rng = attacked(20, norm=norm), np.random.default_rng(0)
    gradient = rng.normal(size=task.rows.shape).astype(np.float32)
    step = Ball(task, np.arange(20)).steepest(gradient, task.rows)
    assert np.allclose(lengths(step, norm), 1, atol=1e-5)
    for _ in range(50):
        other = rng.normal(size=step.shape)
        other /= lengths(other, norm)[:, None]
        assert ((step * gradient).sum(axis=1) >= (other * gradient).sum(axis=1)).all()


def test_steps_in_the_norm_1_move_only_features_that_have_room():
    task = attacked(20, norm=1)
    gradient = np.random.default_rng(0).normal(size=task.rows.shape).astype(np.float32)
    step = Ball(task, np.arange(20)).steepest(gradient, task.rows, 0.1)
    assert ((step != 0).sum(axis=1) == 6).all()
    assert not ((task.rows == 0) & (step < 0)).any()


def test_tiny_gradients_still_have_a_direction():
    task = attacked(5, norm=2)
    gradient = np.full_like(task.rows, 1e-25)
    assert np.allclose(lengths(Ball(task, np.arange(5)).steepest(gradient, task.rows), 2), 1, atol=1e-4)


def test_a_norm_without_steps_is_refused():
    with pytest.raises(InputError, match="norms inf, 2 and 1"):
        Ball(attacked(2, norm=0, eps=4), np.arange(2))


@given(st.integers(0, 10_000))
def test_the_capped_diamond_is_the_nearest_point_of_its_set(seed):
    rng = np.random.default_rng(seed)
    change, room = rng.normal(size=(1, 8)), rng.uniform(0, 1, (1, 8)) * rng.integers(0, 2, (1, 8))
    radius = np.array([rng.uniform(0.05, 2.0)])
    found = capped_diamond(change, room, radius)
    assert np.abs(found).sum() <= radius[0] * (1 + 1e-6)
    assert (np.abs(found) <= room + 1e-12).all()
    distance = np.square(found - change).sum()
    for _ in range(60):
        other = rng.normal(size=(1, 8))
        other = np.clip(other, -room, room)
        other *= min(1.0, radius[0] / max(np.abs(other).sum(), 1e-12))
        assert distance <= np.square(other - change).sum() + 1e-5


@given(st.integers(0, 10_000), st.sampled_from([np.inf, 2.0, 1.0]))
def test_the_shortest_way_onto_a_plane_ends_on_it_and_is_the_shortest(seed, norm):
    rng = np.random.default_rng(seed)
    rows, slopes = rng.uniform(0, 1, (1, 6)), rng.normal(size=(1, 6))
    low, high = np.zeros((1, 6)), np.ones((1, 6))
    most = np.where(slopes > 0, high - rows, rows - low) @ np.abs(slopes[0])
    gap = most * rng.uniform(0.05, 1.5)
    way = shortest(slopes, gap, rows, (low, high), norm)
    assert ((rows + way >= low - 1e-9) & (rows + way <= high + 1e-9)).all()
    gained = (way * slopes).sum()
    assert gained == pytest.approx(min(gap[0], most[0]), rel=1e-4)
    for _ in range(60):
        other = np.clip(rows + rng.normal(size=(1, 6)), 0, 1) - rows
        if (other * slopes).sum() >= gained:
            assert lengths(way, norm)[0] <= lengths(other, norm)[0] * (1 + 1e-4) + 1e-9
