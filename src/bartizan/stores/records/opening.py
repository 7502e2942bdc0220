"""Opening a ledger database: which engine, which schema version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError

from bartizan.core.errors import StoreError
from bartizan.stores.records.errors import store_errors
from bartizan.stores.records.sql import SqlRecords

SCHEMA_VERSION = "0001"
"""Newest migration in ``stores/migrations/versions``; a test compares."""
OLDER_VERSIONS: frozenset[str] = frozenset()
"""Schema versions that can be migrated from."""
BUSY_SECONDS = 30


def open_records(location: str) -> SqlRecords:
    """Open a ledger database by path or URL; create or upgrade its tables.

    Raises:
        StoreError: it cannot be reached, is damaged, or was written by a newer version.
    """
    url = _url(location)
    place = url.render_as_string(hide_password=True)
    with store_errors(place):
        engine = _engine(url)
        try:
            _migrate(engine, place)
        except BaseException:
            engine.dispose()
            raise
    return SqlRecords(engine, place)


def _url(location: str) -> URL:
    if "://" not in location:
        path = Path(location)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"no folder for the ledger {path}: {error}", remedy="give a folder to write to."
            ) from error
        return URL.create("sqlite", database=str(path))
    try:
        url = make_url(location)
    except (ArgumentError, ValueError) as error:
        raise StoreError("BARTIZAN_RECORDS is no database URL", remedy="see `bartizan settings`.") from error
    if url.get_backend_name() not in {"sqlite", "postgresql"}:
        raise StoreError(
            f"databases of kind {url.get_backend_name()} are not supported",
            remedy="use a path, sqlite:///path or postgresql+psycopg://user@host/name.",
        )
    return url


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        try:
            return sa.create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise StoreError("PostgreSQL needs a driver", remedy="pip install 'bartizan[postgres]'.") from error
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Transactions are begun by _begin_sqlite; the driver's own habit begins them too late.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "cell_size_check=ON",
        "trusted_schema=OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    writing = connection.get_execution_options().get("bartizan_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _migrate(engine: Engine, place: str) -> None:
    version = _version(engine)
    if version == SCHEMA_VERSION:
        return
    if version is not None and version not in OLDER_VERSIONS:
        raise StoreError(
            f"the ledger at {place} was written by another version (schema {version[:20]!r}; this is {SCHEMA_VERSION})",
            remedy="upgrade bartizan, or restore the ledger from a backup.",
        )
    from alembic import command  # noqa: PLC0415 - slow to import, and needed once in a ledger's life
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations"))
    config.attributes["engine"] = engine
    command.upgrade(config, "head")


def _version(engine: Engine) -> str | None:
    """Schema version of the database; None for an empty one."""
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        found = connection.execute(sa.text("select version_num from alembic_version")).scalar()
        return str(found) if found is not None else None
