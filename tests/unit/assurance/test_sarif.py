"""SARIF 2.1.0 output, checked against the rules of the standard for the parts that we write."""

from __future__ import annotations

import json

import jsonschema
import pytest

from bartizan.assurance.sarif import fingerprint, to_sarif
from bartizan.core.finding import Finding, Severity
from fixtures.hospital import Hospital, hospital


def closed(required, **properties):
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


TEXT = {"type": "string", "minLength": 1}
MESSAGE = closed(["text"], text=TEXT)
LEVEL = {"enum": ["none", "note", "warning", "error"]}
TAXON = closed(["id"], id=TEXT)
URI_REFERENCE = {"type": "string", "pattern": r"^[A-Za-z0-9\-._~%/]+$", "not": {"pattern": r"%(?![0-9A-F]{2})"}}
LOCATION = closed(
    ["physicalLocation"],
    physicalLocation=closed(
        ["artifactLocation"],
        artifactLocation=closed(["uri"], uri=URI_REFERENCE),
        region=closed(["startLine"], startLine={"type": "integer", "minimum": 1}),
    ),
    logicalLocations={"type": "array", "items": closed(["fullyQualifiedName"], fullyQualifiedName=TEXT, kind=TEXT)},
)
RULE = closed(
    ["id"],
    id=TEXT,
    shortDescription=MESSAGE,
    help=MESSAGE,
    defaultConfiguration=closed([], level=LEVEL),
    properties={"type": "object", "properties": {"tags": {"type": "array", "items": TEXT, "uniqueItems": True}}},
)
RESULT = closed(
    ["message"],
    ruleId=TEXT,
    ruleIndex={"type": "integer", "minimum": 0},
    level=LEVEL,
    message=MESSAGE,
    locations={"type": "array", "items": LOCATION},
    partialFingerprints={"type": "object", "additionalProperties": TEXT},
    taxa={
        "type": "array",
        "uniqueItems": True,
        "items": closed(["id", "toolComponent"], id=TEXT, toolComponent=closed(["name"], name=TEXT)),
    },
    properties={"type": "object"},
)
COMPONENT = closed(
    ["name"],
    name=TEXT,
    version=TEXT,
    rules={"type": "array", "uniqueItems": True, "items": RULE},
    supportedTaxonomies={"type": "array", "uniqueItems": True, "items": closed(["name"], name=TEXT)},
    taxa={"type": "array", "uniqueItems": True, "items": TAXON},
)
RUN = closed(
    ["tool"],
    tool=closed(["driver"], driver=COMPONENT),
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
    automationDetails=closed([], id=TEXT),
    results={"type": "array", "items": RESULT},
    taxonomies={"type": "array", "uniqueItems": True, "items": COMPONENT},
)
SCHEMA = closed(
    ["version", "runs"],
    **{"$schema": {"type": "string", "format": "uri"}},
    version={"const": "2.1.0"},
    runs={"type": "array", "items": RUN},
)
"""The constraints of the OASIS standard (sections 3.13 to 3.49) for what we use, and nothing else."""


def written(made):
    document = json.loads(to_sarif(made.model()))
    jsonschema.validate(document, SCHEMA)
    return document["runs"][0]


def with_findings(*findings):
    made = Hospital()
    made.assess("x", "model:triage", {"findings": list(findings)}, days=1, method="m", family="evasion", summary="s")
    return made


def found(**changes):
    return {"rule": "r/one", "severity": "high", "title": "Bad", "where": "a.csv:7", **changes}


def test_the_example_is_valid_and_complete():
    run = written(hospital())
    assert [result["ruleId"] for result in run["results"]] == [
        "data/near-duplicates",
        "redteam/cheap-evasion",
        "data/label-noise",
        "data/constant-feature",
    ]
    assert [result["level"] for result in run["results"]] == ["error", "error", "warning", "note"]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]


def test_a_report_without_findings_is_valid():
    assert written(Hospital())["results"] == []


@pytest.mark.parametrize(
    ("where", "uri", "line"),
    [
        ("train.csv:17", "train.csv", 17),
        ("model.joblib!/pickle@142", "model.joblib", None),
        ("a b/ü.csv:3", "a%20b/%C3%BC.csv", 3),
        ("model:triage", "model%3Atriage", None),
        ("/etc/passwd", "etc/passwd", None),
        ("", "unknown", None),
        ("data.csv:0", "data.csv%3A0", None),
    ],
)
def test_places_become_locations(where, uri, line):
    physical = written(with_findings(found(where=where)))["results"][0]["locations"][0]["physicalLocation"]
    assert physical["artifactLocation"]["uri"] == uri
    assert physical.get("region", {}).get("startLine") == line


def test_weakness_and_technique_ids_are_taxa_of_the_lists_they_come_from():
    run = written(with_findings(found(cwe=["CWE-502"], techniques=["T29", "AML.T0011.000"], controls=["2.1-n"])))
    taxa = {(taxon["toolComponent"]["name"], taxon["id"]) for taxon in run["results"][0]["taxa"]}
    assert taxa == {
        ("CWE", "CWE-502"),
        ("MITRE ATLAS", "AML.T0011.000"),
        ("Bartizan catalogue", "T29"),
        ("Bartizan catalogue", "2.1-n"),
    }
    listed = {(entry["name"], taxon["id"]) for entry in run["taxonomies"] for taxon in entry["taxa"]}
    assert listed == taxa


def test_severity_remedy_and_statement_travel_along():
    made = with_findings(found(severity="critical", detail="It runs.", remedy="Do not load it."))
    result = written(made)["results"][0]
    assert result["properties"]["severity"] == "critical"
    assert result["properties"]["statement"] == made.evidence[0].digest
    assert result["message"]["text"] == "Bad. It runs. Do not load it."


def test_a_finding_keeps_its_fingerprint_when_its_line_moves():
    def one(where, title="t"):
        return fingerprint(Finding(rule="r", severity=Severity.LOW, title=title, where=where))

    assert one("a.csv:17") == one("a.csv:18")
    assert one("a.csv:17") != one("b.csv:17")
    assert one("a.csv:17") != one("a.csv:17", "u")


def test_equal_findings_are_told_apart_by_a_counter():
    run = written(with_findings(found(), found(where="a.csv:9")))
    marks = [result["partialFingerprints"]["bartizanFinding/v1"] for result in run["results"]]
    assert marks[0][:-2] == marks[1][:-2]
    assert {mark[-2:] for mark in marks} == {":1", ":2"}
