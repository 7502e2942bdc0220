"""Bills of materials: what goes into one, signing it, and looking into those that the ledger holds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from bartizan.core import predicates
from bartizan.core.digest import Digest, canonical_json
from bartizan.core.errors import InputError
from bartizan.core.evidence import Evidence, Standing
from bartizan.core.statement import Statement
from bartizan.core.system import System
from bartizan.lifecycle.develop.bom.check import BomCheck, outcome_of
from bartizan.lifecycle.develop.bom.difference import find
from bartizan.lifecycle.develop.bom.installed import read_installed
from bartizan.lifecycle.develop.bom.reading import Bill, Component, read_bill
from bartizan.lifecycle.develop.bom.writing import Material, Measured
from bartizan.lifecycle.plan import plan
from bartizan.wiring.assure import situation
from bartizan.wiring.results import statement_of, store_form
from bartizan.wiring.workspace import Workspace

_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*==")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
LARGEST_LOCK = 16 << 20
UNHEARD = frozenset({Standing.UNTRUSTED, Standing.INVALID, Standing.REPEATED})
"""What nobody said who may. A withdrawn bill is still shown, with its standing: it says what may be in use."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A bill in the ledger that lists a component."""

    system: str
    envelope: Digest
    standing: Standing
    components: tuple[Component, ...]


def material_of(
    workspace: Workspace,
    *,
    environment: tuple[str, ...] = (),
    lock: Path | None = None,
    whole: bool = False,
    timestamp: str = "",
) -> Material:
    """What a bill of the declared system is written from; measured metrics come from the ledger."""
    system = workspace.system()
    return Material(
        system=system,
        packages=read_installed(environment or None),
        files={
            artefact.id: [(entry.name, entry.digest) for entry in workspace.files.manifest(Path(artefact.path))]
            for artefact in system.of_kind("model")
            if Path(artefact.path).is_dir()
        },
        measured=_measured(workspace, system),
        hashes=locked_hashes(lock) if lock else {},
        whole_environment=whole,
        timestamp=timestamp,
    )


def _measured(workspace: Workspace, system: System) -> dict[str, Measured]:
    """Metrics of the assessments that hold, by model."""
    models = system.of_kind("model")
    evidence = situation(workspace, system).evidence
    found: dict[str, dict[str, predicates.Metric]] = {model.id: {} for model in models}
    for item in evidence:
        if not item.holds or item.statement is None or item.statement.predicate_type != predicates.ASSESSMENT:
            continue
        said: predicates.Assessment = item.statement.read()
        for model in models:
            if model.digest in item.statement.about():
                found[model.id] |= {f"{said.method}.{name}": metric for name, metric in said.metrics.items()}
    return {name: Measured(metrics=metrics) for name, metrics in found.items()}


def locked_hashes(path: Path) -> dict[str, list[str]]:
    """SHA-256 digests that a requirements file allows, by package.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        text = path.read_bytes()[:LARGEST_LOCK].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", remedy="give a requirements file with hashes.") from error
    hashes: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if pinned := _PINNED.match(line.strip()):
            name = re.sub(r"[-_.]+", "-", pinned[1]).lower()
        hashes.setdefault(name, []).extend(_HASH.findall(line))
    return {package: found for package, found in hashes.items() if package and found}


def sign_bill(workspace: Workspace, material: Material, key: str) -> Digest:
    """Append a bill to the ledger as a statement about the system; it answers the check ``bom``."""
    (job,) = plan(material.system, [BomCheck()])
    outcome = outcome_of(material)
    blob = store_form(job, outcome)
    with workspace.view() as view:
        now = workspace.now(view)
    return workspace.publish(statement_of(job, outcome, blob, now), workspace.signer(key), [blob])


def bill_of(statement: Statement) -> Bill:
    """The bill inside a statement.

    Raises:
        InputError: it breaks its format.
    """
    return read_bill(canonical_json(statement.predicate))


def stated_bills(workspace: Workspace) -> list[tuple[Evidence, Bill]]:
    """Bills in the ledger about the declared system and its artefacts, oldest first, with their standing.

    What nobody trusted signed, or what was withdrawn, is no bill: it would stand before the ones that are.
    """
    system = workspace.system()
    return [
        (item, bill_of(item.statement))
        for item in situation(workspace, system).evidence
        if item.statement is not None
        and item.statement.predicate_type == predicates.BOM
        and item.standing not in UNHEARD
    ]


def holders_of(workspaces: Iterable[Workspace], wanted: str) -> list[Holder]:
    """The newest bill of each system that lists a component."""
    found: dict[str, Holder] = {}
    for workspace in workspaces:
        for item, bill in stated_bills(workspace):
            components = tuple(find(bill, wanted))
            found.pop(bill.subject, None)
            if components:
                found[bill.subject] = Holder(
                    system=bill.subject, envelope=item.digest, standing=item.standing, components=components
                )
    return list(found.values())
