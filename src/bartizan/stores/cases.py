"""Cases for review in SQLite or PostgreSQL. See ``gateway.cases.CaseStore``.

Many processes may share the database: a gateway with its replicas, and whoever reviews. Every change is one short
transaction that no other of its kind runs beside.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, Row, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from bartizan.core.errors import InputError, StoreError
from bartizan.lifecycle.deploy.gateway.cases import Case, Kept, Room, Settled, Tally
from bartizan.stores.write_ahead import write_ahead

WAIT_SECONDS = 10
ADVISORY_LOCK = 0x6361736573
"""Key of PostgreSQL's advisory lock that serialises changes: "cases"."""
MOST_LISTED = 10_000

_METADATA = sa.MetaData()
_CASE = sa.Table(
    "review_case",
    _METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("queue", sa.String(16), nullable=False),
    sa.Column("caller", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("due", sa.BigInteger, nullable=False),
    sa.Column("facts", sa.LargeBinary, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("more", sa.BigInteger, nullable=False),
    sa.Column("decided", sa.BigInteger, nullable=True),
    sa.Column("statement", sa.String(64), nullable=False),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("reviewer", sa.Text, nullable=False),
    sa.Index("review_case_by_due", "state", "queue", "due"),
    sa.Index("review_case_by_caller", "caller", "queue", "state"),
    sa.Index("review_case_by_fingerprint", "fingerprint", "state"),
)
_LISTED = [column for column in _CASE.c if column.name != "content"]
_FACTS = msgspec.json.Decoder(Case)


def open_cases(location: str) -> SqlCases:
    """Open the database by path or URL; create its table.

    Raises:
        StoreError: it cannot be reached or written.
    """
    url = _url(location)
    place = url.render_as_string(hide_password=True)
    engine = _sqlite(url) if url.get_backend_name() == "sqlite" else _postgresql(url)
    try:
        with _failures(place), _writing(engine) as connection:
            _METADATA.create_all(connection)
    except BaseException:
        engine.dispose()
        raise
    return SqlCases(engine, place)


class SqlCases:
    """See ``gateway.cases.CaseStore``."""

    def __init__(self, engine: Engine, place: str) -> None:
        self._engine, self._place = engine, place

    def add(self, case: Case, content: bytes, fingerprint: str, room: Room) -> Kept | None:
        """See ``CaseStore.add``."""
        with self._change() as connection:
            known = connection.execute(
                sa.select(_CASE).where(
                    _CASE.c.fingerprint == fingerprint,
                    _CASE.c.state == "open",
                    _CASE.c.queue == case.queue,
                    _CASE.c.due > case.opened,
                )
            ).first()
            if known is not None:
                return _kept(known)
            if _count(connection, case, case.caller) >= room.per_caller:
                return _counted(connection, case)
            if _count(connection, case) >= room.capacity:
                return None
            connection.execute(_CASE.insert().values(**_row(case, content, fingerprint)))
        return Kept(case=case, content=content)

    def find(self, case_id: str) -> Kept | None:
        """See ``CaseStore.find``."""
        with self._look() as connection:
            row = connection.execute(sa.select(_CASE).where(_CASE.c.id == case_id)).first()
        return _kept(row) if row is not None else None

    def listed(
        self, *, queue: str = "", state: str = "open", due_before: int | None = None, limit: int = 100
    ) -> list[Kept]:
        """See ``CaseStore.listed``."""
        query = sa.select(*_LISTED).order_by(_CASE.c.due, _CASE.c.id).limit(min(limit, MOST_LISTED))
        if queue:
            query = query.where(_CASE.c.queue == queue)
        if state:
            query = query.where(_CASE.c.state == state)
        if due_before is not None:
            query = query.where(_CASE.c.due < due_before)
        with self._look() as connection:
            return [_kept(row) for row in connection.execute(query)]

    def settle(self, case_id: str, conclude: Callable[[Kept], Settled], *, again: str = "") -> Kept:
        """See ``CaseStore.settle``."""
        with self._change() as connection:
            row = connection.execute(sa.select(_CASE).where(_CASE.c.id == case_id)).first()
            if row is None:
                raise InputError(f"no case is called {case_id[:40]!r}", remedy="see `bartizan review list`.")
            kept = _kept(row)
            if kept.state != "open" and kept.statement != (again or None):
                raise InputError(
                    f"case {case_id} was decided: {kept.verdict}, statement {kept.statement[:12]}",
                    remedy="a decision is withdrawn with `bartizan revoke envelope`.",
                )
            settled = conclude(kept)
            change = {
                "state": "decided",
                "decided": settled.at,
                "statement": settled.statement,
                "verdict": settled.verdict,
                "reviewer": settled.reviewer,
            }
            connection.execute(_CASE.update().where(_CASE.c.id == case_id).values(**change))
        return msgspec.structs.replace(kept, **change)

    def erase(self, queues: Sequence[str], before: int) -> int:
        """See ``CaseStore.erase``. Old cells are overwritten in SQLite; PostgreSQL keeps them until its next vacuum."""
        over = sa.or_(_CASE.c.decided < before, _CASE.c.due < before)
        blank = _CASE.update().where(over, _CASE.c.queue.in_(queues), _CASE.c.content.is_not(None))
        with self._change() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA secure_delete=ON")
            return connection.execute(blank.values(content=None)).rowcount

    def tallies(self, now: int) -> dict[str, Tally]:
        """See ``CaseStore.tallies``."""
        is_open = _CASE.c.state == "open"
        counted = {
            "open": is_open,
            "overdue": sa.and_(is_open, _CASE.c.due < now),
            "decided": _CASE.c.state == "decided",
            "changed": _CASE.c.verdict.in_(["change", "reject"]),
        }
        sums = [sa.func.sum(sa.case((test, 1), else_=0)).label(name) for name, test in counted.items()]
        with self._look() as connection:
            rows = connection.execute(sa.select(_CASE.c.queue, *sums).group_by(_CASE.c.queue)).all()
        return {
            row.queue: Tally(open=row.open, overdue=row.overdue, decided=row.decided, changed=row.changed)
            for row in rows
        }

    def close(self) -> None:
        """See ``CaseStore.close``."""
        self._engine.dispose()

    @contextmanager
    def _change(self) -> Iterator[Connection]:
        with _failures(self._place), _writing(self._engine) as connection:
            yield connection

    @contextmanager
    def _look(self) -> Iterator[Connection]:
        with _failures(self._place), self._engine.connect() as connection:
            yield connection


def _row(case: Case, content: bytes, fingerprint: str) -> dict[str, Any]:
    return {
        "id": case.id,
        "queue": case.queue,
        "caller": case.caller,
        "fingerprint": fingerprint,
        "due": case.due,
        "facts": msgspec.json.encode(case),
        "content": content,
        "state": "open",
        "more": 0,
        "decided": None,
        "statement": "",
        "verdict": "",
        "reviewer": "",
    }


def _kept(row: Row[Any]) -> Kept:
    try:
        case = _FACTS.decode(row.facts)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"case {row.id} cannot be read: {error}", remedy="restore it from a backup.") from error
    return Kept(
        case=case,
        state="decided" if row.state == "decided" else "open",
        content=getattr(row, "content", None),
        more=row.more,
        decided=row.decided,
        statement=row.statement,
        verdict=row.verdict,
        reviewer=row.reviewer,
    )


def _count(connection: Connection, case: Case, caller: str = "") -> int:
    """Open cases of the queue; held ones whose time is over have freed their place."""
    query = sa.select(sa.func.count()).where(_CASE.c.queue == case.queue, _CASE.c.state == "open")
    if caller:
        query = query.where(_CASE.c.caller == caller)
    if case.queue == "held":
        query = query.where(_CASE.c.due > case.opened)
    return int(connection.execute(query).scalar_one())


def _counted(connection: Connection, case: Case) -> Kept | None:
    """Count one more on the newest open case of its caller; a held one has to be kept or refused."""
    if case.queue == "held":
        return None
    newest = sa.select(_CASE).where(_CASE.c.caller == case.caller, _CASE.c.queue == case.queue, _CASE.c.state == "open")
    row = connection.execute(newest.order_by(_CASE.c.due.desc(), _CASE.c.id).limit(1)).first()
    if row is None:
        return None
    connection.execute(_CASE.update().where(_CASE.c.id == row.id).values(more=_CASE.c.more + 1))
    return _kept(row)


# ---- engines


def _url(location: str) -> URL:
    try:
        url = make_url(location) if "://" in location else URL.create("sqlite", database=location)
    except (ArgumentError, ValueError) as error:
        raise StoreError("BARTIZAN_CASES is no database URL", remedy="see `bartizan settings`.") from error
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "sqlite" or not url.database or ":memory:" in url.database:
        raise StoreError("cases lie in a SQLite file or in PostgreSQL", remedy="see `bartizan settings`.")
    return url.set(drivername="sqlite")


def _sqlite(url: URL) -> Engine:
    path = Path(url.database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # One that is there is not opened: closing it again would lose this process the locks that SQLite holds on it.
        if not os.access(path, os.R_OK | os.W_OK):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600))
    except (OSError, ValueError) as error:
        raise StoreError(f"the cases {path} cannot be written: {error}", remedy="give write access.") from error
    engine = sa.create_engine(url, connect_args={"timeout": WAIT_SECONDS}, hide_parameters=True)
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by _begin
    write_ahead(connection, WAIT_SECONDS)
    for pragma in ("synchronous=FULL", "trusted_schema=OFF"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    is_change = connection.get_execution_options().get("bartizan_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_change else "BEGIN")


def _postgresql(url: URL) -> Engine:
    try:
        arguments = {"connect_timeout": WAIT_SECONDS}
        return sa.create_engine(url, connect_args=arguments, pool_pre_ping=True, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise StoreError("PostgreSQL needs a driver", remedy="pip install 'bartizan[postgres]'.") from error


@contextmanager
def _writing(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(bartizan_write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": f"{WAIT_SECONDS}s"})
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        yield connection


@contextmanager
def _failures(place: str) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        text = " ".join(str(getattr(error, "orig", None) or error).split())
        remedy = "make sure that the database can be reached and written, and has room."
        raise StoreError(f"the cases at {place} failed: {text[:300]}", remedy=remedy) from error


__all__ = ["SqlCases", "open_cases"]
