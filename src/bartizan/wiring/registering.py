"""Register: every declared model and dataset, signed into the ledger."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bartizan.core import predicates
from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import InputError, TrustError
from bartizan.core.evidence import Evidence
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.develop.sign import sign_manifest
from bartizan.wiring.workspace import Workspace


class Registered(msgspec.Struct, frozen=True):
    """One artefact with its signature in the ledger."""

    artefact: str
    digest: Digest
    envelope: Digest
    new: bool


def register_artefacts(workspace: Workspace, wanted: tuple[str, ...], key: str) -> list[Registered]:
    """Sign what is not signed yet, in one append.

    Raises:
        InputError: an artefact of that name is not declared.
    """
    system = workspace.system()
    artefacts = _choose(system, wanted)
    signer = workspace.signer(key)
    with workspace.view() as view:
        if reason := view.trust.why_not(signer.keyid, predicates.MODEL_SIGNATURE, workspace.now(view)):
            raise TrustError(f"the key {key!r} may not sign artefacts: {reason}", remedy="see `bartizan trust show`.")
        evidence = workspace.evidence(view, [artefact.digest for artefact in artefacts], {})
    registered, bodies = [], []
    for artefact in artefacts:
        standing = _standing(artefact, evidence)
        if standing is not None:
            registered.append(Registered(artefact.id, artefact.digest, standing.digest, new=False))
            continue
        manifest = workspace.files.manifest(Path(artefact.path))
        body, _ = sign_manifest(Path(artefact.path).name, manifest, signer)
        bodies.append(body)
        registered.append(Registered(artefact.id, artefact.digest, digest_bytes(body), new=True))
    if bodies:
        workspace.append(bodies)
    return registered


def _choose(system: System, wanted: tuple[str, ...]) -> list[Artefact]:
    artefacts = [artefact for artefact in system.artefacts if artefact.path and artefact.kind != "system"]
    if not wanted:
        return artefacts
    known = {artefact.id: artefact for artefact in artefacts}
    for name in wanted:
        if name not in known:
            raise InputError(f"no artefact is called {name!r}", remedy=f"choose from: {', '.join(known)}.")
    return [known[name] for name in wanted]


def _standing(artefact: Artefact, evidence: list[Evidence]) -> Evidence | None:
    for item in evidence:
        said = item.statement
        signed = item.holds and said and said.predicate_type == predicates.MODEL_SIGNATURE
        if signed and said and artefact.digest in said.about():
            return item
    return None
