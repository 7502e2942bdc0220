"""Builds the report: one pure function from what was declared, said and decided to what is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

import bartizan
from bartizan.assurance.coverage import Coverage, principle_chapters, source_chapters
from bartizan.assurance.exhibits import CheckFacts, exhibits
from bartizan.assurance.findings import findings
from bartizan.assurance.glance import glance
from bartizan.assurance.mapping import drawn_map
from bartizan.assurance.measured import attacks, figures
from bartizan.assurance.model import GateLine, ReportModel, RuleLine, Versions
from bartizan.assurance.text import clean_all, moment
from bartizan.catalogue.attackmap import AttackMap
from bartizan.catalogue.load import Catalogue
from bartizan.core.evidence import Evidence
from bartizan.core.gate import GateResult, RuleResult
from bartizan.core.system import System


def build(
    system: System,
    evidence: Sequence[Evidence],
    gate: GateResult | None,
    catalogue: Catalogue,
    *,
    checks: Mapping[str, CheckFacts],
    reports: Mapping[str, bytes],
    attack_map: AttackMap | None,
    names: Mapping[str, str],
    now: datetime,
    versions: Sequence[Versions] = (),
) -> ReportModel:
    """Lay evidence against the catalogue.

    ``evidence`` has every statement about the system's artefacts, weighed; ``reports`` the full
    reports by digest; ``checks`` the registered checks by name; ``attack_map`` the document of the
    check ``design.attackmap`` after ``catalogue.standing.with_evidence``; ``names`` what to show for the
    id of a principal; ``versions`` comparisons with earlier versions. Nothing is run and nothing is fetched. Same
    inputs, same report.
    """
    evidence = sorted(evidence, key=lambda item: (item.seq, item.digest))
    lines = exhibits(evidence, checks, names, now)
    coverage = Coverage(lines, evidence, gate, checks, f"system:{system.declaration.name}")
    mapped = drawn_map(attack_map, lines) if attack_map else None
    reach = {technique.id: technique for technique in mapped.techniques} if mapped else None
    drawn, absent = figures(evidence, checks, reports)
    found, unshown = findings(evidence, reports)
    model = ReportModel(
        made=moment(now),
        made_by=f"Bartizan {bartizan.__version__}, catalogue {catalogue.version}",
        system=glance(system),
        gate=_gate(gate),
        attack_map=mapped,
        red_team=attacks(evidence, checks, reports, catalogue, now),
        curves=drawn,
        absent=absent,
        findings=found,
        unshown=unshown,
        principles=principle_chapters(coverage, catalogue, reach),
        sources=source_chapters(coverage, catalogue),
        evidence=lines,
        versions=tuple(versions),
    )
    return harmless(model)


def harmless(model: ReportModel) -> ReportModel:
    """The same report with every string in it made safe to show (see ``text.clean``)."""
    return msgspec.convert(clean_all(msgspec.to_builtins(model)), ReportModel)


def _gate(gate: GateResult | None) -> GateLine | None:
    if gate is None:
        return None
    return GateLine(name=gate.gate, passed=gate.passed, rules=tuple(_rule(result) for result in gate.results))


def _rule(result: RuleResult) -> RuleLine:
    rule = result.rule
    asked = [
        rule.type,
        rule.kind,
        f"of check {rule.check}" if rule.check else "",
        f"by {rule.role}" if rule.role else "",
    ]
    return RuleLine(
        id=rule.id,
        about=result.artefact,
        why=rule.why,
        asks_for=" ".join(part for part in asked if part),
        severity=rule.severity,
        state=result.state,
        reason=result.reason,
        relied_on=result.relied_on,
        remedy=result.remedy,
        controls=rule.controls,
    )
