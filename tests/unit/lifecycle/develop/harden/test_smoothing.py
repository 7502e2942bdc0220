"""Randomised smoothing against the closed form: for a linear model the true radius is the distance to its plane."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_iris

from bartizan.lifecycle.develop.harden.smoothing import FAILURE, PROVING, Smoothed, Smoothing
from bartizan.redteam.statistics import clopper_pearson
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Access
from fixtures.games import halves, material


class Plane:
    """Class 1 above a plane through the origin."""

    name, classes, class_values, features = "model:plane", 2, (), 3
    offers = frozenset({Access.LABELS, Access.SCORES, Access.TRAINING})
    weights = np.array([1.0, 2.0, -2.0]) / 3

    def labels(self, rows):
        return (rows @ self.weights > 0).astype(np.int64)

    def scores(self, rows):
        return np.eye(2)[self.labels(rows)]

    def retrain(self, rows, labels, *, seed):
        del rows, labels, seed
        return self


def smoothed(noise=0.5, seed=3):
    return Smoothed(Plane(), np.ones(3), seed, noise)


def test_no_certificate_reaches_beyond_the_plane_and_most_come_close():
    rows = np.random.default_rng(0).normal(0, 0.6, (60, 3))
    distance = np.abs(rows @ Plane.weights)
    proof = smoothed().certify(rows)
    said = proof.labels >= 0
    assert (proof.labels[said] == Plane().labels(rows)[said]).all()
    assert (proof.radius <= distance + 0.03).all()
    assert (proof.radius > distance).sum() <= 2
    # No more can be proved than all copies agreeing proves.
    most = 0.5 * 3.09 if PROVING < 1000 else 0.5 * 2.5
    reachable = np.minimum(distance, most)
    assert np.median(proof.radius[said] / reachable[said]) > 0.75
    assert (distance[~said] < 0.15).all()


def test_the_bound_is_one_sided_at_the_stated_failure():
    low = clopper_pearson(PROVING, PROVING, 1 - 2 * FAILURE).low
    assert low == pytest.approx(FAILURE ** (1 / PROVING))


def test_answers_depend_on_row_and_seed_alone():
    rows = np.random.default_rng(1).normal(0, 0.3, (40, 3))
    votes = smoothed().votes(rows, 16)
    assert (votes[::-1] == smoothed().votes(rows[::-1], 16)).all()
    assert (votes != smoothed(seed=4).votes(rows, 16)).any()
    assert (votes.sum(axis=1) == 16).all()
    assert smoothed().labels(rows[:0]).shape == (0,)


def test_noise_has_the_size_of_each_feature():
    model = Smoothed(Plane(), np.array([1.0, 100.0, 0.01]), 0, 0.5)
    drawn = model._draw(np.zeros(3), 4000, "x")
    assert drawn.std(axis=0) == pytest.approx(0.5, abs=0.03)


def test_categories_cannot_be_smoothed():
    given = material(*halves(load_iris))
    assert Smoothing().why_not(Plane(), given) == ""
    space = given.space
    whole = Space(space.columns, space.scale, space.low, space.high, ~space.integer, space.immutable)
    given = type(given)(given.model, given.settings, given.expected, given.training, given.evaluation, whole)
    assert "Gaussian noise" in Smoothing().why_not(Plane(), given)
