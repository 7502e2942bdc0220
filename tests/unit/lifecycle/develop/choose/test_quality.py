"""Calibration and the numbers around accuracy."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from bartizan.lifecycle.develop.choose.quality import (
    brier,
    calibration,
    calibration_error,
    right_as_text,
    right_from_text,
)


def drawn(rng, count, skill):
    """Scores and labels whose confidence is right when ``skill`` is 1, and too high below."""
    chance = rng.uniform(0.02, 0.98, count)
    labels = (rng.random(count) < 0.5 + skill * (chance - 0.5)).astype(np.int64)
    return np.column_stack([1 - chance, chance]), labels


def test_an_honest_model_is_calibrated_and_a_boasting_one_is_not():
    rng = np.random.default_rng(1)
    honest, boasting = drawn(rng, 2000, 1.0), drawn(rng, 2000, 0.4)
    good = calibration(*honest, np.random.default_rng(0))["calibration_error"]
    bad = calibration(*boasting, np.random.default_rng(0))["calibration_error"]
    assert good.high < 0.06
    assert bad.low > 0.1
    # Confidence c is right with probability 0.5 + 0.4 (c - 0.5); the gap is 0.6 (c - 0.5), 0.144 on average.
    assert bad.value == pytest.approx(0.144, abs=0.03)


def test_calibration_error_by_hand():
    confidence, right = np.array([0.95, 0.95, 0.61, 0.61]), np.array([1.0, 0.0, 1.0, 1.0])
    assert calibration_error(confidence, right) == pytest.approx(0.5 * 0.45 + 0.5 * 0.39)


def test_brier_of_two_classes_is_twice_the_usual_one():
    scores, labels = drawn(np.random.default_rng(3), 200, 0.7)
    assert brier(scores, labels).mean() == pytest.approx(2 * brier_score_loss(labels, scores[:, 1]))


def test_which_rows_are_right_survives_as_text():
    for count in (1, 7, 8, 9, 143):
        right = np.random.default_rng(count).random(count) < 0.7
        assert (right_from_text(right_as_text(right), count) == right).all()
