"""Passes: who asks, in which role, shown by a signature of a key that the trust document names.

A pass is a DSSE envelope that says for which model and until when; it is sent as bearer token (RFC 6750), so it
belongs into encrypted connections only. There is no second list of secrets: whoever loses the key or the role in the
trust document is refused from the next verification on.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

import msgspec

from bartizan.core import envelope as dsse
from bartizan.core import predicates
from bartizan.core.digest import Digest, canonical_json
from bartizan.core.errors import EnvelopeError, InputError
from bartizan.core.ports import Signer
from bartizan.lifecycle.deploy.gateway.failures import RequestError

PASS_PAYLOAD = "application/vnd.bartizan.pass.v1+json"  # noqa: S105 - a media type
LONGEST = timedelta(days=1)
"""No pass counts for longer."""
EARLY = timedelta(minutes=1)
"""How far two clocks may be apart."""
MOST_BYTES = 8_192
BEARER = {"www-authenticate": 'Bearer realm="bartizan"'}


class Pass(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is signed."""

    role: str
    model: Digest
    """Of the bytes that are asked; a pass for another model, or for its next version, is none."""
    not_before: predicates.Instant
    not_after: predicates.Instant


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody whose passes count."""

    id: str
    keyid: str
    public_key: str
    """PEM."""
    roles: tuple[str, ...]
    not_before: predicates.Instant
    not_after: predicates.Instant


class Grants(msgspec.Struct, frozen=True, kw_only=True):
    """Who may be told more, as the declaration and the trust document have it."""

    explanations: tuple[str, ...] = ()
    """Roles that get explanations."""
    holders: tuple[Holder, ...] = ()
    """Everybody whom the trust document names, so that a wrong role can be told from no pass."""


def write(said: Pass, signer: Signer) -> str:
    """A pass as bearer token.

    Raises:
        InputError: it would count for too long, or never.
    """
    if not timedelta(0) < said.not_after - said.not_before <= LONGEST:
        raise InputError("a pass counts for at most 24 hours", remedy="give a shorter time, such as 1h.")
    body = dsse.seal(canonical_json(said), [signer], PASS_PAYLOAD)
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def may_explain(headers: Mapping[bytes, bytes], grants: Grants, model: Digest, now: datetime) -> None:
    """Let whoever sent a pass of a granted role by.

    Raises:
        RequestError: 401 without a pass that counts, 403 with one of a role that is not granted it.
    """
    role = read(headers.get(b"authorization", b""), grants.holders, model, now)
    if role not in grants.explanations:
        raise RequestError(403, f"the role {role[:64]!r} is not granted explanations")


def read(header: bytes, holders: tuple[Holder, ...], model: Digest, now: datetime) -> str:
    """The role in which somebody asks, from the header ``authorization``.

    Raises:
        RequestError: there is no pass, or it does not count.
    """
    return verified(header, holders, (model,), now)[0].role


def verified(
    header: bytes, holders: tuple[Holder, ...], models: Collection[Digest], now: datetime
) -> tuple[Pass, Holder]:
    """What a pass for one of ``models`` says, and who signed it, from the header ``authorization``.

    Raises:
        RequestError: there is no pass, or it does not count.
    """
    scheme, _, token = header.partition(b" ")
    if scheme.lower() != b"bearer" or not token:
        raise _refused("a pass is needed: `bartizan keys pass --role ROLE`")
    envelope, said = _parsed(token.strip())
    known = {holder.keyid: holder.public_key for holder in holders}
    signers = dsse.verified_keyids(envelope, known)
    owners = [holder for holder in holders if holder.keyid in signers and _counts(holder, now)]
    if not owners:
        raise _refused("nobody whom the trust document names has signed this pass")
    if said.model not in models:
        raise _refused("this pass is for another model, or another version of it")
    soon = said.not_before <= now + EARLY and now < said.not_after
    if not soon or said.not_after - said.not_before > LONGEST:
        raise _refused("this pass does not count at this time")
    owner = next((owner for owner in owners if said.role in owner.roles), None)
    if owner is None:
        raise RequestError(403, f"whoever signed this pass does not hold the role {said.role[:64]!r}")
    return said, owner


_DECODER = msgspec.json.Decoder(Pass)


def _parsed(token: bytes) -> tuple[dsse.Envelope, Pass]:
    if len(token) > MOST_BYTES:
        raise _refused(f"a pass has at most {MOST_BYTES} bytes")
    try:
        envelope = dsse.parse(base64.b64decode(token + b"=" * (-len(token) % 4), altchars=b"-_", validate=True))
        if envelope.payload_type != PASS_PAYLOAD:
            raise _refused("this was signed as something else than a pass")
        return envelope, _DECODER.decode(envelope.payload)
    except (EnvelopeError, binascii.Error, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refused("this is no pass") from error


def _counts(holder: Holder, now: datetime) -> bool:
    return holder.not_before <= now < holder.not_after


def _refused(reason: str) -> RequestError:
    return RequestError(401, reason, headers=BEARER)


__all__ = ["Grants", "Holder", "Pass", "may_explain", "read", "verified", "write"]
