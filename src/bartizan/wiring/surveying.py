"""The environment of a project: where its stores lie, who vouches for it, and signing what was seen."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bartizan.core.digest import Digest
from bartizan.core.errors import InputError
from bartizan.core.system import Environment, System
from bartizan.lifecycle.develop.environment.check import (
    EnvironmentCheck,
    outcome_of,
    surroundings_of,
    vulnerabilities_of,
)
from bartizan.lifecycle.develop.environment.look import Compared, Seen, compare, look, read_baseline
from bartizan.lifecycle.develop.environment.permissions import Place
from bartizan.lifecycle.plan import plan
from bartizan.wiring.assure import situation
from bartizan.wiring.claims import with_claims
from bartizan.wiring.hiding import salt_of
from bartizan.wiring.results import statement_of, store_form
from bartizan.wiring.workspace import Workspace

STORES = ("records", "blobs", "pin", "journals")


def survey(workspace: Workspace, baseline: bytes | None = None) -> Compared:
    """Look at the project's environment, with what the ledger says about it.

    Raises:
        InputError: the declaration or the baseline cannot be used.
    """
    system = _with_standing_claims(workspace)
    at = surroundings_of(
        system,
        places=tuple(_stores(workspace)),
        key_places=(Place(name="keys", path=str(workspace.settings.path("keys"))),),
        vulnerabilities=vulnerabilities_of(system),
        salt=salt_of(workspace),
    )
    return compare(look(at), _baseline(system, baseline))


def _with_standing_claims(workspace: Workspace) -> System:
    """The system with its claims; a project whose ledger has not begun has none."""
    system = workspace.system()
    part = system.declaration.environment or Environment()
    if not part.required:
        return system
    return with_claims(system, situation(workspace, system).evidence)


def _stores(workspace: Workspace) -> Iterable[Place]:
    """Stores that are files; others have permissions of their own that are not seen from here."""
    for name in STORES:
        location = workspace.settings.location(name)
        if "://" not in location:
            yield Place(name=name, path=location)


def _baseline(system: System, given: bytes | None) -> Seen | None:
    if given is not None:
        return read_baseline(given)
    part = system.declaration.environment
    if part is None or not part.baseline:
        return None
    path = Path(system.folder) / part.baseline
    try:
        return read_baseline(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", remedy="mend [environment].") from error


def sign_survey(workspace: Workspace, compared: Compared, key: str) -> Digest:
    """Append what was seen as a test-result statement about the system.

    Raises:
        InputError: the system declares no [environment], so nothing could tell when it goes stale.
    """
    system = situation(workspace, workspace.system()).system
    jobs = plan(system, [EnvironmentCheck()])
    if not jobs:
        raise InputError(
            "the result cannot be signed: the system does not declare [environment]",
            remedy='add [environment] to bartizan.toml, such as required = ["mfa"].',
        )
    outcome = outcome_of(compared, system.declaration.name)
    blob = store_form(jobs[0], outcome)
    said = statement_of(jobs[0], outcome, blob, compared.seen.at)
    return workspace.publish(said, workspace.signer(key), [blob])
