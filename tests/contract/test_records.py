"""One contract over every ledger store, on real servers."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from bartizan.core import audit, envelope, ledger, predicates, statement
from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import EvidenceError, LedgerError, StoreError
from bartizan.core.ports import Batch, CheckpointRow, Edge, Entry, IndexRow, Node
from bartizan.core.view import View
from bartizan.stores import migrations
from bartizan.stores.records import open_records
from bartizan.stores.records.opening import SCHEMA_VERSION
from bartizan.stores.records.tables import METADATA
from bartizan.testing.memory import MemoryRecords
from fixtures.appending import append_statements, begin
from fixtures.world import RULES, World

REAL = pytest.mark.parametrize("location", ["sqlite", "postgresql"], indirect=True)
"""For what the fake in memory cannot show: it is its own snapshot and keeps nothing."""


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def location(request, tmp_path):
    match request.param:
        case "memory":
            return ""
        case "sqlite":
            return str(tmp_path / "ledger.db")
        case _:
            return request.getfixturevalue("postgres_url")


@pytest.fixture
def records(location):
    if not location:
        yield MemoryRecords()
        return
    opened = open_records(location)
    yield opened
    opened.close()


@pytest.fixture
def stored(records):
    """A world whose ledger lies in the store under test."""
    return World(records=records).begin()


def test_an_empty_store_has_nothing(records):
    with records.snapshot() as snapshot:
        assert snapshot.checkpoint() is None
        assert snapshot.count() == 0
        assert list(snapshot.scan()) == []
        assert View.open(snapshot, None) is None


def test_the_whole_core_works_on_it(stored):
    assert not stored.gate().passed
    stored.good()
    assert stored.gate(RULES).passed
    stored.scan("FAILED")
    assert not stored.gate(RULES).passed
    with stored.records.snapshot() as snapshot:
        assert audit.audit(snapshot, None).checkpoint.size == 5


def test_stores_give_back_exactly_what_was_written(stored):
    stored.good()
    stored.revoke("artefact", stored.data.digest)
    twin = World(signers=stored.signers)
    with stored.records.snapshot() as snapshot:
        rebuilt = audit.rebuild(snapshot.scan())
        buckets = sorted({row.bucket for row in rebuilt.index})
        found = [row for rows in snapshot.buckets(buckets).values() for row in rows]
        assert sorted(found, key=repr) == sorted(rebuilt.index, key=repr)
        assert snapshot.shards() == rebuilt.shards
        places = {(node.level, node.index): node.hash for node in rebuilt.nodes}
        assert snapshot.nodes(places) == places
        assert [entry.seq for entry in snapshot.scan(1, 3)] == [1, 2]
        assert [row.size for row in snapshot.checkpoints()] == [1, 2, 3, 4, 5]
        for entry in snapshot.scan():
            assert snapshot.find(entry.digest) == entry == snapshot.find_prefix(entry.digest[:16])
            assert snapshot.entries([entry.seq, 10_000]) == [entry]
        assert snapshot.find(Digest("0" * 64)) is None
        assert snapshot.find_prefix("zz") is None
        assert snapshot.search(predicate_type=predicates.REVOCATION) == [4]
        assert snapshot.search(subject=stored.data.digest[:20]) == [4]
    assert twin.view() is None


@REAL
def test_a_snapshot_does_not_see_what_comes_later(stored):
    stored.good()
    with stored.records.snapshot() as snapshot:
        before = snapshot.checkpoint()
        stored.scan("FAILED")
        assert snapshot.checkpoint() == before
        assert snapshot.count() == before.size


def test_nothing_is_written_when_building_fails(stored):
    stored.good()
    with pytest.raises(EvidenceError):
        stored.append(b"no envelope")
    with pytest.raises(ZeroDivisionError):
        stored.records.append(lambda _: 1 // 0)
    assert stored.view().checkpoint.size == 4


def test_lineage_is_followed_both_ways_and_circles_end(records):
    digests = {name: digest_bytes(name.encode()) for name in "abcd"}
    pairs = [("b", "a"), ("c", "b"), ("d", "c"), ("a", "d")]
    edges = tuple(Edge(child=digests[child], parent=digests[parent], kind="card", seq=0) for child, parent in pairs)
    empty = CheckpointRow(size=0, note="", frontier=b"", received_ms=0)
    records.append(lambda _: Batch(entries=_entries(), index=(), edges=edges, nodes=(), shards={}, checkpoint=empty))
    with records.snapshot() as snapshot:
        forward = snapshot.lineage(digests["a"], forward=True)
        assert [edge.child for edge in forward] == [digests[name] for name in "bcda"]
        back = snapshot.lineage(digests["a"], forward=False, depth=1)
        assert [edge.parent for edge in back] == [digests["d"]]


def _entries():
    leaf = hashlib.sha256(b"").digest()
    return (Entry(seq=0, digest=digest_bytes(b""), body=b"", predicate_type="x", received_ms=0, leaf_hash=leaf),)


def test_large_requests_are_answered_in_portions(records):
    rows = tuple(
        IndexRow(
            bucket=number % 4096, subject=digest_bytes(b"%d" % number), predicate_type="x", seq=0, leaf_hash=b"l" * 32
        )
        for number in range(3000)
    )
    nodes = tuple(Node(level=1, index=number, hash=b"h" * 32) for number in range(3000))
    empty = CheckpointRow(size=0, note="", frontier=b"", received_ms=0)
    records.append(
        lambda _: Batch(entries=_entries(), index=rows, edges=(), nodes=nodes, shards={0: b"x"}, checkpoint=empty)
    )
    with records.snapshot() as snapshot:
        assert sum(len(found) for found in snapshot.buckets(range(4096)).values()) == 3000
        assert len(snapshot.nodes([(1, number) for number in range(3000)])) == 3000


@REAL
def test_two_processes_lose_nothing_and_leave_no_gap(location, records):
    begin(records)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=append_statements, args=(location, name, 25)) for name in ("one", "two")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    with records.snapshot() as snapshot:
        assert audit.audit(snapshot, None).checkpoint.size == 51


@REAL
def test_nothing_acknowledged_is_lost_when_the_process_is_killed(location, records, tmp_path):
    begin(records)
    randomness = random.Random(7)
    acknowledged: set[str] = set()
    script = Path(__file__).parents[1] / "fixtures" / "appending.py"
    appended = 0
    while appended < 200:
        stop_after = randomness.randrange(20, 60)
        with subprocess.Popen(
            [sys.executable, str(script), location, str(appended)], stdout=subprocess.PIPE, text=True, cwd=tmp_path
        ) as child:
            for count, line in enumerate(child.stdout, start=1):
                acknowledged.add(line.strip())
                appended += 1
                if count == stop_after:
                    os.kill(child.pid, signal.SIGKILL)
                    break
            acknowledged |= {line.strip() for line in child.stdout if len(line.strip()) == 64}
    with records.snapshot() as snapshot:
        kept = {entry.digest for entry in snapshot.scan()}
        assert acknowledged <= kept
        assert len(acknowledged) >= 200
        assert audit.audit(snapshot, None).checkpoint.size == len(kept)


@pytest.mark.parametrize("location", ["sqlite"], indirect=True)
class TestSqliteFile:
    """What can be wrong with a file."""

    def test_a_newer_schema_is_refused(self, location, records):
        with records._engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(StoreError, match="another version"):
            open_records(location)

    def test_what_is_no_database_is_refused(self, tmp_path, location):
        del location
        for number, data in enumerate([b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 4096]):
            path = tmp_path / f"bad{number}.db"
            path.write_bytes(data)
            with pytest.raises(StoreError, match="failed"):
                open_records(str(path))

    def test_a_folder_is_no_database(self, tmp_path, location):
        del location
        with pytest.raises(StoreError):
            open_records(str(tmp_path))

    def test_values_of_the_wrong_kind_are_refused(self, location, records):
        del location
        world = World(records=records).begin()
        with records._engine.begin() as connection:
            connection.exec_driver_sql("UPDATE envelope SET received_ms = 'soon'")
        with pytest.raises((StoreError, LedgerError)):
            world.view()

    def test_any_flipped_byte_of_the_file_never_turns_a_refusal_into_a_pass(self, tmp_path, location, records):
        world = World(records=records).begin().good()
        world.scan("FAILED")
        world.pin = world.view().pin()
        assert not world.gate().passed
        records.close()
        whole = Path(location).read_bytes()
        randomness = random.Random(3)
        for number in range(300):
            broken = bytearray(whole)
            for _ in range(randomness.choice([1, 1, 3, 20])):
                broken[randomness.randrange(len(broken))] ^= 1 << randomness.randrange(8)
            path = tmp_path / f"flip{number}.db"
            path.write_bytes(bytes(broken))
            assert not _passes(world, path)
            path.unlink()


def _passes(world, path) -> bool:
    try:
        opened = open_records(str(path))
    except StoreError:
        return False
    try:
        return World(signers=world.signers, records=opened, now=world.now, pin=world.pin).gate().passed
    except (EvidenceError, StoreError):
        return False
    finally:
        opened.close()


def test_schema_version_is_the_newest_migration():
    versions = sorted(Path(migrations.__path__[0], "versions").glob("[0-9]*.py"))
    assert versions[-1].name.startswith(SCHEMA_VERSION)


def test_migrations_make_the_tables_that_the_code_uses(tmp_path):
    records = open_records(str(tmp_path / "x.db"))
    inspector = sa.inspect(records._engine)
    for table in METADATA.sorted_tables:
        columns = {column["name"]: column["nullable"] for column in inspector.get_columns(table.name)}
        assert columns == {column.name: column.nullable for column in table.columns}
        assert {index["name"] for index in inspector.get_indexes(table.name)} >= {index.name for index in table.indexes}
    records.close()


@pytest.mark.parametrize(
    "url", ["mysql://x/y", "nonsense://", "postgresql+psycopg://127.0.0.1:1/none", "postgresql+psycopg://[::"]
)
def test_other_addresses_are_refused_with_a_remedy(url):
    with pytest.raises(StoreError) as caught:
        open_records(url)
    assert caught.value.remedy


@REAL
def test_persons_can_be_erased_without_touching_the_ledger(stored):
    stored.good()
    before = stored.view().note
    stored.records.remember_principal("k" * 64, "Ana", "ana@example.org")
    assert stored.records.principals() == {"k" * 64: ("Ana", "ana@example.org")}
    stored.records.erase_principal("k" * 64, "2026-11-21")
    assert stored.records.principals() == {}
    assert stored.view().note == before


@REAL
def test_derived_rows_can_be_replaced(stored):
    stored.good()
    with stored.records.snapshot() as snapshot:
        rebuilt = audit.rebuild(snapshot.scan())
    with stored.records._engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM subject")
    with pytest.raises(EvidenceError):
        stored.gate()
    stored.records.replace_derived(rebuilt.index, rebuilt.edges, rebuilt.nodes, rebuilt.shards)
    assert stored.gate().passed


def test_appending_needs_what_the_ledger_was_when_it_was_opened(stored):
    stored.good()
    with pytest.raises(LedgerError, match="not empty"):
        ledger.append(
            stored.records, [_any_body(stored)], now_ms=0, signer=stored.signers["service"], origin="o", expect=None
        )


def _any_body(world):
    predicate = predicates.TestResult(result="PASSED", summary="another")
    return envelope.seal_statement(
        statement.make(predicates.TEST_RESULT, world.model, predicate), [world.signers["service"]]
    )
