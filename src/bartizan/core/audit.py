"""Auditing: everything that is stored, computed again from the envelopes alone."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bartizan.core import checkpoint as notes
from bartizan.core import index, merkle
from bartizan.core.errors import LedgerError, TamperedError
from bartizan.core.ledger import edges_of, read
from bartizan.core.ports import BUCKETS, HEADS_PER_SHARD, Edge, Entry, IndexRow, Node, Snapshot
from bartizan.core.view import RESTORE, Pin, View, check_entry


class Rebuilt(msgspec.Struct, frozen=True):
    """All derived rows of a ledger, computed from its envelopes alone."""

    index: tuple[IndexRow, ...]
    edges: tuple[Edge, ...]
    nodes: tuple[Node, ...]
    shards: dict[int, bytes]
    size: int
    frontier: tuple[bytes, ...]

    @property
    def root(self) -> bytes:
        """Root hash of the tree over all entries."""
        return merkle.root(self.frontier)


def rebuild(entries: Iterable[Entry]) -> Rebuilt:
    """Read every entry from the first, check it, and compute all derived rows.

    Raises:
        TamperedError: names the first entry that is altered, missing or out of order.
    """
    rows: list[IndexRow] = []
    edges: list[Edge] = []
    leaves: list[bytes] = []
    received_ms = 0
    for expected, entry in enumerate(entries):
        if entry.seq != expected:
            raise TamperedError(f"entry {expected} is missing", seq=expected, remedy=RESTORE)
        check_entry(entry, entry.leaf_hash)
        if entry.received_ms < received_ms:
            raise TamperedError(f"entry {expected} is older than the one before", seq=expected, remedy=RESTORE)
        item = read(entry.body)
        if item.predicate_type != entry.predicate_type:
            raise TamperedError(f"entry {expected}: its type is not what its bytes say", seq=expected, remedy=RESTORE)
        received_ms = entry.received_ms
        leaves.append(entry.leaf_hash)
        rows += index.rows_for(entry.seq, entry.leaf_hash, entry.predicate_type, item.subjects)
        edges += edges_of(entry.seq, item)
    size, frontier, nodes = merkle.extend(0, [], leaves)
    return Rebuilt(
        index=tuple(rows),
        edges=tuple(edges),
        nodes=tuple(nodes),
        shards=index.advance({}, rows),
        size=size,
        frontier=tuple(frontier),
    )


def audit(snapshot: Snapshot, pin: Pin | None) -> View:
    """Check everything: each entry, the tree, the index, each checkpoint ever signed, and the pin.

    Raises:
        TamperedError: names the first bad entry.
        LedgerError: a checkpoint, the index or the pin is contradicted.
    """
    rebuilt = rebuild(snapshot.scan())
    roots = _roots_at(snapshot, {row.size for row in snapshot.checkpoints()})
    for row in snapshot.checkpoints():
        said, _ = notes.parse(row.note)
        if said.size != row.size or roots.get(row.size) != said.root:
            raise TamperedError(
                f"the first {said.size} entries are not those of their checkpoint: one was replaced, added or removed",
                seq=max(0, said.size - 1),
                remedy=RESTORE,
            )
    view = View.open(snapshot, pin)
    if view is None:
        raise LedgerError("the ledger is empty", remedy="run `bartizan init`.")
    if index.index_root(rebuilt.shards) != view.checkpoint.index_root:
        raise LedgerError("the index is not that of the entries", remedy="run `bartizan ledger reindex`.")
    _check_index(snapshot, rebuilt)
    stored = snapshot.nodes([(node.level, node.index) for node in rebuilt.nodes])
    if any(stored.get((node.level, node.index)) != node.hash for node in rebuilt.nodes):
        raise LedgerError("stored tree nodes are not those of the entries", remedy="run `bartizan ledger reindex`.")
    return view


def _check_index(snapshot: Snapshot, rebuilt: Rebuilt) -> None:
    """Every stored index line and bucket head must be that of the entries, and no other."""
    expected: dict[int, list[IndexRow]] = {}
    for row in rebuilt.index:
        expected.setdefault(row.bucket, []).append(row)
    for start in range(0, BUCKETS + 1, HEADS_PER_SHARD):
        numbers = range(start, min(start + HEADS_PER_SHARD, BUCKETS + 1))
        stored = snapshot.buckets(numbers)
        if any(stored.get(number, []) != expected.get(number, []) for number in numbers):
            raise LedgerError(
                "stored index lines are not those of the entries", remedy="run `bartizan ledger reindex`."
            )


def _roots_at(snapshot: Snapshot, sizes: set[int]) -> dict[int, bytes]:
    """Root hash at each of ``sizes``, in one pass over the entries."""
    roots = {0: merkle.EMPTY_ROOT}
    size, frontier = 0, list[bytes]()
    for entry in snapshot.scan():
        size, frontier, _ = merkle.extend(size, frontier, [entry.leaf_hash])
        if size in sizes:
            roots[size] = merkle.root(frontier)
    return roots
