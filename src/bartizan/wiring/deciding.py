"""Persons' statements: decisions, and the withdrawal of what was said."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from bartizan.catalogue.load import catalogue
from bartizan.core import predicates
from bartizan.core.digest import Digest, parse_digest
from bartizan.core.durations import deadline
from bartizan.core.envelope import parse
from bartizan.core.errors import InputError, StatementError, TrustError
from bartizan.core.ports import Signer
from bartizan.core.statement import make
from bartizan.core.system import Artefact
from bartizan.lifecycle.design.guidance.register import KIND as BRIEFING
from bartizan.wiring.assure import Situation, situation
from bartizan.wiring.briefing import Reading, reading, require_briefing
from bartizan.wiring.workspace import Workspace


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A decision as somebody put it."""

    kind: str
    about: str
    role: str
    reason: str
    expires: str
    concerns: tuple[str, ...]
    outcome: str
    key: str
    """Name of the key that signs; empty takes that of whoever holds the role."""
    drill: str = ""
    """Of a briefing: the exercise that was taken part in."""


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that was recorded."""

    envelope: Digest
    expires: datetime
    rests_on: dict[str, Digest]


def decide(workspace: Workspace, asked: Asked) -> Decided:
    """Sign and record a decision.

    Raises:
        InputError: no such artefact, or the term cannot be read or is over.
        TrustError: the key may not decide in that role; nothing is recorded.
    """
    now = situation(workspace, workspace.system())
    matter = _matter(workspace, now, asked)
    signer = workspace.signer(asked.key or key_for(workspace, asked.role))
    may_decide(workspace, signer.keyid, asked.role, asked.kind if asked.outcome == "yes" else "rejection")
    expires = deadline(asked.expires, now.now)
    if expires <= now.now:
        raise InputError(f"{asked.expires} is over already", remedy="give a later end, such as 90d.")
    rests_on = matter.rests_on
    said = make(
        predicates.DECISION,
        matter.subjects,
        msgspec.convert(
            {
                "kind": asked.kind,
                "outcome": asked.outcome,
                "reason": asked.reason,
                "role": asked.role,
                "expires": expires,
                "concerns": tuple(dict.fromkeys((*matter.concerns, *asked.concerns))),
                "inputs": [predicates.Input.of(name, digest) for name, digest in sorted(rests_on.items())],
                "details": {"drill": asked.drill} if asked.drill else {},
                "decidedAt": workspace.clock(),
            },
            predicates.Decision,
        ),
    )
    return Decided(envelope=workspace.publish(said, signer), expires=expires, rests_on=rests_on)


def _matter(workspace: Workspace, now: Situation, asked: Asked) -> Reading:
    """What the decision is about and what was in front of the person."""
    _known_concerns(asked.concerns)
    if asked.kind == BRIEFING:
        return reading(workspace, asked.about, asked.role)
    if asked.drill:
        raise InputError("a drill belongs to a briefing", remedy="leave --drill out, or decide a briefing.")
    artefact = _artefact(now, asked.about)
    return Reading(
        subjects={artefact.id: artefact.digest},
        rests_on={artefact.id: artefact.digest, **_documents(now)},
        concerns=(),
    )


def _artefact(now: Situation, name: str) -> Artefact:
    try:
        return now.system.artefact(name)
    except KeyError:
        known = ", ".join(artefact.id for artefact in now.system.artefacts)
        raise InputError(f"no artefact is called {name!r}", remedy=f"choose from: {known}.") from None


def _known_concerns(concerns: tuple[str, ...]) -> None:
    """What is decided upon must be in the catalogue: the ledger forgets no slip of the pen."""
    known = catalogue()
    kinds = (known.techniques, known.controls, known.principles, known.mitigations, known.access_points)
    for concern in concerns:
        if not any(concern in entries for entries in kinds):
            near = ", ".join(hit.id for hit in known.search(concern)[:5])
            hint = f"near it: {near}" if near else "try `bartizan catalogue search WORDS`"
            raise InputError(f"the catalogue has no {concern!r}", remedy=f"{hint}.")


def key_for(workspace: Workspace, role: str) -> str:
    """The key that is here of whoever holds a role; the role's own name when nobody or several do."""
    with workspace.view() as view:
        holders = [who.id for who in view.trust.principals if role in who.roles and not who.service]
    here = [name for name in holders if workspace.key_path(name).exists()]
    return here[0] if len(here) == 1 else role


def _documents(now: Situation) -> dict[str, Digest]:
    return {name: digest for name, digest in now.current.items() if name.startswith("document:")}


def may_decide(workspace: Workspace, keyid: str, role: str, kind: str = "approval") -> None:
    """Refuse a key that may not decide in a role.

    Raises:
        TrustError: the trust document does not let its owner decide so, or a briefing is asked for first.
    """
    with workspace.view() as view:
        trust = view.trust
    principal = trust.principal_of(keyid)
    if principal is None or role not in principal.roles:
        who = principal.id if principal else f"key {keyid[:12]}"
        raise TrustError(
            f"{who} may not decide as {role}",
            remedy=f"let the root holder run `bartizan trust grant NAME --role {role}`.",
        )
    if not trust.may_decide(role, kind) or principal.service:
        raise TrustError(f"{principal.id} may not sign {kind} decisions as {role}", remedy="see `bartizan trust show`.")
    require_briefing(workspace, keyid, principal.id, role, kind)


def revoke(workspace: Workspace, target: str, what: str, *, reason: str, effective_from: str, key: str) -> Digest:
    """Sign and record the withdrawal of an envelope, key or artefact.

    Raises:
        InputError: ``what`` is no digest (and no declared artefact), or the date cannot be read.
    """
    signer = workspace.signer(key or key_for(workspace, "security"))
    digest = _target(workspace, target, what)
    _may_revoke(workspace, signer, target, digest)
    predicate = predicates.Revocation(
        target=msgspec.convert(target, predicates.RevocationTarget),
        effective_from=_date(effective_from) if effective_from else workspace.clock(),
        reason=reason,
    )
    said = make(predicates.REVOCATION, {what: digest}, predicate)
    return workspace.publish(said, signer)


def _may_revoke(workspace: Workspace, signer: Signer, target: str, digest: Digest) -> None:
    """Refuse what would have no effect: something unknown, or withdrawn by somebody without the right."""
    with workspace.view() as view:
        known = {
            "envelope": view.find(digest) is not None,
            "key": view.trust.principal_of(digest) is not None,
            "artefact": True,
        }
        if not known[target]:
            raise InputError(
                f"no {target} of this ledger is {digest[:12]}", remedy="see `bartizan evidence list --json`."
            )
        reason = view.trust.why_not(signer.keyid, predicates.REVOCATION, workspace.now(view))
        entry = view.find(digest) if target == "envelope" else None
        own = entry is not None and signer.keyid in dict(parse(entry.body).signatures)
    if reason and not own:
        raise TrustError(f"this key may not withdraw it: {reason}", remedy="ask who holds a role that may.")


def _target(workspace: Workspace, target: str, what: str) -> Digest:
    if target == "artefact" and ":" in what and workspace.declaration.exists():
        try:
            return workspace.system().artefact(what).digest
        except KeyError:
            raise InputError(f"no artefact is called {what!r}", remedy="give a declared id or a digest.") from None
    try:
        return parse_digest(what)
    except StatementError as error:
        raise InputError(
            f"{what!r} is no digest", remedy="give all 64 characters; see `bartizan evidence list --json`."
        ) from error


def _date(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{text!r} is no date: {error}", remedy="write 2026-11-21 or 2026-11-21T12:00Z.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
