"""Structures: thresholds at the last float that passes, boxes that hold their rows, and nothing hostile let in."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.targets.structure import (
    LEAF,
    LinearModel,
    Link,
    Plan,
    TreeEnsemble,
    boxes,
    decided,
    joined,
    last_passing,
    linked,
    pack,
    unpack,
)


def stump(threshold=0.5, values=((1.0, 0.0), (0.0, 1.0)), feature=0):
    return TreeEnsemble(
        feature=np.array([feature, LEAF, LEAF]),
        threshold=np.array([threshold, np.inf, np.inf]),
        left=np.array([1, 1, 2]),
        right=np.array([2, 1, 2]),
        value=np.array([(0.0, 0.0), *values]),
        roots=np.array([0]),
        base=np.zeros(2),
        features=2,
        link=Link.MEAN,
    )


def random_tree(rng, depth=5, features=3):
    """A tree whose ways repeat features, so that some boxes are empty."""
    feature, threshold, left, right = [], [], [], []

    def grow(level):
        place = len(feature)
        feature.append(LEAF), threshold.append(np.inf), left.append(place), right.append(place)
        if level and rng.random() < 0.9:
            feature[place], threshold[place] = int(rng.integers(features)), float(rng.normal())
            left[place] = grow(level - 1)
            right[place] = grow(level - 1)
        return place

    grow(depth)
    value = np.where(np.array(feature)[:, None] == LEAF, rng.dirichlet(np.ones(3), len(feature)), 0.0)
    return TreeEnsemble(
        np.array(feature), np.array(threshold), np.array(left), np.array(right), value, np.zeros(1, np.int64),
        np.zeros(3), features, Link.MEAN,
    )  # fmt: skip


@pytest.mark.parametrize("bound", [0.0, -0.0, 1.5, -3.25, 1e-310, 1e300, -1e300])
def test_the_last_float_that_passes_is_found_whatever_its_size(bound):
    assert last_passing(lambda values: values <= bound, 1)[0] == bound
    below = last_passing(lambda values: values < bound, 1)[0]
    assert below < bound <= np.nextafter(below, np.inf)


def test_tests_that_all_or_no_floats_pass_have_infinite_bounds():
    passes = np.array([True, False])
    np.testing.assert_array_equal(last_passing(lambda _: passes, 2), [np.inf, -np.inf])


def test_rounding_to_single_precision_moves_into_the_threshold():
    bound = 0.1
    last = last_passing(lambda values: values.astype(np.float32) <= bound, 1)[0]
    assert np.float32(last) <= bound < np.float32(np.nextafter(last, np.inf))


def test_a_row_goes_left_when_it_is_at_most_the_threshold():
    rows = np.array([[0.5, 0.0], [np.nextafter(0.5, 1), 0.0]])
    np.testing.assert_array_equal(stump().labels(rows), [0, 1])


def test_boxes_hold_the_rows_that_come_to_their_leaves_and_no_others():
    rng = np.random.default_rng(0)
    trees = [random_tree(rng) for _ in range(8)]
    ensemble = joined(trees, base=np.zeros(3), features=3, link=Link.MEAN, divisor=8.0)
    rows = rng.normal(size=(300, 3))
    rows[:100, 0] = rng.choice(ensemble.threshold[ensemble.feature == 0], 100)
    each, leaves = boxes(ensemble), ensemble.leaves(rows)
    inside = ((rows[:, None] > each.low) & (rows[:, None] <= each.high)).all(axis=2)
    for tree in range(8):
        own = each.tree == tree
        assert (inside[:, own].sum(axis=1) == 1).all()
        np.testing.assert_array_equal(each.leaf[own][inside[:, own].argmax(axis=1)], leaves[:, tree])
    assert (each.low < each.high).all()


def test_ties_go_to_the_first_class_and_a_single_output_is_cut():
    np.testing.assert_array_equal(decided(np.array([[1.0, 1.0], [0.0, 1.0]])), [0, 1])
    np.testing.assert_array_equal(decided(np.array([[0.0], [1e-300]])), [0, 1])
    np.testing.assert_array_equal(decided(np.array([[0.0]]), -5e-324), [1])


@pytest.mark.parametrize("link", [link for link in Link if link != Link.NONE])
def test_every_link_gives_probabilities(link):
    outputs = np.array([[-800.0], [3.0]]) if link == Link.LOGISTIC else np.array([[0.2, 0.8], [1.0, 0.0]])
    scores = linked(outputs, link)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert scores.shape == (2, 2)


def test_a_model_without_probabilities_says_so():
    with pytest.raises(WorkError, match="no probabilities"):
        linked(np.zeros((1, 2)), Link.NONE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_missing_values_are_refused_rather_than_guessed(value):
    linear = LinearModel(np.ones((1, 2)), np.zeros(1), Link.LOGISTIC)
    for structure in (stump(), linear):
        with pytest.raises(WorkError, match="missing or infinite"):
            structure.labels(np.array([[0.0, value]]))


def test_rows_of_another_width_are_refused():
    with pytest.raises(WorkError, match="2 features"):
        stump().labels(np.zeros((1, 3)))


def test_no_rows_have_no_answers():
    assert stump().labels(np.empty((0, 2))).shape == (0,)


def test_what_is_packed_comes_back():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(50, 3))
    for structure in (random_tree(rng), LinearModel(rng.normal(size=(3, 3)), rng.normal(size=3), Link.SOFTMAX)):
        plan, body = pack(structure)
        sent = msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan)
        assert sent.size == len(body)
        np.testing.assert_array_equal(unpack(sent, body).outputs(rows), structure.outputs(rows))


HOSTILE = {
    "a way in circles": {"left": np.array([0, 1, 2])},
    "a way outside": {"right": np.array([9, 1, 2])},
    "a negative child": {"left": np.array([-1, 1, 2])},
    "a root outside": {"roots": np.array([7])},
    "a feature that is not there": {"feature": np.array([2, LEAF, LEAF])},
    "a value that is no number": {"value": np.full((3, 2), np.nan)},
    "a threshold that is no number": {"threshold": np.array([np.nan, np.inf, np.inf])},
    "no trees": {"roots": np.empty(0, np.int64)},
    "values of another width": {"value": np.zeros((3, 5))},
    "a link that does not fit": {"link": Link.LOGISTIC},
    "a divisor of zero": {"divisor": 0.0},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_structure_that_would_lead_astray_is_refused(change):
    with pytest.raises(ArtefactError):
        unpack(*pack(replace(stump(), **change)))


@pytest.mark.parametrize(
    "change", [{"kind": "other"}, {"plain": {}}, {"shapes": {}}, {"plain": {"features": 2, "link": "x"}}]
)
def test_a_plan_that_says_something_else_is_refused(change):
    plan, body = pack(stump())
    with pytest.raises(ArtefactError):
        unpack(msgspec.structs.replace(plan, **change), body)


def test_an_ensemble_without_trees_is_refused():
    with pytest.raises(ArtefactError, match="without any tree"):
        joined([], base=np.zeros(2), features=2, link=Link.MEAN)
