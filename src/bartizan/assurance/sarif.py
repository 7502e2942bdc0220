"""Writes the findings of a report as SARIF 2.1.0, for code hosts, editors and dashboards.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0, 27 March 2020.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

import bartizan
from bartizan.assurance.model import FindingLine, ReportModel
from bartizan.core.digest import canonical_json, digest_json
from bartizan.core.finding import Finding, Severity

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT = "bartizanFinding/v1"
LEVELS: Mapping[Severity, str] = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
    Severity.NOTE: "note",
}
_LINE = re.compile(r"^(?P<file>.+):(?P<line>[1-9][0-9]{0,8})$")
_OFFSET = re.compile(r"@[0-9]+$")
_MEMBER = "!/"
"""Separates a file from the place inside it: ``model.joblib!/pickle@142``."""
_ATLAS = "AML."


def to_sarif(model: ReportModel) -> str:
    """The findings that count now, worst first, as one SARIF run; equal reports give equal text."""
    return _document(model.findings, f"bartizan/{model.system.name}/")


def findings_to_sarif(findings: Iterable[Finding], check: str) -> str:
    """Findings of one check that no statement reports, as one SARIF run."""
    lines = [FindingLine(finding=finding, check=check, about="", digest="") for finding in findings]
    return _document(lines, f"bartizan/{check}/")


def _document(lines: Sequence[FindingLine], run_id: str) -> str:
    rules = list(dict.fromkeys(line.finding.rule for line in lines))
    run = {
        "tool": {"driver": _driver(rules, lines)},
        "columnKind": "unicodeCodePoints",
        "automationDetails": {"id": run_id},
        "results": list(_results(lines, rules)),
        "taxonomies": list(_taxonomies(lines)),
    }
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return msgspec.json.format(canonical_json(document), indent=2).decode() + "\n"


def _driver(rules: Sequence[str], lines: Sequence[FindingLine]) -> dict[str, Any]:
    """The tool, with one rule for each rule id; the worst finding of a rule stands for it."""
    worst = {line.finding.rule: line.finding for line in reversed(lines)}
    return {
        "name": "Bartizan",
        "version": bartizan.__version__,
        "rules": [_rule(worst[rule]) for rule in rules],
        "supportedTaxonomies": [{"name": name} for name in _taxa_by_source(lines)],
    }


def _rule(finding: Finding) -> dict[str, Any]:
    remedy = finding.remedy or "See the message of the result."
    return {
        "id": finding.rule,
        "shortDescription": {"text": finding.title},
        "help": {"text": remedy},
        "defaultConfiguration": {"level": LEVELS[finding.severity]},
        "properties": {"tags": ["security", *finding.cwe, *finding.techniques]},
    }


def _results(lines: Sequence[FindingLine], rules: Sequence[str]) -> Iterable[dict[str, Any]]:
    seen: Counter[str] = Counter()
    for line in lines:
        mark = fingerprint(line.finding)
        seen[mark] += 1
        yield _result(line, rules.index(line.finding.rule), f"{mark}:{seen[mark]}")


def _result(line: FindingLine, rule_index: int, mark: str) -> dict[str, Any]:
    finding = line.finding
    text = ". ".join(part.rstrip(".") for part in (finding.title, finding.detail, finding.remedy) if part)
    return {
        "ruleId": finding.rule,
        "ruleIndex": rule_index,
        "level": LEVELS[finding.severity],
        "message": {"text": f"{text}."},
        "locations": [_location(finding.where, line.about)],
        "partialFingerprints": {FINGERPRINT: mark},
        "taxa": [
            {"id": taxon, "toolComponent": {"name": source}}
            for source, taxa in _taxa_by_source([line]).items()
            for taxon in taxa
        ],
        "properties": {
            "severity": finding.severity.value,
            "cwe": list(finding.cwe),
            "techniques": list(finding.techniques),
            "controls": list(finding.controls),
            "check": line.check,
            "statement": line.digest,
        },
    }


def fingerprint(finding: Finding) -> str:
    """What stays the same when lines move: rule, file and title."""
    file, _ = _place(finding.where)
    return digest_json([finding.rule, file, finding.title])[:32]


def _location(where: str, about: str) -> dict[str, Any]:
    file, line = _place(where)
    physical: dict[str, Any] = {"artifactLocation": {"uri": quote(file, safe="/")}}
    if line:
        physical["region"] = {"startLine": line}
    return {
        "physicalLocation": physical,
        "logicalLocations": [{"fullyQualifiedName": where or about, "kind": "resource"}],
    }


def _place(where: str) -> tuple[str, int]:
    """File and line (0 when there is none) of a finding's place."""
    file = _OFFSET.sub("", where.partition(_MEMBER)[0])
    found = _LINE.match(file)
    name = found["file"] if found else file
    return name.lstrip("/") or "unknown", int(found["line"]) if found else 0


def _taxonomies(lines: Sequence[FindingLine]) -> Iterable[dict[str, Any]]:
    for name, taxa in _taxa_by_source(lines).items():
        yield {"name": name, "taxa": [{"id": taxon} for taxon in taxa]}


def _taxa_by_source(lines: Iterable[FindingLine]) -> dict[str, list[str]]:
    """Ids that the findings use, by the list they come from; lists without any are left out."""
    found: dict[str, set[str]] = {"CWE": set(), "MITRE ATLAS": set(), "Bartizan catalogue": set()}
    for line in lines:
        found["CWE"].update(line.finding.cwe)
        for technique in line.finding.techniques:
            found["MITRE ATLAS" if technique.startswith(_ATLAS) else "Bartizan catalogue"].add(technique)
        found["Bartizan catalogue"].update(line.finding.controls)
    return {name: sorted(taxa) for name, taxa in found.items() if taxa}
