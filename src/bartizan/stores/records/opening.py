"""Opening a ledger database: is it one, can it be written, which version are its tables?"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bartizan.core.errors import StoreError
from bartizan.stores.records.engines import make_engine, parse_location, reading, writing
from bartizan.stores.records.errors import store_errors
from bartizan.stores.records.sql import SqlRecords

SCHEMA_VERSION = "0002"
"""Newest migration in ``stores/migrations/versions``; a test compares."""
OLDER_VERSIONS = frozenset({"0001"})
"""Schema versions that can be migrated from."""

_VERSION_TABLE = "alembic_version"
_OURS = {_VERSION_TABLE, "envelope"}


def open_records(location: str) -> SqlRecords:
    """Open a ledger database by path or URL; create or upgrade its tables.

    Raises:
        StoreError: it cannot be reached or written, is damaged, is not a ledger, or was written by
            a newer version.
    """
    url = parse_location(location)
    place = url.render_as_string(hide_password=True)
    engine = make_engine(url)
    try:
        with store_errors(place):
            _prepare(engine, place)
    except BaseException:
        engine.dispose()
        raise
    return SqlRecords(engine, place)


def _prepare(engine: Engine, place: str) -> None:
    with reading(engine) as connection:
        _check_writable(connection, place)
        version = _version(connection, place)
    if version != SCHEMA_VERSION:
        # Two processes may open a new ledger at once: who comes second finds it made.
        with writing(engine) as connection:
            if _version(connection, place) != SCHEMA_VERSION:
                _migrate(connection)


def _check_writable(connection: Connection, place: str) -> None:
    if connection.dialect.name == "postgresql":
        recovering = connection.execute(sa.text("SELECT pg_is_in_recovery()")).scalar_one()
        fixed = connection.execute(sa.text("SHOW default_transaction_read_only")).scalar_one()
        if recovering or fixed == "on":
            raise StoreError(
                f"the ledger at {place} is read-only", remedy="connect to the primary server, as a user who may write."
            )


def _version(connection: Connection, place: str) -> str | None:
    """Schema version of the database; None for an empty one.

    Raises:
        StoreError: it is not a ledger, or one of another version.
    """
    tables = set(sa.inspect(connection).get_table_names())
    if not tables:
        return None
    if not tables >= _OURS:
        raise StoreError(
            f"the database {place} belongs to another program (it has a table {min(tables - _OURS, default='')!a:.80})",
            remedy="give the ledger a database, or a schema, of its own.",
        )
    found = connection.execute(sa.text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalars().all()  # noqa: S608 - our constant
    version = str(found[0]) if len(found) == 1 else ""
    if version != SCHEMA_VERSION and version not in OLDER_VERSIONS:
        raise StoreError(
            f"the ledger at {place} was written by another version (schema {version!a:.20}; this is {SCHEMA_VERSION})",
            remedy="upgrade bartizan, or restore the ledger from a backup.",
        )
    return version


def _migrate(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - slow to import, and needed once in a ledger's life
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
