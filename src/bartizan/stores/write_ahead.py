"""Write-ahead logging of SQLite, turned on when several processes open a new file at the same moment."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

PAUSE_SECONDS = 0.02


def write_ahead(connection: Any, patience: float) -> None:
    """Turn on write-ahead logging.

    SQLite does not wait for a lock here, whatever the timeout of the connection: this tries again for ``patience``
    seconds. ``connection`` is one of ``sqlite3``, outside of any transaction.

    Raises:
        sqlite3.OperationalError: another process kept the file locked for all that time, or it cannot be written.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(PAUSE_SECONDS)
        else:
            return


__all__ = ["write_ahead"]
