"""What of an answer each role is told, for one row and for many."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from bartizan.core.digest import Digest
from bartizan.core.errors import InputError, WorkError
from bartizan.lifecycle.deploy.gateway.caller import ANONYMOUS
from bartizan.lifecycle.deploy.gateway.graphic import HEIGHT, MOST_BARS, picture
from bartizan.lifecycle.deploy.gateway.guard import Answer, Asked
from bartizan.lifecycle.deploy.gateway.roles import Role
from bartizan.lifecycle.deploy.gateway.tailoring import Tailoring
from bartizan.targets.detail import KINDS

NAMES = ("ant", "bee", "cat", "dog")
KEY = bytes(range(32))
RNG = np.random.default_rng(5)
SCORES = RNG.dirichlet(np.full(4, 0.5), 40)
ROWS = RNG.random((40, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def tailoring():
    return Tailoring({"m": NAMES}, KEY)


def asked(rows):
    return Asked(request="r", caller=ANONYMOUS, model="m", digest=Digest("0"), rows=rows, now=0.0)


def told(tailoring, scores, kind, *, labels=None, rows=None, coarse=False, **more):
    scores = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    labels = scores.argmax(axis=1) if labels is None else np.asarray(labels)
    rows = ROWS[: len(scores)] if rows is None else rows
    role = Role(name="r", detail=kind, **more)
    given = tailoring.tell(Answer(labels, scores), asked(rows), role, coarse=coarse)
    return {name: output.data for name, output in given.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_and_many_rows_are_told_alike_and_as_announced(tailoring, kind):
    role = Role(name="r", detail=kind)
    many = tailoring.tell(Answer(SCORES.argmax(axis=1), SCORES), asked(ROWS), role)
    announced = tailoring.outputs(role, len(NAMES))
    assert {name: (output.datatype, output.width) for name, output in many.items()} == {
        name: (output.datatype, output.width) for name, output in announced.items()
    }
    for place in range(len(SCORES)):
        one = tailoring.tell(
            Answer(SCORES[place : place + 1].argmax(axis=1), SCORES[place : place + 1]),
            asked(ROWS[place : place + 1]),
            role,
        )
        for name, output in one.items():
            width = output.width
            assert many[name].data[place * width : (place + 1) * width] == output.data
    assert many["label"].data == [NAMES[label] for label in SCORES.argmax(axis=1)]


@pytest.mark.parametrize("kind", KINDS)
def test_coarse_answers_and_models_without_scores_tell_the_label_alone(tailoring, kind):
    assert told(tailoring, SCORES[0], kind, coarse=True).keys() == {"label"}
    role = Role(name="r", detail=kind)
    for count in (1, 2, 0):
        given = tailoring.tell(Answer(np.zeros(count, dtype=np.int64)), asked(ROWS[:count]), role)
        assert {name: output.data for name, output in given.items()} == {"label": ["ant"] * count}


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_that_a_rule_changed_is_told_without_what_the_model_thought(tailoring, kind):
    scores = [0.7, 0.1, 0.1, 0.1]
    assert told(tailoring, scores, kind, labels=[2]) == {"label": ["cat"]}
    assert told(tailoring, [scores, scores], kind, labels=[0, 2]) == {"label": ["ant", "cat"]}


def test_rounded_scores_sum_to_one_and_show_no_more_decimals(tailoring):
    for decimals in (1, 2, 3):
        shown = np.array(told(tailoring, SCORES, "rounded-scores", decimals=decimals)["scores"]).reshape(-1, 4)
        np.testing.assert_allclose(shown.sum(axis=1), 1)
        np.testing.assert_array_equal(shown, shown.round(decimals))
        assert np.abs(shown - SCORES).max() < 10**-decimals + 0.5 * 10**-2


def test_top_names_the_label_first_and_never_all(tailoring):
    assert told(tailoring, [0.1, 0.3, 0.2, 0.4], "top-k", k=3)["top"] == ["dog", "bee", "cat"]
    assert told(tailoring, [0.1, 0.2, 0.3, 0.4], "top-k", k=3)["top"] == ["dog", "bee", "cat"]
    assert len(told(tailoring, SCORES[0], "top-k", k=10)["top"]) == 3


def test_words_stand_for_confidence(tailoring):
    words = {"doubtful": 0.0, "sure": 0.8}
    assert told(tailoring, [0.8, 0.2, 0.0, 0.0], "buckets", buckets=words)["confidence"] == ["sure"]
    sentence = told(tailoring, [0.7, 0.3, 0.0, 0.0], "summary", buckets=words)["summary"]
    assert sentence == ["The model takes this for 'ant', with doubtful confidence."]
    assert not re.search(r"\d", sentence[0])


def test_noise_does_not_average_away_by_asking_again(tailoring):
    scores = [0.8, 0.2, 0.0, 0.0]
    shown = {told(tailoring, scores, "noisy-scores", rows=ROWS[:1])["confidence"][0] for _ in range(50)}
    assert len(shown) == 1
    batch = told(tailoring, [scores] * 30, "noisy-scores", rows=np.repeat(ROWS[:1], 30, axis=0))["confidence"]
    assert set(batch) == shown
    others = told(tailoring, [scores] * 30, "noisy-scores", rows=ROWS[:30])["confidence"]
    assert len(set(others)) > 10


def test_scores_that_are_no_numbers_are_not_told(tailoring):
    for kind in KINDS:
        for label, name in ((0, "ant"), (1, "bee")):
            scores = [0.5, math.nan, 0.5, 0.0]
            assert told(tailoring, scores, kind, labels=[label]) == {"label": [name]}
            assert told(tailoring, [scores] * 2, kind, labels=[label] * 2) == {"label": [name] * 2}
    with pytest.raises(WorkError):
        told(tailoring, [math.inf, 0.0, 0.0, 0.0], "rounded-scores")


def test_bits_beyond_the_label_rise_with_the_detail(tailoring):
    bits = [tailoring.bits(Role(name="r", detail=kind), 10) for kind in KINDS]
    assert bits[0] == 0
    assert all(each > 0 for each in bits[1:])
    assert bits[-1] == max(bits)
    assert bits == [tailoring.bits(Role(name="other", detail=kind), 10) for kind in KINDS]


@pytest.mark.parametrize("key", [b"", bytes(8), bytes(65)])
def test_a_key_of_the_wrong_length_is_refused(key):
    with pytest.raises(InputError, match="key of the noise"):
        Tailoring({}, key)


def test_classes_may_change_while_it_serves():
    classes = {"m": NAMES}
    tailoring = Tailoring(classes, KEY)
    assert told(tailoring, SCORES[0], "label")["label"][0] in NAMES
    classes["m"] = ("a", "b", "c", "d")
    assert told(tailoring, SCORES[0], "label")["label"][0] in classes["m"]


# ---- pictures


def measured(svg):
    """Heights of the bars of a picture as shares of the highest that can be, as somebody with a ruler finds them."""
    bars = ET.fromstring(svg).findall("{http://www.w3.org/2000/svg}rect")
    return np.array([float(bar.get("height")) for bar in bars]) / HEIGHT


@settings(deadline=None)
@given(some.lists(some.floats(0, 1), min_size=4, max_size=4).filter(lambda found: sum(found) > 0.01))
def test_a_picture_is_all_that_its_steps_are_and_no_more(weights):
    scores = np.array(weights) / sum(weights)
    tailoring = Tailoring({"m": NAMES}, KEY)
    (svg,) = told(tailoring, scores, "graphic", steps=10)["graphic"]
    heights = measured(svg)
    np.testing.assert_allclose(heights * 10, (heights * 10).round())
    assert not re.search(r"\d", "".join(ET.fromstring(svg).itertext()))


def test_scores_cannot_be_measured_out_of_a_picture(tailoring):
    scores = RNG.dirichlet(np.full(4, 1.0), 2000)
    rows = np.zeros((2000, 3), dtype=np.float32)
    pictures = told(tailoring, scores, "graphic", steps=10, rows=rows)["graphic"]
    error = np.abs(np.array([measured(svg) for svg in pictures]) - scores)
    assert 0.02 < error.mean() < 0.04
    assert error.max() < 0.1 + 0.01
    assert len(set(pictures)) <= 2 ** math.ceil(Role(name="r", detail="graphic").shown.bits(4))
    same = told(tailoring, [[0.51, 0.49, 0, 0], [0.54, 0.46, 0, 0]], "graphic", steps=10, rows=rows[:2])["graphic"]
    assert same[0] == same[1]


def test_pictures_of_many_classes_stay_small_and_names_cannot_break_them():
    units = [0] * 998 + [6, 4]
    svg = picture(units, 10, 998, [f"<script>{place}" for place in range(1000)])
    bars = measured(svg)
    assert len(bars) == MOST_BARS
    assert sorted(bars)[-2:] == [0.4, 0.6]
    assert "<script>" not in svg
