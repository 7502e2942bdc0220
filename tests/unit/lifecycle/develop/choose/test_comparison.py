"""A whole comparison on real data: what is kept, what is resumed, what the page says."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.datasets import load_wine

from bartizan.adapters.sklearn_families import InstalledFamilies
from bartizan.lifecycle.develop.choose.candidate import Aspect, Interpretability
from bartizan.lifecycle.develop.choose.capacity import some_of_each
from bartizan.lifecycle.develop.choose.comparison import COLUMNS, Bench, compare, tuned
from bartizan.lifecycle.develop.choose.page import to_html
from bartizan.lifecycle.develop.choose.recommend import Demands, recommend
from fixtures.games import halves, material

SMALL = {"samples": 12, "query_budget": 60, "shadow_models": 8, "extraction_budget": 40, "max_change": 0.5}


class Kept(dict):
    """Measurements in memory; refuses to go on after some of them."""

    def __init__(self, most=10_000):
        super().__init__()
        self.most = most

    def put(self, key, data):
        if len(self) >= self.most:
            raise KeyboardInterrupt
        self[key] = data


class Ears:
    def __init__(self):
        self.heard = []

    def tell(self, _candidate, _what, done, _total, note):
        assert done >= 0
        assert note

    def finished(self, candidate, what, *, kept):
        self.heard.append((candidate, what, kept))


@pytest.fixture(scope="module")
def wine():
    return material(*halves(load_wine), positive="2", **SMALL)


def families(*names):
    return [each for each in InstalledFamilies().candidates() if each.name in names]


def bench(wine, kept, *columns):
    suite = [column() for column in COLUMNS if not columns or column.name in columns]
    return Bench(wine, {"dataset:train": "a", "dataset:evaluation": "b"}, kept, Ears(), quick=True, suite=suite)


@pytest.fixture(scope="module")
def compared(wine):
    kept = Kept()
    return compare(families("floor", "logistic", "tree"), bench(wine, kept)), kept


def test_every_column_measures_every_candidate(compared):
    comparison, _ = compared
    for entry in comparison.entries:
        assert set(entry.parts) == {column.name for column in COLUMNS}
        assert not any(part.missing for part in entry.parts.values())
        for metric in entry.metrics.values():
            assert metric.low <= metric.value <= metric.high
    floor, logistic, tree = comparison.entries
    assert floor.is_floor
    assert logistic.metrics["accuracy"].value > 0.9 > floor.metrics["accuracy"].value
    assert floor.metrics["attack_success"].value == 0
    assert tree.interpretability is Interpretability.GLASS_BOX
    assert tree.metrics["membership_tpr_at_1_percent_fpr"].n == 8


def test_each_choice_is_recorded_with_its_alternatives(compared):
    comparison, _ = compared
    choices = comparison.choices("tree")
    assert {choice.aspect for choice in choices} >= {
        Aspect.ALGORITHM, Aspect.ARCHITECTURE, Aspect.DATA, Aspect.HYPERPARAMETERS
    }  # fmt: skip
    for choice in choices:
        assert len(choice.alternatives) > 1
        assert choice.chosen in [other.value for other in choice.alternatives]
        assert choice.why


def test_what_was_measured_is_not_measured_again(wine, compared):
    comparison, kept = compared
    again = bench(wine, kept)
    assert compare(families("floor", "logistic", "tree"), again) == comparison
    assert all(kept for _, _, kept in again.listener.heard)


def test_a_run_that_was_stopped_goes_on_and_ends_the_same(wine):
    columns = ("quality", "cost", "outside", "robustness")
    whole = compare(families("floor", "tree"), bench(wine, Kept(), *columns))
    kept = Kept(most=5)
    with pytest.raises(KeyboardInterrupt):
        compare(families("floor", "tree"), bench(wine, kept, *columns))
    kept.most = 10_000
    resumed = bench(wine, kept, *columns)
    ended = compare(families("floor", "tree"), resumed)
    assert sum(kept for _, _, kept in resumed.listener.heard) == 5
    for old, new in zip(whole.entries, ended.entries, strict=True):
        for name in ("quality", "outside", "robustness"):
            assert old.parts[name] == new.parts[name]


def test_other_data_are_measured_anew(wine, compared):
    _, kept = compared
    other = Bench(wine, {"dataset:train": "x"}, kept, Ears(), quick=True, suite=[COLUMNS[0](), COLUMNS[1]()])
    compare(families("floor"), other)
    assert not any(kept for _, _, kept in other.listener.heard)


def test_a_kept_measurement_that_is_broken_is_measured_again(wine, compared):
    _, kept = compared
    broken = Kept()
    broken.update(dict.fromkeys(kept, b"{"))
    ears = bench(wine, broken, "quality", "cost")
    compare(families("floor"), ears)
    assert not any(kept for _, _, kept in ears.listener.heard)


def test_more_capacity_needs_a_visible_gain(wine):
    (tree,) = families("tree")
    chosen = tuned(tree, bench(wine, Kept()))
    depth = next(choice for choice in chosen.choices if choice.setting == "max_depth")
    best = max(other.accuracy.value for other in depth.alternatives)
    taken = next(other for other in depth.alternatives if other.value == depth.chosen)
    spread = (best * (1 - best) / 89) ** 0.5
    assert taken.accuracy.value >= best - spread - 1e-9
    earlier = depth.alternatives[: depth.alternatives.index(taken)]
    assert all(other.accuracy.value < best - spread for other in earlier)


def test_a_share_of_the_records_keeps_every_class():
    labels = np.array([0] * 90 + [1] * 3 + [2] * 7)
    chosen = some_of_each(labels, 0.1, np.random.default_rng(0))
    assert np.bincount(labels[chosen]).tolist() == [9, 2, 2]


def test_the_page_needs_nothing_else_and_escapes_names(compared):
    comparison, _ = compared
    page = to_html(comparison, recommend(comparison, Demands()))
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert page.count("<svg") == 5
    assert "Logistic regression" in page
    for entry in comparison.entries:
        assert f"{entry.metrics['accuracy'].value:.1%}"[:2] in page
