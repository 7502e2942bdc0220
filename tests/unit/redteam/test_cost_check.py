"""Attacks on costs from a declared system: what is slow is found, what is not is not called slow."""

from __future__ import annotations

import re

import msgspec
import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from bartizan.core.errors import WorkError
from bartizan.core.finding import Severity
from bartizan.redteam import cost_check, registry
from bartizan.targets.protocol import Targets
from bartizan.targets.text import CallableText, TextTargets
from fixtures.text_systems import LABELS, TEXTS, WORDS, text_system
from fixtures.victims import Desk, Victim, declare

EVIL = re.compile(r"^(?:(?:\w)+)+$")


class Opened:
    def __init__(self, target):
        self.target = target

    def open(self, *_):
        return self

    def __enter__(self):
        return self.target

    def __exit__(self, *_):
        return None


class Ticking(CallableText):
    """A filter whose work is counted and not timed: what a text costs is up to its test."""

    def __init__(self, costs):
        super().__init__(lambda texts: [[0.5, 0.5]] * len(texts), classes=2, name="model:victim")
        self.class_values = ("ham", "spam")
        self.costs, self.used = costs, 0.0

    def scores(self, texts):
        self.used += sum(self.costs(text) for text in texts)
        return super().scores(texts)

    def clock(self):
        return self.used


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, WORDS[LABELS])
    return text_system(tmp_path_factory.mktemp("texts"), model, samples=10, query_budget=60)


def slow_texts(system, target):
    desk = Desk({TextTargets: Opened(target)})
    return registry.check("availability.slow_texts").run(system, system.artefact("model:victim"), desk)


def test_a_text_that_costs_quadratic_time_is_found_and_called_so(system):
    found = slow_texts(system, Ticking(lambda text: 1e-8 * max(len(text), 1) ** 2))
    said = found.predicate
    assert said.metrics["slowdown"].low > 100
    assert said.metrics["slowdown_per_character"].value > 2
    assert said.budget["queries_spent"] <= 600
    (finding,) = found.findings
    assert finding.severity is Severity.HIGH
    assert finding.techniques[0] == "T13"
    assert "availability.slow_texts" in finding.detail


def test_where_every_text_costs_the_same_nothing_is_slow(system):
    found = slow_texts(system, Ticking(lambda _text: 1e-4))
    assert not found.findings
    assert found.predicate.metrics["slowdown"].value == pytest.approx(1.0)
    assert "within chance" in found.predicate.summary


def test_a_filter_with_a_pattern_that_backtracks_is_slow_by_its_own_clock(system):
    filtering = CallableText(lambda texts: [[float(bool(EVIL.match(text))), 0.5] for text in texts], classes=2)
    filtering.class_values, filtering.name = ("ham", "spam"), "model:victim"
    found = slow_texts(system, filtering)
    assert found.predicate.metrics["slowdown"].low > 10


def test_rows_of_a_table(tmp_path):
    rows = np.random.default_rng(0).normal(size=(60, 3))
    labels = (rows[:, 0] > 0).astype(int)
    model = LogisticRegression().fit(rows, labels)
    table = declare(tmp_path, model, (rows, labels), (rows[:30], labels[:30]), samples=5, query_budget=100)
    seen = []

    class Watched(Victim):
        used = 0.0

        def labels(self, asked):
            seen.append(asked)
            # Rows whose first two values are large take longer.
            self.used += 1e-4 * (1 + 50 * float(max(asked[0, 0], 0) * max(asked[0, 1], 0)))
            return super().labels(asked)

        def clock(self):
            return self.used

    check = registry.check("availability.sponge")
    assert not check.why_not(table)
    found = check.run(table, table.artefact("model:victim"), Desk({Targets: Opened(Watched(model))}))
    assert found.predicate.metrics["slowdown"].low > 3
    asked = np.concatenate(seen)
    assert (asked >= rows.min(axis=0) - 1e-9).all()
    assert (asked <= rows.max(axis=0) + 1e-9).all()
    assert "slowdown_per_character" not in found.predicate.metrics


def test_what_does_not_apply_says_why_in_one_sentence(system, tmp_path):
    rows, labels = np.random.default_rng(0).normal(size=(10, 2)), np.arange(10) % 2
    table = declare(tmp_path, LogisticRegression().fit(rows, labels), (rows, labels), (rows, labels))
    says = {
        (name, kind): registry.check(name).why_not(which)
        for name in ("availability.blowup", "availability.slow_texts", "availability.sponge")
        for kind, which in (("texts", system), ("rows", table))
    }
    assert says[("availability.slow_texts", "texts")] == ""
    assert says[("availability.sponge", "rows")] == ""
    assert "sends texts" in says[("availability.slow_texts", "rows")]
    assert "sends rows" in says[("availability.sponge", "texts")]
    assert "server" in says[("availability.blowup", "texts")]


def test_it_is_run_only_where_it_is_named(system):
    check = registry.check("availability.slow_texts")
    assert not check.selected(system)
    for named in (("availability.slow_texts",), ("all",)):
        redteam = msgspec.structs.replace(system.declaration.redteam, attacks=named)
        declaration = msgspec.structs.replace(system.declaration, redteam=redteam)
        assert check.selected(msgspec.structs.replace(system, declaration=declaration))


def test_a_platform_that_does_not_tell_the_time_of_others_gets_the_clock_on_the_wall():
    class Silent:
        def clock(self):
            raise WorkError("not here")

    assert cost_check._clock(Silent()) is cost_check.time.perf_counter
    assert cost_check._clock(object()) is cost_check.time.perf_counter
