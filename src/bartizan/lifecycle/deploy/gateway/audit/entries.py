"""From a record to what the tree and the index hold of it.

A leaf commits to the place, the time, the class and the digest of a record's body. So the body can be
dropped when its time is over, while the leaf still says what kind of record stood there and when.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from array import array
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from bartizan.core.errors import TamperedError
from bartizan.lifecycle.deploy.gateway.audit.record import Record

Class = Literal["answered", "refused", "flagged", "admin"]
CLASSES: Final[tuple[Class, ...]] = ("answered", "refused", "flagged", "admin")
"""A class is stored as its place in here: append only."""
ANSWERED, REFUSED, FLAGGED, ADMIN = range(len(CLASSES))
_BY_DECISION = {"answered": ANSWERED, "refused": REFUSED, "failed": REFUSED}
BLOCK_BITS = 8
BLOCK = 1 << BLOCK_BITS
"""Records that share one line of the index, and leaves whose inner hashes are computed and not stored."""
MAX_BODY_BYTES = 64 * 1024
ADMIN_OPERATIONS = ("admin.", "audit.", "gateway.", "dataset.", "review.")
"""How the operations begin that are no requests to a model."""

TIME_DIGITS = 16
_LEAF = struct.Struct(">cQQB32s")
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Record)
_ALLOWED = "allow"


def class_of(record: Record) -> int:
    """The class that decides how long a record is kept."""
    if record.operation.startswith(ADMIN_OPERATIONS):
        return ADMIN
    for ruling in record.rulings:
        if ruling.action != _ALLOWED and not ruling.shadow:
            return FLAGGED
    return _BY_DECISION.get(record.decision, FLAGGED)


def encode(record: Record) -> bytes:
    """The body: JSON without what is left at its default."""
    return _ENCODER.encode(record)


def decode(body: bytes, seq: int) -> Record:
    """Read a body.

    Raises:
        TamperedError: it is no record.
    """
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TamperedError(f"record {seq} cannot be read: {error}", seq=seq) from error


def leaf(seq: int, at: int, kind: int, digest: bytes) -> bytes:
    """RFC 6962 leaf hash of a record: its place, its time (ns), its class, and SHA-256 of its body."""
    return hashlib.sha256(_LEAF.pack(b"\x00", seq, at, kind, digest)).digest()


def term(name: str, value: str) -> int:
    """What the index calls ``name = value``. Two of 2**32 may be called the same: hits are always looked at."""
    return zlib.crc32(f"{name}={value}".encode())


def terms(records: Iterable[tuple[Record, int]]) -> set[int]:
    """Everything that records of a block, each with its class, have in common with others and are searched by."""
    common, guards = set(), set()
    for record, kind in records:
        common.add((record.caller, record.decision, record.operation, kind, record.model, record.model_digest))
        for ruling in record.rulings:
            guards.add(ruling.guard)
    words = {term("guard", guard) for guard in guards}
    for caller, decision, operation, kind, model, digest in common:
        words.update((term("caller", caller), term("decision", decision), term("operation", operation)))
        words.add(term("class", CLASSES[kind]))
        if model:
            words.add(term("model", model))
        if digest:
            words.add(term("digest", digest))
    return words


def prints(records: Iterable[tuple[Record, int]]) -> bytes:
    """Four bytes for everything in a block that no other record shares: outputs, and names that tell no time."""
    found = []
    for record, _ in records:
        if record.output:
            found.append(term("output", record.output))
        if not record.id.startswith(f"{record.at:016x}-") and at_of(record.id) != record.at:
            found.append(term("id", record.id))
    return array("I", found).tobytes()


def printed(word: int, block: bytes) -> bool:
    """Whether a word is among the prints of a block."""
    return word in array("I", block[: len(block) // 4 * 4])


def new_id(at: int) -> str:
    """A name for what happened at a time (ns): it is found again by the time that it begins with."""
    return f"{at:016x}-{os.urandom(5).hex()}"


def at_of(name: str) -> int:
    """The time that a name begins with; -1 when it does not look so."""
    time = name[:TIME_DIGITS]
    if len(time) != TIME_DIGITS or name[TIME_DIGITS : TIME_DIGITS + 1] != "-":
        return -1
    try:
        return int(time, 16)
    except ValueError:
        return -1


__all__ = [
    "ADMIN",
    "ANSWERED",
    "BLOCK",
    "BLOCK_BITS",
    "CLASSES",
    "FLAGGED",
    "MAX_BODY_BYTES",
    "REFUSED",
    "Class",
    "at_of",
    "class_of",
    "decode",
    "encode",
    "leaf",
    "new_id",
    "printed",
    "prints",
    "term",
    "terms",
]
