"""What has become of the red team's plan, by the ledger; and saying so where a gate asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from bartizan.core import predicates
from bartizan.core.check import Blob
from bartizan.core.digest import Digest, canonical_json
from bartizan.core.evidence import Evidence
from bartizan.core.statement import make
from bartizan.core.system import System
from bartizan.redteam.plan import COVERAGE, PLAN, STANDING, Plan, Settled, read_plan, standing, standing_digest
from bartizan.redteam.plan import coverage as coverage_of
from bartizan.wiring import results
from bartizan.wiring.workspace import Workspace


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A plan and what has become of it."""

    plan: Plan
    document: Digest
    """Digest of the report that holds the plan."""
    settled: tuple[Settled, ...]


def look(workspace: Workspace, system: System, evidence: Iterable[Evidence]) -> Standing | None:
    """The plan that counts now, and what has become of each item; None when none counts."""
    evidence = list(evidence)
    for item in reversed(evidence):
        if item.holds and item.check == PLAN and item.report:
            plan = read_plan(results.read_report(workspace.blobs.get(item.report)).inner())
            return Standing(plan=plan, document=item.report, settled=standing(plan, system, evidence))
    return None


def standing_now(workspace: Workspace, system: System, evidence: Sequence[Evidence]) -> dict[str, Digest]:
    """The input that statements of coverage rest on; empty where there is none to judge."""
    if not any(item.check == COVERAGE for item in evidence):
        return {}
    found = look(workspace, system, evidence)
    return {STANDING: standing_digest(found.settled)} if found else {}


def asked_for(system: System) -> bool:
    """Whether a gate wants to know what has become of the plan."""
    return any(rule.check == COVERAGE for gate in system.declaration.gate.values() for rule in gate.rule)


def state(workspace: Workspace, system: System, evidence: Sequence[Evidence]) -> bool:
    """Say what has become of the plan, where a gate asks for it and it was not said yet. Whether it was said."""
    if not asked_for(system) or any(item.holds and item.check == COVERAGE for item in evidence):
        return False
    found = look(workspace, system, evidence)
    if found is None:
        return False
    predicate = coverage_of(found.settled, found.document)
    blob = Blob(_report(found), results.MEDIA_TYPE)
    said = msgspec.structs.replace(
        predicate, report=predicates.Resource(digest={"sha256": blob.digest}, media_type=results.MEDIA_TYPE)
    )
    (whole,) = system.of_kind("system")
    workspace.publish(make(predicates.TEST_RESULT, whole, said), workspace.service, [blob])
    return True


def _report(found: Standing) -> bytes:
    """The standing of every item, as the report behind the statement."""
    return canonical_json(
        {"check": COVERAGE, "subject": f"system:{found.plan.system}", "report": msgspec.to_builtins(found.settled)}
    )
