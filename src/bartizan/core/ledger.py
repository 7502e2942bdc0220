"""Appending to the ledger: the core computes a batch, a store writes it.

What the store holds is checked again under its lock before anything is built upon it, so that an
altered store is noticed and never signed into a new checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bartizan.core import checkpoint as notes
from bartizan.core import envelope as dsse
from bartizan.core import index, merkle, predicates, statement, trust
from bartizan.core.checkpoint import Checkpoint
from bartizan.core.digest import Digest
from bartizan.core.errors import LedgerError, LedgerMovedError, StatementError
from bartizan.core.ports import Batch, CheckpointRow, Edge, Entry, Records, Signer, Writer
from bartizan.core.view import RESTORE, View, entry_leaf, moment

MAX_EDGES_PER_ENTRY = 10_000


def append(
    records: Records, bodies: Sequence[bytes], *, now_ms: int, signer: Signer, origin: str, expect: View | None
) -> Batch | None:
    """Append envelopes; those that are there already are passed over. None when nothing was new.

    ``expect`` is a checked view of the same ledger, or None to begin a new one. What the store
    holds now is checked again under its lock before anything is built upon it.

    Raises:
        LedgerMovedError: somebody else appended since ``expect`` was opened.
        EvidenceError: a body is no readable envelope (nothing is appended), or the store was altered.
    """
    parsed = [read(body) for body in dict.fromkeys(bodies)]
    return records.append(lambda writer: _extend(writer, parsed, now_ms, signer, origin, expect))


class Item(msgspec.Struct, frozen=True):
    """An envelope, and what it says about which digests."""

    envelope: dsse.Envelope
    predicate_type: str
    subjects: tuple[Digest, ...]
    parents: tuple[Digest, ...]


def read(body: bytes) -> Item:
    """Read what may be appended.

    Raises:
        EvidenceError: it is no readable statement or trust document.
    """
    envelope = dsse.parse(body)
    if envelope.payload_type == trust.TRUST_PAYLOAD:
        return Item(envelope, predicates.TRUST, (trust.TRUST_SUBJECT,), ())
    if envelope.payload_type != dsse.STATEMENT_PAYLOAD:
        raise StatementError(
            f"payload type {envelope.payload_type[:80]!r} cannot be kept",
            remedy=f"only {dsse.STATEMENT_PAYLOAD} and trust documents go into the ledger.",
        )
    said = statement.decode(envelope.payload)
    if said.predicate_type == predicates.TRUST:
        raise StatementError("a trust document is not a statement", remedy="run `bartizan trust update`.")
    return Item(envelope, said.predicate_type, said.about(), said.rests_on())


def _extend(  # noqa: PLR0917 - a closure over append's own arguments
    writer: Writer, parsed: Sequence[Item], now_ms: int, signer: Signer, origin: str, expect: View | None
) -> Batch | None:
    row = writer.checkpoint()
    shards = writer.shards(range(index.SHARDS))
    previous = _recheck(row, shards, expect)
    known = writer.known([item.envelope.digest for item in parsed])
    fresh = [item for item in parsed if item.envelope.digest not in known]
    if not fresh:
        return None
    received_ms = max(now_ms, previous.received_ms)
    _may_sign(signer, expect, fresh, received_ms)
    entries = tuple(_entry(seq, item, received_ms) for seq, item in enumerate(fresh, start=previous.size))
    rows = [
        line
        for entry, item in zip(entries, fresh, strict=True)
        for line in index.rows_for(entry.seq, entry.leaf_hash, entry.predicate_type, item.subjects)
    ]
    frontier = merkle.split_frontier(row.frontier) if row else []
    size, frontier, nodes = merkle.extend(previous.size, frontier, (entry.leaf_hash for entry in entries))
    changed = index.advance(shards, rows)
    root = index.index_root({**shards, **changed})
    note = Checkpoint(origin=origin, size=size, root=merkle.root(frontier), index_root=root, received_ms=received_ms)
    return Batch(
        entries=entries,
        index=tuple(rows),
        edges=tuple(edge for entry, item in zip(entries, fresh, strict=True) for edge in edges_of(entry.seq, item)),
        nodes=tuple(nodes),
        shards=changed,
        checkpoint=CheckpointRow(
            size=size, note=notes.seal(note, signer), frontier=b"".join(frontier), received_ms=received_ms
        ),
    )


def _may_sign(signer: Signer, expect: View | None, fresh: Sequence[Item], received_ms: int) -> None:
    """Refuse a trust document that does not follow, and a checkpoint that nobody would believe afterwards."""
    signed = expect.signed_trust if expect else None
    for item in fresh:
        if item.predicate_type == predicates.TRUST:
            body = item.envelope.body
            signed = trust.accept_next(signed, body) if signed else trust.accept_first(body)
    if signed is None:
        raise LedgerError("a ledger begins with a trust document", remedy="run `bartizan init`.")
    if reason := signed.trust.why_not(signer.keyid, trust.CHECKPOINT, moment(received_ms)):
        raise LedgerError(
            f"the next checkpoint cannot be signed: {reason}",
            remedy="renew the trust document, or grant the role ledger to another key and name it in BARTIZAN_SERVICE.",
        )


def _recheck(row: CheckpointRow | None, shards: dict[int, bytes], expect: View | None) -> Checkpoint:
    """What the store holds under its lock must be what was checked; nothing else is built upon."""
    if row is None:
        if expect is not None or shards:
            raise LedgerError("the ledger was emptied", remedy=RESTORE)
        return Checkpoint(origin="", size=0, root=merkle.EMPTY_ROOT, index_root=b"", received_ms=0)
    if expect is None:
        raise LedgerError("the ledger is not empty", remedy="open it before appending.")
    if row.note != expect.note:
        raise LedgerMovedError("the ledger changed since it was looked at", remedy="run the command again.")
    checked = expect.checkpoint
    if not merkle.is_frontier(checked.size, row.frontier):
        raise LedgerError("the stored tree does not match its signed checkpoint", remedy=RESTORE)
    if merkle.root(merkle.split_frontier(row.frontier)) != checked.root or row.size != checked.size:
        raise LedgerError("the stored tree does not match its signed checkpoint", remedy=RESTORE)
    if index.index_root(shards) != checked.index_root:
        raise LedgerError("the stored index does not match its signed checkpoint", remedy=RESTORE)
    return checked


def _entry(seq: int, item: Item, received_ms: int) -> Entry:
    digest = item.envelope.digest
    return Entry(
        seq=seq,
        digest=digest,
        body=item.envelope.body,
        predicate_type=item.predicate_type,
        received_ms=received_ms,
        leaf_hash=entry_leaf(received_ms, digest),
    )


def edges_of(seq: int, item: Item) -> list[Edge]:
    """Lineage: what a statement speaks about rests on what it names as inputs; it itself on both."""
    own = item.envelope.digest
    kind = predicates.short_name(item.predicate_type)
    edges = [Edge(child=own, parent=subject, kind=kind, seq=seq) for subject in item.subjects]
    parents = [digest for digest in item.parents if digest not in item.subjects]
    edges += [Edge(child=own, parent=parent, kind=kind, seq=seq) for parent in parents]
    if item.predicate_type in {predicates.PROVENANCE, predicates.CARD}:
        edges += [
            Edge(child=subject, parent=parent, kind=kind, seq=seq) for subject in item.subjects for parent in parents
        ]
    return edges[:MAX_EDGES_PER_ENTRY]
