"""Two connections of one process to one file: the second must not cost the first its locks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bartizan.stores.audit import open_audit
from bartizan.stores.records import open_records

ANOTHER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("SELECT count(*) FROM sqlite_master").fetchall()
database.close()
"""
"""Whoever closes a database last takes its write-ahead log away: this one must see that it is not the last."""


@pytest.mark.parametrize("opened", [open_records, open_audit])
def test_another_process_does_not_take_the_log_away(tmp_path, opened):
    path = tmp_path / "store.db"
    stores = [opened(str(path))]
    stores.append(opened(str(path)))  # makes the file private, if it is not there
    for store in stores:
        for name in ("snapshot", "reading"):
            if hasattr(store, name):
                value = getattr(store, name)()
                if hasattr(value, "__enter__"):
                    with value:
                        pass
    beside = path.with_name(path.name + "-wal")
    assert beside.exists()
    subprocess.run([sys.executable, "-c", ANOTHER, str(path)], check=True)
    assert beside.exists(), "the write-ahead log is gone, and with it what is written from now on"
    for store in stores:
        store.close()
