"""Each measure of dataset quality on tables whose faults are known."""

from __future__ import annotations

import numpy as np
import pytest

from bartizan.core.finding import Severity
from bartizan.core.system import Provenance
from bartizan.lifecycle.develop.data import (
    balance,
    columns,
    completeness,
    duplicates,
    entities,
    label_noise,
    leakage,
    measure,
    outliers,
    size,
    sources,
    timeliness,
    triggers,
    validity,
)
from bartizan.lifecycle.develop.data.examination import Examination
from bartizan.lifecycle.develop.data.measure import Measure, NotMeasured
from bartizan.lifecycle.develop.data.reading import Sample
from bartizan.redteam.statistics import wilson
from fixtures.tables import part, sample_of, table

RNG = np.random.default_rng(7)
PLAIN = RNG.normal(size=(60, 4))
HALVES = np.arange(60) % 2


def examined(sample: Sample, *siblings: Sample) -> Examination:
    return Examination(sample, siblings, 3)


def csv(tmp_path, text: str, name: str = "train", **declared) -> Sample:
    path = tmp_path / f"{name}.csv"
    path.write_text(text)
    return sample_of(path, part(name, **declared))


def rules(result: Measure | NotMeasured) -> dict[str, Severity]:
    assert isinstance(result, Measure)
    return {found.rule.removeprefix("data/"): found.severity for found in result.findings}


# -- completeness


def test_empty_cells_and_labels_are_counted_by_column(tmp_path):
    result = completeness.measure(examined(csv(tmp_path, "a,b,label\n1,,x\n,,y\n3,4,\n5,6,x\n")))
    assert (result.faults, result.examined) == (4, 12)
    assert result.metrics["completeness"].value == pytest.approx(8 / 12, abs=1e-6)
    assert result.details == {"emptyByColumn": {"a": 1, "b": 2}, "unlabelled": 1}
    assert result.records.listed == (1, 2, 3)
    assert rules(result) == {"missing-cells": Severity.MEDIUM, "missing-labels": Severity.MEDIUM}


def test_a_whole_table_has_no_completeness_finding():
    result = completeness.measure(examined(table(PLAIN, HALVES)))
    assert (result.faults, result.findings, result.metrics["completeness"].low) == (0, (), 1.0)


# -- validity


def test_each_declared_rule_is_checked(tmp_path):
    sample = csv(
        tmp_path,
        "age,count,kind=a,kind=b,label\n30,1,1,0,x\n-1,2,0,1,y\n40,2.5,1,1,x\n50,3,0.5,0,y\ntext,4,0,0,x\n,5,1,0,y\n1\n",
        ranges={"age": (0, 120)},
        integer=("count",),
        categorical=("kind",),
    )
    result = validity.measure(examined(sample))
    assert result.details["byRule"] == {
        "not-a-number": {"age": 1},
        "out-of-range": {"age": 1},
        "not-whole": {"count": 1},
        "not-one-hot": {"kind=a": 2, "kind=b": 1},
    }
    assert result.details["raggedRecords"] == 1
    assert result.records.listed == (2, 3, 4, 5, 7)
    assert result.metrics["validity"].value == pytest.approx(1 - 7 / 28, abs=1e-6)
    assert rules(result)["ragged-records"] is Severity.HIGH


def test_categories_that_training_never_saw_are_invalid_in_evaluation_data(tmp_path):
    train = csv(tmp_path, "kind,label\n1,x\n2,y\n", categorical=("kind",))
    held = csv(tmp_path, "kind,label\n1,x\n7,y\n,x\n", "holdout", split="holdout", categorical=("kind",))
    assert validity.measure(examined(held, train)).details["byRule"] == {"unknown-category": {"kind": 1}}
    assert validity.measure(examined(train, held)).faults == 0


def test_declared_columns_that_are_not_there_are_found():
    sample = table(PLAIN, HALVES, ranges={"weight": (0, 1)}, integer=("c0",), group="patient")
    finding = validity.measure(examined(sample)).findings[-1]
    assert finding.rule == "data/unknown-column"
    assert "weight, patient" in finding.detail


# -- copies


def test_exact_copies_are_counted_after_the_first():
    rows = np.concatenate([PLAIN, PLAIN[[3, 3]]])
    result = duplicates.measure_exact(examined(table(rows, np.append(HALVES, HALVES[[3, 3]]))))
    assert result.records.listed == (61, 62)
    assert result.metrics["duplicate_share"].value == pytest.approx(2 / 62, abs=1e-6)


def test_gaps_and_signed_zeros_do_not_hide_a_copy():
    rows = np.array([[0.0, np.nan], [-0.0, -np.nan], [1.0, 2.0]])
    assert duplicates.measure_exact(examined(table(rows, [0, 0, 1]))).faults == 1


def test_near_copies_are_found_and_exact_ones_left_to_the_other_measure():
    rows = np.concatenate([PLAIN, PLAIN[:2], PLAIN[4:6] + 0.004])
    result = duplicates.measure_near(examined(table(rows, np.append(HALVES, HALVES[:4]))))
    assert result.records.listed == (5, 6, 63, 64)


def test_near_copies_need_more_than_two_columns():
    assert isinstance(duplicates.measure_near(examined(table(PLAIN[:, :2], HALVES))), NotMeasured)


def test_crowded_data_are_not_taken_for_near_copies():
    rows = RNG.normal(size=(4000, 3))
    result = duplicates.measure_near(examined(table(rows, np.arange(4000) % 2)))
    assert result.metrics["near_duplicate_share"].value < 0.01


def test_equal_records_with_different_labels_conflict():
    rows, labels = np.concatenate([PLAIN, PLAIN[:2]]), np.append(HALVES, [1 - HALVES[0], HALVES[1]])
    result = duplicates.measure_conflicts(examined(table(rows, labels)))
    assert result.records.listed == (1, 61)
    assert rules(result) == {"conflicting-labels": Severity.MEDIUM}


# -- entities, balance, timeliness


def test_what_cannot_change_about_a_patient_is_the_same_in_all_records():
    rows = np.array([[1.0, 5.0], [1.0, 6.0], [0.0, 7.0], [1.0, 8.0], [np.nan, 9.0]])
    sample = table(
        rows, [0, 1, 0, 1, 0], ["sex", "size"], groups=["p", "p", "q", "q", "q"], group="id", immutable=("sex",)
    )
    result = entities.measure(examined(sample))
    assert result.records.listed == (3, 4)
    assert result.metrics["entity_consistency"].value == pytest.approx(0.6)
    assert isinstance(entities.measure(examined(table(rows, [0, 1, 0, 1, 0]))), NotMeasured)


def test_balance_is_smallest_over_largest_class():
    result = balance.measure(examined(table(PLAIN, np.repeat([0, 1, 2], [3, 17, 40]))))
    assert result.metrics["balance"].value == pytest.approx(3 / 40)
    assert result.details["labels"] == {"0": 3, "1": 17, "2": 40}
    assert rules(result) == {"class-imbalance": Severity.LOW}


def test_a_class_that_only_another_split_has_is_missed():
    one, both = table(PLAIN, np.zeros(60, int)), table(PLAIN, HALVES, name="holdout")
    finding = balance.measure(examined(one, both)).findings[0]
    assert finding.rule == "data/missing-class"
    assert finding.title == "no record of '1'"


def test_timeliness_is_the_latest_declared_year():
    def collected(text: str) -> Measure:
        provenance = Provenance(host="h", contributors="c", independent_sources=1, collected=text)
        return timeliness.measure(examined(table(PLAIN, HALVES, provenance=provenance)))

    assert collected("1987, then 2019-2021 (id 20245)").metrics["collected_until"].value == 2021
    assert rules(collected("by hand")) == {"undated": Severity.LOW}


# -- columns


def test_columns_that_carry_nothing_or_the_same_or_the_label_are_found():
    rng, labels = np.random.default_rng(5), np.arange(300) % 2
    rows = rng.normal(size=(300, 4))
    shape = [
        rows,
        np.full(300, 3.0),
        7 - 2 * rows[:, 1],
        labels * 5 + rng.normal(size=300),
        np.where(labels, np.nan, 1),
    ]
    result = columns.measure(examined(table(np.column_stack(shape), labels)))
    assert result.details["constant"] == ["c4", "c7"]
    assert result.details["repeated"] == {"c5": "c1"}
    assert list(result.details["givesLabelAway"]) == ["c6", "c7"]
    assert set(rules(result)) == {"constant-column", "repeated-column", "target-leak"}


def test_a_good_feature_is_no_leak():
    labels = np.arange(600) % 2
    rows = np.column_stack([labels * 2 + np.random.default_rng(0).normal(size=600), np.arange(600)])
    assert columns.measure(examined(table(rows, labels))).details["givesLabelAway"] == {}


# -- splits


def test_records_near_copies_and_groups_on_both_sides_are_leaks():
    train = table(PLAIN[:40], HALVES[:40], groups=["a"] * 39 + ["b"])
    rows = np.concatenate([PLAIN[40:], PLAIN[[0]], PLAIN[[1]] + 0.004])
    held = table(
        rows, np.append(HALVES[40:], [0, 1]), name="holdout", split="holdout", groups=["b"] * 3 + ["c"] * 18 + [""]
    )
    result = leakage.measure(examined(held, train))
    assert result.details["overlaps"] == [{"dataset": "train", "exact": 1, "near": 1, "grouped": 3}]
    assert result.records.listed == (1, 2, 3, 21, 22)
    assert result.metrics["leakage_share"].value == pytest.approx(5 / 22, abs=1e-6)
    assert rules(result) == dict.fromkeys(("leakage", "near-leakage", "group-overlap"), Severity.HIGH)
    assert rules(leakage.measure(examined(train, held)))["leakage"] is Severity.HIGH


def test_only_other_splits_with_the_same_columns_are_compared():
    train, reference = table(PLAIN, HALVES), table(PLAIN, HALVES, name="reference", split="reference")
    other = table(PLAIN, HALVES, list("wxyz"), name="other", split="holdout")
    for sibling in (reference, other):
        assert isinstance(leakage.measure(examined(train, sibling)), NotMeasured)
    assert isinstance(leakage.measure(examined(reference, train)), NotMeasured)


def test_clean_splits_share_nothing():
    held = table(PLAIN[40:], HALVES[40:], name="holdout", split="holdout")
    assert leakage.measure(examined(held, table(PLAIN[:40], HALVES[:40]))).faults == 0


def test_evaluation_data_of_the_same_source_overlap():
    source = Provenance(host="One  Clinic", contributors="all", independent_sources=1, collected="1999")
    same = Provenance(host="one clinic", contributors="All", independent_sources=2, collected="2001")
    train = table(PLAIN, HALVES, provenance=source)
    held = table(PLAIN, HALVES, name="holdout", split="holdout", provenance=same)
    result = sources.measure(examined(held, train))
    assert result.metrics["source_overlap"].value == 1.0
    assert rules(result) == {"source-overlap": Severity.LOW}


def test_evaluation_data_of_another_source_overlap_by_group_only():
    train = table(PLAIN, HALVES, groups=["s1"] * 60)
    held = table(PLAIN, HALVES, name="holdout", split="holdout", groups=["s1"] * 6 + ["s2"] * 54)
    result = sources.measure(examined(held, train))
    assert (result.metrics["source_overlap"].value, result.findings) == (0.1, ())
    assert isinstance(sources.measure(examined(train, held)), NotMeasured)


# -- size


def test_rules_of_thumb_depend_on_what_the_data_are_for():
    train = size.measure(examined(table(PLAIN, HALVES)))
    assert [rule["rule"] for rule in train.details["rules"]] == [
        "records of the smallest class per feature",
        "records of each class",
    ]
    held = size.measure(examined(table(PLAIN, HALVES, name="holdout", split="holdout")))
    assert held.details["rules"][0]["found"] == 60
    assert not held.details["rules"][0]["met"]
    assert held.metrics["rows"].value == 60


def test_the_size_for_a_known_accuracy_follows_from_the_interval():
    needed = size.records_for_accuracy()
    assert 0.9 - wilson(round(0.9 * needed), needed).low <= 0.03
    assert 0.9 - wilson(round(0.9 * (needed // 2)), needed // 2).low > 0.03


def test_the_learning_curve_sees_whether_more_data_would_help():
    rng = np.random.default_rng(1)
    labels = np.arange(700) % 2
    angle = rng.uniform(0, 4 * np.pi, 700)
    spiral = np.column_stack([angle * np.cos(angle + np.pi * labels), angle * np.sin(angle + np.pi * labels)])
    rising = size.learning_curve(examined(table(spiral, labels)))
    assert rising["stillRising"]
    flat = size.learning_curve(examined(table(np.column_stack([labels * 9 + rng.normal(size=700)]), labels)))
    assert not flat["stillRising"]
    assert [step["records"] for step in flat["steps"]] == [70, 140, 280, 560]
    assert size.learning_curve(examined(table(PLAIN, np.arange(60) % 20))) is None


# -- degenerate tables


DEGENERATE = {
    "one record": (np.array([[1.0, 2.0, 3.0]]), [0]),
    "all equal": (np.ones((40, 3)), np.arange(40) % 2),
    "all gaps": (np.full((40, 3), np.nan), np.arange(40) % 2),
    "one class": (PLAIN, np.zeros(60, int)),
    "a class for each record": (PLAIN, np.arange(60)),
    "huge numbers": (np.clip(PLAIN, -1, 1) * 1.7e308, HALVES),
    "tiny numbers": (PLAIN * 1e-300, HALVES),
    "half gaps": (np.where(RNG.random((60, 4)) < 0.5, np.nan, PLAIN), HALVES),
    "two values": (RNG.integers(0, 2, (60, 4)).astype(float), HALVES),
    "one column": (PLAIN[:, :1], HALVES),
}


@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize(
    "take",
    [
        completeness.measure, validity.measure, duplicates.measure_exact, duplicates.measure_near,
        duplicates.measure_conflicts, entities.measure, balance.measure, timeliness.measure, columns.measure,
        leakage.measure, sources.measure, size.measure, outliers.measure, triggers.measure, label_noise.measure,
    ],
    ids=lambda take: take.__module__.rpartition(".")[2] + take.__name__.removeprefix("measure"),
)  # fmt: skip
def test_degenerate_tables_are_measured_or_said_not_to_be(kind, take):
    rows, labels = DEGENERATE[kind]
    with np.errstate(all="raise", under="ignore"):
        result = take(Examination(table(rows, labels), (table(PLAIN, HALVES, name="holdout", split="holdout"),), 1))
    if isinstance(result, NotMeasured):
        assert result.reason
    else:
        assert all(0 <= value.low <= value.value <= value.high for value in result.metrics.values())


def test_lists_of_records_are_bounded_and_say_how_many_more():
    listed = measure.records(np.arange(1000))
    assert (listed.count, len(listed.listed)) == (1000, measure.LISTED)
    assert str(listed).endswith("12 and 988 more")
    worst = measure.records([4, 9, 2], [0.5, -1, 0.5])
    assert (worst.listed, worst.scores) == ((10, 3, 5), (-1.0, 0.5, 0.5))


@pytest.mark.parametrize("groups", [["one"] * 60, ["a", "b"] * 30, [f"g{place % 30}" for place in range(60)]])
def test_few_groups_do_not_stop_the_measures_that_split_the_data(groups):
    exam = examined(table(PLAIN, HALVES, groups=groups, group="site"))
    result = label_noise.measure(exam)
    assert isinstance(result, Measure)
    assert result.examined == 60
    assert len(set(exam.blocks.tolist())) == (30 if len(set(groups)) == 30 else 60)
    assert size.learning_curve(exam)["steps"][-1]["records"] == 48


def test_a_class_that_is_one_record_copied_is_not_judged():
    rows, labels = np.concatenate([PLAIN, np.ones((20, 4))]), np.append(HALVES, [2] * 20)
    result = label_noise.measure(examined(table(rows, labels)))
    assert result.details["classesLeftOut"] == ["2"]
    assert size.learning_curve(examined(table(rows, labels))) is None
