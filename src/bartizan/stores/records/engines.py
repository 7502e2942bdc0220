"""Engines for SQLite and PostgreSQL: how each of them begins, waits, and keeps what it acknowledged."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from bartizan.core.errors import StoreError
from bartizan.stores.write_ahead import write_ahead

WAIT_SECONDS = 30
"""How long an append waits for another one, which takes milliseconds."""
CONNECT_SECONDS = 10
OPEN_SECONDS = 5
"""How long write-ahead logging is asked for."""
ADVISORY_LOCK = 0x62617274697A616E
"""Key of PostgreSQL's advisory lock that serialises appends: "bartizan"."""

_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
_LOOK_UP = "SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)"
"""Everything here is found by an index; without fresh statistics the planner reads whole tables (14 times slower)."""
_KEEP = (
    _LOOK_UP + ", set_config('lock_timeout', :wait, true), set_config('synchronous_commit',"
    " CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,"
    " true)"
)
"""An append that waits for ever helps nobody, and one that is acknowledged must be on disk."""


def parse_location(location: str) -> URL:
    """Database URL of a path or URL.

    Raises:
        StoreError: it is neither.
    """
    if "://" not in location:
        return URL.create("sqlite", database=_sqlite_path(location))
    try:
        url = make_url(location)
    except (ArgumentError, ValueError) as error:
        raise StoreError("BARTIZAN_RECORDS is no database URL", remedy="see `bartizan settings`.") from error
    match url.get_backend_name():
        case "sqlite":
            return url.set(drivername="sqlite", database=_sqlite_path(url.database or ""))
        case "postgresql":
            return url.set(drivername="postgresql+psycopg")
        case other:
            raise StoreError(
                f"databases of kind {other} are not supported",
                remedy="use a path, sqlite:///path or postgresql+psycopg://user@host/name.",
            )


def _sqlite_path(path: str) -> str:
    if not path or ":memory:" in path:
        raise StoreError("a ledger in memory would keep nothing", remedy="give the path of a file.")
    return path


def make_engine(url: URL) -> Engine:
    """An engine that connects when it is first used.

    Raises:
        StoreError: its driver is not installed, or the file cannot be made.
    """
    engine = _sqlite(url) if url.get_backend_name() == "sqlite" else _postgresql(url)
    _forget_in_children(engine)
    return engine


def _sqlite(url: URL) -> Engine:
    _make_private(Path(url.database or ""))
    engine = sa.create_engine(url, connect_args={"timeout": WAIT_SECONDS}, hide_parameters=True)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_private(path: Path) -> None:
    """Create the file, if it is not there, for the eyes of its owner; SQLite's side files take its mode over."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One that is there is not opened: closing it again would lose this process the locks that SQLite holds on it
        # (POSIX fcntl), and another process would take the write-ahead log away from under it.
        if not os.access(path, os.R_OK | os.W_OK):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StoreError(
            f"the ledger {path} cannot be written: {reason}",
            remedy="give the path of a file that can be written, in a folder that can be written.",
        ) from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Transactions are begun by _begin_sqlite; the driver's own habit begins them too late.
    connection.isolation_level = None
    write_ahead(connection, OPEN_SECONDS)
    for pragma in (
        "synchronous=FULL",
        "foreign_keys=ON",
        "cell_size_check=ON",
        "trusted_schema=OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get("bartizan_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _postgresql(url: URL) -> Engine:
    patience = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_SECONDS}
    try:
        return sa.create_engine(url, connect_args=patience, pool_pre_ping=True, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise StoreError("PostgreSQL needs a driver", remedy="pip install 'bartizan[postgres]'.") from error
    except (SQLAlchemyError, ValueError) as error:
        raise StoreError("BARTIZAN_RECORDS is no database URL", remedy="see `bartizan settings`.") from error


def _forget_in_children(engine: Engine) -> None:
    """A forked process must not speak on its parent's connections."""
    known = weakref.ref(engine)

    def forget() -> None:
        if (mine := known()) is not None:
            mine.dispose(close=False)

    os.register_at_fork(after_in_child=forget)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent view. It begins with the first question, so one is asked at once."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(**_SNAPSHOT).execute(sa.text(_LOOK_UP))
        else:
            connection.exec_driver_sql("SELECT 1 FROM sqlite_schema LIMIT 1").all()
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that no other of its kind runs beside; committed at the end."""
    with engine.connect().execution_options(bartizan_write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text(_KEEP), {"wait": f"{WAIT_SECONDS}s"})
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        yield connection
