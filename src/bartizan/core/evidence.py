"""Evidence: the statements that count now, and why the others do not.

``weigh`` judges one entry by itself: is it well formed, did somebody sign it who may, is it
withdrawn or over. ``stand`` then judges it against the system as it is now: a statement speaks only
about the digests that it names, and the newest one that still stands is the one that counts.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from bartizan.core import envelope as dsse
from bartizan.core import predicates
from bartizan.core.digest import HEX, Digest, short
from bartizan.core.errors import EvidenceError
from bartizan.core.ports import Entry
from bartizan.core.statement import Statement, decode
from bartizan.core.trust import Trust
from bartizan.core.view import View, moment


class Standing(enum.StrEnum):
    """Whether a statement counts now."""

    HOLDS = "holds"
    STALE = "stale"
    """Something it rests on has changed."""
    EXPIRED = "expired"
    REVOKED = "revoked"
    SUPERSEDED = "superseded"
    """A newer statement of the same check, or of the same person in the same matter, stands."""
    REPEATED = "repeated"
    """The same payload was signed by the same signers before."""
    UNTRUSTED = "untrusted"
    """No signer that the trust document lets say this."""
    INVALID = "invalid"
    """Not a well-formed statement."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One statement, weighed."""

    seq: int
    digest: Digest
    """Of the envelope."""
    statement: Statement | None
    """None when ``standing`` is INVALID."""
    signers: tuple[str, ...]
    """Ids of the principals whose signatures verify and are trusted for this predicate type."""
    keyids: tuple[str, ...]
    saying: str = ""
    """Digest of what is signed, whatever it is wrapped in."""
    roles: tuple[str, ...]
    """Roles these principals hold."""
    received_at: datetime
    standing: Standing
    reason: str = ""
    """Why it does not hold, in one sentence."""
    ends_at: datetime | None = None
    """When it stops holding by its own words."""

    @property
    def check(self) -> str:
        """Name of the check that made it, or empty."""
        check = self.statement.predicate.get("check") if self.statement else None
        return str(check.get("name", "")) if isinstance(check, dict) else ""

    @property
    def kind(self) -> str:
        """The predicate's ``kind`` field, or empty."""
        return str(self.statement.predicate.get("kind", "")) if self.statement else ""

    @property
    def report(self) -> Digest | None:
        """Digest of the full report, when there is one."""
        report = self.statement.predicate.get("report") if self.statement else None
        digest = report.get("digest") if isinstance(report, dict) else None
        text = digest.get("sha256") if isinstance(digest, dict) else None
        return Digest(text) if isinstance(text, str) and HEX.match(text) else None

    @property
    def holds(self) -> bool:
        """Whether it counts now."""
        return self.standing is Standing.HOLDS


class Withdrawn(msgspec.Struct, frozen=True):
    """Something that a trusted revocation withdrew."""

    target: str
    """``envelope``, ``key`` or ``artefact``."""
    effective_from: datetime
    reason: str
    by: Digest
    """Envelope of the revocation."""
    own_of: frozenset[str] | None = None
    """None when a role gives the right to withdraw anything; otherwise the keys that signed the
    revocation, which may withdraw only envelopes that they signed themselves."""

    def reaches(self, keyids: Collection[str]) -> bool:
        """Whether it reaches an envelope signed by these keys."""
        return self.own_of is None or not self.own_of.isdisjoint(keyids)


Withdrawals = Mapping[str, Sequence[Withdrawn]]
"""Digest or key id to what withdrew it."""


def withdrawals(view: View) -> dict[str, list[Withdrawn]]:
    """Everything that trusted signers have withdrawn.

    A revocation may be signed by whoever a role lets sign revocations, or by the signer of the
    very envelope that it withdraws. The right counts that the signer had when the ledger received it,
    or has now: that a key is replaced later does not bring back what it withdrew. Revocations cannot
    themselves be revoked: say it anew.
    """
    withdrawn: dict[str, list[Withdrawn]] = {}
    for entry in view.revocations():
        envelope, said = _read(entry)
        if envelope is None or said is None or said.predicate_type != predicates.REVOCATION:
            continue
        predicate: predicates.Revocation = said.read()
        trusts = (view.trust, view.trust_before(entry.seq))
        by_right = any(_trusted(envelope, said, trust, entry) for trust in trusts)
        known = {who.keyid: who.public_key for trust in trusts for who in trust.principals}
        own_of = None if by_right else frozenset(dsse.verified_keyids(envelope, known))
        if own_of is not None and (not own_of or predicate.target != "envelope"):
            continue
        item = Withdrawn(predicate.target, predicate.effective_from, predicate.reason, entry.digest, own_of)
        for digest in said.about():
            withdrawn.setdefault(digest, []).append(item)
    return withdrawn


def weigh(entry: Entry, trust: Trust, withdrawn: Withdrawals, now: datetime) -> Evidence:
    """Judge one entry by itself."""
    received_at = moment(entry.received_ms)
    envelope, said = _read(entry)
    if envelope is None or said is None:
        return _evidence(entry, None, (), trust, Standing.INVALID, "it is not a well-formed statement")
    keyids = tuple(k for k in _trusted(envelope, said, trust, entry) if not _key_withdrawn(k, withdrawn, received_at))
    if not keyids:
        return _evidence(
            entry, said, (), trust, Standing.UNTRUSTED, _why_untrusted(envelope, said, trust, withdrawn, entry)
        )
    if reason := _why_withdrawn(entry, said, keyids, withdrawn, now):
        return _evidence(entry, said, keyids, trust, Standing.REVOKED, reason)
    if said.expires is not None and said.expires <= now:
        return _evidence(
            entry, said, keyids, trust, Standing.EXPIRED, f"it was valid until {said.expires:%Y-%m-%d %H:%M}"
        )
    return _evidence(entry, said, keyids, trust, Standing.HOLDS, "")


def stand(weighed: Iterable[Evidence], current: Mapping[str, Digest]) -> list[Evidence]:
    """Judge weighed statements against the system as it is now, and against one another.

    ``current`` names every digest in play: artefacts, settings of checks, the catalogue,
    documents. A statement with an input that is named otherwise, or not at all, is stale.
    """
    judged = [_against(evidence, current) for evidence in sorted(weighed, key=lambda item: item.seq)]
    newest: dict[tuple[str, ...], int] = {}
    for evidence in judged:
        if evidence.standing in _OVERRULES:
            newest[_matter(evidence)] = evidence.seq
    return [
        msgspec.structs.replace(
            evidence, standing=Standing.SUPERSEDED, reason=f"entry {newest[_matter(evidence)]} is newer"
        )
        if evidence.holds and newest[_matter(evidence)] != evidence.seq
        else evidence
        for evidence in judged
    ]


def gather(
    view: View,
    digests: Collection[str],
    current: Mapping[str, Digest],
    now: datetime,
    intact: Callable[[Digest], bool] = lambda _: True,
) -> list[Evidence]:
    """Everything that was said about ``digests``, weighed and judged, oldest first.

    ``intact`` tells whether a report blob is there, unaltered: a result whose report is gone does
    not count, and what it superseded does not come back.
    """
    withdrawn = withdrawals(view)
    weighed = (weigh(entry, view.trust, withdrawn, now) for entry in view.about(digests))
    judged = stand(_first_said(weighed), current)
    return [_with_report(evidence, intact) for evidence in judged]


def _first_said(weighed: Iterable[Evidence]) -> Iterator[Evidence]:
    """Let a statement count once.

    The same payload in another wrapping, or with the same signers'
    signatures made again, says nothing new: a withdrawn or outdated statement cannot be renewed so.
    """
    signed: dict[str, set[str]] = {}
    for evidence in weighed:
        if evidence.standing in {Standing.INVALID, Standing.UNTRUSTED} or evidence.statement is None:
            yield evidence
            continue
        before = signed.setdefault(evidence.saying, set())
        if before.issuperset(evidence.keyids):
            reason = "the same was said before by the same signers"
            yield msgspec.structs.replace(evidence, standing=Standing.REPEATED, reason=reason)
        else:
            yield evidence
        before.update(evidence.keyids)


def _with_report(evidence: Evidence, intact: Callable[[Digest], bool]) -> Evidence:
    report = evidence.report
    if not evidence.holds or report is None or intact(report):
        return evidence
    reason = f"its report {short(report)} is missing or altered"
    return msgspec.structs.replace(evidence, standing=Standing.INVALID, reason=reason)


_OVERRULES = frozenset({Standing.HOLDS, Standing.EXPIRED})
"""A statement that has run out still ended what was said before it: nothing older comes back."""


def _read(entry: Entry) -> tuple[dsse.Envelope | None, Statement | None]:
    try:
        envelope = dsse.parse(entry.body)
        said = decode(envelope.payload) if envelope.payload_type == dsse.STATEMENT_PAYLOAD else None
    except EvidenceError:
        return None, None
    # The bytes alone are believed: the type in the entry's row is a cache that nothing signs.
    return envelope, said


def _trusted(envelope: dsse.Envelope | None, said: Statement, trust: Trust, entry: Entry) -> tuple[str, ...]:
    """Key ids whose signatures verify and that may say this, in the role that they claim."""
    if envelope is None:
        return ()
    allowed = trust.keys_for(said.predicate_type, moment(entry.received_ms))
    keyids = dsse.verified_keyids(envelope, allowed)
    if said.predicate_type != predicates.DECISION:
        return keyids
    decision: predicates.Decision = said.read()
    return tuple(keyid for keyid in keyids if _may_decide(trust, keyid, decision))


def _may_decide(trust: Trust, keyid: str, decision: predicates.Decision) -> bool:
    """A person decides in a role that it holds and that may decide. A service is no person."""
    principal = trust.principal_of(keyid)
    if principal is None or principal.service or decision.role not in principal.roles:
        return False
    return trust.may_decide(decision.role, decision.kind)


def _why_untrusted(envelope: dsse.Envelope, said: Statement, trust: Trust, withdrawn: Withdrawals, entry: Entry) -> str:
    reasons = []
    received_at = moment(entry.received_ms)
    for keyid, _ in envelope.signatures:
        if reason := trust.why_not(keyid, said.predicate_type, received_at):
            reasons.append(reason)
        elif _key_withdrawn(keyid, withdrawn, received_at):
            reasons.append(f"key {short(keyid)} was withdrawn")
        elif said.predicate_type == predicates.DECISION:
            reasons.append(f"{trust.principal_of(keyid).id} may not decide in the role it claims")  # type: ignore[union-attr]  # why_not found the principal
        else:
            reasons.append(f"the signature of key {short(keyid)} does not verify")
    return "; ".join(reasons)


def _key_withdrawn(keyid: str, withdrawn: Withdrawals, received_at: datetime) -> bool:
    return any(item.target == "key" and item.effective_from <= received_at for item in withdrawn.get(keyid, ()))


def _why_withdrawn(
    entry: Entry, said: Statement, keyids: Collection[str], withdrawn: Withdrawals, now: datetime
) -> str:
    for item in withdrawn.get(entry.digest, ()):
        if item.target == "envelope" and item.effective_from <= now and item.reaches(keyids):
            return f"it was withdrawn: {item.reason}"
    for digest in (*said.about(), *said.rests_on()):
        for item in withdrawn.get(digest, ()):
            if item.target == "artefact" and item.effective_from <= now:
                return f"{short(digest)}, which it speaks about or rests on, was withdrawn: {item.reason}"
            if item.target == "envelope" and item.effective_from <= now and item.own_of is None:
                return f"statement {short(digest)}, which it rests on, was withdrawn: {item.reason}"
    return ""


def _against(evidence: Evidence, current: Mapping[str, Digest]) -> Evidence:
    """Mark as stale what rests on something that is not so any more."""
    if not evidence.holds or evidence.statement is None:
        return evidence
    for name, digest in sorted(evidence.statement.inputs().items()):
        now = current.get(name)
        if now is None:
            reason = f"{name} is not part of the system any more"
        elif now != digest:
            reason = f"{name} changed from {short(digest)} to {short(now)}"
        else:
            continue
        return msgspec.structs.replace(evidence, standing=Standing.STALE, reason=reason)
    return evidence


def _matter(evidence: Evidence) -> tuple[str, ...]:
    """What a statement is about; the newest in a matter counts. Persons do not overrule one another."""
    said = evidence.statement
    assert said is not None  # noqa: S101 - only statements that hold are asked
    subjects = ",".join(sorted(said.about()))
    person = ",".join(sorted(evidence.signers)) if said.predicate_type == predicates.DECISION else ""
    gate = str(said.predicate.get("gate", ""))
    listed = said.predicate.get("concerns", ())
    concerns = ",".join(sorted(map(str, listed if isinstance(listed, list | tuple) else [listed])))
    # A yes and a no to the same question are one matter, so approval and rejection share a kind.
    kind = {"rejection": "approval"}.get(evidence.kind, evidence.kind)
    return said.predicate_type, subjects, evidence.check, kind, gate, person, concerns


def _evidence(  # noqa: PLR0917
    entry: Entry, said: Statement | None, keyids: tuple[str, ...], trust: Trust, standing: Standing, reason: str
) -> Evidence:
    owners = [principal for keyid in keyids if (principal := trust.principal_of(keyid))]
    return Evidence(
        seq=entry.seq,
        digest=entry.digest,
        statement=said,
        signers=tuple(owner.id for owner in owners),
        keyids=keyids,
        saying=dsse.parse(entry.body).saying if said else "",
        roles=tuple(dict.fromkeys(role for owner in owners for role in owner.roles)),
        received_at=moment(entry.received_ms),
        standing=standing,
        reason=reason,
        ends_at=said.expires if said else None,
    )
