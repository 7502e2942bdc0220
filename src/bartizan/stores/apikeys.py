"""Where API keys are kept: SQLite in a file of its own, or PostgreSQL beside the ledger. Digests only, no secrets.

Implements ``lifecycle.deploy.gateway.identity.keys.KeyStore``. Every row is checked when it is read: a database is
input too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from bartizan.core.errors import StoreError
from bartizan.lifecycle.deploy.gateway.identity.keys import MOST_KEYS, ApiKey

WAIT_SECONDS = 10
CONNECT_SECONDS = 5
SCHEMA = 1
"""Version of the tables."""
_SEE = "see BARTIZAN_APIKEYS in `bartizan settings`."

_METADATA = sa.MetaData()
_KEY = sa.Table(
    "api_key",
    _METADATA,
    sa.Column("id", sa.String(12), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("rest", sa.LargeBinary, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("revoked_at", sa.BigInteger, nullable=False),
    sa.Column("used_day", sa.BigInteger, nullable=False),
    sa.Column("otp", sa.LargeBinary, nullable=False),
)
"""What never changes of a key lies in ``rest``, as JSON; what does, in columns."""
_STATE = sa.Table(
    "api_key_state",
    _METADATA,
    sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
)
_COLUMNS = ("id", "digest", "expires_at", "revoked_at", "used_day", "otp")


class SqlKeys:
    """See ``identity.keys.KeyStore``."""

    def __init__(self, engine: Engine, place: str) -> None:
        self._engine, self._place = engine, place

    def close(self) -> None:
        """Let go of connections."""
        self._engine.dispose()

    def generation(self) -> int:
        """See ``KeyStore.generation``."""
        with self._reading() as connection:
            return int(connection.execute(sa.select(_STATE.c.generation)).scalar_one())

    def keys(self) -> tuple[ApiKey, ...]:
        """See ``KeyStore.keys``."""
        with self._reading() as connection:
            rows = connection.execute(sa.select(_KEY).order_by(_KEY.c.id).limit(MOST_KEYS)).mappings().all()
        return tuple(self._key({str(name): value for name, value in row.items()}) for row in rows)

    def add(self, key: ApiKey) -> None:
        """See ``KeyStore.add``."""
        with self._writing() as connection:
            self._insert(connection, key)

    def replace(self, old: str, expires_at: int, new: ApiKey) -> None:
        """See ``KeyStore.replace``. Two rotations of one key at the same time are one."""
        ends = sa.update(_KEY).where(_KEY.c.id == old, _KEY.c.revoked_at == 0, _KEY.c.expires_at > expires_at)
        with self._writing() as connection:
            if not connection.execute(ends.values(expires_at=expires_at)).rowcount:
                raise StoreError(f"the key {old} ends before that already", remedy="see `bartizan gateway key list`.")
            self._insert(connection, new)

    def revoke(self, key: str, at: int) -> bool:
        """See ``KeyStore.revoke``."""
        ends = sa.update(_KEY).where(_KEY.c.id == key, _KEY.c.revoked_at == 0)
        with self._writing() as connection:
            return bool(connection.execute(ends.values(revoked_at=at, otp=b"")).rowcount)

    def seal(self, key: str, otp: bytes) -> None:
        """See ``KeyStore.seal``."""
        with self._writing() as connection:
            if not connection.execute(sa.update(_KEY).where(_KEY.c.id == key).values(otp=otp)).rowcount:
                raise StoreError(f"there is no key {key}", remedy="see `bartizan gateway key list`.")

    def used(self, keys: Iterable[str], day: int) -> None:
        """See ``KeyStore.used``."""
        marks = sa.update(_KEY).where(_KEY.c.id == sa.bindparam("key"), _KEY.c.used_day < day).values(used_day=day)
        with self._writing(changes=False) as connection:
            connection.execute(marks, [{"key": key} for key in keys])

    def _insert(self, connection: Connection, key: ApiKey) -> None:
        if connection.execute(sa.select(sa.func.count()).select_from(_KEY)).scalar_one() >= MOST_KEYS:
            raise StoreError(f"there are {MOST_KEYS} keys already")
        fields: dict[str, Any] = msgspec.structs.asdict(key)
        columns = {name: fields.pop(name) for name in _COLUMNS}
        connection.execute(_KEY.insert().values(**columns, rest=msgspec.json.encode(fields)))

    def _key(self, row: dict[str, Any]) -> ApiKey:
        try:
            rest = msgspec.json.decode(row.pop("rest"), type=dict)
            return msgspec.convert({**rest, **row}, ApiKey)
        except (msgspec.DecodeError, TypeError, UnicodeDecodeError) as error:
            raise StoreError(f"the keys at {self._place} hold what is no key: {error}", remedy="restore it.") from error

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _errors(self._place), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self, *, changes: bool = True) -> Iterator[Connection]:
        """A transaction; the generation rises with it, so that nobody sees the one without the other."""
        connected = self._engine.connect
        with _errors(self._place), connected().execution_options(write=True) as connection, connection.begin():
            if changes:
                connection.execute(sa.update(_STATE).values(generation=_STATE.c.generation + 1))
            yield connection


def open_keys(location: str) -> SqlKeys:
    """Open a store of keys by path or URL; create its tables.

    Raises:
        StoreError: it cannot be reached or written, or was written by a newer version.
    """
    url = _url(location)
    place = url.render_as_string(hide_password=True)
    engine = _engine(url)
    try:
        with _errors(place):
            _prepare(engine, place)
    except BaseException:
        engine.dispose()
        raise
    return SqlKeys(engine, place)


def _prepare(engine: Engine, place: str) -> None:
    with engine.connect() as connection:
        if _version(connection, place) is not None:
            return
    with engine.connect().execution_options(write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": 0x617069_6B657973})
        if _version(connection, place) is None:
            _METADATA.create_all(connection)
            connection.execute(_STATE.insert().values(one=1, version=SCHEMA, generation=1))


def _version(connection: Connection, place: str) -> int | None:
    if not sa.inspect(connection).has_table(_STATE.name):
        return None
    found = connection.execute(sa.select(_STATE.c.version)).scalars().all()
    if found != [SCHEMA]:
        raise StoreError(f"the keys at {place} were written by another version", remedy="upgrade bartizan.")
    return SCHEMA


def _url(location: str) -> URL:
    if "://" not in location:
        return URL.create("sqlite", database=location)
    try:
        url = make_url(location)
    except (ArgumentError, ValueError) as error:
        raise StoreError("BARTIZAN_APIKEYS is no database URL", remedy=_SEE) from error
    match url.get_backend_name():
        case "sqlite":
            return url.set(drivername="sqlite")
        case "postgresql":
            return url.set(drivername="postgresql+psycopg")
        case other:
            raise StoreError(f"databases of kind {other} are not supported", remedy=_SEE)


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        try:
            return sa.create_engine(
                url, connect_args={"connect_timeout": CONNECT_SECONDS}, pool_pre_ping=True, hide_parameters=True
            )
        except ModuleNotFoundError as error:
            raise StoreError("PostgreSQL needs a driver", remedy="pip install 'bartizan[postgres]'.") from error
    if not url.database or ":memory:" in url.database:
        raise StoreError("keys in memory would be lost", remedy="give the path of a file.")
    _make_private(Path(url.database))
    engine = sa.create_engine(url, connect_args={"timeout": WAIT_SECONDS}, hide_parameters=True)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_private(path: Path) -> None:
    """Create the file for the eyes of its owner; SQLite's side files take its mode over."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # One that is there is not opened: closing it again would lose this process the locks that SQLite holds on it
        # (POSIX fcntl), and another process would take the write-ahead log away from under it.
        if not os.access(path, os.R_OK | os.W_OK):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StoreError(f"the keys at {path} cannot be written: {reason}", remedy=_SEE) from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    for pragma in ("synchronous=FULL", "cell_size_check=ON", "trusted_schema=OFF", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


@contextmanager
def _errors(place: str) -> Iterator[None]:
    """Turn the driver's errors into a StoreError."""
    try:
        yield
    except SQLAlchemyError as error:
        text = " ".join(str(getattr(error, "orig", None) or error).split())
        raise StoreError(f"the keys at {place} cannot be used: {text[:300]}", remedy=_SEE) from error


__all__ = ["SqlKeys", "open_keys"]
