"""The corpus of hostile files: every one is flagged, and says where and why."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bartizan.cli.scan import scan
from bartizan.core.finding import Severity
from bartizan.lifecycle.develop.scan import RULES, Coverage, Limits, Verdict, scan_bytes, scan_path
from fixtures.corpus import FAMILIES, folders, gathered, vectors, write
from fixtures.hostile_models import DANGEROUS, EVIL, SUSPECT, zipped

CLEAN = {Verdict.CLEAN}


def disagreeing(family, kind, expected):
    """Vectors of a family whose verdict is not an expected one, with what was found."""
    wrong = []
    for name, data in vectors(kind, family).items():
        report = scan_bytes(data, "model.bin")
        is_right = report.verdict in expected and report.exit_code == (0 if expected == CLEAN else 1)
        if not is_right or (expected == CLEAN and report.total_coverage is not Coverage.EXAMINED):
            wrong.append((name, report.verdict, [(each.rule, each.detail[:80]) for each in report.findings][:3]))
    return wrong


@pytest.mark.control("2.1-n")
@pytest.mark.control("2.4-d")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_dangerous_file_is_called_dangerous(family):
    assert disagreeing(family, "DANGEROUS", {Verdict.DANGEROUS}) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_suspect_file_is_never_called_clean(family):
    assert disagreeing(family, "SUSPECT", {Verdict.SUSPICIOUS, Verdict.MALFORMED}) == []


@pytest.mark.control("2.1-n")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_benign_file_is_clean_and_wholly_examined(family):
    assert disagreeing(family, "BENIGN", CLEAN) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_folders_are_judged_as_a_whole(family, tmp_path):
    wrong = []
    for number, (name, (files, verdict)) in enumerate(folders(family).items()):
        report = scan_path(write(files, tmp_path / str(number)))
        if report.verdict != verdict:
            wrong.append((name, report.verdict, [(each.rule, each.detail[:80]) for each in report.findings][:3]))
    assert wrong == []


def test_the_corpus_is_as_large_as_promised():
    dangerous = gathered("DANGEROUS")
    assert len(set(dangerous.values())) >= 700
    assert len(gathered("SUSPECT")) >= 50
    assert len(gathered("BENIGN")) >= 15


@pytest.mark.control("2.1-n")
@pytest.mark.control("2.4-d")
@pytest.mark.parametrize(("kind", "expected"), [("DANGEROUS", 1), ("SUSPECT", 1), ("BENIGN", 0)])
def test_the_command_line_says_the_same(kind, expected, tmp_path):
    everything = gathered(kind)
    path = tmp_path / "model.bin"
    for name in list(everything)[:: max(1, len(everything) // 25)]:
        path.write_bytes(everything[name])
        result = CliRunner().invoke(scan, [str(path), "--json"], standalone_mode=False)
        assert result.return_value == expected, name
        (said,) = json.loads(result.stdout)
        assert (said["verdict"] == "clean") is (expected == 0), name
        assert said["exit_code"] == expected


@pytest.mark.parametrize("name", ["model.txt", "model.safetensors", "weights.npy", "config.json", "model"])
@pytest.mark.parametrize("vector", ["os.system", "gzip", "torch, payload as a storage", "posix.system protocol 0"])
def test_a_wrong_name_changes_nothing(tmp_path, name, vector):
    path = tmp_path / name
    path.write_bytes(DANGEROUS[vector])
    assert scan_path(path).verdict is Verdict.DANGEROUS


def test_a_pickle_under_a_safe_name_is_a_finding_of_its_own():
    report = scan_bytes(b"\x80\x04K\x01.", "model.safetensors")
    assert [finding.rule for finding in report.findings] == ["file/misnamed"]
    assert report.verdict is Verdict.SUSPICIOUS


@pytest.mark.control("2.1-n")
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("notes.md", b"\x00\x01\x02 no text"),
        ("model.h5", b"\xfe\xedHDF\r\n\x1a\n123"),
        ("x.onnx", b"\xff" * 40),
        ("x", b"\x00" * 40),
    ],
)
def test_an_unknown_format_is_refused(name, data):
    report = scan_bytes(data, name)
    assert report.verdict is Verdict.UNKNOWN
    assert report.coverage is Coverage.NOT_EXAMINED
    assert report.exit_code == 2
    assert report.reasons


def test_something_found_outweighs_something_not_examined():
    report = scan_bytes(zipped({"a.pkl": EVIL, "b.h5": b"\x89HDF\r\n\x1a\n"}), "x.zip")
    assert report.exit_code == 1
    assert report.total_coverage is Coverage.PARTLY


def test_a_finding_says_what_would_happen_where_and_what_to_do():
    findings = scan_bytes(DANGEROUS["zip in a zip"], "model.zip").findings
    call = next(finding for finding in findings if "calls os.system('echo bartizan')" in finding.detail)
    assert call.where.startswith("model.zip!/inner.zip!/data.pkl@")
    assert call.severity is Severity.CRITICAL
    assert call.remedy
    assert "CWE-502" in call.cwe
    assert {"AML.T0011.000", "T29"} <= set(call.techniques)


def test_findings_come_in_the_same_order_every_time():
    first = scan_bytes(DANGEROUS["zip in a zip"], "m").to_json()
    assert first == scan_bytes(DANGEROUS["zip in a zip"], "m").to_json()


def test_the_report_as_json_carries_the_totals_and_the_tree():
    document = json.loads(scan_bytes(DANGEROUS["zip in a zip"], "m").to_json())
    assert (document["verdict"], document["exit_code"], document["format"]) == ("dangerous", 1, "bartizan-scan/1")
    assert document["report"]["members"][0]["members"][0]["name"] == "data.pkl"


def test_every_rule_that_fires_is_listed_with_its_text():
    for data in [*DANGEROUS.values(), *SUSPECT.values()]:
        for finding in scan_bytes(data, "m").findings:
            assert finding.title == RULES[finding.rule].title


def test_findings_of_one_file_are_bounded():
    body = b"".join(b"cos\nsystem%d\n0" % n for n in range(500))
    report = scan_bytes(b"\x80\x02" + body + b"N.", "m", Limits(findings=20))
    assert len(report.findings) == 20
    assert report.facts["findings_left_out"] == 480
