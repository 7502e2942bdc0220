"""Shared state in one SQLite file: for one machine, its worker processes and its restarts.

Time comes from the clock that counts since the machine was started, which nobody can set; across a restart of the
machine, from the calendar, and never backwards.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from bartizan.core.errors import StoreError
from bartizan.lifecycle.deploy.gateway.state import Lease
from bartizan.stores.shared import allowance
from bartizan.stores.shared.allowance import MILLION, Drawn, Kept, Wanted
from bartizan.stores.shared.memory import dated, forgotten, small
from bartizan.stores.write_ahead import write_ahead

BUSY_SECONDS = 5.0
"""How long one process waits for another."""
SWEEP_EVERY = 512
"""Draws after which what is over is removed."""
BOOT = Path("/proc/sys/kernel/random/boot_id")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS allowance (key TEXT PRIMARY KEY, kept BLOB NOT NULL, over INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fact (key TEXT PRIMARY KEY, value, over INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS clock (only INTEGER PRIMARY KEY CHECK (only = 1), boot TEXT, ahead INTEGER, seen INTEGER);
"""
_REMEDY = "make sure that the folder can be written and has room, and that the file is one of Bartizan's."


class FileState:
    """See ``SharedState``. A call takes some tens of microseconds of the event loop; leases make calls rare."""

    def __init__(
        self,
        path: Path,
        *,
        steady: Callable[[], float] | None = None,
        calendar: Callable[[], float] = time.time,
        boot: Callable[[], str] | None = None,
    ) -> None:
        self._path, self._calendar = path, calendar
        self._steady = steady or _since_start
        self._boot = boot or _boot
        self._lock = threading.Lock()
        self._draws = 0
        self._database: sqlite3.Connection | None = None
        self._ahead = 0

    # ---- allowances

    async def lease(
        self, key: str, units: int, *, limit: int, window: float, now: float, burst: int = 0, least: int = 1
    ) -> Lease:
        """See ``SharedState``."""
        wanted = Wanted(units=units, least=least, limit=limit, window=round(window * MILLION), burst=burst)
        drawn, moment = self._draw(key, wanted)
        return dated(drawn, now - moment / MILLION)

    async def charge(self, key: str, units: int, *, limit: int, window: float, burst: int = 0) -> None:
        """See ``SharedState``."""
        wanted = Wanted(units=units, least=0, limit=limit, window=round(window * MILLION), burst=burst, force=True)
        self._draw(key, wanted)

    def _draw(self, key: str, wanted: Wanted) -> tuple[Drawn, int]:
        with self._writing() as database:
            moment = self._moment()
            kept = _found(database, key) or Kept()
            drawn = allowance.draw(kept, wanted, moment)
            if drawn.granted:
                over = forgotten(kept, wanted, moment)
                values = (key, msgspec.msgpack.encode(kept), over)
                database.execute("INSERT OR REPLACE INTO allowance VALUES (?, ?, ?)", values)
            self._sweep(database, moment)
        return drawn, moment

    def _sweep(self, database: sqlite3.Connection, moment: int) -> None:
        self._draws += 1
        if self._draws % SWEEP_EVERY == 1:
            database.execute("DELETE FROM allowance WHERE over <= ?", (moment,))
            database.execute("DELETE FROM fact WHERE over <= ?", (moment,))
            database.execute("UPDATE clock SET seen = max(seen, ?)", (moment,))

    async def give_back(self, key: str, lease: Lease, unspent: int) -> None:
        """See ``SharedState``."""
        if unspent <= 0:
            return
        with self._writing() as database:
            kept = _found(database, key)
            if kept is not None:
                allowance.give_back(kept, lease.mark, unspent)
                database.execute("UPDATE allowance SET kept = ? WHERE key = ?", (msgspec.msgpack.encode(kept), key))

    async def keys(self, prefix: str, most: int) -> list[str]:
        """See ``SharedState``."""
        with self._writing() as database:
            query = "SELECT key FROM allowance WHERE substr(key, 1, ?) = ? ORDER BY key LIMIT ?"
            return [str(row[0]) for row in database.execute(query, (len(prefix), prefix, most))]

    async def forget(self, key: str) -> bool:
        """See ``SharedState``."""
        with self._writing() as database:
            return database.execute("DELETE FROM allowance WHERE key = ?", (key,)).rowcount > 0

    # ---- facts

    async def count(self, key: str, by: int, *, lasts: float) -> int:
        """See ``SharedState``."""
        with self._writing() as database:
            moment = self._moment()
            query = "SELECT value FROM fact WHERE key = ? AND over > ?"
            row = database.execute(query, (f"count:{key}", moment)).fetchone()
            total = (int(row[0]) if row else 0) + by
            values = (f"count:{key}", total, moment + round(lasts * MILLION))
            database.execute("INSERT OR REPLACE INTO fact VALUES (?, ?, ?)", values)
            self._sweep(database, moment)
        return total

    async def remember(self, key: str, value: bytes, *, lasts: float) -> None:
        """See ``SharedState``."""
        small(value)
        with self._writing() as database:
            values = (f"fact:{key}", value, self._moment() + round(lasts * MILLION))
            database.execute("INSERT OR REPLACE INTO fact VALUES (?, ?, ?)", values)

    async def recall(self, key: str) -> bytes | None:
        """See ``SharedState``."""
        with self._writing() as database:
            query = "SELECT value FROM fact WHERE key = ? AND over > ?"
            row = database.execute(query, (f"fact:{key}", self._moment())).fetchone()
        return bytes(row[0]) if row else None

    async def publish(self, topic: str, news: bytes) -> None:
        """See ``SharedState``: a file tells nobody; other processes see counts and facts when they look."""

    def subscribe(self, topic: str, heard: Callable[[bytes], None]) -> None:
        """See ``SharedState.publish`` of this class."""

    async def close(self) -> None:
        """See ``SharedState``."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None

    # ---- the file

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that nobody else's comes between."""
        with self._lock:
            try:
                database = self._database or self._opened()
                database.execute("BEGIN IMMEDIATE")
                try:
                    yield database
                except BaseException:
                    database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")
            except (sqlite3.Error, msgspec.DecodeError, OSError) as error:
                raise StoreError(f"the shared state {self._path} cannot be used: {error}", remedy=_REMEDY) from error

    def _opened(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path.touch(mode=0o600)
        database = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            write_ahead(database, BUSY_SECONDS)
            # A crash of the machine may lose the last leases; a crash of the process loses nothing.
            database.execute("PRAGMA synchronous=NORMAL")
            database.executescript(_SCHEMA)
            database.execute("BEGIN IMMEDIATE")
            self._ahead = self._agreed(database)
            database.execute("COMMIT")
        except BaseException:
            database.close()
            raise
        self._database = database
        return database

    def _agreed(self, database: sqlite3.Connection) -> int:
        """By how much the calendar is ahead of the steady clock; one number until the machine is started anew."""
        boot, steady = self._boot(), round(self._steady() * MILLION)
        row = database.execute("SELECT boot, ahead, seen FROM clock").fetchone()
        if row is not None and boot and row[0] == boot:
            return int(row[1])
        seen = int(row[2]) if row else 0
        moment = max(round(self._calendar() * MILLION), seen)
        values = (boot, moment - steady, moment)
        database.execute("INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?)", values)
        return moment - steady

    def _moment(self) -> int:
        return self._ahead + round(self._steady() * MILLION)


def _found(database: sqlite3.Connection, key: str) -> Kept | None:
    row = database.execute("SELECT kept FROM allowance WHERE key = ?", (key,)).fetchone()
    return msgspec.msgpack.decode(row[0], type=Kept) if row else None


def _since_start() -> float:
    """Seconds since the machine was started, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    """Which start of the machine this is."""
    try:
        return BOOT.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


__all__ = ["FileState"]
