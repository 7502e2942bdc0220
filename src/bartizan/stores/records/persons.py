"""Names of persons: beside the ledger, erasable.

The ledger itself knows persons by key id only. Erasing a name overwrites it: SQLite zeroes the old
cells and empties its write-ahead log, PostgreSQL rewrites the table. What lies in backups and in
archived PostgreSQL logs is for their keeper to erase.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from bartizan.core.errors import StoreError
from bartizan.stores.records.engines import writing
from bartizan.stores.records.tables import PRINCIPAL


def remember(connection: Connection, keyid: str, display: str, contact: str) -> None:
    """Keep a name; replaces what was kept.

    Raises:
        StoreError: this person was erased.
    """
    gone = connection.execute(sa.select(PRINCIPAL.c.erased_at).where(PRINCIPAL.c.keyid == keyid)).scalar()
    if gone is not None:
        raise StoreError(
            f"the name behind key {keyid[:12]} was erased on {gone}", remedy="enrol this person with a new key."
        )
    connection.execute(PRINCIPAL.delete().where(PRINCIPAL.c.keyid == keyid))
    connection.execute(PRINCIPAL.insert().values(keyid=keyid, display=display, contact=contact))


def known(connection: Connection) -> dict[str, tuple[str, str]]:
    """Key id to (name, contact) of persons who were not erased."""
    query = sa.select(PRINCIPAL.c.keyid, PRINCIPAL.c.display, PRINCIPAL.c.contact)
    rows = connection.execute(query.where(PRINCIPAL.c.erased_at.is_(None))).all()
    return {keyid: (display, contact) for keyid, display, contact in rows}


def erase(engine: Engine, keyid: str, erased_at: str) -> None:
    """Overwrite a name.

    Raises:
        StoreError: nobody is known by this key id, or old bytes could not be overwritten yet.
    """
    blank = PRINCIPAL.update().where(PRINCIPAL.c.keyid == keyid).values(display="", contact="", erased_at=erased_at)
    with writing(engine) as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA secure_delete=ON")
        if not connection.execute(blank).rowcount:
            raise StoreError(f"nobody is known by key {keyid[:12]}", remedy="check the key id.")
    _scrub(engine, keyid)


def _scrub(engine: Engine, keyid: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"VACUUM FULL {PRINCIPAL.name}")
            return
        [(busy, _, _)] = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        if busy:
            raise StoreError(
                f"the name behind key {keyid[:12]} is erased, but an older copy is still in use by a reader",
                remedy="end other commands on this ledger and erase it again.",
            )
