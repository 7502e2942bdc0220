"""Databases that somebody tampered with, that belong to others, or that cannot do their work."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sqlite3
import tempfile
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url

from bartizan.core import audit, predicates
from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import EvidenceError, StoreError
from bartizan.core.index import bucket_of
from bartizan.core.ports import REVOCATIONS, Batch, CheckpointRow, Edge, Entry, IndexRow, Node
from bartizan.stores.records import engines, open_records, sql
from bartizan.stores.records.engines import make_engine, parse_location, writing
from fixtures.appending import begin
from fixtures.world import RULES, World

ROOT = os.geteuid() == 0


def run(records, statement, **values):
    with records._engine.begin() as connection:
        return connection.execute(sa.text(statement), values)


@pytest.fixture
def refused(sql_records):
    """A world whose gate refuses because the newest scan failed."""
    world = World(records=sql_records).begin().good()
    world.scan("FAILED")
    world.pin = world.view().pin()
    assert not world.gate(RULES).passed
    return world


def newest_line(world):
    return {"bucket": bucket_of(world.model.digest), "seq": world.view().checkpoint.size - 1}


WHERE = "WHERE bucket = :bucket AND seq = :seq"
HIDING = {
    "removed": f"DELETE FROM subject {WHERE}",
    "in capitals": f"UPDATE subject SET subject_digest = upper(subject_digest) {WHERE}",
    "with a new type": f"UPDATE subject SET predicate_type = 'x' {WHERE}",
    "in another bucket": f"UPDATE subject SET bucket = 4000 {WHERE}",
    "with another number": f"UPDATE subject SET seq = seq - 100 {WHERE}",
}


@pytest.mark.parametrize("change", HIDING.values(), ids=HIDING.keys())
def test_a_line_of_the_index_that_is_hidden_is_missed(refused, change):
    run(refused.records, change, **newest_line(refused))
    with pytest.raises((EvidenceError, StoreError)):
        refused.gate(RULES)


@pytest.mark.parametrize(
    "change",
    [
        # bytes.fromhex reads over white space, so the hash chain would still add up.
        "subject_digest = subject_digest || char(10)",
        "subject_digest = substr(subject_digest, 1, 8) || ' ' || substr(subject_digest, 9)",
        # Bytes moved between neighbours leave their concatenation as it was.
        "leaf_hash = CAST(leaf_hash || 'https' AS BLOB), predicate_type = substr(predicate_type, 6)",
    ],
    ids=["line end", "space", "moved bytes"],
)
def test_another_spelling_of_the_same_line_is_refused(tmp_path, change):
    with open_records(str(tmp_path / "ledger.db")) as records:
        world = World(records=records).begin().good()
        world.scan("FAILED")
        run(records, f"UPDATE subject SET {change} {WHERE}", **newest_line(world))
        with pytest.raises((EvidenceError, StoreError)):
            world.gate(RULES)


def test_a_revocation_cannot_be_hidden_by_moving_heads_from_shard_to_shard(sql_records):
    world = World(records=sql_records).begin().good()
    world.revoke("artefact", world.model.digest)
    world.pin = world.view().pin()
    assert not world.gate(RULES).passed
    with sql_records.snapshot() as snapshot:
        shards = snapshot.shards()
    before, last = shards.get(63, bytes(sql.SHARD_BYTES)), shards[64]
    run(sql_records, "DELETE FROM head WHERE shard IN (63, 64)")
    for shard, heads in ((63, before + last[:32]), (64, last[32:])):
        run(sql_records, "INSERT INTO head (shard, hashes) VALUES (:shard, :heads)", shard=shard, heads=heads)
    run(sql_records, "DELETE FROM subject WHERE bucket = :bucket", bucket=REVOCATIONS)
    with pytest.raises((EvidenceError, StoreError)):
        world.gate(RULES)


@pytest.mark.parametrize("number", ["-1", "1e300", "'soon'", "x'00'", "NULL"])
@pytest.mark.parametrize("column", ["seq", "received_ms", "digest", "body", "leaf_hash", "predicate_type"])
def test_values_of_the_wrong_kind_never_reach_the_core(tmp_path, column, number):
    path = str(tmp_path / "ledger.db")
    with open_records(path) as records:
        world = World(records=records).begin().good()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '')")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE envelope SET {column} = {number} WHERE seq = 2")
    with pytest.raises((EvidenceError, StoreError)):
        audit_of(path, world.pin)


def audit_of(path, pin):
    with open_records(path) as records, records.snapshot() as snapshot:
        audit.audit(snapshot, pin)


def test_a_database_of_another_program_is_left_alone(ledger_location):
    engine = make_engine(parse_location(ledger_location))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE bookmarks (id INTEGER)")
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('abc')")
    with pytest.raises(StoreError, match="belongs to another program") as caught:
        open_records(ledger_location)
    assert "of its own" in caught.value.remedy
    assert set(sa.inspect(engine).get_table_names()) == {"bookmarks", "alembic_version"}
    engine.dispose()


def test_a_schema_of_the_future_is_refused(ledger_location, sql_records):
    run(sql_records, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="another version") as caught:
        open_records(ledger_location)
    assert "upgrade bartizan" in caught.value.remedy


def test_a_ledger_of_the_first_schema_is_upgraded_and_keeps_its_entries(ledger_location):
    engine = make_engine(parse_location(ledger_location))
    config = Config()
    config.set_main_option("script_location", str(Path(sql.__file__).parents[1] / "migrations"))
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with writing(engine) as connection:
        sql._insert(
            connection,
            sql.t.ENVELOPE,
            [(0, digest_bytes(b""), b"", predicates.CARD, 5, b"l" * 32)],
        )
    engine.dispose()
    with open_records(ledger_location) as records, records.snapshot() as snapshot:
        assert snapshot.search(predicate_type=predicates.CARD) == [0]
        names = {index["name"] for index in sa.inspect(snapshot._connection).get_indexes("envelope")}
        assert "envelope_by_type" in names


def _append_many(location, worker):
    with open_records(location) as records:
        for number in range(100):
            records.append(lambda writer, body=b"%d %d" % (worker, number): _next_batch(writer, body))


def _next_batch(writer, body):
    """One entry after the last one, with rows in every table that name it."""
    row = writer.checkpoint()
    seq, digest = row.size if row else 0, digest_bytes(body)
    entry = Entry(
        seq=seq, digest=digest, body=body, predicate_type="x", received_ms=seq, leaf_hash=bytes.fromhex(digest)
    )
    line = IndexRow(bucket=seq, subject=digest, predicate_type="x", seq=seq, leaf_hash=entry.leaf_hash)
    return Batch(
        entries=(entry,),
        index=(line,),
        edges=(Edge(child=digest, parent=digest_bytes(b""), kind="card", seq=seq),),
        nodes=(Node(level=1, index=seq, hash=entry.leaf_hash),),
        shards={0: entry.leaf_hash * 64},
        checkpoint=CheckpointRow(size=seq + 1, note="", frontier=b"", received_ms=seq),
    )


def test_batches_of_two_processes_neither_mix_nor_overlap(ledger_location, sql_records):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append_many, args=(ledger_location, worker)) for worker in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    with sql_records.snapshot() as snapshot:
        entries = list(snapshot.scan())
        assert [entry.seq for entry in entries] == list(range(200))
        assert {entry.body for entry in entries} == {b"%d %d" % (who, n) for who in (1, 2) for n in range(100)}
        digests = [entry.digest for entry in entries]
        assert [rows[0].subject for rows in snapshot.buckets(range(200)).values()] == digests
        assert {edge.child for edge in snapshot.lineage(digest_bytes(b""), forward=True)} == set(digests)
        assert len(snapshot.nodes([(1, seq) for seq in range(200)])) == 200
        assert [row.size for row in snapshot.checkpoints()] == list(range(1, 201))


def _open_and_close(location, barrier):
    barrier.wait()
    open_records(location).close()


def test_processes_that_open_a_new_ledger_at_once_all_succeed(ledger_location):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    workers = [context.Process(target=_open_and_close, args=(ledger_location, barrier)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]


def test_a_ledger_that_stays_locked_is_an_error_and_not_a_wait_for_ever(ledger_location, monkeypatch):
    monkeypatch.setattr(engines, "WAIT_SECONDS", 1)
    with open_records(ledger_location) as first, open_records(ledger_location) as second:
        with writing(first._engine):
            began = time.monotonic()
            with pytest.raises(StoreError) as caught:
                second.append(lambda _: None)
            assert time.monotonic() - began < 60
        assert "another process holds the ledger" in caught.value.remedy
        assert second.append(lambda _: None) is None


def test_a_reader_is_not_held_up_by_an_append(ledger_location):
    with open_records(ledger_location) as records:
        begin(records)
        with writing(records._engine), records.snapshot() as snapshot:
            assert snapshot.count() == 1


def test_a_snapshot_begins_when_it_is_taken(sql_records):
    world = World(records=sql_records).begin()
    with sql_records.snapshot() as snapshot:
        world.good()
        assert snapshot.count() == 1


def test_derived_rows_that_lag_behind_the_ledger_are_not_taken(sql_records):
    world = World(records=sql_records).begin().good()
    with sql_records.snapshot() as snapshot:
        rebuilt = audit.rebuild(snapshot.scan())
    world.scan()
    with pytest.raises(StoreError, match="grew while") as caught:
        sql_records.replace_derived(rebuilt.index, rebuilt.edges, rebuilt.nodes, rebuilt.shards)
    assert "again" in caught.value.remedy
    assert world.gate().passed


def test_a_failed_batch_leaves_nothing_behind(sql_records):
    world = World(records=sql_records).begin().good()
    with sql_records.snapshot() as snapshot:
        [entry] = snapshot.entries([2])
        row = snapshot.checkpoint()
    again = Batch(entries=(entry,), index=(), edges=(), nodes=(), shards={}, checkpoint=row)
    with pytest.raises(StoreError):
        sql_records.append(lambda _: again)
    assert world.view().checkpoint.size == 4
    assert world.gate().passed


def test_a_scan_holds_little_at_a_time(sql_records, monkeypatch):
    sizes = [10, 10, 500, 10, 90, 20, 1, 0, 0, 300]
    leaf = b"l" * 32
    entries = tuple(
        Entry(
            seq=seq,
            digest=digest_bytes(b"%d" % seq),
            body=b"x" * size,
            predicate_type="x",
            received_ms=0,
            leaf_hash=leaf,
        )
        for seq, size in enumerate(sizes)
    )
    row = CheckpointRow(size=len(sizes), note="", frontier=b"", received_ms=0)
    sql_records.append(lambda _: Batch(entries=entries, index=(), edges=(), nodes=(), shards={}, checkpoint=row))
    monkeypatch.setattr(sql, "SCAN_BYTES", 100)
    monkeypatch.setattr(sql, "SCAN_ROWS", 4)
    with sql_records.snapshot() as snapshot:
        spans = list(snapshot._spans(0, None))
        assert all(sum(sizes[first : last + 1]) <= 100 or first == last for first, last in spans)
        assert [entry.seq for entry in snapshot.scan()] == list(range(10))
        assert [entry.seq for entry in snapshot.scan(3, 8)] == [3, 4, 5, 6, 7]
        assert list(snapshot.scan(10)) == []


def test_searches_are_bounded_and_newest_first(sql_records):
    world = World(records=sql_records).begin().good()
    for _ in range(5):
        world.scan()
    with sql_records.snapshot() as snapshot:
        assert snapshot.search(limit=3) == [8, 7, 6]
        assert snapshot.search(predicate_type=predicates.TEST_RESULT, limit=2) == [8, 7]
        assert snapshot.search(subject=world.model.digest[:6], predicate_type=predicates.DECISION) == [3]
        assert snapshot.search(limit=0) == snapshot.search(limit=-1) == []
        assert snapshot.search(subject="%") == snapshot.search(subject="'; --") == []
        assert len(snapshot.search(limit=10**30)) == 9
        with pytest.raises(StoreError):
            snapshot.find(Digest("\ud800"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_connections_of_its_own(ledger_location):
    with open_records(ledger_location) as records:
        world = begin(records)
        child = multiprocessing.get_context("fork").Process(target=world.scan)
        child.start()
        child.join()
        assert child.exitcode == 0
        assert world.view().checkpoint.size == 2
        world.scan("FAILED")
        assert world.view().checkpoint.size == 3


class TestPersons:
    """Names beside the ledger."""

    KEY = "k" * 64

    def test_an_erased_name_is_gone_from_the_disk(self, tmp_path):
        path = tmp_path / "ledger.db"
        with open_records(str(path)) as records:
            records.remember_principal(self.KEY, "Ana Unusual-Name", "ana@example.org")
            records.remember_principal("j" * 64, "Bo", "bo@example.org")
            assert self.on_disk(path, b"Unusual-Name")
            records.erase_principal(self.KEY, "2026-11-21")
            assert not self.on_disk(path, b"Unusual-Name")
            assert records.principals() == {"j" * 64: ("Bo", "bo@example.org")}

    @staticmethod
    def on_disk(path, name):
        return any(name in part.read_bytes() for part in path.parent.glob("ledger.db*"))

    def test_erasing_says_when_a_reader_still_holds_an_old_copy(self, tmp_path, monkeypatch):
        monkeypatch.setattr(engines, "WAIT_SECONDS", 0.2)
        with open_records(str(tmp_path / "ledger.db")) as records:
            records.remember_principal(self.KEY, "Ana", "")
            with records.snapshot(), pytest.raises(StoreError, match="still in use"):
                records.erase_principal(self.KEY, "2026-11-21")
            records.erase_principal(self.KEY, "2026-11-21")
            assert records.principals() == {}

    def test_an_erased_name_does_not_come_back_by_itself(self, sql_records):
        sql_records.remember_principal(self.KEY, "Ana", "")
        sql_records.remember_principal(self.KEY, "Ana B.", "x")
        assert sql_records.principals() == {self.KEY: ("Ana B.", "x")}
        sql_records.erase_principal(self.KEY, "2026-11-21")
        with pytest.raises(StoreError, match="was erased"):
            sql_records.remember_principal(self.KEY, "Ana", "")
        with pytest.raises(StoreError, match="nobody is known"):
            sql_records.erase_principal("x" * 64, "2026-11-21")
        assert sql_records.principals() == {}


def scan_often(world):
    for _ in range(50):
        world.scan()


class TestSqlite:
    """What can be wrong with a file."""

    def test_it_is_for_its_owner_alone(self, tmp_path):
        path = tmp_path / "ledger.db"
        with open_records(str(path)) as records, records.snapshot():
            assert {part.stat().st_mode & 0o777 for part in tmp_path.glob("ledger.db*")} == {0o600}

    @pytest.mark.parametrize("place", ["sqlite://", "sqlite:///:memory:", ":memory:", ""])
    def test_memory_is_no_ledger(self, place):
        with pytest.raises(StoreError, match="keep nothing"):
            open_records(place)

    def test_odd_paths_are_errors(self, tmp_path):
        (tmp_path / "file").write_text("x")
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "file/ledger.db", tmp_path / "nul\0", tmp_path, tmp_path / "pipe"):
            with pytest.raises(StoreError) as caught:
                open_records(str(path))
            assert caught.value.remedy

    def test_a_file_that_was_cut_is_refused(self, tmp_path):
        path = tmp_path / "ledger.db"
        with open_records(str(path)) as records:
            world = World(records=records).begin().good()
            for _ in range(20):
                world.scan()
        whole = path.read_bytes()
        for share in (0.1, 0.4, 0.7, 0.95):
            path.write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises((StoreError, EvidenceError)):
                audit_of(str(path), None)

    def test_a_full_disk_is_said_and_keeps_what_was_recorded(self, tmp_path):
        with open_records(str(tmp_path / "ledger.db")) as records:
            world = begin(records)
            with records._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA max_page_count=1")
            with pytest.raises(StoreError) as caught:
                scan_often(world)
            assert "free some space" in caught.value.remedy
            with records._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA max_page_count=1000000")
            world.scan()
        audit_of(str(tmp_path / "ledger.db"), None)

    @pytest.mark.skipif(not ROOT, reason="becomes another user to have no rights")
    def test_a_file_that_cannot_be_written_is_refused(self):
        with tempfile.TemporaryDirectory() as name:
            folder, path = Path(name), Path(name, "ledger.db")
            open_records(str(path)).close()
            path.chmod(0o444)
            folder.chmod(0o755)
            os.setresuid(65534, 65534, 0)
            try:
                with pytest.raises(StoreError) as caught:
                    open_records(str(path))
            finally:
                os.setresuid(0, 0, 0)
            assert "can be written" in caught.value.remedy


class TestPostgresql:
    """What can be wrong with a server."""

    def test_a_server_that_is_gone_is_said_and_one_that_is_back_is_used(self, postgres_url):
        with open_records(postgres_url) as records:
            world = begin(records)
            with records.snapshot() as snapshot, open_records(postgres_url) as other:
                run(
                    other,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()",
                )
                with pytest.raises(StoreError) as caught:
                    snapshot.count()
            assert "server runs" in caught.value.remedy
            assert world.view().checkpoint.size == 1

    def test_a_server_that_only_reads_is_refused(self, postgres_url):
        open_records(postgres_url).close()
        url = make_url(postgres_url)
        url = url.update_query_dict({"options": "-c default_transaction_read_only=on"})
        with pytest.raises(StoreError, match="read-only"):
            open_records(url.render_as_string(hide_password=False))

    def test_a_database_or_user_that_does_not_exist_is_said_without_the_password(self, postgres_url):
        url = make_url(postgres_url)
        for wrong in (url.set(database="absent", password="hunter2"), url.set(username="nobody", password="hunter2")):
            with pytest.raises(StoreError) as caught:
                open_records(wrong.render_as_string(hide_password=False))
            assert "hunter2" not in str(caught.value)
            assert caught.value.remedy

    def test_a_server_that_does_not_answer_is_given_up(self, monkeypatch):
        monkeypatch.setattr(engines, "CONNECT_SECONDS", 2)
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
            began = time.monotonic()
            with pytest.raises(StoreError) as caught:
                open_records(f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x")
        assert time.monotonic() - began < 60
        assert "server" in caught.value.remedy

    def test_appends_are_durable_even_where_the_server_is_told_not_to_be(self, postgres_url):
        url = make_url(postgres_url).update_query_dict({"options": "-c synchronous_commit=off"})
        with (
            open_records(url.render_as_string(hide_password=False)) as records,
            writing(records._engine) as connection,
        ):
            assert connection.execute(sa.text("SHOW synchronous_commit")).scalar() == "on"

    def test_a_gate_reads_by_index_even_without_statistics(self, sql_records, postgres_url):
        del sql_records
        with open_records(postgres_url) as records, records.snapshot() as snapshot:
            query = "EXPLAIN SELECT * FROM subject WHERE bucket IN (1, 2, 3)"
            plan = "\n".join(snapshot._connection.execute(sa.text(query)).scalars())
            assert "Seq Scan" not in plan


def test_threads_share_one_ledger(sql_records):
    begin(sql_records)
    seen, failures = [], []

    def read():
        try:
            for _ in range(20):
                with sql_records.snapshot() as snapshot:
                    seen.append(snapshot.count())
        except Exception as error:  # noqa: BLE001 - whatever it is, the test must show it
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert seen == [1] * 160
