"""Scan policies in the form in which they count: a DSSE envelope around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from bartizan.core import envelope as dsse
from bartizan.core.digest import canonical_json
from bartizan.core.errors import EnvelopeError
from bartizan.core.ports import Signer
from bartizan.lifecycle.develop.scan.acceptance import Policy, check_policy

PAYLOAD = "application/vnd.bartizan.scan-policy.v1+json"


def seal_policy(policy: Policy, signers: Sequence[Signer]) -> bytes:
    """Sign a policy."""
    return dsse.seal(canonical_json(policy), signers, PAYLOAD)


def open_policy(body: bytes, public_keys: Mapping[str, str]) -> Policy:
    """The policy inside an envelope that one of the given keys (key id to PEM) has signed.

    Raises:
        EnvelopeError: it is no signed policy, or none of the keys signed it.
        InputError: an entry is unsound.
    """
    envelope = dsse.parse(body)
    if envelope.payload_type != PAYLOAD:
        raise EnvelopeError(f"a signed {envelope.payload_type} is no scan policy", remedy="see `bartizan scan-policy`.")
    if not dsse.verified_keyids(envelope, public_keys):
        raise EnvelopeError(
            "none of the trusted keys has signed this policy", remedy="give the signer's public key, or sign it anew."
        )
    try:
        policy = msgspec.json.decode(envelope.payload, type=Policy)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeError(f"the signed policy cannot be read: {error}") from error
    check_policy(policy)
    return policy
