"""One contract over every database that an audit log may lie in, on real servers."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest

from bartizan.core.errors import StoreError
from bartizan.lifecycle.deploy.gateway.audit import searching
from bartizan.lifecycle.deploy.gateway.audit.entries import ANSWERED
from bartizan.lifecycle.deploy.gateway.audit.store import Kept, Secret
from bartizan.lifecycle.deploy.gateway.audit.tree import Tree
from bartizan.lifecycle.deploy.gateway.audit.writer import Rhythm, item
from bartizan.stores.audit import open_audit
from bartizan.stores.audit.sqlite import SqliteAudit
from fixtures import auditlogs
from fixtures.auditlogs import START, fill, record, report, writer

FIXTURE = Path(auditlogs.__file__)


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path):
    return str(tmp_path / "audit.db") if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def store(location):
    opened = open_audit(location)
    yield opened
    opened.close()


def test_an_empty_log_is_sound(store):
    found = report(store)
    assert (found.records, found.checkpoints, found.problems) == (0, 0, ())
    with store.reading() as reading:
        assert reading.newest_note() is None
        assert searching.search(reading, searching.Query()).found == ()


def test_what_was_written_is_read_and_verifies(store):
    records = fill(store, 700)
    found = report(store)
    assert (found.records, found.unsigned, found.problems) == (700, 0, ())
    with store.reading() as reading:
        rows = list(reading.rows(0, 1000))
        assert [row.seq for row in rows] == list(range(700))
        assert reading.leaves(256, 260) == [row.leaf for row in rows[256:260]]
        assert Tree(reading).root(700).hex() == found.root
        hits = searching.search(reading, searching.Query(limit=700)).found
        assert [hit.record for hit in hits] == records[::-1]
        assert reading.between(START, START + 10_000_000) == (0, 9)


def test_a_log_goes_on_where_it_ended(location):
    for size in (300, 301):
        store = open_audit(location)
        writer(store).write([item(record(number)) for number in range(size)])
        store.close()
    store = open_audit(location)
    found = report(store)
    store.close()
    assert (found.records, found.problems) == (601, ())


def test_a_batch_is_written_whole_or_not_at_all(store, monkeypatch):
    fill(store, 10)
    into = writer(store)
    monkeypatch.setattr(into, "_note", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        into.write([item(record(99))])
    assert report(store).records == 10
    fill(store, 5)
    found = report(store)
    assert (found.records, found.problems) == (15, ())


def test_what_was_put_is_written_once_the_disk_was_waited_for(store):
    """A server has to be waited for: nothing is put there, and nothing is written in passing."""
    into = writer(store, often=Rhythm(3600, 1_000_000))
    into.write([item(record(0))])
    put = [into.put([item(record(number))]) for number in range(1, 300)]
    store.sync()
    assert set(put) == {isinstance(store, SqliteAudit)}
    into.write([item(record(300))], sign=True)
    found = report(store)
    assert (found.records, found.unsigned, found.problems) == (301 if all(put) else 2, 0, ())


def test_several_writers_never_fork(location):
    """Replicas: each with its own connection, all appending at once to one tree."""
    stores = [open_audit(location) for _ in range(4)]
    failed = []

    def write(store, name):
        try:
            into = writer(store)
            for number in range(60):
                into.write([item(record(number, caller=f"replica:{name}")) for _ in range(3)])
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=write, args=(store, name)) for name, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    found = report(stores[0])
    assert (found.records, found.problems) == (720, ())
    with stores[0].reading() as reading:
        for name in range(4):
            query = searching.Query(caller=f"replica:{name}", limit=1000)
            assert len(searching.search(reading, query).found) == 180
    for store in stores:
        store.close()


def test_secrets_are_made_once_and_destroyed(store):
    first = store.make_secret(Secret("digest-1", b"k" * 32, 5))
    assert store.make_secret(Secret("digest-1", b"x" * 32, 9)) == first
    store.make_secret(Secret("digest-2", b"y" * 32, 9))
    store.destroy(["digest-1"])
    with store.reading() as reading:
        assert reading.secret("digest-1") is None
        assert [secret.name for secret in reading.secrets()] == ["digest-2"]


def test_bodies_and_contents_are_dropped_by_class_and_time(store):
    into = writer(store)
    kept = Kept("c" * 64, ANSWERED, START, "key", b"sealed")
    into.write([item(record(1), kept), item(record(2)), item(record(7)), item(record(3))])
    assert store.drop(ANSWERED, 0, START + 3_000_000) == 2
    assert store.drop(ANSWERED, 0, START + 3_000_000) == 0
    with store.reading() as reading:
        rows = list(reading.rows(0, 4))
        assert [row.body is None for row in rows] == [True, True, False, False]
        assert [row.digest is None for row in rows] == [False, False, True, True]
        assert reading.content("c" * 64) == kept
    assert store.drop_contents(START + 1) == 1
    with store.reading() as reading:
        assert reading.content("c" * 64) is None


def test_a_lost_connection_costs_one_batch_at_most(postgres_url):
    store = open_audit(postgres_url)
    into = writer(store)
    into.write([item(record(1))])
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises(StoreError, match="failed"):
        into.write([item(record(2))])
    into.write([item(record(3))])
    found = report(store)
    assert (found.records, found.problems) == (2, ())
    store.close()


def test_a_head_that_another_holds_is_waited_for_a_few_seconds_only(postgres_url):
    store = open_audit(postgres_url)
    into = writer(store)
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as other:
        other.execute("SELECT * FROM head FOR UPDATE")
        began = time.monotonic()
        with pytest.raises(StoreError, match="lock timeout"):
            into.write([item(record(1))])
        assert time.monotonic() - began < 30
    into.write([item(record(1))])
    assert report(store).records == 1
    store.close()


def test_another_programs_database_is_refused(tmp_path):
    with pytest.raises(StoreError, match="mysql"):
        open_audit("mysql://host/name")
    path = tmp_path / "other.db"
    path.write_bytes(b"not a database at all, but long enough to look at" * 100)
    with pytest.raises(StoreError, match="audit log"):
        open_audit(str(path))


def acknowledged(location: str, name: str, seconds: float, mode: str) -> list[str]:
    """Ids that a process printed before it was killed in the middle of its work."""
    process = subprocess.Popen(
        [sys.executable, str(FIXTURE), location, name, mode], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
    reader.start()
    try:
        began = time.monotonic()
        while not lines:
            assert time.monotonic() - began < 60, "the process acknowledged nothing"
            time.sleep(0.02)
        time.sleep(seconds)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()
        process.stdout.close()
    return [line.decode().strip() for line in lines if line.endswith(b"\n")]


def missing(store, ids):
    with store.reading() as reading:
        query = searching.Query
        return [name for name in ids if not searching.search(reading, query(id=name, limit=1)).found]


MODES = pytest.mark.parametrize("mode", ["durable", "written"])


@MODES
def test_what_was_acknowledged_survives_kill_nine(location, mode):
    generator, told = random.Random(5), []
    rounds = 1 if (mode, "://" in location) == ("written", True) else 3  # a server is as durable in both
    for round_ in range(rounds):
        told += acknowledged(location, f"round{round_}", generator.uniform(0.02, 0.4), mode)
    with contextlib.closing(open_audit(location)) as store:
        assert len(told) > 34 * rounds
        assert missing(store, told) == []
        assert report(store).problems == ()


@MODES
@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_nine_a_hundred_times(tmp_path, mode):
    location, generator = str(tmp_path / "audit.db"), random.Random(11)
    for round_ in range(100):
        told = acknowledged(location, f"round{round_}", generator.uniform(0.0, 0.3), mode)
        with contextlib.closing(open_audit(location)) as store:
            assert told
            assert missing(store, told) == []
            if round_ % 10 == 9:
                assert report(store).problems == ()
