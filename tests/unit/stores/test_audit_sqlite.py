"""The audit log's file: writing without a wait, its write-ahead log, and disks that fail."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time

import pytest

from bartizan.core.errors import LedgerError, StoreError
from bartizan.lifecycle.deploy.gateway.audit.store import Secret
from bartizan.lifecycle.deploy.gateway.audit.writer import LONG_SINCE, Rhythm, item
from bartizan.stores.audit import open_audit
from bartizan.stores.audit.sqlite import WAIT_SECONDS
from fixtures.auditlogs import record, report, writer

SELDOM = Rhythm(3600, 1_000_000)
"""No checkpoint is due."""


@pytest.fixture
def location(tmp_path):
    return tmp_path / "audit.db"


@pytest.fixture
def store(location):
    opened = open_audit(str(location))
    yield opened
    opened.close()


@pytest.fixture
def into(store):
    """A writer that has written one record: from then on others may be put."""
    made = writer(store, often=SELDOM)
    made.write([item(record(0))])
    return made


def records(start, stop, text=""):
    return [item(record(number, reasons=(text,))) for number in range(start, stop)]


def copied(store):
    """Wait for the copy that is under way, however slow the machine is."""
    if store._copying is not None:
        store._copying.join()


def test_nobody_is_waited_for_when_something_is_put(store, into, location):
    other = sqlite3.connect(location, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    assert not into.put(records(1, 2))
    assert time.monotonic() - began < WAIT_SECONDS / 2
    other.execute("ROLLBACK")
    assert into.put(records(1, 2))
    other.close()
    store.sync()
    assert report(store).records == 2


def test_a_checkpoint_that_is_due_is_signed_beside_the_work_and_goes_along_with_the_next(store):
    into = writer(store, often=Rhythm(3600, 3))
    into.write(records(0, 1), sign=True)
    assert [(into.put(records(number, number + 1)), into.is_overdue) for number in (1, 2, 3)] == [
        (True, False),
        (True, False),
        (True, True),
    ]
    before = into.note
    into.sign()
    assert (into.note, into.is_overdue) == (before, False)
    assert into.put(records(4, 6))
    assert into.note != before
    found = report(store)
    assert (found.records, found.unsigned, found.problems) == (6, 2, ())


def test_a_checkpoint_that_nobody_signed_beside_the_work_is_signed_where_everybody_waits(store):
    into = writer(store, often=Rhythm(3600, 3))
    into.write(records(0, 1), sign=True)
    at = 1
    while into.put(records(at, at + 1)):
        at += 1
    assert at == 3 * LONG_SINCE
    assert into.has_to_write
    into.write(records(at, at + 1))
    assert report(store).unsigned == 0


def test_one_that_was_signed_beside_the_work_gives_way_to_a_later_one(store):
    into = writer(store, often=Rhythm(3600, 3))
    into.write(records(0, 1), sign=True)
    assert into.put(records(1, 5))
    into.sign()
    into.write(records(5, 6), sign=True)
    later = into.note
    assert into.put(records(6, 7))
    assert into.note == later
    assert report(store).problems == ()


@pytest.mark.parametrize("error", [StoreError("the disk is broken"), ValueError("whatever a signer says")])
def test_no_checkpoint_goes_along_that_covers_what_is_not_on_disk(store, monkeypatch, error):
    """Nor when anything else goes wrong: it is signed where everybody waits then, and nothing is put before."""

    def failing():
        raise error

    into = writer(store, often=Rhythm(3600, 3))
    into.write(records(0, 1), sign=True)
    assert into.put(records(1, 5))
    with monkeypatch.context() as broken:
        broken.setattr(store, "sync", failing)
        with pytest.raises(type(error)):
            into.sign()
    before = into.note
    assert not into.put(records(5, 6))
    assert (into.has_to_write, into.note) == (True, before)
    into.write(records(5, 6))
    assert into.note != before
    assert into.put(records(6, 7))
    assert report(store).problems == ()


def test_a_failure_of_the_disk_is_not_forgotten_by_asking_again(store, into, monkeypatch):
    def failing(_handle):
        raise OSError(errno.EIO, "Input/output error")

    assert into.put(records(1, 2))
    with monkeypatch.context() as broken:
        broken.setattr("bartizan.stores.audit.sqlite._to_disk", failing)
        with pytest.raises(StoreError, match="Input/output error"):
            store.sync()
    with pytest.raises(StoreError, match="failed before"):
        store.sync()
    into.write(records(2, 3))
    store.sync()
    assert report(store).records == 3


def test_what_was_changed_underneath_is_not_signed_beside_the_work_either(store, into, location):
    """And nothing is put any more: whoever writes waits for the checkpoint, and hears that it cannot be signed."""
    assert into.put(records(1, 20))
    with contextlib.closing(sqlite3.connect(location, isolation_level=None)) as other:
        (frontier,) = other.execute("SELECT frontier FROM head").fetchone()
        other.execute("UPDATE head SET frontier = ?", (bytes(len(frontier)),))
    into._rhythm = Rhythm(3600, 3)
    with pytest.raises(LedgerError, match="do not extend"):
        into.sign()
    assert not into.put(records(20, 21))
    with pytest.raises(LedgerError, match="do not extend"):
        into.write(records(20, 21))


def test_a_log_that_was_cut_below_what_was_signed_is_not_put_to(store, into, location):
    into.write(records(1, 300), sign=True)
    with contextlib.closing(sqlite3.connect(location, isolation_level=None)) as other:
        ((frontier,),) = other.execute("SELECT hash FROM node LIMIT 1").fetchall() or ((b"",),)
        other.execute("DELETE FROM record WHERE seq > 0")
        other.execute("UPDATE head SET size = 1, frontier = ?", (frontier,))
    with pytest.raises(LedgerError, match="1 records that do not extend the 300"):
        into.put(records(300, 301))


def test_records_of_another_process_do_not_make_it_sign_in_passing(store, location):
    """The log is longer than this process knows, and the time for a checkpoint has come by that."""
    into, others = writer(store, often=Rhythm(3600, 5)), open_audit(str(location))
    into.write(records(0, 1), sign=True)
    writer(others, often=SELDOM).write(records(1, 20))
    others.close()
    before = into.note
    assert into.put(records(20, 21))
    assert into.note == before
    assert report(store).unsigned == 20


def test_the_write_ahead_log_is_copied_beside_the_work(store, into, location, monkeypatch):
    """It neither grows for ever nor is anything lost by it."""
    monkeypatch.setattr("bartizan.stores.audit.sqlite.MOST_AHEAD", 200)
    monkeypatch.setattr("bartizan.stores.audit.sqlite.LONGEST_AHEAD", 500)
    sizes = []
    for start in range(1, 8001, 20):
        batch = records(start, start + 20, "x" * 2000)
        if not into.put(batch):  # while the rest is copied
            into.write(batch)
        store.sync()
        copied(store)
        sizes.append(location.with_name("audit.db-wal").stat().st_size)
    assert max(sizes) < location.stat().st_size
    store.close()
    again = open_audit(str(location))
    found = report(again)
    again.close()
    assert (found.records, found.problems) == (8001, ())


def test_nobody_who_answers_begins_the_write_ahead_log_anew(store, into, location, monkeypatch):
    monkeypatch.setattr("bartizan.stores.audit.sqlite.MOST_AHEAD", 50)
    monkeypatch.setattr("bartizan.stores.audit.sqlite.LONGEST_AHEAD", 1)
    salts = set()
    for start in range(1, 401, 50):
        assert into.put(records(start, start + 50))
        store.sync()
        copied(store)
        before = location.with_name("audit.db-wal").read_bytes()[16:24]
        assert into.put(records(start + 400, start + 401))
        assert location.with_name("audit.db-wal").read_bytes()[16:24] == before
        salts.add(before)
    assert len(salts) > 1


def test_the_write_ahead_log_is_copied_whoever_writes(store, into, location, monkeypatch):
    monkeypatch.setattr("bartizan.stores.audit.sqlite.MOST_AHEAD", 200)
    monkeypatch.setattr("bartizan.stores.audit.sqlite.LONGEST_AHEAD", 500)
    for start in range(1, 6001, 50):
        into.write(records(start, start + 50, "x" * 2000))
        copied(store)
    assert location.with_name("audit.db-wal").stat().st_size < location.stat().st_size / 2
    assert report(store).records == 6001


def test_whoever_reads_for_long_holds_up_nobody(store, into, monkeypatch):
    monkeypatch.setattr("bartizan.stores.audit.sqlite.MOST_AHEAD", 50)
    monkeypatch.setattr("bartizan.stores.audit.sqlite.LONGEST_AHEAD", 1)
    slowest = 0.0
    with store.reading() as reading:
        before = reading.head().size
        for start in range(1, 1001, 10):
            batch = records(start, start + 10)
            began = time.monotonic()
            if not into.put(batch):
                into.write(batch)
            store.sync()
            slowest = max(slowest, time.monotonic() - began)
        assert reading.head().size == before
    assert slowest < WAIT_SECONDS / 2
    assert report(store).records == 1001


@pytest.mark.parametrize("how", ["write", "make_secret"])
def test_after_a_disk_that_failed_the_log_is_begun_anew_before_anything_else(store, into, location, monkeypatch, how):
    """What Linux has dropped is not written a second time: whatever stood after it could not be read again."""

    def failing(_handle):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        assert into.put(records(1, 2))
        broken.setattr("bartizan.stores.audit.sqlite._to_disk", failing)
        with pytest.raises(StoreError, match="Input/output error"):
            store.sync()
    assert not into.put(records(2, 3))
    if how == "write":
        into.write(records(2, 3))
    else:
        store.make_secret(Secret("digest-1", os.urandom(32), 0))
    # everything up to the failure is in the database itself, none of it in the write-ahead log alone
    alone = location.with_name("alone.db")
    alone.write_bytes(location.read_bytes())
    with contextlib.closing(sqlite3.connect(alone)) as kept:
        assert kept.execute("SELECT count(*) FROM record").fetchone()[0] == 2
    assert into.put(records(3, 4))
    store.sync()
    assert report(store).records == 3 + (how == "write")


def test_a_key_that_is_destroyed_while_the_log_is_copied_is_in_no_file(store, into, tmp_path, monkeypatch):
    monkeypatch.setattr("bartizan.stores.audit.sqlite.MOST_AHEAD", 100)
    for turn in range(10):
        key = os.urandom(32)
        store.make_secret(Secret(f"digest-{turn}", key, 0))
        for start in range(0, 200, 20):
            into.put(records(start, start + 20, "x" * 3000))
            store.sync()
        store.destroy([f"digest-{turn}"])
        assert not any(key in file.read_bytes() for file in tmp_path.iterdir())


def test_a_log_that_cannot_be_emptied_says_so(store, into, monkeypatch):
    monkeypatch.setattr("bartizan.stores.audit.sqlite.WAIT_SECONDS", 0.2)
    store.make_secret(Secret("digest-1", os.urandom(32), 0))
    into.write(records(1, 10))
    with store.reading() as reading:
        assert reading.head().size == 10
        with pytest.raises(StoreError, match="cannot be emptied"):
            store.destroy(["digest-1"])
    store.destroy(["digest-1"])
