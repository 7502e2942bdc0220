"""Records as points, their neighbours, and the small classifier that the measures share."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from bartizan.lifecycle.develop.data import neighbours
from bartizan.lifecycle.develop.data.encoding import declared_places, fit_encoder
from bartizan.lifecycle.develop.data.learners import FOLDS, fold_of, out_of_fold, predict
from bartizan.lifecycle.develop.data.neighbours import nearest
from fixtures.tables import real, table

RNG = np.random.default_rng(11)


def test_two_categories_lie_one_apart_whatever_their_codes():
    rows = np.column_stack([np.arange(30) % 3 * 100.0, RNG.normal(size=30)])
    encoder = fit_encoder(table(rows, np.arange(30) % 2, categorical=("c0",)))
    points = encoder.points(np.array([[0, 0.5], [100, 0.5], [200, 0.5], [999, 0.5]]))
    assert np.linalg.norm(points[0] - points[1]) == pytest.approx(1)
    assert np.linalg.norm(points[0] - points[2]) == pytest.approx(1)
    assert np.linalg.norm(points[0] - points[3]) == pytest.approx(np.sqrt(0.5))
    assert encoder.dimensions == points.shape[1] == 4


def test_a_few_gross_errors_do_not_widen_the_scale():
    clean = RNG.normal(size=(500, 1))
    spoilt = clean.copy()
    spoilt[:10] = 1e5
    before, after = (fit_encoder(table(rows, np.arange(500) % 2)).scale[0] for rows in (clean, np.clip(spoilt, -9, 9)))
    assert after == pytest.approx(before, rel=0.25)
    assert fit_encoder(table(spoilt, np.arange(500) % 2)).scale[0] < spoilt.std() / 2


def test_gaps_lie_at_the_median():
    rows = np.array([[1.0, 1.0], [3.0, np.nan], [5.0, 2.0], [9.0, 3.0]])
    encoder = fit_encoder(table(rows, [0, 1, 0, 1]))
    np.testing.assert_array_equal(encoder.points(rows)[1, 1], 0.0)


def test_one_hot_columns_are_found_by_their_prefix():
    columns = ("sex=f", "sex=m", "age", "colour_red", "sexy")
    assert declared_places(columns, ("sex", "colour", "age", "none")) == [0, 1, 3, 2]


def test_neighbours_agree_with_another_implementation(monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK_DISTANCES", 5000)
    points = RNG.normal(size=(300, 6))
    own = np.arange(300)
    ours = nearest(points, points, 7, own=own)
    distances, places = NearestNeighbors(n_neighbors=8, algorithm="brute").fit(points).kneighbors(points)
    np.testing.assert_array_equal(ours.places, places[:, 1:])
    np.testing.assert_allclose(ours.distances, distances[:, 1:], rtol=1e-3)


def test_a_small_reference_gives_fewer_neighbours():
    assert nearest(np.eye(3), np.eye(3), 10).places.shape == (3, 3)


def test_folds_keep_blocks_whole_and_spread_classes():
    labels, blocks = np.arange(400) % 4, np.arange(400) // 2
    blocks = np.unique(blocks * 4 + labels, return_inverse=True)[1] // 2
    folds = fold_of(labels, blocks, np.random.default_rng(0))
    assert all(len(set(folds[blocks == block])) == 1 for block in np.unique(blocks))
    assert np.bincount(folds, minlength=FOLDS).min() >= 70


def test_copies_of_a_record_do_not_vouch_for_its_label():
    """A wrong label on five copies is still contradicted: they never sit on both sides of a fold."""
    rows, labels = real("iris")
    rows, labels = np.concatenate([rows, rows[[0] * 5]]), np.append(labels, [2] * 5)
    blocks = np.unique(rows, axis=0, return_inverse=True)[1].ravel()
    scores = out_of_fold(rows, labels, blocks, classes=3, rng=np.random.default_rng(0))
    assert scores[150:, 2].max() < 0.2
    alone = out_of_fold(rows, labels, np.arange(len(rows)), classes=3, rng=np.random.default_rng(0))
    assert alone[150:, 2].max() > 0.2


@pytest.mark.parametrize(("name", "least"), [("breast-cancer", 0.94), ("digits", 0.95), ("wine", 0.95)])
def test_the_classifier_is_good_enough_to_judge_labels(name, least):
    rows, labels = real(name)
    sample = table(rows, labels)
    points = fit_encoder(sample).points(sample.rows)
    rng = np.random.default_rng(0)
    scores = out_of_fold(points, labels, np.arange(len(labels)), classes=sample.classes, rng=rng)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-9)
    assert (scores.argmax(axis=1) == labels).mean() >= least


def test_many_classes_are_left_to_the_neighbours():
    labels = np.repeat(np.arange(40), 12)
    points = labels[:, None] * 9.0 + RNG.normal(size=(480, 2))
    scores = predict(np.clip(points / 72, -5, 5), labels, points / 72, 40)
    assert (scores.argmax(axis=1) == labels).mean() > 0.9
