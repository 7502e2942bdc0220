"""The recommendation on comparisons made by hand: what is adequate, what is simplest, what needs a reason."""

from __future__ import annotations

import numpy as np
import pytest

from bartizan.core.errors import InputError
from bartizan.core.predicates import Metric
from bartizan.lifecycle.develop.choose.candidate import Interpretability, Supply
from bartizan.lifecycle.develop.choose.comparison import Comparison, Entry
from bartizan.lifecycle.develop.choose.paired import all_pairs
from bartizan.lifecycle.develop.choose.quality import right_as_text
from bartizan.lifecycle.develop.choose.recommend import Demands, front, reason_needed, recommend
from bartizan.lifecycle.develop.choose.trial import Part
from bartizan.redteam.statistics import proportion

ROWS = 200
GLASS, GREY, BLACK = Interpretability.GLASS_BOX, Interpretability.GREY_BOX, Interpretability.BLACK_BOX


def exact(value):
    return Metric(value=value, low=value, high=value, n=1)


def entry(name, hits, parameters, openness, *, floor=False, robust=0.5, leak=0.02):
    right = np.arange(ROWS) < hits
    quality = Part(
        metrics={"accuracy": proportion(hits, ROWS).metric()},
        details={"right": right_as_text(right), "recall_by_class": {"sick": proportion(hits // 2, 100).metric()}},
    )
    cost = Part(metrics={"parameters": exact(parameters), "size_bytes": exact(8 * parameters)})
    more = Part(metrics={"robust_accuracy": proportion(round(robust * 60), 60).metric()})
    leakage = Part(metrics={"membership_tpr_at_1_percent_fpr": exact(leak)})
    return Entry(
        name=name,
        title=name,
        supply=Supply(code="c", weights="w"),
        is_floor=floor,
        interpretability=openness,
        why="by hand",
        settings={},
        choices=(),
        parts={"quality": quality, "cost": cost, "robustness": more, "leakage": leakage},
    )


def comparison(*entries):
    right = {each.name: np.arange(ROWS) < round(each.metrics["accuracy"].value * ROWS) for each in entries}
    return Comparison(
        version="1",
        model="m",
        training="t",
        evaluation="e",
        records={"training": 1, "evaluation": ROWS},
        classes=("well", "sick"),
        seed=1,
        quick=False,
        entries=entries,
        pairs=all_pairs(right),
        robust_pairs=(),
    )


FLOOR = entry("floor", 120, 2, GLASS, floor=True)
LINEAR = entry("linear", 185, 31, GLASS)
FOREST = entry("forest", 187, 5_000, BLACK)
WEAK = entry("weak", 150, 5, GLASS)


def test_the_simplest_of_those_that_are_good_enough_is_taken():
    found = recommend(comparison(FLOOR, LINEAR, FOREST, WEAK), Demands())
    assert found.recommended == "linear"
    assert found.most_accurate == "forest"
    assert "less accurate" in found.standing("weak").reasons[0]
    assert "floor" in found.standing("floor").reasons[0]


def test_openness_comes_before_the_number_of_parameters():
    large_but_open = entry("list", 186, 90, GLASS)
    small_but_closed = entry("net", 186, 10, BLACK)
    assert recommend(comparison(FLOOR, large_but_open, small_but_closed), Demands()).recommended == "list"


@pytest.mark.parametrize(
    ("name", "words"),
    [("linear", ""), ("forest", "more capacity than linear"), ("weak", "not adequate"), ("floor", "not adequate")],
)
def test_only_what_goes_beyond_the_simplest_adequate_one_needs_a_reason(name, words):
    found = recommend(comparison(FLOOR, LINEAR, FOREST, WEAK), Demands())
    reason = reason_needed(found, name)
    assert words in reason
    assert bool(reason) == bool(words)
    with pytest.raises(KeyError):
        reason_needed(found, "nobody")


def test_interpretability_can_be_a_hard_requirement():
    neighbours = entry("neighbours", 199, 9_000, GREY)
    everything = comparison(FLOOR, LINEAR, neighbours)
    assert recommend(everything, Demands()).recommended == "neighbours"
    strict = recommend(everything, Demands(interpretability=GLASS))
    assert strict.recommended == ""
    assert "glass-box is required" in strict.standing("neighbours").reasons[-1]
    assert "No candidate is adequate" in strict.words
    assert reason_needed(strict, "linear")


def test_what_is_expected_and_demanded_must_be_met():
    everything = comparison(FLOOR, LINEAR, FOREST)
    assert recommend(everything, Demands(expected={"accuracy": 0.93})).recommended == "forest"
    assert recommend(everything, Demands(expected={"recall.sick": 0.999})).recommended == ""
    assert recommend(everything, Demands(at_most={"membership_tpr_at_1_percent_fpr": 0.01})).recommended == ""
    assert (
        recommend(everything, Demands(expected={"accuracy": 0.93}, at_least={"accuracy": 0.1})).recommended == "forest"
    )
    assert (
        recommend(everything, Demands(expected={"accuracy": 0.1}, at_least={"accuracy": 0.93})).recommended == "forest"
    )
    for odd in (Demands(at_least={"nonsense": 0.1}), Demands(at_most={"acuracy": 0.5})):
        with pytest.raises(InputError, match="was measured of no candidate"):
            recommend(everything, odd)
    assert recommend(everything, Demands(at_least={"robust_accuracy": 0.4})).recommended == "linear"


def test_a_model_that_is_no_better_than_the_floor_is_not_adequate():
    alike = entry("alike", 122, 9, GLASS)
    found = recommend(comparison(FLOOR, alike), Demands())
    assert found.recommended == ""
    assert "most frequent class" in found.standing("alike").reasons[0]


def test_an_unread_model_counts_as_large_and_closed():
    unread = entry("unread", 187, 1, BLACK)
    parts = {**unread.parts, "cost": Part(metrics={"size_bytes": exact(80_000)})}
    unread = Entry(**{name: getattr(unread, name) for name in unread.__struct_fields__ if name != "parts"}, parts=parts)
    found = recommend(comparison(FLOOR, LINEAR, unread), Demands())
    assert found.standing("unread").complexity == (2, 10_000)
    assert found.recommended == "linear"


def test_the_front_holds_what_nothing_else_beats():
    worse = entry("worse", 184, 40, GLASS)
    private = entry("private", 150, 40, GLASS, leak=0.001)
    assert front([FLOOR, LINEAR, FOREST, worse, private]) == ("linear", "forest", "private")
    assert front([LINEAR, LINEAR]) == ("linear",)
