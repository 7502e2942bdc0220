"""DSSE envelopes: bytes, what kind of bytes, and who signed them.

See https://github.com/secure-systems-lab/dsse/blob/master/protocol.md. Parsing is strict: one
spelling of base64, no unknown fields, so that no two byte strings read as the same envelope by
accident; the ledger names an envelope by all of its bytes anyway.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence

import msgspec

from bartizan.core import keys
from bartizan.core.digest import Digest, canonical_json, digest_bytes
from bartizan.core.errors import EnvelopeError
from bartizan.core.ports import Signer
from bartizan.core.statement import MAX_STATEMENT_BYTES, Statement

STATEMENT_PAYLOAD = "application/vnd.in-toto+json"
MAX_SIGNATURES = 64


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keyid: str
    sig: str


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: str
    payloadType: str  # noqa: N815 - the wire's own spelling
    signatures: tuple[_Signature, ...]


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed envelope, beside the very bytes it was parsed from."""

    body: bytes
    payload: bytes
    payload_type: str
    signatures: tuple[tuple[str, bytes], ...]
    """(keyid, signature) pairs."""

    @property
    def digest(self) -> Digest:
        """SHA-256 of the whole envelope."""
        return digest_bytes(self.body)

    @property
    def saying(self) -> Digest:
        """SHA-256 of what is signed. Other wrappings and other signatures of the same payload share it."""
        return digest_bytes(pre_authentication(self.payload_type, self.payload))


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """The DSSE v1 pre-authentication encoding: what is really signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, signers: Sequence[Signer], payload_type: str = STATEMENT_PAYLOAD) -> bytes:
    """Sign ``payload`` with every signer and return the envelope's bytes."""
    message = pre_authentication(payload_type, payload)
    return _encode(payload, payload_type, {signer.keyid: signer.sign(message) for signer in signers})


def join(first: Envelope, second: Envelope) -> bytes:
    """One envelope with the signatures of both, for a payload that several people sign one after the other."""
    return _encode(first.payload, first.payload_type, {**dict(second.signatures), **dict(first.signatures)})


def _encode(payload: bytes, payload_type: str, signatures: Mapping[str, bytes]) -> bytes:
    listed = [{"keyid": keyid, "sig": _b64(signature)} for keyid, signature in signatures.items()]
    return canonical_json({"payload": _b64(payload), "payloadType": payload_type, "signatures": listed})


def seal_statement(statement: Statement, signers: Sequence[Signer]) -> bytes:
    """Sign a statement."""
    return seal(statement.encode(), signers)


_DECODER = msgspec.json.Decoder(_Wire)


def parse(body: bytes) -> Envelope:
    """Read an envelope without believing it.

    Raises:
        EnvelopeError: it is not a strict DSSE envelope with 1 to 64 signatures of distinct keys.
    """
    if len(body) > 2 * MAX_STATEMENT_BYTES:
        raise EnvelopeError(f"envelope of {len(body)} bytes; at most {2 * MAX_STATEMENT_BYTES} are read")
    try:
        wire = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeError(f"not a DSSE envelope: {error}") from error
    if not 1 <= len(wire.signatures) <= MAX_SIGNATURES:
        raise EnvelopeError(f"envelope with {len(wire.signatures)} signatures; 1 to {MAX_SIGNATURES} are accepted")
    if len({signature.keyid for signature in wire.signatures}) != len(wire.signatures):
        raise EnvelopeError("envelope with two signatures of the same key")
    return Envelope(
        body=body,
        payload=_unb64(wire.payload, "payload"),
        payload_type=wire.payloadType,
        signatures=tuple((signature.keyid, _unb64(signature.sig, "signature")) for signature in wire.signatures),
    )


def verified_keyids(envelope: Envelope, public_keys: Mapping[str, str]) -> tuple[str, ...]:
    """Key ids among ``public_keys`` (key id to PEM) whose signatures on ``envelope`` verify."""
    message = pre_authentication(envelope.payload_type, envelope.payload)
    return tuple(
        keyid
        for keyid, signature in envelope.signatures
        if keyid in public_keys and keys.verify(keys.load_public(public_keys[keyid]), signature, message)
    )


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: str, what: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EnvelopeError(f"envelope {what} is not base64: {error}") from error
    if _b64(data) != text:
        raise EnvelopeError(f"envelope {what} is not in the one canonical base64 form")
    return data
