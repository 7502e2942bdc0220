"""The check ``data.quality``: what it rests on, what it says, and what it keeps to itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bartizan.core.check import Check
from bartizan.core.errors import ArtefactError
from bartizan.core.predicates import ASSESSMENT, Assessment
from bartizan.core.statement import make
from bartizan.core.system import Provenance
from bartizan.lifecycle.develop.data import examination, quality, triggers
from bartizan.lifecycle.develop.data.examination import Examination
from bartizan.lifecycle.develop.data.measure import NotMeasured
from bartizan.lifecycle.develop.data.profile import LEAST_GROUP, compare_profiles, profile, read_profile
from bartizan.lifecycle.develop.data.quality import DataQuality, examine
from fixtures.effort import within
from fixtures.tables import Silent, artefact, part, plant_trigger, real, sample_of, system_of, table, write_csv

CHECK = DataQuality()
MEASURED = {
    "completeness", "validity", "duplicate_share", "near_duplicate_share", "conflict_share", "balance", "rows",
    "label_noise", "leakage_share", "outlier_share", "trigger_share", "useful_columns", "collected_until",
}  # fmt: skip


def hospital_in(folder: Path):
    """The breast cancer data in two splits, declared."""
    rows, labels = real("breast-cancer")
    order = np.random.default_rng(0).permutation(len(rows))
    train, held = order[:400], order[400:]
    return system_of(
        (write_csv(folder / "train.csv", rows[train].tolist(), labels[train].tolist()), part()),
        (
            write_csv(folder / "holdout.csv", rows[held].tolist(), labels[held].tolist()),
            part("holdout", split="holdout"),
        ),
    )


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    return hospital_in(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def outcomes(hospital):
    return {name: outcome_of(hospital, name) for name in ("train", "holdout")}


def outcome_of(system, name: str = "train"):
    return CHECK.run(system, system.artefact(f"dataset:{name}"), Silent())


# -- the shape


def test_it_is_a_check_on_every_dataset(hospital):
    assert isinstance(CHECK, Check)
    assert [subject.id for subject in CHECK.subjects(hospital)] == ["dataset:train", "dataset:holdout"]


def test_its_result_is_a_statement_that_a_gate_can_read(hospital, outcomes):
    subject, outcome = hospital.artefact("dataset:train"), outcomes["train"]
    statement = make(outcome.predicate_type, subject, outcome.predicate)
    assert outcome.predicate_type == ASSESSMENT
    assert isinstance(statement.read(), Assessment)
    assert statement.predicate["family"] == "dataset"
    assert set(statement.predicate["metrics"]) == MEASURED
    assert not any("." in name for name in statement.predicate["metrics"])
    assert sum(statement.predicate["findings"].values()) == len(outcome.findings)


def test_every_metric_has_an_interval_and_says_how(outcomes):
    for outcome in outcomes.values():
        for metric in outcome.predicate.metrics.values():
            assert metric.low <= metric.value <= metric.high
            assert metric.n > 0
            assert metric.method


def test_evaluation_data_are_measured_beside_the_training_data(outcomes):
    metrics = outcomes["holdout"].predicate.metrics
    assert set(metrics) == MEASURED | {"source_overlap"}
    assert metrics["source_overlap"].value == 0.0


def test_it_rests_on_all_datasets_and_what_is_declared_of_them(hospital):
    inputs = CHECK.inputs(hospital, hospital.artefact("dataset:train"))
    assert set(inputs) == {"dataset:train", "dataset:holdout", "settings:data.quality:train"}
    for change in ({"ranges": {"c0": (0, 1)}}, {"group": "c0"}, {"integer": ("c0",)}, {"personal_data": True}):
        assert inputs != CHECK.inputs(redeclared(hospital, **change), hospital.artefact("dataset:train"))
    assert inputs == CHECK.inputs(redeclared(hospital, limits="other"), hospital.artefact("dataset:train"))


def redeclared(system, **changes):
    first, *others = system.declaration.dataset
    datasets = (msgspec.structs.replace(first, **changes), *others)
    return msgspec.structs.replace(system, declaration=msgspec.structs.replace(system.declaration, dataset=datasets))


def test_the_same_inputs_and_seed_give_the_same_bytes(hospital, outcomes):
    again = outcome_of(hospital)
    assert again.report.data == outcomes["train"].report.data
    assert again == outcomes["train"]


def test_progress_is_told(tmp_path):
    context, rows = Silent(), np.arange(60.0).reshape(20, 3)
    system = system_of((write_csv(tmp_path / "train.csv", rows.tolist(), [0, 1] * 10), part()))
    CHECK.run(system, system.artefact("dataset:train"), context)
    assert context.told[0][:2] == (0, len(quality.MEASURES))
    assert context.told[-1] == (len(quality.MEASURES), len(quality.MEASURES), "done")


def test_a_sibling_that_changed_meanwhile_is_refused(tmp_path):
    hospital = hospital_in(tmp_path)
    (tmp_path / "holdout.csv").write_text("c0,label\n1,0\n")
    with pytest.raises(ArtefactError, match="changed since"):
        outcome_of(hospital)


# -- what the catalogue asks for


@pytest.mark.control("2.4-f")
def test_the_six_measures_are_reported_for_each_version(outcomes, tmp_path):
    """Completeness, timeliness, validity, consistency, integrity and balance, for two versions of a dataset."""
    hospital = hospital_in(tmp_path)
    reports = [msgspec.json.decode(outcomes["train"].report.data)]
    lines = (tmp_path / "train.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\n".join([*lines, lines[1], "," + lines[2].partition(",")[2]]) + "\n")
    declared = hospital.declaration.dataset
    changed = system_of((tmp_path / "train.csv", declared[0]), (tmp_path / "holdout.csv", declared[1]))
    reports.append(msgspec.json.decode(outcome_of(changed).report.data))
    for report in reports:
        assert {measure["dimension"] for measure in report["measures"]} >= {
            "completeness", "timeliness", "validity", "consistency", "integrity", "balance",
        }  # fmt: skip
    assert reports[0]["digest"] != reports[1]["digest"]
    assert faults(reports[0], "completeness", "duplicates") == [0, 0]
    assert faults(reports[1], "completeness", "duplicates") == [1, 1]


def faults(report: dict, *names: str) -> list[int]:
    by_name = {measure["name"]: measure["faults"] for measure in report["measures"]}
    return [by_name[name] for name in names]


@pytest.mark.control("2.3-i")
def test_key_metrics_are_computed_from_the_bytes_and_can_be_computed_again(hospital, outcomes):
    subject = hospital.artefact("dataset:train")
    report = outcomes["train"].report.data
    told = read_profile(report)
    assert msgspec.json.decode(report)["digest"] == subject.digest
    assert told == profile(sample_of(Path(subject.path), part()))
    cells = np.loadtxt(subject.path, delimiter=",", skiprows=1)
    assert told.records == len(cells)
    assert told.columns["c0"]["mean"] == pytest.approx(cells[:, 0].mean(), rel=1e-5)
    assert told.columns["c29"]["max"] == pytest.approx(cells[:, 29].max(), rel=1e-5)


@pytest.mark.control("2.3-n")
def test_label_counts_are_computed_and_compared_between_versions(tmp_path):
    rows, labels = real("wine")
    reports = []
    for kept in (np.arange(178), np.arange(140)):
        path = write_csv(tmp_path / "train.csv", rows[kept].tolist(), labels[kept].tolist())
        reports.append(read_profile(outcome_of(system_of((path, part()))).report.data))
    assert reports[0].labels == {"0": 59, "1": 71, "2": 48}
    change = compare_profiles(*reports)
    assert change.labels == {"2": -38}
    assert change.records == -38
    assert change.shares["2"] == pytest.approx(10 / 140 - 48 / 178, abs=1e-6)
    assert change.means["c0"] == pytest.approx((rows[:140, 0].mean() - rows[:, 0].mean()) / rows[:, 0].std(), rel=1e-3)


@pytest.mark.control("2.4-e")
def test_size_is_judged_by_rules_of_thumb_and_a_learning_curve(outcomes):
    details = size_of(outcomes["train"])
    assert {rule["rule"]: rule["met"] for rule in details["rules"]} == {
        "records of the smallest class per feature": False,
        "records of each class": True,
    }
    steps = details["learningCurve"]["steps"]
    assert [step["records"] for step in steps] == sorted(step["records"] for step in steps)
    assert steps[-1]["records"] == 320
    assert all(step["low"] < step["accuracy"] < step["high"] for step in steps)
    assert steps[-1]["accuracy"] >= 0.95


@pytest.mark.control("2.4-g")
def test_too_little_data_gets_the_options_with_their_security_cost(outcomes):
    options = size_of(outcomes["train"])["options"]
    assert [option["option"].split()[0].strip(":") for option in options] == [
        "collect", "transfer", "augmentation", "synthetic", "frugal",
    ]  # fmt: skip
    assert all(len(option["security_cost"]) > 20 for option in options)
    advice = next(finding for finding in outcomes["train"].findings if finding.rule == "data/too-few-records")
    assert "transfer" in advice.remedy


def size_of(outcome) -> dict:
    report = msgspec.json.decode(outcome.report.data)
    return next(measure["details"] for measure in report["measures"] if measure["name"] == "size")


# -- personal data


def test_no_value_of_personal_data_leaves_the_check(tmp_path):
    """Every cell is a number that occurs nowhere else; none of them may appear in what is published."""
    rng = np.random.default_rng(3)
    rows = rng.uniform(1e8, 9e8, (60, 4))
    rows[5, 2] = 7.77e9
    labels = np.array(["ill"] * 57 + ["cured"] * 3)
    text = [[str(cell) for cell in row] for row in rows.tolist()]
    text[9][1] = "Jane Doe"
    path = write_csv(tmp_path / "train.csv", text, labels.tolist())
    outcome = outcome_of(system_of((path, part(personal_data=True, ranges={"c2": (0, 1e8)}))))
    published = json.dumps(msgspec.to_builtins(outcome)) + outcome.report.data.decode()
    numbers = {float(token) for token in re.findall(r"-?\d+\.?\d*(?:e[+-]?\d+)?", published)}
    six_digits = {float(f"{cell:.6g}") for cell in rows.ravel()}
    assert not numbers & (six_digits | set(rows.ravel()))
    assert "Jane" not in published


def test_small_counts_of_personal_data_cannot_be_worked_out():
    sample = table(np.arange(240.0).reshape(60, 4), ["ill"] * 57 + ["cured"] * 3, personal_data=True)
    told = profile(sample)
    assert told.labels == {"cured": 0, "ill": 55}
    assert told.records == 60
    assert told.aggregated_over == LEAST_GROUP
    assert told.columns["c0"]["distinct"] is None
    assert told.columns["c0"]["max"] == np.mean(np.arange(240.0).reshape(60, 4)[-5:, 0])
    public = profile(table(np.arange(240.0).reshape(60, 4), ["ill"] * 57 + ["cured"] * 3))
    assert (public.labels, public.columns["c0"]["max"]) == ({"cured": 3, "ill": 57}, 236.0)


def test_a_column_with_fewer_than_five_values_of_personal_data_is_not_described():
    rows = np.full((20, 2), np.nan)
    rows[:4, 0], rows[:, 1] = 1.0, 2.0
    assert profile(table(rows, np.arange(20) % 2, personal_data=True)).columns["c0"] == {"present": None}


# -- bounds


def test_large_tables_are_sampled_and_say_so(monkeypatch):
    monkeypatch.setattr(examination, "MAX_POINTS", 300)
    monkeypatch.setattr(examination, "REFERENCES", 200)
    planted = plant_trigger("digits", 0.05, 3, 1)
    exam = Examination(table(planted.rows, planted.labels), (), 2)
    assert exam.sampled
    assert len(exam.chosen) == 300
    assert set(exam.neighbours.places.ravel()) <= set(exam.references)
    report = examine(table(planted.rows, planted.labels), seed=2)
    for name in ("outliers", "triggers", "label-noise", "near-duplicates"):
        measured = report.measured(name)
        assert measured.details["sampled"]
        assert max(metric.n for metric in measured.metrics.values()) <= 300
    share = report.metrics["near_duplicate_share"]
    assert (share.method, share.low) == ("wilson", 0.0)
    assert share.high > 0


def test_wide_tables_are_sampled_too(monkeypatch):
    monkeypatch.setattr(examination, "MAX_POINT_CELLS", 6400)
    assert len(Examination(table(*real("digits"))).chosen) == 100


def test_the_search_for_triggers_stops_at_its_budget(monkeypatch):
    monkeypatch.setattr(triggers, "MAX_DISTANCES", 1)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 6, (400, 6)).astype(float)
    rows[:, 0] = np.where(np.arange(400) < 45, 900.0, rng.normal(size=400))
    result = triggers.measure(Examination(table(rows, np.arange(400) % 3)))
    assert not isinstance(result, NotMeasured)
    assert result.details["valuesLeftOut"] > 0


def test_a_common_table_takes_seconds_at_most(hospital):
    with within(1):
        outcome_of(hospital)


def test_an_incomplete_declaration_of_provenance_is_no_obstacle(tmp_path):
    nothing = Provenance(host="", contributors="", independent_sources=0, collected="")
    rows, labels = real("iris")
    path = write_csv(tmp_path / "train.csv", rows.tolist(), labels.tolist())
    outcome = outcome_of(system_of((path, part(provenance=nothing))))
    assert "data/undated" in {finding.rule for finding in outcome.findings}
    assert artefact(path).digest == json.loads(outcome.report.data)["digest"]


def test_a_file_without_any_label_is_reported_not_refused(tmp_path):
    path = write_csv(tmp_path / "train.csv", np.arange(90.0).reshape(30, 3).tolist(), [""] * 30)
    outcome = outcome_of(system_of((path, part(group="site"))))
    report = json.loads(outcome.report.data)
    assert {missing["name"] for missing in report["notMeasured"]} >= {"balance", "label-noise", "triggers"}
    assert "data/missing-labels" in {finding.rule for finding in outcome.findings}
