"""Proofs and cases as files: records with everything that shows, away from the log, that they stood in it.

A bundle names the checkpoint that its proofs lead to, the keys, and checkpoints that witnesses keep with a proof
that the log grew out of them. It shows that each record in it is what was written, where, and that it was there
when the checkpoint was signed. That no record was left out of a selection it does not show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from bartizan.core import checkpoint as notes
from bartizan.core import merkle
from bartizan.core.checkpoint import Checkpoint
from bartizan.core.errors import EvidenceError, InputError, LedgerError, TamperedError
from bartizan.lifecycle.deploy.gateway.audit import entries
from bartizan.lifecycle.deploy.gateway.audit.record import Record
from bartizan.lifecycle.deploy.gateway.audit.store import Reading
from bartizan.lifecycle.deploy.gateway.audit.tree import Tree, extends
from bartizan.lifecycle.deploy.gateway.audit.verifying import Seen

Format = Literal["urn:bartizan:audit-bundle:v1"]
FORMAT: Final[Format] = "urn:bartizan:audit-bundle:v1"
MAX_BUNDLE_BYTES = 512 << 20


class Proven(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A record and its proof."""

    seq: int
    at: int
    kind: str
    digest: str
    """SHA-256 of the body, hexadecimal."""
    path: tuple[str, ...]
    """Sibling hashes, bottom up, hexadecimal."""
    body: str | None = None
    """The record as it was hashed; None when it was dropped."""


class Witnessed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checkpoint that a witness keeps, and the proof that the log grew out of it."""

    place: str
    note: str
    path: tuple[str, ...]


class Bundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is handed over."""

    format: Format = FORMAT
    origin: str
    selection: dict[str, str]
    """What was looked for."""
    reason: str
    note: str
    """The checkpoint that everything leads to."""
    keys: dict[str, str]
    """Key id to PEM. Whoever verifies brings the key that they trust; these are for comparison."""
    records: tuple[Proven, ...]
    witnessed: tuple[Witnessed, ...] = ()


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle shows."""

    checkpoint: Checkpoint
    records: tuple[Record, ...]
    dropped: int
    """Records that are shown to have been there and whose bodies are gone."""
    witnesses: tuple[str, ...]


def make(  # noqa: PLR0917 - all of it is what a bundle is made of
    reading: Reading,
    seqs: Sequence[int],
    keys: Mapping[str, str],
    selection: Mapping[str, str],
    reason: str,
    seen: Sequence[Seen] = (),
) -> Bundle:
    """Gather records, proofs, the newest checkpoint and what witnesses saw.

    Raises:
        LedgerError: nothing is signed yet, a record is not covered by the newest checkpoint, or is missing.
    """
    newest = reading.newest_note()
    if newest is None:
        raise LedgerError("the audit log has no checkpoint yet", remedy="try again in a second.")
    said, _ = notes.parse(newest[1])
    tree = Tree(reading)
    return Bundle(
        origin=said.origin,
        selection=dict(selection),
        reason=reason,
        note=newest[1],
        keys=dict(keys),
        records=tuple(_prove(reading, tree, seq, said.size) for seq in sorted(seqs)),
        witnessed=tuple(_link(tree, item, said) for item in seen),
    )


def _prove(reading: Reading, tree: Tree, seq: int, size: int) -> Proven:
    row = next(reading.rows(seq, seq + 1), None)
    if row is None or row.seq != seq or seq >= size:
        raise LedgerError(f"record {seq} is not covered by the newest checkpoint", remedy="try again in a second.")
    digest = hashlib.sha256(row.body).digest() if row.body is not None else row.digest or b""
    return Proven(
        seq=seq,
        at=row.at,
        kind=entries.CLASSES[row.kind],
        digest=digest.hex(),
        path=tuple(step.hex() for step in tree.inclusion(seq, size)),
        body=row.body.decode() if row.body is not None else None,
    )


def _link(tree: Tree, item: Seen, newest: Checkpoint) -> Witnessed:
    said, _ = notes.parse(item.note)
    path = tree.consistency(said.size, newest.size) if said.size <= newest.size else []
    return Witnessed(place=item.place, note=item.note, path=tuple(step.hex() for step in path))


def read(data: bytes) -> Bundle:
    """Read a bundle without believing it.

    Raises:
        InputError: it is none.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise InputError(f"a file of {len(data)} bytes is no bundle", remedy="export smaller cases.")
    try:
        return msgspec.json.decode(data, type=Bundle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"not an audit bundle: {error}", remedy="make one with `bartizan audit export`.") from error


def check(bundle: Bundle, keys: Mapping[str, str]) -> Checked:
    """Verify a bundle with the keys of the log, and nothing else.

    Raises:
        TamperedError: a record is not what was in the log; it is named.
        LedgerError: the checkpoint is not signed by one of the keys, or contradicts a witness.
    """
    said = notes.verify(bundle.note, keys)
    if said.origin != bundle.origin:
        raise LedgerError(f"the checkpoint is one of {said.origin}, the bundle of {bundle.origin}")
    records = []
    for proven in bundle.records:
        record = _check_record(proven, said)
        if record is not None:
            records.append(record)
    for item in bundle.witnessed:
        _check_witness(item, said, keys)
    return Checked(
        checkpoint=said,
        records=tuple(records),
        dropped=len(bundle.records) - len(records),
        witnesses=tuple(item.place for item in bundle.witnessed),
    )


def _check_record(proven: Proven, said: Checkpoint) -> Record | None:
    altered = TamperedError(f"record {proven.seq} is not what was in the log", seq=proven.seq)
    if proven.kind not in entries.CLASSES or not 0 <= proven.at < 1 << 63 or not 0 <= proven.seq < said.size:
        raise altered
    try:
        digest = _unhex(proven.digest)
        path = [_unhex(step) for step in proven.path]
    except ValueError as error:
        raise altered from error
    body = None if proven.body is None else proven.body.encode()
    if len(digest) != merkle.HASH_BYTES or (body is not None and hashlib.sha256(body).digest() != digest):
        raise altered
    leaf = entries.leaf(proven.seq, proven.at, entries.CLASSES.index(proven.kind), digest)
    if not merkle.verify_inclusion(leaf, proven.seq, said.size, path, said.root):
        raise altered
    return None if body is None else entries.decode(body, proven.seq)


def _unhex(text: str) -> bytes:
    """Bytes of lower-case hexadecimal digits. Raises ValueError for any other spelling."""
    data = bytes.fromhex(text)
    if data.hex() != text:
        raise ValueError("hexadecimal digits in another spelling")
    return data


def _check_witness(item: Witnessed, said: Checkpoint, keys: Mapping[str, str]) -> None:
    forked = LedgerError(f"the log that witness {item.place} saw is not the one that this bundle is from")
    try:
        seen = notes.verify(item.note, keys)
        path = [_unhex(step) for step in item.path]
    except (EvidenceError, ValueError) as error:
        raise forked from error
    if seen.size > said.size or not extends(seen.size, said.size, seen.root, said.root, path):
        raise forked


__all__ = ["FORMAT", "MAX_BUNDLE_BYTES", "Bundle", "Checked", "Proven", "Witnessed", "check", "make", "read"]
