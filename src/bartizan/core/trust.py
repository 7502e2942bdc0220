"""Trust: who may sign which kinds of statement, in which role, from when to when.

A trust document is versioned and signed by at least ``threshold`` of its root keys. Rules, after
the TUF specification, section 5.3:

1. The first version is signed by its own roots; it is accepted once, and pinned.
2. Every later version is exactly one higher, and signed by a threshold of the *old* roots and a
   threshold of the *new* ones.
3. A version lower than one already seen is a rollback and refused.

Only the newest version counts. A principal that it does not name, or no longer names, is unknown;
what such a principal signed earlier no longer counts either, so trust can be withdrawn at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime

import msgspec

from bartizan.core import envelope as dsse
from bartizan.core import keys, predicates
from bartizan.core.digest import Digest, canonical_json, digest_bytes
from bartizan.core.errors import EnvelopeError, KeyFileError, TrustError, TrustRollbackError
from bartizan.core.ports import Signer

TRUST_PAYLOAD = "application/vnd.bartizan.trust.v1+json"
CHECKPOINT = "checkpoint"
"""Pseudo predicate type: the right to sign ledger checkpoints."""
TRUST_SUBJECT = digest_bytes(b"bartizan:trust")
"""The digest that trust documents are indexed under, so that none can be hidden."""
ANY = "*"
BRIEFING_ONLY = f"{predicates.DECISION}#briefing"
"""The right to sign that one was briefed, and no other decision."""

DEFAULT_ROLES: dict[str, tuple[str, ...]] = {
    "assurer": (
        predicates.MODEL_SIGNATURE,
        predicates.PROVENANCE,
        predicates.TEST_RESULT,
        predicates.REFERENCE,
        predicates.VERDICT,
        predicates.BOM,
        predicates.VULNERABILITIES,
        predicates.OPENVEX,
        predicates.CARD,
        predicates.ASSESSMENT,
        predicates.DEPLOYMENT,
        predicates.OBSERVATION,
    ),
    "ledger": (CHECKPOINT,),
    "risk-owner": (predicates.DECISION, predicates.REVOCATION, predicates.RETIREMENT),
    "security": (predicates.DECISION, predicates.REVOCATION, predicates.INCIDENT),
    "ml": (predicates.DECISION, predicates.PROVENANCE, predicates.MODEL_SIGNATURE),
    "domain": (predicates.DECISION,),
    "developer": (BRIEFING_ONLY,),
    "labeller": (BRIEFING_ONLY,),
    "communications": (BRIEFING_ONLY,),
    "responder": (BRIEFING_ONLY,),
    "user": (BRIEFING_ONLY,),
}
"""What ``bartizan init`` grants; edit the document to suit."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """A person or service. No names here: these sit in an erasable table beside the ledger."""

    id: str
    keyid: str
    public_key: str
    """PEM."""
    roles: tuple[str, ...]
    not_before: predicates.Instant
    not_after: predicates.Instant
    service: bool = False
    """A machine, whose decisions do not count as a person's."""


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the trust document."""

    version: int
    threshold: int
    """How many roots must sign a change."""
    roots: dict[str, str]
    """Key id to PEM."""
    roles: dict[str, tuple[str, ...]]
    """Role to the predicate types it may sign; ``*`` for any, ``TYPE#KIND`` for decisions of one kind."""
    principals: tuple[Principal, ...]
    expires: predicates.Instant
    previous: str = ""
    """Digest of the envelope of the version before."""

    def encode(self) -> bytes:
        """Canonical bytes, as signed."""
        return canonical_json(self)

    def principal_of(self, keyid: str) -> Principal | None:
        """The principal that owns a key."""
        return next((principal for principal in self.principals if principal.keyid == keyid), None)

    def why_not(self, keyid: str, predicate_type: str, at: datetime) -> str:
        """Empty when this key may sign this type at this time; otherwise the reason."""
        principal = self.principal_of(keyid)
        if principal is None:
            return f"key {keyid[:12]} belongs to no principal of the trust document"
        if not principal.not_before <= at < principal.not_after:
            return f"{principal.id} may sign from {principal.not_before:%Y-%m-%d} until {principal.not_after:%Y-%m-%d}"
        if at >= self.expires:
            return f"the trust document expired on {self.expires:%Y-%m-%d}"
        granted = {kind.partition("#")[0] for role in principal.roles for kind in self.roles.get(role, ())}
        if predicate_type not in granted and ANY not in granted:
            name = predicates.short_name(predicate_type)
            return f"no role of {principal.id} ({', '.join(principal.roles)}) may sign a {name} statement"
        return ""

    def may_decide(self, role: str, kind: str) -> bool:
        """Whether a role may sign decisions of a kind: all of them, or only such as its rights name after ``#``."""
        wanted = {predicates.DECISION, ANY, f"{predicates.DECISION}#{kind}"}
        return not wanted.isdisjoint(self.roles.get(role, ()))

    def keys_for(self, predicate_type: str, at: datetime) -> dict[str, str]:
        """Key id to PEM of every principal that may sign this type at this time."""
        return {
            principal.keyid: principal.public_key
            for principal in self.principals
            if not self.why_not(principal.keyid, predicate_type, at)
        }


class SignedTrust(msgspec.Struct, frozen=True, kw_only=True):
    """A trust document whose signatures were verified, with its envelope."""

    trust: Trust
    body: bytes

    @property
    def digest(self) -> Digest:
        """SHA-256 of the envelope."""
        return digest_bytes(self.body)


def seal(trust: Trust, roots: Sequence[Signer]) -> bytes:
    """Sign a version with root keys and return the envelope's bytes."""
    _check(trust)
    return dsse.seal(trust.encode(), roots, TRUST_PAYLOAD)


def accept_first(body: bytes) -> SignedTrust:
    """Accept version 1, signed by its own roots. Whoever calls this pins the result.

    Raises:
        TrustError: it is not a sound, self-signed first version.
    """
    envelope, trust = _read(body)
    if trust.version != 1 or trust.previous:
        raise TrustError(f"the first trust document must have version 1, this has version {trust.version}")
    _need_threshold(envelope, trust.roots, trust.threshold, "its own")
    return SignedTrust(trust=trust, body=body)


def accept_next(current: SignedTrust, body: bytes) -> SignedTrust:
    """Accept the version after ``current``.

    Raises:
        TrustRollbackError: it is older than, or the same version as, ``current``.
        TrustError: it skips versions, does not follow from ``current`` or lacks signatures.
    """
    envelope, trust = _read(body)
    if trust.version <= current.trust.version:
        raise TrustRollbackError(
            f"trust document version {trust.version} is not newer than version {current.trust.version}",
            remedy="start from `bartizan trust show --json` and raise the version by one.",
        )
    if trust.version != current.trust.version + 1 or trust.previous != current.digest:
        raise TrustError(
            f"trust document version {trust.version} does not follow version {current.trust.version}",
            remedy="a change starts from the current version; none may be left out.",
        )
    _need_threshold(envelope, current.trust.roots, current.trust.threshold, "the current")
    _need_threshold(envelope, trust.roots, trust.threshold, "the new")
    return SignedTrust(trust=trust, body=body)


def accept_history(bodies: Sequence[tuple[int, bytes]]) -> list[tuple[int, SignedTrust]]:
    """All versions that were ever in force, in ledger order, each with the number of its entry.

    What does not follow from its predecessor is passed over: it must neither win nor block the ledger.

    Raises:
        TrustError: there is no document, or the first one is not a sound first version.
    """
    if not bodies:
        raise TrustError("the ledger holds no trust document", remedy="run `bartizan init`.")
    (seq, body), *rest = bodies
    history = [(seq, accept_first(body))]
    for seq, body in rest:
        with contextlib.suppress(TrustError):
            history.append((seq, accept_next(history[-1][1], body)))
    return history


_DECODER = msgspec.json.Decoder(Trust, strict=True)


def _read(body: bytes) -> tuple[dsse.Envelope, Trust]:
    try:
        envelope = dsse.parse(body)
        if envelope.payload_type != TRUST_PAYLOAD:
            raise TrustError(f"payload type {envelope.payload_type[:80]!r} is not a trust document")
        trust = _DECODER.decode(envelope.payload)
    except (EnvelopeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TrustError(f"not a trust document: {error}") from error
    _check(trust)
    return envelope, trust


def _check(trust: Trust) -> None:
    """Refuse a document that contradicts itself."""
    if not 1 <= trust.threshold <= len(trust.roots):
        raise TrustError(
            f"threshold {trust.threshold} of {len(trust.roots)} root keys can never be met or means nothing"
        )
    for keyid, pem in [*trust.roots.items(), *((who.keyid, who.public_key) for who in trust.principals)]:
        try:
            if keys.keyid_of(keys.load_public(pem)) != keyid:
                raise TrustError(f"key id {keyid[:12]} does not name the key beside it")
        except KeyFileError as error:
            raise TrustError(f"key {keyid[:12]}: {error.message}") from error
    ids = [who.id for who in trust.principals]
    keyids = [who.keyid for who in trust.principals]
    if len(set(ids)) != len(ids) or len(set(keyids)) != len(keyids):
        raise TrustError("two principals share an id or a key")
    for who in trust.principals:
        if unknown := set(who.roles) - set(trust.roles):
            raise TrustError(f"principal {who.id} has roles that are not defined: {', '.join(sorted(unknown))}")


def _need_threshold(envelope: dsse.Envelope, roots: dict[str, str], threshold: int, whose: str) -> None:
    valid = dsse.verified_keyids(envelope, roots)
    if len(valid) < threshold:
        raise TrustError(
            f"{len(valid)} of {whose} root keys signed; {threshold} must",
            remedy="let more holders of root keys sign the same document.",
        )
