"""Gathers what the report shows, and writes it in every form."""

from __future__ import annotations

from pathlib import Path

from bartizan.assurance.build import build
from bartizan.assurance.exhibits import CheckFacts
from bartizan.assurance.model import ReportModel
from bartizan.assurance.render import to_html, to_json, to_markdown
from bartizan.assurance.sarif import to_sarif
from bartizan.catalogue.attackmap import AttackMap, read_attack_map
from bartizan.catalogue.load import catalogue
from bartizan.catalogue.standing import with_evidence
from bartizan.core.errors import StoreError
from bartizan.core.gate import GateResult
from bartizan.core.system import System
from bartizan.wiring import choosing, hardening, liveness, registry, results, versions
from bartizan.wiring.assure import Situation
from bartizan.wiring.workspace import Workspace

FORMS = {"index.html": to_html, "report.md": to_markdown, "report.json": to_json, "findings.sarif": to_sarif}


def report_model(workspace: Workspace, now: Situation, gate: GateResult | None, against: str = "") -> ReportModel:
    """Everything that the report shows; with ``against``, also a comparison with that earlier version.

    Raises:
        InputError: there is no such version.
    """
    reports = _reports(workspace, now)
    applicable = {job.check.name for job in now.jobs}
    return build(
        now.system,
        now.evidence,
        gate,
        catalogue(),
        checks={
            check.name: CheckFacts(check.title, check.controls, check.name in applicable) for check in registry.checks()
        }
        | ordered_facts(now.system),
        reports=reports,
        attack_map=_attack_map(workspace, now),
        names={},
        now=now.now,
        versions=versions.against(workspace, now, against) if against else (),
    )


def ordered_facts(system: System) -> dict[str, CheckFacts]:
    """Measurements that are no checks, since somebody orders them by a command of their own."""
    applies = bool(system.of_kind("model"))
    return {
        ordered.name: CheckFacts(ordered.title, ordered.controls, applies, command)
        for ordered, command in (*choosing.ordered(), *hardening.ordered())
    }


def _reports(workspace: Workspace, now: Situation) -> dict[str, bytes]:
    """Reports of statements that hold, in the form that the report reads."""
    found: dict[str, bytes] = {}
    for item in now.evidence:
        if item.holds and item.report and item.report not in found:
            found[item.report] = results.read_report(workspace.blobs.get(item.report)).flat()
    return found


def _attack_map(workspace: Workspace, now: Situation) -> AttackMap | None:
    """The newest attack map that stands, with what evidence says filled in."""
    for item in reversed(now.evidence):
        if item.holds and item.check == "design.attackmap" and item.report:
            document = results.read_report(workspace.blobs.get(item.report)).inner()
            return with_evidence(
                read_attack_map(document),
                live=liveness.live_mitigations(now.system, now.evidence),
                measured=liveness.measured(now.evidence),
                accepted=liveness.accepted(now.evidence),
            )
    return None


def write_reports(model: ReportModel, folder: Path) -> list[Path]:
    """Write the report in every form; returns the files.

    Raises:
        StoreError: the folder cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, render in FORMS.items():
            path = folder / name
            path.write_text(render(model), encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise StoreError(f"the report cannot be written: {error}", remedy="give another folder with -o.") from error
    return written
