"""SQLite files that several processes open anew at the same moment."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from bartizan.core.errors import StoreError
from bartizan.stores import cases, write_ahead
from bartizan.stores.records import engines, open_records
from bartizan.stores.shared import FileState, file


def state(path):
    asyncio.run(FileState(path).lease("a", 1, limit=5, window=60, now=0.0))


def kept_cases(path):
    cases.open_cases(str(path)).close()


def ledger(path):
    with open_records(str(path)):
        pass


OPENINGS = pytest.mark.parametrize("opening", [state, kept_cases, ledger])


@pytest.fixture
def other(tmp_path):
    """Another process that has just begun to write the new file."""
    path = tmp_path / "new.db"
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    yield path, connection
    connection.close()


@OPENINGS
def test_a_file_that_another_process_begins_is_waited_for(other, opening):
    path, connection = other
    leaves = threading.Timer(0.2, connection.execute, ["ROLLBACK"])
    leaves.start()
    opening(path)
    leaves.join()
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


@OPENINGS
def test_patience_ends(other, opening, monkeypatch):
    for module, name in ((file, "BUSY_SECONDS"), (cases, "WAIT_SECONDS"), (engines, "OPEN_SECONDS")):
        monkeypatch.setattr(module, name, 0.1)
    with pytest.raises(StoreError, match="locked"):
        opening(other[0])


def test_what_is_no_lock_is_not_waited_for(tmp_path):
    (tmp_path / "junk.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        write_ahead.write_ahead(sqlite3.connect(tmp_path / "junk.db"), 60)
