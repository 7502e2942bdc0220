"""``core.ports.Records`` over SQLAlchemy Core: rows in, rows out, nothing decided.

Every row is checked for the kind of its values when it is read: a database file is input too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Self

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bartizan.core.digest import Digest
from bartizan.core.errors import StoreError
from bartizan.core.ports import HEADS_PER_SHARD, Batch, CheckpointRow, Edge, Entry, IndexRow, Node
from bartizan.stores.records import persons
from bartizan.stores.records import tables as t
from bartizan.stores.records.engines import reading, writing
from bartizan.stores.records.errors import altered, store_errors

SCAN_BYTES = 16 * 1024 * 1024
"""A scan holds about this much at a time, or one entry if that is larger."""
SCAN_ROWS = 2000
MANY = 500
"""Values in one IN list."""
MAX_FOUND = 1_000_000
"""Entries that one search lists."""
INSERT_ROWS = 10_000
"""Rows handed to the driver at once."""
HASH_BYTES = 32
SHARD_BYTES = HEADS_PER_SHARD * HASH_BYTES

# The proofs of ``core.index`` hash these values one after the other. Only one form of each may pass, or
# a digest in capitals, or heads moved from one shard to the next, would hide a line and prove the rest.
_Number = Annotated[int, msgspec.Meta(ge=0)]
_Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Hash = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
_Heads = Annotated[bytes, msgspec.Meta(min_length=SHARD_BYTES, max_length=SHARD_BYTES)]
_INDEX_ROW = tuple[_Number, _Number, _Hex, str, _Hash]
_ENTRY_ROW = tuple[_Number, _Hex, bytes, str, _Number, _Hash]
_CHECKPOINT_ROW = tuple[_Number, str, bytes, _Number]

_BUCKETS = (
    sa.select(
        t.SUBJECT.c.bucket,
        t.SUBJECT.c.seq,
        t.SUBJECT.c.subject_digest,
        t.SUBJECT.c.predicate_type,
        t.SUBJECT.c.leaf_hash,
    )
    .where(t.SUBJECT.c.bucket.in_(sa.bindparam("numbers", expanding=True)))
    .order_by(t.SUBJECT.c.bucket, t.SUBJECT.c.seq, t.SUBJECT.c.subject_digest)
)
_ENTRY = sa.select(
    t.ENVELOPE.c.seq,
    t.ENVELOPE.c.digest,
    t.ENVELOPE.c.body,
    t.ENVELOPE.c.predicate_type,
    t.ENVELOPE.c.received_ms,
    t.ENVELOPE.c.leaf_hash,
)
_CHECKPOINT = sa.select(
    t.CHECKPOINT.c.size, t.CHECKPOINT.c.note, t.CHECKPOINT.c.frontier, t.CHECKPOINT.c.received_ms
).order_by(t.CHECKPOINT.c.size.desc())


_SPAN = _ENTRY.where(t.ENVELOPE.c.seq.between(sa.bindparam("first"), sa.bindparam("last"))).order_by(t.ENVELOPE.c.seq)
_SIZES = (
    sa.select(t.ENVELOPE.c.seq, sa.func.length(t.ENVELOPE.c.body))
    .where(t.ENVELOPE.c.seq >= sa.bindparam("start"))
    .order_by(t.ENVELOPE.c.seq)
    .limit(SCAN_ROWS)
)


class SqlRecords:
    """See ``core.ports.Records``; beside it, the names of persons. Made by ``open_records``."""

    def __init__(self, engine: Engine, place: str) -> None:
        self._engine = engine
        self._place = place

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    @contextmanager
    def snapshot(self) -> Iterator[SqlSnapshot]:
        """See ``core.ports.Records``."""
        with store_errors(self._place), reading(self._engine) as connection:
            yield SqlSnapshot(connection, self._place)

    def append(self, build: Callable[[SqlWriter], Batch | None]) -> Batch | None:
        """See ``core.ports.Records``."""
        with store_errors(self._place), writing(self._engine) as connection:
            batch = build(SqlWriter(connection, self._place))
            if batch is not None:
                _write(connection, batch)
            return batch

    def replace_derived(
        self, index: Iterable[IndexRow], edges: Iterable[Edge], nodes: Iterable[Node], shards: Mapping[int, bytes]
    ) -> None:
        """Replace every derived row, in one transaction.

        Raises:
            StoreError: the ledger grew since the rows were computed; nothing is replaced.
        """
        with store_errors(self._place), writing(self._engine) as connection:
            for table in (t.SUBJECT, t.EDGE, t.NODE, t.HEAD):
                connection.execute(table.delete())
            _write_derived(connection, index, edges, nodes, shards)
            self._check_all_indexed(connection)

    def _check_all_indexed(self, connection: Connection) -> None:
        # Every entry speaks about something, so the newest one has a line in the index.
        stored, indexed = (
            connection.execute(sa.select(sa.func.max(table.c.seq))).scalar() for table in (t.ENVELOPE, t.SUBJECT)
        )
        if stored != indexed:
            raise StoreError(
                f"the ledger at {self._place} grew while its index was computed",
                remedy="run `bartizan ledger reindex` again.",
            )

    def remember_principal(self, keyid: str, display: str, contact: str) -> None:
        """Keep the name behind a key id; replaces what was kept.

        Raises:
            StoreError: this person was erased.
        """
        with store_errors(self._place), writing(self._engine) as connection:
            persons.remember(connection, keyid, display, contact)

    def erase_principal(self, keyid: str, erased_at: str) -> None:
        """Forget the name behind a key id, down to the bytes on disk; the ledger stays as it is.

        Raises:
            StoreError: nobody is known by this key id.
        """
        with store_errors(self._place):
            persons.erase(self._engine, keyid, erased_at)

    def principals(self) -> dict[str, tuple[str, str]]:
        """Key id to (name, contact) of persons who were not erased."""
        with store_errors(self._place), reading(self._engine) as connection:
            return persons.known(connection)


class _Reader:
    def __init__(self, connection: Connection, place: str) -> None:
        self._connection = connection
        self._place = place

    def _rows(self, query: Any, kind: Any, **values: Any) -> list[Any]:
        try:
            with store_errors(self._place):
                rows = self._connection.execute(query, values).all()
            return msgspec.convert([tuple(row) for row in rows], list[kind])
        except (msgspec.ValidationError, UnicodeError, OverflowError) as error:
            raise altered(self._place, error) from error

    def checkpoint(self) -> CheckpointRow | None:
        """See ``core.ports.Snapshot``."""
        found = self._rows(_CHECKPOINT.limit(1), _CHECKPOINT_ROW)
        return _checkpoint(found[0]) if found else None

    def _shards(self, query: Any) -> dict[int, bytes]:
        return dict(self._rows(query, tuple[_Number, _Heads]))


class SqlWriter(_Reader):
    """See ``core.ports.Writer``."""

    def shards(self, numbers: Collection[int]) -> dict[int, bytes]:
        """See ``core.ports.Writer``."""
        return self._shards(sa.select(t.HEAD.c.shard, t.HEAD.c.hashes).where(t.HEAD.c.shard.in_(list(numbers))))

    def known(self, digests: Collection[Digest]) -> dict[Digest, int]:
        """See ``core.ports.Writer``."""
        found: dict[Digest, int] = {}
        for some in _portions(digests):
            query = sa.select(t.ENVELOPE.c.digest, t.ENVELOPE.c.seq).where(t.ENVELOPE.c.digest.in_(some))
            found |= {Digest(digest): seq for digest, seq in self._rows(query, tuple[_Hex, _Number])}
        return found


class SqlSnapshot(_Reader):
    """See ``core.ports.Snapshot``."""

    def count(self) -> int:
        """See ``core.ports.Snapshot``.

        Counts by the ends: an entry that is missing in between is noticed when it is asked for,
        and by a full verification.
        """
        # Two subqueries: SQLite answers one end from the index, but both together by reading everything.
        ends = (sa.select(end(t.ENVELOPE.c.seq)).scalar_subquery() for end in (sa.func.min, sa.func.max))
        [(first, last)] = self._rows(sa.select(*ends), tuple[_Number | None, _Number | None])
        return 0 if last is None or first is None else last + 1 - first

    def shards(self) -> dict[int, bytes]:
        """See ``core.ports.Snapshot``."""
        return self._shards(sa.select(t.HEAD.c.shard, t.HEAD.c.hashes))

    def buckets(self, numbers: Collection[int]) -> dict[int, list[IndexRow]]:
        """See ``core.ports.Snapshot``."""
        found: dict[int, list[IndexRow]] = {number: [] for number in numbers}
        for some in _portions(numbers):
            for bucket, seq, subject, kind, leaf in self._rows(_BUCKETS, _INDEX_ROW, numbers=some):
                row = IndexRow(bucket=bucket, subject=subject, predicate_type=kind, seq=seq, leaf_hash=leaf)
                found[bucket].append(row)
        return found

    def entries(self, seqs: Collection[int]) -> list[Entry]:
        """See ``core.ports.Snapshot``."""
        found: list[Entry] = []
        for some in _portions(sorted(seqs)):
            query = _ENTRY.where(t.ENVELOPE.c.seq.in_(sa.bindparam("seqs", expanding=True))).order_by(t.ENVELOPE.c.seq)
            found += [_entry(row) for row in self._rows(query, _ENTRY_ROW, seqs=some)]
        return found

    def scan(self, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
        """See ``core.ports.Snapshot``."""
        for first, last in self._spans(start, stop):
            yield from map(_entry, self._rows(_SPAN, _ENTRY_ROW, first=first, last=last))

    def _spans(self, start: int, stop: int | None) -> Iterator[tuple[int, int]]:
        """First and last entries of portions that fit into memory whatever the size of an entry."""
        sizes = _SIZES if stop is None else _SIZES.where(t.ENVELOPE.c.seq < stop)
        while rows := self._rows(sizes, tuple[_Number, _Number], start=start):
            first, held = rows[0][0], 0
            for seq, size in rows:
                if held and held + size > SCAN_BYTES:
                    yield first, seq - 1
                    first, held = seq, 0
                held += size
            yield first, rows[-1][0]
            start = rows[-1][0] + 1

    def find(self, digest: Digest) -> Entry | None:
        """See ``core.ports.Snapshot``."""
        rows = self._rows(_ENTRY.where(t.ENVELOPE.c.digest == sa.bindparam("digest")), _ENTRY_ROW, digest=digest)
        return _entry(rows[0]) if rows else None

    def find_prefix(self, prefix: str) -> Entry | None:
        """See ``core.ports.Snapshot``."""
        column = t.ENVELOPE.c.digest
        query = _ENTRY.where(column >= prefix, column < prefix + "g").limit(2)
        rows = self._rows(query, _ENTRY_ROW)
        return _entry(rows[0]) if len(rows) == 1 else None

    def search(self, *, predicate_type: str = "", subject: str = "", limit: int = 100) -> list[int]:
        """See ``core.ports.Snapshot``."""
        table = t.SUBJECT if subject else t.ENVELOPE
        query = sa.select(table.c.seq).distinct().order_by(table.c.seq.desc()).limit(min(max(limit, 0), MAX_FOUND))
        if predicate_type:
            query = query.where(table.c.predicate_type == predicate_type)
        if subject:
            column = t.SUBJECT.c.subject_digest
            query = query.where(column >= subject, column < subject + "g")
        return [row[0] for row in self._rows(query, tuple[_Number])]

    def nodes(self, coordinates: Collection[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """See ``core.ports.Snapshot``."""
        found: dict[tuple[int, int], bytes] = {}
        for level in {level for level, _ in coordinates}:
            for some in _portions([place for at, place in coordinates if at == level]):
                query = sa.select(t.NODE.c.place, t.NODE.c.hash).where(
                    t.NODE.c.level == level, t.NODE.c.place.in_(some)
                )
                found |= {(level, place): value for place, value in self._rows(query, tuple[_Number, _Hash])}
        return found

    def checkpoints(self) -> Iterator[CheckpointRow]:
        """See ``core.ports.Snapshot``."""
        after = -1
        query = _CHECKPOINT.order_by(None).order_by(t.CHECKPOINT.c.size).limit(SCAN_ROWS)
        while rows := self._rows(query.where(t.CHECKPOINT.c.size > after), _CHECKPOINT_ROW):
            yield from map(_checkpoint, rows)
            after = rows[-1][0]

    def lineage(self, digest: Digest, *, forward: bool, depth: int = 64) -> list[Edge]:
        """See ``core.ports.Snapshot``. Breadth first; a circle ends where it began."""
        near, far = (t.EDGE.c.parent, t.EDGE.c.child) if forward else (t.EDGE.c.child, t.EDGE.c.parent)
        columns = sa.select(t.EDGE.c.child, t.EDGE.c.parent, t.EDGE.c.kind, t.EDGE.c.seq)
        reached, frontier, found = {str(digest)}, {str(digest)}, list[Edge]()
        for _ in range(depth):
            rows = [
                row
                for some in _portions(sorted(frontier))
                for row in self._rows(
                    columns.where(near.in_(some)).order_by(far, t.EDGE.c.seq), tuple[_Hex, _Hex, str, _Number]
                )
            ]
            found += [Edge(child=Digest(c), parent=Digest(p), kind=kind, seq=seq) for c, p, kind, seq in rows]
            frontier = {row[0] if forward else row[1] for row in rows} - reached
            reached |= frontier
            if not frontier:
                break
        return found


def _portions(values: Collection[Any]) -> Iterator[list[Any]]:
    listed = list(values)
    for start in range(0, len(listed), MANY):
        yield listed[start : start + MANY]


def _entry(row: _ENTRY_ROW) -> Entry:
    seq, digest, body, kind, received, leaf = row
    return Entry(seq=seq, digest=Digest(digest), body=body, predicate_type=kind, received_ms=received, leaf_hash=leaf)


def _checkpoint(row: _CHECKPOINT_ROW) -> CheckpointRow:
    size, note, frontier, received = row
    return CheckpointRow(size=size, note=note, frontier=frontier, received_ms=received)


def _write(connection: Connection, batch: Batch) -> None:
    _insert(connection, t.ENVELOPE, map(msgspec.structs.astuple, batch.entries))
    _write_derived(connection, batch.index, batch.edges, batch.nodes, batch.shards)
    _insert(connection, t.CHECKPOINT, [msgspec.structs.astuple(batch.checkpoint)])


def _write_derived(
    connection: Connection,
    index: Iterable[IndexRow],
    edges: Iterable[Edge],
    nodes: Iterable[Node],
    shards: Mapping[int, bytes],
) -> None:
    subjects = ((row.bucket, row.seq, row.subject, row.predicate_type, row.leaf_hash) for row in index)
    _insert(connection, t.SUBJECT, subjects)
    _insert(connection, t.EDGE, map(msgspec.structs.astuple, dict.fromkeys(edges)))
    _insert(connection, t.NODE, map(msgspec.structs.astuple, nodes))
    if shards:
        connection.execute(t.HEAD.delete().where(t.HEAD.c.shard.in_(list(shards))))
        _insert(connection, t.HEAD, shards.items())


def _insert(connection: Connection, table: sa.Table, rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert rows whose values stand in the order of the table's columns, straight through the driver."""
    names = ", ".join(table.columns.keys())
    marks = ", ".join(["?" if connection.dialect.name == "sqlite" else "%s"] * len(table.columns))
    statement = f"INSERT INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608 - names from our own tables
    waiting = iter(rows)
    while some := list(itertools.islice(waiting, INSERT_ROWS)):
        connection.exec_driver_sql(statement, some)
