"""The arithmetic of detail: what is shown of scores, and that it tells no more than it says."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from bartizan.core.errors import InputError, WorkError
from bartizan.targets.detail import (
    FINEST,
    KINDS,
    Detail,
    bucket_of,
    composed,
    consistent,
    epsilon,
    keys_of,
    likeliest,
    noisy,
    shared_out,
    shared_out_rows,
    told,
    told_rows,
)

KEY = bytes(range(32))


@some.composite
def probabilities(draw):
    weights = draw(some.lists(some.floats(0, 1), min_size=2, max_size=12).filter(lambda found: sum(found) > 1e-3))
    return [weight / sum(weights) for weight in weights]


@given(probabilities(), some.sampled_from([5, 10, 100, 1000]))
def test_shares_sum_to_one_keep_the_order_and_are_off_by_less_than_a_unit(scores, units):
    whole = shared_out(scores, units)
    assert sum(whole) == units
    assert all(abs(share / units - score) < 1 / units + 1e-9 for share, score in zip(whole, scores, strict=True))
    for one, two in itertools.combinations(range(len(scores)), 2):
        if scores[one] > scores[two]:
            assert whole[one] >= whole[two]


@given(probabilities(), some.sampled_from([2, 5, 10, 20, 100, 1000]))
def test_one_row_and_many_rows_are_cut_alike_and_the_label_stays_highest(scores, units):
    label = int(np.argmax(scores))
    one = told(scores, label, units)
    many = told_rows(np.array([scores, scores]), np.array([label, label]), units)
    assert many.tolist() == [one, one]
    assert sum(one) == units
    assert one[label] == max(one)


@given(probabilities(), some.sampled_from([5, 10, 20]))
def test_what_is_coarser_than_hundredths_is_made_of_hundredths_and_the_label_alone(scores, units):
    """Whoever is told hundredths and the label could work everything coarser out: it tells nothing more."""
    label = int(np.argmax(scores))
    hundredths = [share / FINEST for share in shared_out(scores, FINEST)]
    assert told(hundredths, label, units) == told(scores, label, units)


@pytest.mark.parametrize("scores", [[math.nan, 0.5], [math.inf, 0.0], [0.0, 0.0], [-0.4, 0.1]])
def test_scores_that_are_no_probabilities_are_refused(scores):
    with pytest.raises(WorkError, match="scores that are no"):
        shared_out(scores, 100)
    with pytest.raises(WorkError, match="scores that are no"):
        shared_out_rows(np.array([scores]), 100)


def test_scores_that_do_not_quite_sum_to_one_are_made_to():
    assert shared_out([0.2, 0.2], 100) == [50, 50]
    assert shared_out([5.0, 15.0], 100) == [25, 75]
    single = np.float32([1 / 3, 1 / 3, 1 / 3])
    assert shared_out(single.tolist(), 100) == [34, 33, 33]
    assert shared_out_rows(np.array([[5.0, 15.0], [0.25, 0.75]]), 100).tolist() == [[25, 75], [25, 75]]


def test_buckets_begin_at_their_bound():
    buckets = (("low", 0.0), ("medium", 0.6), ("high", 0.9))
    assert [bucket_of(units, buckets) for units in (0, 59, 60, 89, 90, 100)] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize(
    "detail",
    [
        Detail("label"),
        Detail("top-k", k=3),
        Detail("buckets"),
        Detail("graphic", steps=5),
        Detail("confidence", decimals=1),
        Detail("rounded-scores", decimals=1),
    ],
)
def test_answers_that_can_be_told_apart_are_no_more_than_the_stated_bits(detail, classes):
    """Counted over a fine grid of all scores there are."""
    steps = 60
    grid = [
        np.diff((0, *cuts, steps)) / steps
        for cuts in itertools.combinations_with_replacement(range(steps + 1), classes - 1)
    ]
    scores = np.array(grid)
    labels = scores.argmax(axis=1)
    match detail.kind:
        case "label":
            shown = [()] * len(labels)
        case "top-k":
            shown = [tuple(row) for row in likeliest(scores, labels, detail.named(classes)).tolist()]
        case "buckets":
            whole = shared_out_rows(scores, FINEST)[np.arange(len(labels)), labels]
            shown = [bucket_of(units, detail.buckets) for units in whole.tolist()]
        case "confidence":
            shown = told_rows(scores, labels, detail.units)[np.arange(len(labels)), labels].tolist()
        case _:
            shown = [tuple(row) for row in told_rows(scores, labels, detail.units).tolist()]
    apart = len(set(zip(labels.tolist(), shown, strict=True)))
    assert math.log2(apart) <= detail.bits(classes) + 1e-9


def test_the_likeliest_are_a_set_behind_the_label_and_their_order_tells_nothing():
    scores = np.array([[0.1, 0.2, 0.3, 0.4], [0.1, 0.3, 0.2, 0.4]])
    assert likeliest(scores, np.array([3, 3]), 3).tolist() == [[3, 1, 2], [3, 1, 2]]


def test_equal_scores_are_named_by_the_order_of_the_classes():
    scores = np.array([[0.4, 0.2, 0.2, 0.2], [0.25, 0.25, 0.25, 0.25]])
    assert likeliest(scores, np.array([0, 2]), 2).tolist() == [[0, 1], [2, 0]]


def test_a_label_that_was_overruled_does_not_fit_its_scores():
    scores = np.array([[0.7, 0.3], [0.5, 0.5]])
    assert consistent(scores, np.array([0, 1]))
    assert not consistent(scores, np.array([1, 1]))


# ---- noise


def drawn(units, count=4000, *, noise=1.0, classes=2, start=0):
    return np.array(
        [noisy(units, str(row + start).encode(), key=KEY, classes=classes, noise=noise) for row in range(count)]
    )


def test_the_same_row_gets_the_same_noise_and_another_key_another():
    assert noisy(80, b"row", key=KEY, classes=2, noise=1.0) == noisy(80, b"row", key=KEY, classes=2, noise=1.0)
    assert noisy(80, b"row", key=KEY, classes=2, noise=1.0) != noisy(80, b"row", key=KEY[:16], classes=2, noise=1.0)
    assert keys_of(np.array([[0.0, 1.0]])) == keys_of(np.array([[-0.0, 1.0]]))


def test_noise_is_laplace_on_the_log_odds():
    shown = drawn(88, noise=0.2, classes=10)
    odds = np.log(shown / (1 - shown)) - math.log(0.88 / 0.12)
    assert abs(np.median(odds)) < 0.02
    assert abs(np.abs(odds).mean() - 0.2) < 0.015


@pytest.mark.parametrize("classes", [2, 10])
def test_no_score_tells_more_than_epsilon_says(classes):
    """The likelihoods of what is shown for the least and the surest answer, bin by bin, with room for chance."""
    noise, count = 2.0, 40_000
    least = round(100 / classes)
    one, two = (drawn(units, count, noise=noise, classes=classes, start=units * count) for units in (least, 100))
    edges = np.linspace(1 / classes, 0.99, 12)[1:-1]
    first, second = (np.bincount(np.digitize(shown, edges), minlength=len(edges) + 1) for shown in (one, two))
    bound = epsilon(noise, classes)
    for here, there in ((first, second), (second, first)):
        spread = np.sqrt(1 / np.maximum(here, 1) + 1 / np.maximum(there, 1))
        assert (np.log(np.maximum(here, 1) / np.maximum(there, 1)) <= bound + 4 * spread).all()


def test_a_bound_half_as_large_would_be_broken():
    """So that the test above can fail: the bound is met with equality where nothing is clipped."""
    one, two = drawn(50, 40_000, noise=2.0), drawn(100, 40_000, noise=2.0, start=10**6)
    ratio = (two >= 0.985).mean() / max((one >= 0.985).mean(), 1e-9)
    assert math.log(ratio) > epsilon(2.0, 2) / 2


def test_epsilon_composes_and_never_beyond_the_sum():
    one = epsilon(100.0, 2)
    assert composed(one, 1) == one
    assert composed(one, 10_000) < 10_000 * one
    assert composed(5.0, 1000) == 5000.0


@pytest.mark.parametrize("wrong", [{"kind": "logits"}, {"decimals": 0}, {"k": 0}, {"noise": 0.0}, {"steps": 0}])
def test_details_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError):
        Detail(**wrong)


def test_every_kind_has_a_name_of_its_own():
    assert len({Detail(kind).name for kind in KINDS}) == len(KINDS)
