"""Early stop: gates are decided on few samples, and what is stated holds all the same."""

from __future__ import annotations

import json
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bartizan.adapters.sklearn import SklearnTargets
from bartizan.core.system import Condition, Gate, Rule
from bartizan.redteam import ledger as ledgers
from bartizan.redteam import registry
from bartizan.redteam.journal import Journals
from bartizan.redteam.journal_file import FolderJournals
from bartizan.redteam.sequential import LAST, Demand, demands, stated
from bartizan.redteam.statistics import wilson
from bartizan.targets.protocol import Targets
from fixtures.victims import Desk, declare, desk

ROWS, LABELS = load_breast_cancer(return_X_y=True)
TRAIN, REST, TRAIN_LABELS, REST_LABELS = train_test_split(ROWS, LABELS, test_size=0.4, random_state=0, stratify=LABELS)
SQUARE, TRANSFER = registry.check("evasion.square"), registry.check("evasion.transfer")
NAMED = {"positive": "malignant", "classes": ("malignant", "benign")}


def rule(bound, field="metrics.robust_accuracy.low", check=SQUARE.name, **more):
    return Rule(
        id="r", about="model", type="assessment", check=check, where=(Condition(field=field, at_least=bound),), **more
    )


# ---- the statistics


def run_of(outcomes, demand, block=5):
    """What is stated when samples come block by block, and how many were seen."""
    for looked in range(block, len(outcomes) + block, block):
        seen = min(looked, len(outcomes))
        robust = int(outcomes[:seen].sum())
        if demand.decided(robust, seen, len(outcomes), finished=seen == len(outcomes)):
            return stated(robust, seen, early=seen < len(outcomes)), seen
    raise AssertionError("the last sample decides")


@pytest.mark.parametrize(("share", "bound"), [(0.7, 0.7), (0.6, 0.5), (0.9, 0.7), (0.5, 0.7)])
def test_what_is_stated_misses_the_truth_as_rarely_as_it_says(share, bound):
    rng, runs = np.random.default_rng(7), 1500
    missed = 0
    for _ in range(runs):
        estimate, _ = run_of(rng.random(60) < share, Demand("robust_accuracy", bound))
        missed += share not in estimate.interval
    assert missed / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)


def test_a_naive_interval_that_is_looked_at_passes_models_that_fail_and_this_one_does_not():
    rng, runs, bound = np.random.default_rng(8), 800, 0.7
    naive = careful = 0
    for _ in range(runs):
        outcomes = rng.random(100) < bound  # exactly at the bound: to be shown with a chance of 2.5 % at most
        naive += any(wilson(int(outcomes[:n].sum()), n).low >= bound for n in range(10, 101, 5))
        careful += run_of(outcomes, Demand("robust_accuracy", bound))[0].interval.low >= bound
    assert naive / runs > 0.06
    assert careful / runs <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / runs)


def test_a_stop_agrees_with_the_gate_that_reads_what_is_stated():
    rng = np.random.default_rng(9)
    for bound in (0.3, 0.5, 0.7, 0.95):
        demand = Demand("robust_accuracy", bound)
        for _ in range(150):
            outcomes = rng.random(80) < rng.choice([0.2, 0.5, 0.75, 0.97])
            estimate, seen = run_of(outcomes, demand)
            verdict = demand.decided(int(outcomes[:seen].sum()), seen, 80, finished=seen == 80)
            assert verdict == ("met" if estimate.interval.low >= bound else "missed")


def test_a_miss_that_nothing_can_mend_is_decided_at_once_and_a_clear_pass_early():
    demand = Demand("robust_accuracy", 0.9)
    assert demand.decided(0, 5, 40) == "missed"
    assert demand.decided(5, 5, 40) == ""
    assert Demand("robust_accuracy", 0.5).decided(30, 30, 200) == "met"
    robust = next(k for k in range(41) if wilson(k, 40, LAST).low >= 0.7)
    assert Demand("robust_accuracy", 0.7).decided(robust - 1, 40, 40, finished=True) == "missed"
    assert Demand("robust_accuracy", 0.7).decided(robust, 40, 40, finished=True) == "met"


# ---- which rules can be decided


def test_every_rule_about_the_check_must_be_decidable_from_the_samples(tmp_path):
    def asked(*rules):
        declaration = system_in(tmp_path, gate={"g": Gate(rule=rules)}).declaration
        return demands(declaration, SQUARE.name)

    robust, recall = Demand("robust_accuracy", 0.7), Demand("robust_recall", 0.5)
    clean = rule(0.9, "metrics.clean_accuracy.low")
    assert asked(rule(0.7), rule(0.5, "metrics.robust_recall.low"), clean) == ((robust,), (recall,))
    assert asked(rule(0.7), rule(0.1, "metrics.median_change.low")) == ()
    assert asked(rule(0.7, "metrics.robust_accuracy.value")) == ()
    assert asked(rule(0.7, check="redteam.other")) == ()


# ---- the whole way


def model():
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(TRAIN, TRAIN_LABELS)


def system_in(folder, *, gate, stop=True, samples=100, max_change=0.4, **more):
    system = declare(
        folder,
        model(),
        (TRAIN, TRAIN_LABELS),
        (REST, REST_LABELS),
        **{**NAMED, "samples": samples, "query_budget": 60, "max_change": max_change, "stop_when_decided": stop},
        **more,
    )
    declaration = msgspec.structs.replace(system.declaration, gate=gate)
    return msgspec.structs.replace(system, declaration=declaration)


def run(system, check=SQUARE, services=None):
    services = services or desk(SklearnTargets(lambda _digest: True))
    return check.run(system, system.of_kind("model")[0], services)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(system_in(tmp_path_factory.mktemp("whole"), gate={"g": Gate(rule=(rule(0.9),))}, stop=False))


def test_blocks_share_the_time_of_a_search(tmp_path, monkeypatch):
    ticks = iter(range(10**9))
    monkeypatch.setattr(ledgers, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    said = run(system_in(tmp_path, gate={"g": Gate(rule=(rule(0.3),))}, seconds=5)).predicate
    assert said.budget["model_calls"] == 5
    assert said.settings["stopped"] == "after 5 s"
    assert "The search was stopped after 5 s and was not done" in said.summary


def test_a_gate_that_is_missed_for_sure_ends_the_campaign_and_the_statement_says_so(tmp_path, whole):
    system = system_in(tmp_path, gate={"g": Gate(rule=(rule(0.9),))})
    outcome = run(system)
    said, full = outcome.predicate, whole.predicate
    assert said.settings["samples"] == said.settings["stopped_after"] < 40
    assert said.settings["samples_planned"] == full.settings["samples"] == 100
    assert f"Stopped after {said.settings['samples']} of 100 samples" in said.summary
    assert "missed" in said.summary
    assert said.budget["queries_spent"] < full.budget["queries_spent"] / 2
    share = said.metrics["robust_accuracy"]
    assert share.n == said.settings["samples"]
    assert share.method == "anytime valid, stopped early"
    assert share.low <= full.metrics["robust_accuracy"].value <= share.high
    assert share.low < 0.9
    assert said.metrics["clean_accuracy"] == full.metrics["clean_accuracy"]  # of all evaluation rows
    assert "median_change" not in said.metrics  # nothing is known of its interval at a stop
    report = json.loads(outcome.report.data)
    records = [sample["record"] for sample in report["samples"]]
    assert len(records) == share.n
    assert set(records) <= {sample["record"] for sample in json.loads(whole.report.data)["samples"]}
    assert sum(part["samples"] for part in report["classes"]) == share.n


def test_a_gate_that_is_met_surely_ends_it_too(tmp_path):
    outcome = run(system_in(tmp_path, gate={"g": Gate(rule=(rule(0.3),))}, max_change=0.1))
    share = outcome.predicate.metrics["robust_accuracy"]
    assert share.n < 100
    assert share.low >= 0.3
    assert "decided: met" in outcome.predicate.summary


def test_what_is_not_decided_goes_on_to_the_last_sample(tmp_path, whole):
    bound = whole.predicate.metrics["robust_accuracy"].value - 0.08
    outcome = run(system_in(tmp_path, gate={"g": Gate(rule=(rule(bound),))}))
    share = outcome.predicate.metrics["robust_accuracy"]
    assert share.n == 100
    assert share.method == "wilson, allowing for looks"
    assert "Stopped" not in outcome.predicate.summary
    assert share.value == pytest.approx(whole.predicate.metrics["robust_accuracy"].value, abs=0.06)


def test_another_gate_that_is_open_keeps_it_going(tmp_path, whole):
    bound = whole.predicate.metrics["robust_accuracy"].value - 0.08
    gates = {"first": Gate(rule=(rule(0.99),)), "second": Gate(rule=(rule(bound),))}
    assert run(system_in(tmp_path, gate=gates)).predicate.metrics["robust_accuracy"].n == 100


def test_the_same_system_gives_the_same_bytes_and_so_does_a_resumed_run(tmp_path):
    system = system_in(tmp_path, gate={"g": Gate(rule=(rule(0.9),))})
    first = run(system)
    assert run(system).report.data == first.report.data
    key, folder = SQUARE.key(system, system.of_kind("model")[0]), tmp_path / "journals"
    services = Desk({Targets: SklearnTargets(lambda _digest: True), Journals: FolderJournals(folder)})
    told = []

    def killed(done, *_):
        told.append(done)
        if done > 300:
            raise KeyboardInterrupt

    services.progress = killed
    with pytest.raises(KeyboardInterrupt):
        run(system, services=services)
    assert (folder / f"{key}.journal").stat().st_size > 0
    services.progress = lambda *_: None
    again = run(system, services=services)
    assert again.report.data == first.report.data
    assert not (folder / f"{key}.journal").exists()


def test_a_bound_is_an_input_of_the_result_only_where_it_can_end_a_run(tmp_path):
    def inputs(bound, *, stop):
        system = system_in(tmp_path, gate={"g": Gate(rule=(rule(bound),))}, stop=stop)
        return SQUARE.inputs(system, system.of_kind("model")[0])

    assert inputs(0.7, stop=True) != inputs(0.8, stop=True)
    assert inputs(0.7, stop=False) == inputs(0.8, stop=False)


def test_an_attack_that_needs_its_samples_together_is_not_cut(tmp_path):
    gate = {"g": Gate(rule=(rule(0.9, check=TRANSFER.name),))}
    assert TRANSFER.stops_by(system_in(tmp_path, gate=gate).declaration) == ()
    assert SQUARE.stops_by(system_in(tmp_path, gate={"g": Gate(rule=(rule(0.9),))}).declaration) != ()
