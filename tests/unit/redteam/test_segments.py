"""Classes and segments of the attacked samples, each with its own number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bartizan.redteam.segments import LEAST, MOST_COLUMNS, Judged, by_class, by_segment
from bartizan.redteam.statistics import wilson
from bartizan.targets.feasible import Codes, OneHot
from fixtures.victims import space_around

ROWS = np.random.default_rng(0).normal(size=(60, 4))


def judged(rows, robust):
    return Judged(rows, np.ones(len(rows), bool), robust)


def test_each_class_that_was_attacked_has_its_own_robust_accuracy():
    labels = np.arange(60) % 3
    robust = labels != 1
    found = by_class(judged(ROWS, robust), labels, ("a", "b", "c", "never seen"))
    assert [(part["name"], part["samples"], part["right"], part["value"]) for part in found] == [
        ("a", 20, 20, 1.0),
        ("b", 20, 20, 0.0),
        ("c", 20, 20, 1.0),
    ]
    assert found[1]["high"] == pytest.approx(wilson(0, 20).high, abs=1e-5)


def test_declared_categories_are_the_segments():
    rows = ROWS.copy()
    rows[:, 0] = np.arange(60) % 2
    rows[:, 2:] = np.eye(2)[(np.arange(60) < 50).astype(int)]
    space = replace(
        space_around(rows),
        codes=(Codes(0, np.array([0.0, 1.0])),),
        one_hot=(OneHot(np.array([2, 3]), may_be_empty=False),),
    )
    found = {part["name"]: part for part in by_segment(judged(rows, rows[:, 0] == 1), space, np.zeros_like(rows))}
    assert set(found) == {"x0 = 0", "x0 = 1", "x2", "x3"}
    assert (found["x0 = 0"]["value"], found["x0 = 1"]["value"]) == (0.0, 1.0)
    assert (found["x2"]["samples"], found["x3"]["samples"]) == (10, 50)


def test_a_segment_with_few_samples_is_left_out():
    rows = ROWS.copy()
    rows[:, 0] = (np.arange(60) < LEAST - 1).astype(float)
    space = replace(space_around(rows), codes=(Codes(0, np.array([0.0, 1.0])),))
    assert [part["name"] for part in by_segment(judged(rows, rows[:, 0] == 0), space, rows)] == ["x0 = 0"]


def test_without_categories_the_features_that_moved_most_are_cut_into_thirds():
    moved = np.zeros_like(ROWS)
    moved[:, 3] = 2.0
    robust = ROWS[:, 3] > np.quantile(ROWS[:, 3], 2 / 3)
    found = by_segment(judged(ROWS, robust), space_around(ROWS), moved)
    assert [(part["name"], part["samples"]) for part in found] == [
        ("x3, lowest third", 20),
        ("x3, middle third", 20),
        ("x3, highest third", 20),
    ]
    assert [part["value"] for part in found] == [0.0, 0.0, 1.0]


def test_images_and_attacks_that_moved_nothing_have_no_segments():
    rows = np.zeros((20, MOST_COLUMNS + 1))
    assert by_segment(judged(rows, np.ones(20, bool)), space_around(rows), rows + 1) == []
    assert by_segment(judged(ROWS, np.ones(60, bool)), space_around(ROWS), np.zeros_like(ROWS)) == []
    assert by_segment(judged(ROWS[:0], np.ones(0, bool)), space_around(ROWS), ROWS[:0]) == []
