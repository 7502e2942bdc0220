"""The audit log in PostgreSQL: several gateways append to one tree, one after the other.

The head is one row; whoever appends holds its lock until the transaction ends, so no two extend the same tree
differently. A commit counts once it is on disk, whatever the server's default says.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from bartizan.core.errors import StoreError
from bartizan.lifecycle.deploy.gateway.audit.store import Batch, Reading, Secret
from bartizan.stores.audit.reading import DROP, PAGE, SCHEMA, TABLES, SqlReading, raw

CONNECT_SECONDS = 5
_LIMITS = "-c lock_timeout=3s -c statement_timeout=5s -c idle_in_transaction_session_timeout=10s -c jit=off"
_READ_LIMITS = "-c statement_timeout=60s -c jit=off"
_LOCK = 0x6175646974
"""Key of the advisory lock under which tables are made: "audit"."""
_DURABLE = (
    "SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' "
    "ELSE current_setting('synchronous_commit') END, true)"
)


class PostgresAudit:
    """See ``store.Store``."""

    def __init__(self, url: str) -> None:
        """Connect, and make the tables if they are not there.

        Raises:
            StoreError: the server cannot be reached, or the database is something else.
        """
        self._url = url
        self.place = _shown(url)
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        with self._writing() as run:
            self._prepare(run)

    def _connect(self, options: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self._url, connect_timeout=CONNECT_SECONDS, options=options, autocommit=False)

    @staticmethod
    def _prepare(run: Callable[[str, Sequence[Any]], Any]) -> None:
        run("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
        run("SET LOCAL client_min_messages = warning", ())
        for statement in TABLES:
            run(statement.format(bytes="BYTEA", keyed=""), ())
        run("INSERT INTO audit_schema VALUES (?) ON CONFLICT DO NOTHING", (SCHEMA,))
        run("INSERT INTO head VALUES (1, 0, ''::bytea) ON CONFLICT DO NOTHING", ())
        if list(run("SELECT version FROM audit_schema", ())) != [(SCHEMA,)]:
            raise StoreError("the audit log was written by another version", remedy="upgrade bartizan.")

    @contextmanager
    def _writing(self) -> Iterator[Callable[[str, Sequence[Any]], Any]]:
        with self._lock, _errors(self.place):
            if self._connection is None or self._connection.closed:
                self._connection = self._connect(_LIMITS)
            connection = self._connection
            try:
                run = _runner(connection)
                run(_DURABLE, ())
                yield run
                connection.commit()
            except BaseException:
                with contextlib.suppress(psycopg.Error):
                    connection.rollback()
                with contextlib.suppress(psycopg.Error):
                    connection.close()  # whatever state it is in, the next batch begins with a new one
                raise

    def write(self, build: Callable[[Reading], Batch]) -> Batch:
        """See ``Store.write``."""
        with self._writing() as run:
            list(run("SELECT size FROM head WHERE one = 1 FOR UPDATE", ()))
            batch = build(SqlReading(run))
            if self._connection is not None:
                _copy(self._connection, batch)
            for block in batch.blocks:
                run(
                    "INSERT INTO mention SELECT unnest(?::bigint[]), ? ON CONFLICT DO NOTHING",
                    (list(block.terms), block.number),
                )
                run("INSERT INTO sketch VALUES (?, ?) ON CONFLICT DO NOTHING", (block.number, block.prints))
            for kept in batch.contents:
                run("INSERT INTO content VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", tuple(kept))
            run("UPDATE head SET size = ?, frontier = ? WHERE one = 1", (batch.head.size, batch.head.frontier))
            if batch.note:
                run("DELETE FROM note WHERE size = ?", (batch.replaces,))
                run(
                    "INSERT INTO note VALUES (?, ?) ON CONFLICT (size) DO UPDATE SET note = EXCLUDED.note",
                    (batch.note_size, batch.note),
                )
        return batch

    def put(self, build: Callable[[Reading], Batch]) -> Batch | None:
        """See ``Store.put``. A server is always waited for."""
        del build
        return None

    def sync(self) -> None:
        """See ``Store.sync``."""

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """See ``Store.reading``."""
        with _errors(self.place):
            connection = self._connect(_READ_LIMITS)
            try:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                connection.read_only = True
                yield SqlReading(_runner(connection))
            finally:
                connection.close()

    def make_secret(self, secret: Secret) -> Secret:
        """See ``Store.make_secret``."""
        with self._writing() as run:
            run("INSERT INTO secret VALUES (?, ?, ?) ON CONFLICT DO NOTHING", tuple(secret))
        with self._writing() as run:  # a new snapshot: another replica may have been first
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
                return count

    def drop_contents(self, before: int) -> int:
        """See ``Store.drop_contents``."""
        with self._writing() as run:
            return int(run("DELETE FROM content WHERE at < ?", (before,)).rowcount)

    def destroy(self, names: Collection[str]) -> None:
        """See ``Store.destroy``. Dead rows are overwritten when the server vacuums, which is asked for at once."""
        with self._writing() as run:
            for name in names:
                # The new value takes the row's place in the index before the row goes.
                run("UPDATE secret SET key = ''::bytea WHERE name = ?", (name,))
                run("DELETE FROM secret WHERE name = ?", (name,))
        with _errors(self.place), psycopg.connect(self._url, connect_timeout=CONNECT_SECONDS, autocommit=True) as other:
            other.execute("VACUUM (FULL) secret")

    def close(self) -> None:
        """See ``Store.close``."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()


def _runner(connection: psycopg.Connection[Any]) -> Callable[[str, Sequence[Any]], Any]:
    def run(statement: str, values: Sequence[Any]) -> Any:
        return connection.execute(statement.replace("?", "%s"), values)

    return run


def _copy(connection: psycopg.Connection[Any], batch: Batch) -> None:
    with connection.cursor() as cursor:
        if batch.rows:
            with cursor.copy("COPY record (seq, at, kind, leaf, body) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "int8", "int2", "bytea", "bytea"])
                for row in batch.rows:
                    copy.write_row(row)
        if batch.nodes:
            cursor.executemany("INSERT INTO node VALUES (%s, %s, %s)", batch.nodes)


def _shown(url: str) -> str:
    """The URL without its password."""
    scheme, _, rest = url.partition("://")
    login, mark, place = rest.rpartition("@")
    return f"{scheme}://{login.partition(':')[0]}{mark}{place}"


@contextmanager
def _errors(place: str) -> Iterator[None]:
    try:
        yield
    except (psycopg.Error, OverflowError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())[:300]
        raise StoreError(
            f"the audit log at {place} failed: {text}",
            remedy="make sure that the database server runs, can be reached, and has room.",
        ) from error


__all__ = ["PostgresAudit"]
