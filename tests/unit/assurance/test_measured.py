"""Red-team curves, confusion matrices and findings, read out of other people's JSON."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bartizan.assurance.measured import MAX_POINTS
from bartizan.core.evidence import Standing
from fixtures.hospital import Hospital, hospital
from fixtures.hospital_attacks import curve

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=6), children, max_size=4),
    max_leaves=12,
)
EVASION = {"method": "m", "family": "evasion", "summary": "s"}


def measured(report, *, check="redteam.evasion.square", **more):
    made = Hospital()
    made.assess(check, "model:triage", report, days=1, **{**EVASION, **more})
    return made


def test_every_figure_of_the_example_is_drawn_from_its_measurement():
    report = hospital().model()
    assert [curves.kind for curves in report.curves] == ["change", "queries", "poison", "recall", "roc", "fidelity"]
    assert report.absent == ()
    change = report.curves[0]
    assert [series.name for series in change.series] == ["HopSkipJump, from labels alone", "Square, guided by scores"]
    assert [report.line(digest).check for digest in change.sources] == [
        "redteam.evasion.hopskipjump",
        "redteam.evasion.square",
    ]
    first = change.series[0].points[0]
    assert (first.x, first.y, first.low, first.high) == (0.0, 0.96, 0.85, 1.0)


def test_several_curves_of_one_report_are_named_by_what_tells_them_apart():
    report = hospital().model()
    named = {curves.kind: [series.name for series in curves.series] for curves in report.curves}
    assert named["poison"] == ["near boundary", "random", "targeted"]
    assert named["roc"] == ["lira", "loss"]  # the pipeline's own curves answer another question
    assert named["fidelity"] == ["Model extraction by active queries"]


def test_a_curve_one_level_deeper_is_read_too():
    report = measured({"curves": {"robust_accuracy_by_change": {"hard": curve([0, 1], [1, 0.5], 0.1)}}}).model()
    assert report.curves[0].series[0].points[1].y == 0.5


def test_two_measurements_with_one_name_are_numbered():
    made = measured({"curves": {"robust_accuracy_by_change": curve([0, 1], [1, 0.5], 0.1)}})
    made.assess(
        "redteam.evasion.square",
        "model:triage",
        {"curves": {"robust_accuracy_by_change": curve([0, 1], [1, 0.4], 0.1)}},
        days=2,
        **EVASION,
    )
    names = [series.name for series in made.model().curves[0].series]
    assert names == ["Square, guided by scores (1)", "Square, guided by scores (2)"]


def test_a_missing_curve_is_said_in_words_and_never_made_up():
    absent = {entry.kind: entry.reason for entry in measured({"curves": {}}).model().absent}
    assert absent["change"] == "The evasion measurements that count now hold no such curve."
    assert absent["roc"] == "No privacy attack has been run; `bartizan assure` runs those that apply."


def test_a_stale_measurement_is_not_drawn():
    made = Hospital()
    drawn = {"curves": {"robust_accuracy_by_change": curve([0, 1], [1, 0.5], 0.1)}}
    made.assess("redteam.evasion.square", "model:triage", drawn, days=9, standing=Standing.STALE, **EVASION)
    report = made.model()
    assert report.curves == ()
    assert report.absent[0].reason == "No evasion measurement counts any more; `bartizan assure` measures again."
    assert report.red_team[0].standing is Standing.STALE


def test_points_that_are_no_numbers_are_left_out():
    points = [
        {"x": 0, "value": 1},
        {"x": "0.5", "value": 1},
        {"x": 0.5},
        7,
        {"x": True, "value": 1},
        {"x": 1, "value": 0.5, "low": "no"},
    ]
    series = measured({"curves": {"robust_accuracy_by_change": points}}).model().curves[0].series[0]
    assert [(point.x, point.y, point.low) for point in series.points] == [(0, 1, None), (1, 0.5, None)]


def test_long_curves_are_thinned_with_both_ends_kept():
    points = [{"x": x, "value": x / 5000} for x in range(5000)]
    series = measured({"curves": {"robust_accuracy_by_change": points}}).model().curves[0].series[0]
    assert len(series.points) == MAX_POINTS
    assert (series.points[0].x, series.points[-1].x) == (0, 4999)


@pytest.mark.parametrize("blob", [b"", b"\xff", b"[1]", b'"text"', b"[" * 3000, b"null"])
def test_a_report_that_cannot_be_read_is_treated_as_absent(blob):
    made = measured({"curves": {}})
    made.reports = dict.fromkeys(made.reports, blob)
    assert made.model().curves == ()


@settings(max_examples=25)
@given(JSON, JSON, JSON)
def test_any_json_in_a_report_is_survived(curves, confusion, findings):
    report = {
        "curves": {"robust_accuracy_by_change": curves, "roc": curves},
        "confusion": confusion,
        "findings": findings,
    }
    measured(report).model()
    measured({"curves": curves}).model()


def test_confusion_matrices_carry_their_class_names():
    confusion = {"classes": ["a", "b"], "clean": [[5, 1], [0, 4]], "under_attack": [[1, 5], [3, 1]], "max_change": 1.0}
    matrices = measured({"confusion": confusion}).model().red_team[0].confusion
    assert [(matrix.title, matrix.classes) for matrix in matrices] == [
        ("clean", ("a", "b")),
        ("under attack", ("a", "b")),
    ]
    assert matrices[1].counts == ((1, 5), (3, 1))


@pytest.mark.parametrize("matrix", [[[1]], [[1, 2], [3]], [[1, -2], [3, 4]], [[1.5, 2], [3, 4]], [[1, 2]] * 3, "no"])
def test_what_is_no_square_matrix_of_counts_is_not_shown(matrix):
    assert measured({"confusion": {"clean": matrix}}).model().red_team[0].confusion == ()


def test_findings_come_worst_first_with_the_statement_that_reports_them():
    report = hospital().model()
    severities = [line.finding.severity.value for line in report.findings]
    assert severities == ["high", "high", "medium", "note"]
    assert report.line(report.findings[0].digest).check == "data.quality"


def test_findings_that_are_counted_but_not_at_hand_are_said_to_be_hidden():
    report = hospital().model()
    assert [(entry.check, entry.count) for entry in report.unshown] == [("env", 2)]


def test_findings_of_a_stale_result_are_not_shown():
    made = Hospital()
    found = {"findings": [{"rule": "r", "severity": "high", "title": "t", "where": "w"}]}
    made.assess("x", "model:triage", found, days=1, standing=Standing.STALE, **EVASION)
    assert made.model().findings == ()


def test_a_finding_of_the_wrong_shape_is_left_out_and_counted_as_hidden():
    found = [{"rule": "r", "severity": "dreadful", "title": "t", "where": "w"}]
    report = measured({"findings": found}, findings={"high": 1}).model()
    assert report.findings == ()
    assert report.unshown[0].count == 1
