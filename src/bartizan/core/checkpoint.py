"""Signed checkpoints: one note that commits to everything in the ledger and in its index.

The form is that of C2SP tlog-checkpoint and signed-note (https://c2sp.org/tlog-checkpoint,
https://c2sp.org/signed-note): origin, size and root hash, then two extension lines of ours::

    bartizan.example/tumour
    42
    qINS1GRFhWHwdkUeqLEoP4yEMkTBBzxBkGwGQlVlVcs=
    index 3q2+7w...
    received 1795219200000

    — bartizan.example/tumour 6KhmPw...

``index`` is the hash over all bucket heads of the evidence index: it proves that a list of
statements about a digest is complete. ``received`` is the time of the last entry.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from bartizan.core import keys
from bartizan.core.errors import LedgerError
from bartizan.core.ports import Signer

MAX_NOTE = 64 * 1024
_ORIGIN = re.compile(r"[^\s+]{1,200}\Z")
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,15})\Z")
_DASH = "\u2014"
_LINES = 5
LATEST_MS = 253_402_300_799_000
"""The last second of the year 9999."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a note says."""

    origin: str
    size: int
    root: bytes
    index_root: bytes
    received_ms: int

    def text(self) -> str:
        """The signed part of the note."""
        return (
            f"{self.origin}\n{self.size}\n{_b64(self.root)}\n"
            f"index {_b64(self.index_root)}\nreceived {self.received_ms}\n"
        )


def seal(checkpoint: Checkpoint, signer: Signer) -> str:
    """Sign a checkpoint and return the note."""
    if not _ORIGIN.match(checkpoint.origin):
        raise LedgerError(
            f"ledger origin {checkpoint.origin!r} must be one word without '+'",
            remedy="set another name in bartizan.toml.",
        )
    text = checkpoint.text()
    hint = _key_hint(checkpoint.origin, signer.public_pem)
    signature = base64.b64encode(hint + signer.sign(text.encode())).decode()
    return f"{text}\n{_DASH} {checkpoint.origin} {signature}\n"


def parse(note: str) -> tuple[Checkpoint, list[bytes]]:
    """Read a note without believing it: the checkpoint and its signatures (4-byte key hint first).

    Raises:
        LedgerError: it is no such note.
    """
    if len(note) > MAX_NOTE:
        raise LedgerError(f"checkpoint note of {len(note)} characters is too long")
    text, separator, tail = note.partition("\n\n")
    lines = text.split("\n")
    if not separator or len(lines) != _LINES or not tail.endswith("\n"):
        raise LedgerError("not a checkpoint note: it needs five lines, an empty line and a signature")
    origin, size, root, index, received = lines
    if not (_NUMBER.match(size) and index.startswith("index ") and received.startswith("received ")):
        raise LedgerError("not a checkpoint note: size, index or received line is malformed")
    if not _NUMBER.match(received.removeprefix("received ")):
        raise LedgerError("not a checkpoint note: the received line is malformed")
    if int(received.removeprefix("received ")) > LATEST_MS:
        raise LedgerError("not a checkpoint note: it is dated beyond the year 9999")
    signatures = []
    for line in tail[:-1].split("\n"):
        mark, _, rest = line.partition(" ")
        name, _, encoded = rest.rpartition(" ")
        if mark != _DASH or name != origin:
            raise LedgerError("not a checkpoint note: a signature line is malformed or of another origin")
        signatures.append(_unb64(encoded))
    checkpoint = Checkpoint(
        origin=origin,
        size=int(size),
        root=_unb64(root),
        index_root=_unb64(index.removeprefix("index ")),
        received_ms=int(received.removeprefix("received ")),
    )
    if checkpoint.text() != text + "\n":
        raise LedgerError("not a checkpoint note: it is not in the one canonical form")
    return checkpoint, signatures


def verify(note: str, public_keys: Mapping[str, str]) -> Checkpoint:
    """Read a note that one of ``public_keys`` (key id to PEM) has signed.

    Raises:
        LedgerError: malformed, or no signature of a trusted key.
    """
    checkpoint, signatures = parse(note)
    message = checkpoint.text().encode()
    for pem in public_keys.values():
        hint = _key_hint(checkpoint.origin, pem)
        for signature in signatures:
            if signature[:4] == hint and keys.verify(keys.load_public(pem), signature[4:], message):
                return checkpoint
    raise LedgerError(
        f"no trusted signature on the checkpoint of size {checkpoint.size}",
        remedy="if the ledger's key was withdrawn, sign a new checkpoint; otherwise the ledger was replaced.",
    )


def _key_hint(name: str, pem: str) -> bytes:
    """Key hash of signed-note: by name and raw key for Ed25519, by DER for ECDSA."""
    key = keys.load_public(pem)
    if isinstance(key, ed25519.Ed25519PublicKey):
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return hashlib.sha256(name.encode() + b"\n\x01" + raw).digest()[:4]
    return hashlib.sha256(keys.public_der(key)).digest()[:4]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise LedgerError(f"not a checkpoint note: {error}") from error
