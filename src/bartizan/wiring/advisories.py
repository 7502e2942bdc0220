"""Known vulnerabilities of a project: signing what was looked up, and watching bills that were signed before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from bartizan.core import predicates
from bartizan.core.digest import Digest, canonical_json
from bartizan.core.errors import InputError
from bartizan.core.evidence import Standing
from bartizan.core.finding import Severity
from bartizan.core.statement import make
from bartizan.core.system import System
from bartizan.lifecycle.develop.vulnerabilities.advisories import Index, read_export
from bartizan.lifecycle.develop.vulnerabilities.check import CACHE, Looked, VulnerabilityCheck, look_up, outcome_of
from bartizan.lifecycle.develop.vulnerabilities.inventories import of_bill
from bartizan.lifecycle.develop.vulnerabilities.matching import Vulnerability
from bartizan.lifecycle.develop.vulnerabilities.vex import Said
from bartizan.lifecycle.plan import plan
from bartizan.wiring.assure import situation
from bartizan.wiring.bills import UNHEARD, stated_bills
from bartizan.wiring.results import statement_of, store_form
from bartizan.wiring.workspace import Workspace

KIND = "vulnerability"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A vulnerability record that was opened."""

    id: str
    package: str
    severity: Severity
    system: str
    bill: Digest
    envelope: Digest


def database_of(workspace: Workspace, given: Path | None) -> Index:
    """The database that was given, or that the project declares.

    Raises:
        InputError: there is none. That is never an all-clear.
    """
    path = given or _declared(workspace)
    if path is None:
        raise InputError(
            "there is no vulnerability database, so nothing can be said",
            remedy="give --osv-db PATH (an OSV export, all.zip), or declare [vulnerabilities] in bartizan.toml.",
        )
    kept = workspace.folder / CACHE if workspace.declaration.is_file() else None
    return read_export(path, kept)


def _declared(workspace: Workspace) -> Path | None:
    if not workspace.declaration.is_file():
        return None
    part = workspace.system().declaration.vulnerabilities
    return workspace.folder / part.database if part else None


def sign_result(workspace: Workspace, looked: Looked, key: str) -> Digest:
    """Append what was looked up as a statement about the system.

    Raises:
        InputError: the system declares no [vulnerabilities], so nothing could tell when it goes stale.
    """
    system = workspace.system()
    jobs = plan(system, [VulnerabilityCheck()])
    if not jobs:
        raise InputError(
            "the result cannot be signed: the system does not declare [vulnerabilities]",
            remedy='add [vulnerabilities] with database = "PATH" to bartizan.toml.',
        )
    outcome = outcome_of(looked, system.declaration.name)
    blob = store_form(jobs[0], outcome)
    return workspace.publish(statement_of(jobs[0], outcome, blob, looked.at), workspace.signer(key), [blob])


def sign_vex(workspace: Workspace, document: bytes, key: str) -> Digest:
    """Append an OpenVEX document as a statement about the system."""
    (subject,) = workspace.system().of_kind("system")
    said = make(predicates.OPENVEX, subject, msgspec.json.decode(document))
    return workspace.publish(said, workspace.signer(key))


def watch(workspace: Workspace, index: Index, said: Sequence[Said], *, now: datetime, key: str) -> list[Record]:
    """Look up the newest signed bill again, and open a record for every vulnerability that has none yet.

    A record is an ``incident`` statement of kind ``vulnerability``; the same one is opened once.
    """
    system = workspace.system()
    stated = [each for each in stated_bills(workspace) if each[0].standing is not Standing.REVOKED]
    if not stated:
        raise InputError("no bill of materials is in the ledger", remedy="run `bartizan bom --sign service` first.")
    item, bill = stated[-1]
    looked = look_up(of_bill(bill, f"bill {item.digest[:12]}"), index, said, now=now)
    known = _recorded(workspace, system)
    signer = workspace.signer(key)
    records = []
    for each in looked.counting:
        mark = (each.id, each.item.name, each.item.version)
        if mark in known:
            continue
        envelope = workspace.publish(make(predicates.INCIDENT, _subjects(system), _incident(each, item.digest)), signer)
        known.add(mark)
        records.append(
            Record(
                id=each.id,
                package=each.item.key,
                severity=each.severity,
                system=bill.subject,
                bill=item.digest,
                envelope=envelope,
            )
        )
    return records


def _subjects(system: System) -> dict[str, Digest]:
    """The system and its models: what a vulnerable package may harm."""
    return {artefact.id: artefact.digest for artefact in (*system.of_kind("system"), *system.of_kind("model"))}


def _incident(each: Vulnerability, bill: Digest) -> predicates.Incident:
    return predicates.Incident(
        kind="vulnerability",
        state="open",
        severity=each.severity.value,
        summary=f"{each.item.key} has {each.id}: {each.summary}"[:500],
        techniques=("AML.T0010.001",),
        details={
            "id": each.id,
            "names": list(each.names),
            "package": each.item.name,
            "version": each.item.version,
            "ecosystem": each.item.ecosystem,
            "fixed": list(each.fixed),
            "published": each.published,
            "bill": bill,
        },
    )


def _recorded(workspace: Workspace, system: System) -> set[tuple[str, str, str]]:
    """Vulnerabilities for which somebody trusted opened a record before, whatever became of it."""
    found = set()
    for item in situation(workspace, system).evidence:
        if (
            item.statement is None
            or item.statement.predicate_type != predicates.INCIDENT
            or item.standing in {*UNHEARD, Standing.REVOKED}
        ):
            continue
        said = item.statement.read()
        if said.kind == KIND:
            found.add(tuple(str(said.details.get(name, "")) for name in ("id", "package", "version")))
    return {(one, two, three) for one, two, three in found}


def as_json(looked: Looked) -> bytes:
    """A comparison as canonical JSON."""
    return canonical_json(msgspec.to_builtins(looked, str_keys=True))
