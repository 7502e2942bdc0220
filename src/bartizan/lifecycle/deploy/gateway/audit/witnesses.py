"""Witnesses: who is shown every checkpoint, so that nobody can cut, fork or rewrite the log unseen afterwards.

Over HTTP the protocol is C2SP tlog-witness (https://c2sp.org/tlog-witness): a checkpoint comes with the proof that
it extends the last one that the witness has seen; the witness answers with its cosignature
(https://c2sp.org/tlog-cosignature, Ed25519), or says which size it has seen (409), or that the proof is none (422).
Both ends are here; sockets and files are elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from bartizan.core import checkpoint as notes
from bartizan.core import keys
from bartizan.core.checkpoint import Checkpoint
from bartizan.core.errors import EvidenceError, InputError, LedgerError, StoreError
from bartizan.core.ports import Signer
from bartizan.lifecycle.deploy.gateway.audit.tree import extends
from bartizan.lifecycle.deploy.gateway.audit.verifying import Seen

MAX_REQUEST = 96 * 1024
MAX_REPLY = 64 * 1024
MOST_HASHES = 63
SIZE_TYPE = "text/x.tlog.size"
OK, BAD_REQUEST, FORBIDDEN, NOT_FOUND, CONFLICT, UNPROCESSABLE = 200, 400, 403, 404, 409, 422
_OLD = re.compile(r"old (0|[1-9][0-9]{0,15})\Z")
_COSIGNATURE = b"\x04"
_DASH = "\u2014"
_COSIGNED_BYTES = 4 + 8 + 64

Proof = Callable[[int], Sequence[bytes]]
"""Proof that the newest checkpoint extends the tree of an older size."""


class Witness(Protocol):
    """Somebody who is shown checkpoints."""

    place: str

    def show(self, note: str, proof: Proof) -> str:
        """Show a checkpoint; gives cosignatures, if there are any.

        Raises:
            StoreError: the witness cannot be reached.
            LedgerError: what it has seen before is not what this checkpoint extends.
        """

    def seen(self) -> list[Seen]:
        """Checkpoints that it keeps, when it can be asked for them."""


class Reply(msgspec.Struct, frozen=True):
    """What a witness answers."""

    status: int
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"


def request(old: int, path: Sequence[bytes], note: str) -> bytes:
    """Body of ``add-checkpoint``."""
    lines = [f"old {old}", *(base64.b64encode(step).decode() for step in path)]
    return ("\n".join(lines) + "\n\n" + note).encode()


def read_request(body: bytes) -> tuple[int, list[bytes], str]:
    """Old size, proof and note of an ``add-checkpoint``.

    Raises:
        InputError: it is none.
    """
    try:
        text = body.decode()
        head, mark, note = text.partition("\n\n")
        first, *rest = head.split("\n")
        match = _OLD.match(first)
        path = [base64.b64decode(line, validate=True) for line in rest]
    except (UnicodeDecodeError, binascii.Error, ValueError) as error:
        raise InputError(f"not an add-checkpoint request: {error}") from error
    if (
        match is None
        or not mark
        or len(path) > MOST_HASHES
        or any(len(step) != hashlib.sha256().digest_size for step in path)
    ):
        raise InputError("not an add-checkpoint request")
    return int(match[1]), path, note


class Book(Protocol):
    """What a witness remembers, durably, by origin."""

    def newest(self, origin: str) -> str:
        """The note that was cosigned last; empty for none."""

    def keep(self, origin: str, before: str, note: str) -> bool:
        """Remember a note, unless another one than ``before`` was kept meanwhile; durable when it returns."""


class Bystander:
    """A witness of other logs: remembers the newest checkpoint of each, and cosigns what extends it."""

    def __init__(
        self,
        name: str,
        signer: Signer,
        logs: Mapping[str, Mapping[str, str]],
        book: Book,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``logs``: origin to the keys (id to PEM) that may sign its checkpoints.

        Raises:
            InputError: the key is not Ed25519, as cosignatures have to be.
        """
        public = keys.load_public(signer.public_pem)
        if not isinstance(public, ed25519.Ed25519PublicKey):
            raise InputError(
                "a witness signs with Ed25519",
                remedy="make a key with `bartizan keys new witness --algorithm ed25519`.",
            )
        self.name, self._signer, self._logs, self._book, self._clock = name, signer, dict(logs), book, clock
        self._hint = cosignature_hint(name, public)

    def add(self, body: bytes) -> Reply:
        """Answer ``add-checkpoint``; never raises for what the request says."""
        try:
            old, path, note = read_request(body)
            unproved, _ = notes.parse(note)
        except (InputError, EvidenceError) as error:
            return Reply(BAD_REQUEST, f"{error.message}\n")
        if unproved.origin not in self._logs:
            return Reply(NOT_FOUND, "this log is not witnessed here\n")
        try:
            said = notes.verify(note, self._logs[unproved.origin])
        except EvidenceError:
            return Reply(FORBIDDEN, "no signature of a known key\n")
        return self._extend(old, path, note, said)

    def _extend(self, old: int, path: Sequence[bytes], note: str, said: Checkpoint) -> Reply:
        if old > said.size:
            return Reply(BAD_REQUEST, "the old size is larger than the new one\n")
        before = self._book.newest(said.origin)
        size, root = 0, hashlib.sha256(b"").digest()
        if before:
            last, _ = notes.parse(before)
            size, root = last.size, last.root
        if old != size:
            return Reply(CONFLICT, f"{size}\n", SIZE_TYPE)
        if not extends(size, said.size, root, said.root, list(path)):
            return Reply(CONFLICT if size == said.size else UNPROCESSABLE, f"{size}\n", SIZE_TYPE)
        if not self._book.keep(said.origin, before, note):
            return Reply(CONFLICT, f"{size}\n", SIZE_TYPE)
        return Reply(OK, self._cosign(said))

    def _cosign(self, said: Checkpoint) -> str:
        now = int(self._clock())
        signature = self._signer.sign(cosigned(now, said.text()))
        blob = base64.b64encode(self._hint + now.to_bytes(8, "big") + signature).decode()
        return f"{_DASH} {self.name} {blob}\n"


def cosigned(now: int, text: str) -> bytes:
    """What a cosignature signs (C2SP tlog-cosignature, cosignature/v1)."""
    return f"cosignature/v1\ntime {now}\n{text}".encode()


def cosignature_hint(name: str, key: ed25519.Ed25519PublicKey) -> bytes:
    """Key hash of a cosignature."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(name.encode() + b"\n" + _COSIGNATURE + raw).digest()[:4]


def cosigned_at(note: str, lines: str, name: str, pem: str) -> int:
    """When a witness of this name and key cosigned a note, seconds since the epoch.

    Raises:
        LedgerError: none of the lines is its cosignature.
    """
    key = keys.load_public(pem)
    if isinstance(key, ed25519.Ed25519PublicKey):
        said, _ = notes.parse(note)
        hint = cosignature_hint(name, key)
        for line in lines.splitlines():
            mark, _, rest = line.partition(" ")
            who, _, encoded = rest.rpartition(" ")
            blob = _decoded(encoded)
            if (mark, who, blob[:4]) != (_DASH, name, hint) or len(blob) != _COSIGNED_BYTES:
                continue
            now = int.from_bytes(blob[4:12], "big")
            if keys.verify(key, blob[12:], cosigned(now, said.text())):
                return now
    raise LedgerError(f"witness {name} did not cosign this checkpoint")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


class Post(Protocol):
    """Sends a request to an address; see ``adapters.witness``."""

    def __call__(self, body: bytes) -> Reply:
        """Raises StoreError when there is no answer."""


class RemoteWitness:
    """A witness over HTTP. See ``Witness``."""

    def __init__(self, place: str, post: Post) -> None:
        self.place, self._post = place, post
        self._size = 0

    def show(self, note: str, proof: Proof) -> str:
        """See ``Witness.show``."""
        said, _ = notes.parse(note)
        for _ in range(2):
            if self._size > said.size:
                break
            reply = self._post(request(self._size, proof(self._size), note))
            if reply.status == OK:
                self._size = said.size
                return reply.body
            if reply.status != CONFLICT or not reply.body.strip().isdecimal():
                raise self._refused(reply)
            told = int(reply.body.strip()[:16])
            if told == self._size:
                raise self._refused(reply)
            self._size = told
        raise LedgerError(
            f"witness {self.place} has seen {self._size} records, this log holds {said.size}: it was cut or replaced",
            remedy="run `bartizan audit verify`; restore the newest backup.",
        )

    def _refused(self, reply: Reply) -> Exception:
        if reply.status in {UNPROCESSABLE, CONFLICT}:
            return LedgerError(
                f"witness {self.place} has seen another log: this one was forked or rewritten",
                remedy="run `bartizan audit verify`; keep a copy of the database.",
            )
        return StoreError(
            f"witness {self.place} answered {reply.status}: {reply.body.strip()[:200]}",
            remedy="have the witness told of this log and its key.",
        )

    def seen(self) -> list[Seen]:
        """Nothing: what it has seen shows when it is shown the next checkpoint."""
        return []


__all__ = [
    "MAX_REPLY",
    "MAX_REQUEST",
    "Book",
    "Bystander",
    "Post",
    "Proof",
    "RemoteWitness",
    "Reply",
    "Witness",
    "cosignature_hint",
    "cosigned",
    "cosigned_at",
    "read_request",
    "request",
]
