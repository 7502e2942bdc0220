"""A ledger store in memory, for tests: the real interface, nothing durable."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from bartizan.core.digest import Digest
from bartizan.core.ports import Batch, CheckpointRow, Edge, Entry, IndexRow


class MemoryRecords:
    """See ``core.ports.Records``; also its own snapshot and writer. All rows are public, to be attacked."""

    def __init__(self) -> None:
        self.rows: dict[int, Entry] = {}
        self.index: list[IndexRow] = []
        self.edges: list[Edge] = []
        self.tree: dict[tuple[int, int], bytes] = {}
        self.heads: dict[int, bytes] = {}
        self.signed: list[CheckpointRow] = []

    def append(self, build: Callable[[MemoryWriter], Batch | None]) -> Batch | None:
        """See ``core.ports.Records``."""
        batch = build(MemoryWriter(self))
        if batch is not None:
            self.rows |= {entry.seq: entry for entry in batch.entries}
            self.index += batch.index
            self.edges += batch.edges
            self.tree |= {(node.level, node.index): node.hash for node in batch.nodes}
            self.heads |= batch.shards
            self.signed.append(batch.checkpoint)
        return batch

    @contextmanager
    def snapshot(self) -> Iterator[MemoryRecords]:
        """See ``core.ports.Records``."""
        yield self

    def checkpoint(self) -> CheckpointRow | None:
        """See ``core.ports.Snapshot``."""
        return self.signed[-1] if self.signed else None

    def count(self) -> int:
        """See ``core.ports.Snapshot``."""
        return len(self.rows)

    def shards(self) -> dict[int, bytes]:
        """See ``core.ports.Snapshot``."""
        return dict(self.heads)

    def buckets(self, numbers: Collection[int]) -> dict[int, list[IndexRow]]:
        """See ``core.ports.Snapshot``."""
        found: dict[int, list[IndexRow]] = {number: [] for number in numbers}
        for row in sorted(self.index, key=lambda row: (row.seq, row.subject)):
            if row.bucket in found:
                found[row.bucket].append(row)
        return found

    def entries(self, seqs: Collection[int]) -> list[Entry]:
        """See ``core.ports.Snapshot``."""
        return [self.rows[seq] for seq in sorted(seqs) if seq in self.rows]

    def scan(self, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
        """See ``core.ports.Snapshot``."""
        return (self.rows[seq] for seq in sorted(self.rows) if start <= seq and (stop is None or seq < stop))

    def find(self, digest: Digest) -> Entry | None:
        """See ``core.ports.Snapshot``."""
        return next((entry for entry in self.rows.values() if entry.digest == digest), None)

    def find_prefix(self, prefix: str) -> Entry | None:
        """See ``core.ports.Snapshot``."""
        found = [entry for entry in self.rows.values() if entry.digest.startswith(prefix)]
        return found[0] if len(found) == 1 else None

    def search(self, *, predicate_type: str = "", subject: str = "", limit: int = 100) -> list[int]:
        """See ``core.ports.Snapshot``."""
        matching = {
            row.seq
            for row in self.index
            if row.subject.startswith(subject) and predicate_type in {"", row.predicate_type}
        }
        return sorted(matching, reverse=True)[:limit]

    def nodes(self, coordinates: Collection[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """See ``core.ports.Snapshot``."""
        return {where: self.tree[where] for where in coordinates if where in self.tree}

    def checkpoints(self) -> Iterator[CheckpointRow]:
        """See ``core.ports.Snapshot``."""
        return iter(sorted(self.signed, key=lambda row: row.size))

    def lineage(self, digest: Digest, *, forward: bool, depth: int = 64) -> list[Edge]:
        """See ``core.ports.Snapshot``."""
        reached, frontier, found = {digest}, {digest}, list[Edge]()
        for _ in range(depth):
            step = [edge for edge in self.edges if (edge.parent if forward else edge.child) in frontier]
            found += [edge for edge in step if edge not in found]
            frontier = {edge.child if forward else edge.parent for edge in step} - reached
            reached |= frontier
        return found


class MemoryWriter:
    """See ``core.ports.Writer``."""

    def __init__(self, records: MemoryRecords) -> None:
        self._records = records

    def checkpoint(self) -> CheckpointRow | None:
        """See ``core.ports.Writer``."""
        return self._records.checkpoint()

    def shards(self, numbers: Collection[int]) -> dict[int, bytes]:
        """See ``core.ports.Writer``."""
        return {number: self._records.heads[number] for number in numbers if number in self._records.heads}

    def known(self, digests: Collection[Digest]) -> dict[Digest, int]:
        """See ``core.ports.Writer``."""
        return {entry.digest: seq for seq, entry in self._records.rows.items() if entry.digest in digests}
