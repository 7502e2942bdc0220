"""The audit log in a SQLite file: write-ahead log, every commit on disk before it is acknowledged.

Several processes may append (a command beside a gateway): each transaction begins with the write lock and reads
the head under it. Two gateways on one file are refused all the same, since their caches and keys would not agree.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bartizan.core.errors import StoreError
from bartizan.lifecycle.deploy.gateway.audit.store import Batch, Reading, Secret
from bartizan.stores.audit.reading import DROP, PAGE, SCHEMA, TABLES, SqlReading, raw
from bartizan.stores.write_ahead import write_ahead

WAIT_SECONDS = 3.0
"""How long a batch waits for another process; longer, and nothing is answered."""
MOST_AHEAD = 4096
"""Records after which the write-ahead log is copied into the database, beside the work; more, and the disk is busy with
it for so long that answers wait."""
LONGEST_AHEAD = 16_384
"""Pages (of 4 KiB) after which it is begun anew, for which everybody waits a few milliseconds."""
_PRAGMAS = (
    "synchronous=FULL",
    "secure_delete=ON",
    "trusted_schema=OFF",
    "cell_size_check=ON",
    "cache_size=-4096",
    "wal_autocheckpoint=4000",
)
_INSERTS = tuple(
    (
        1 << power,
        f"INSERT INTO record (seq, at, kind, leaf, body) VALUES {', '.join(['(?, ?, ?, ?, ?)'] * (1 << power))}",  # noqa: S608 - our own placeholders
    )
    for power in range(7, -1, -1)
)
"""Rows at once to the statement that inserts them."""
MOST_TURNS = 1 << 31
"""How often the write-ahead log was begun anew is counted in the database, up to here."""
NICE = 10
"""Of whoever copies: a tenth of a processor that is busy."""
COPY_MILLISECONDS = 20
"""So long whoever copies waits for those who read."""
_TAKEN = ("SQLITE_BUSY", "SQLITE_LOCKED")
_to_disk = getattr(os, "fdatasync", os.fsync)
_LOG = logging.getLogger("bartizan.audit")
_REMEDIES = {
    "SQLITE_BUSY": "another process holds the audit log; end it, or wait.",
    "SQLITE_LOCKED": "another process holds the audit log; end it, or wait.",
    "SQLITE_FULL": "free some space; what was recorded is kept.",
    "SQLITE_READONLY": "give write access to the file and its folder.",
    "SQLITE_CANTOPEN": "make sure that the folder exists and can be written.",
    "SQLITE_NOTADB": "the file is something else; give another path.",
    "SQLITE_CORRUPT": "the file is damaged; run `bartizan audit verify`, keep a copy, restore a backup.",
}


class SqliteAudit:
    """See ``store.Store``."""

    def __init__(self, path: str, *, serving: bool = False) -> None:
        """Open or make the file; ``serving`` claims it for this process.

        Raises:
            StoreError: it cannot be written, is something else, or another gateway has claimed it.
        """
        self.place = path
        self._claim = _claim(Path(path)) if serving else None
        self._lock = threading.Lock()
        self._quick: sqlite3.Connection | None = None
        """For what is put: it waits for nobody, and leaves it to ``sync`` to wait for the disk."""
        self._ahead_log = -1
        self._ahead = 0
        self._copying: threading.Thread | None = None
        self._emptying = threading.Lock()
        """Held while the write-ahead log is copied or emptied; before ``_lock``."""
        self._doubtful = False
        """Whether the disk has failed to take what was put: the system may not try again by itself."""
        try:
            with _errors(path):
                _make_private(Path(path))
                self._connection = self._connect()
                self._prepare()
        except BaseException:
            self._let_go()
            raise

    def _connect(self, timeout: float = WAIT_SECONDS) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.place, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        write_ahead(connection, timeout)
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _prepare(self) -> None:
        with self._writing() as run:
            names = {name for (name,) in run("SELECT name FROM sqlite_master WHERE type = 'table'", ())}
            if names and "audit_schema" not in names:
                raise StoreError(f"{self.place} belongs to another program", remedy="give the audit log its own file.")
            for statement in TABLES:
                run(
                    statement.format(bytes="BLOB", keyed="WITHOUT ROWID").replace("BIGINT PRIMARY", "INTEGER PRIMARY"),
                    (),
                )
            run("INSERT OR IGNORE INTO head VALUES (1, 0, x'')", ())
            run("INSERT OR IGNORE INTO audit_schema VALUES (?)", (SCHEMA,))
            if list(run("SELECT version FROM audit_schema", ())) != [(SCHEMA,)]:
                raise StoreError(f"{self.place} was written by another version", remedy="upgrade bartizan.")

    @contextmanager
    def _writing(self) -> Iterator[Callable[[str, Sequence[Any]], Any]]:
        """A transaction that holds the write lock from its beginning."""
        if self._doubtful:
            self._rescue()
        with self._lock, _errors(self.place), _transaction(self._connection) as run:
            yield run

    def write(self, build: Callable[[Reading], Batch]) -> Batch:
        """See ``Store.write``."""
        with self._writing() as run:
            batch = build(SqlReading(run))
            _add(self._connection, batch)
        with self._lock, _errors(self.place):
            if self._quick is None:
                self._quick = self._quickly()
        self._grown(len(batch.rows))
        return batch

    def _rescue(self) -> None:
        """Bring everything into the database, and begin the write-ahead log anew.

        After a failed ``fdatasync`` Linux takes its pages for written. What is appended to them would be lost with them
        when the power goes, since reading the log ends where it is broken.
        """
        self._empty_wal()
        self._doubtful = False

    def put(self, build: Callable[[Reading], Batch]) -> Batch | None:
        """See ``Store.put``. By one thread at a time.

        The commit of this connection writes the write-ahead log and does not wait for the disk
        (``synchronous=NORMAL``); ``sync`` waits for that file.
        """
        with _errors(self.place):
            quick = self._quick
            if quick is None or self._doubtful:
                return None
            try:
                with _transaction(quick) as run:
                    batch = build(SqlReading(run))
                    _add(quick, batch)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname.startswith(_TAKEN):
                    return None
                raise
        self._ahead += len(batch.rows)
        return batch

    def _quickly(self) -> sqlite3.Connection:
        quick = self._connect()
        for each in (quick, self._connection):  # copied beside the work from now on, and not while somebody waits
            each.execute("PRAGMA wal_autocheckpoint=0")
        quick.execute("PRAGMA synchronous=NORMAL")
        quick.execute("PRAGMA busy_timeout=0")
        return quick

    def sync(self) -> None:
        """See ``Store.sync``."""
        if self._doubtful:  # the system tells of a failure once
            raise StoreError(f"the audit log {self.place} failed before", remedy="check the disk.")
        try:
            if self._ahead_log < 0:
                self._ahead_log = os.open(os.path.realpath(self.place) + "-wal", os.O_RDONLY | os.O_CLOEXEC)
            _to_disk(self._ahead_log)
        except OSError as error:
            self._doubtful = True
            raise StoreError(f"the audit log {self.place} failed: {error}", remedy="check the disk.") from error
        self._grown(0)

    def _grown(self, count: int) -> None:
        """Have the write-ahead log copied when it has become long."""
        self._ahead += count
        if self._ahead < MOST_AHEAD or (self._copying is not None and self._copying.is_alive()):
            return
        self._ahead = 0
        self._copying = threading.Thread(target=self._copy, name="audit-copy", daemon=True)
        try:
            self._copying.start()
        except RuntimeError as error:  # no thread to be had; the next time, then
            self._copying = None
            _LOG.warning("%s", error)

    def _copy(self) -> None:
        """Copy the write-ahead log into the database while others write, and then what they wrote, so that it ends.

        Whoever reads for long is not waited for: the log grows until the next time.
        """
        _stand_back()
        try:
            with self._emptying, _errors(self.place), contextlib.closing(self._connect()) as connection:
                # copies are waited for in either mode; a commit of a counter need not be
                connection.execute("PRAGMA synchronous=NORMAL")
                ((_, pages, _),) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                if pages < LONGEST_AHEAD:
                    return
                connection.execute(f"PRAGMA busy_timeout={COPY_MILLISECONDS}")
                ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
                # Whoever begins the log anew waits for the disk: here, and not on the event loop. It takes a commit
                # that changes a page.
                if not busy:
                    with contextlib.suppress(sqlite3.OperationalError):
                        ((turns,),) = connection.execute("PRAGMA user_version").fetchall()
                        connection.execute(f"PRAGMA user_version={(turns + 1) % MOST_TURNS}")
        except StoreError as error:
            _LOG.warning("%s", error.message)

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """See ``Store.reading``."""
        with _errors(self.place):
            connection = self._connect()
            try:
                connection.execute("BEGIN")
                yield SqlReading(connection.execute)
            finally:
                connection.close()

    def make_secret(self, secret: Secret) -> Secret:
        """See ``Store.make_secret``."""
        with self._writing() as run:
            run("INSERT OR IGNORE INTO secret VALUES (?, ?, ?)", secret)
            found = SqlReading(run).secret(secret.name)
        if found is None:
            raise StoreError(f"the key {secret.name} could not be stored")
        return found

    def drop(self, kind: int, start: int, stop: int) -> int:
        """See ``Store.drop``."""
        update, select = DROP
        count = 0
        while True:  # a page at a time: requests are recorded in between
            with self._writing() as run:
                page = list(run(select, (kind, start, stop, PAGE)))
                for seq, body in page:
                    run(update, (hashlib.sha256(raw(body)).digest(), seq))
            count += len(page)
            if len(page) < PAGE:
                self._empty_wal()
                return count

    def drop_contents(self, before: int) -> int:
        """See ``Store.drop_contents``."""
        with self._writing() as run:
            count = int(run("DELETE FROM content WHERE at < ?", (before,)).rowcount)
        self._empty_wal()
        return count

    def destroy(self, names: Collection[str]) -> None:
        """See ``Store.destroy``. Freed space is overwritten, and the write-ahead log is emptied after it."""
        with self._writing() as run:
            for name in names:
                run("DELETE FROM secret WHERE name = ?", (name,))
        self._empty_wal()

    def _empty_wal(self) -> None:
        until = time.monotonic() + WAIT_SECONDS
        with self._emptying, self._lock, _errors(self.place):
            while self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() >= until:
                    raise StoreError(
                        f"the write-ahead log of {self.place} cannot be emptied: somebody reads it, or copies it",
                        remedy="try again when verifications and searches have ended.",
                    )
                time.sleep(0.01)

    def close(self) -> None:
        """See ``Store.close``."""
        if self._copying is not None:
            self._copying.join()
        with self._lock:
            if self._quick is not None:
                self._quick.close()
            self._connection.close()
        if self._ahead_log >= 0:
            os.close(self._ahead_log)
            self._ahead_log = -1
        self._let_go()

    def _let_go(self) -> None:
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None


def _stand_back() -> None:
    """Let everybody else have the processor first, where a thread can say so; a part of it stays, or it never ends."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[Callable[[str, Sequence[Any]], Any]]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection.execute
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise


def _add(connection: sqlite3.Connection, batch: Batch) -> None:
    run, many = connection.execute, connection.executemany
    _insert(run, batch.rows)
    for block in batch.blocks:
        many("INSERT OR IGNORE INTO mention VALUES (?, ?)", [(word, block.number) for word in block.terms])
        run("INSERT OR REPLACE INTO sketch VALUES (?, ?)", (block.number, block.prints))
    if batch.nodes:
        many("INSERT INTO node VALUES (?, ?, ?)", batch.nodes)
    if batch.contents:
        many("INSERT OR IGNORE INTO content VALUES (?, ?, ?, ?, ?)", batch.contents)
    if batch.rows:
        run("UPDATE head SET size = ?, frontier = ? WHERE one = 1", (batch.head.size, batch.head.frontier))
    if batch.note:
        run("DELETE FROM note WHERE size = ?", (batch.replaces,))
        run("INSERT OR REPLACE INTO note VALUES (?, ?)", (batch.note_size, batch.note))


def _insert(run: Callable[[str, Sequence[Any]], Any], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert many rows in few statements.

    Each statement gives the interpreter's lock away and waits for it again, while the event loop is busy.
    """
    start = 0
    for size, statement in _INSERTS:
        while len(rows) - start >= size:
            run(statement, [value for row in rows[start : start + size] for value in row])
            start += size


def _make_private(path: Path) -> None:
    if str(path) in {"", "."} or ":memory:" in str(path):
        raise StoreError("an audit log in memory would keep nothing", remedy="give the path of a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # One that is there is not opened: closing it again would lose this process the locks that SQLite holds on it
        # (POSIX fcntl), and another process would take the write-ahead log away from under it.
        if not os.access(path, os.R_OK | os.W_OK):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600))
    except (OSError, ValueError) as error:
        raise StoreError(f"the audit log {path} cannot be written: {error}", remedy="give a file to write.") from error


def _claim(path: Path) -> int:
    """Hold a lock file for as long as this process lives."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the audit log {path} cannot be claimed: {error}", remedy="give write access.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        reason = "another gateway writes it" if error.errno in {errno.EAGAIN, errno.EACCES} else str(error)
        raise StoreError(
            f"the audit log {path} cannot be claimed: {reason}",
            remedy="end the other gateway, or give several replicas one PostgreSQL database.",
        ) from error
    return handle


@contextmanager
def _errors(place: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, OverflowError, ValueError) as error:
        code = str(getattr(error, "sqlite_errorname", ""))
        known = (remedy for name, remedy in _REMEDIES.items() if code.startswith(name))
        text = " ".join(str(error).split())[:300]
        raise StoreError(f"the audit log {place} failed: {text}", remedy=next(known, "check the disk.")) from error


__all__ = ["SqliteAudit"]
