"""The audit log's rows in SQLite or PostgreSQL."""

from __future__ import annotations

from bartizan.core.errors import StoreError
from bartizan.lifecycle.deploy.gateway.audit.store import Store

POSTGRES = ("postgresql://", "postgresql+psycopg://")
SQLITE = "sqlite:///"


def open_audit(location: str, *, serving: bool = False) -> Store:
    """Open an audit database by path or URL; create its tables. ``serving`` claims a file for one gateway.

    Raises:
        StoreError: it cannot be reached or written, is no audit log, or another gateway writes the file.
    """
    if location.startswith(POSTGRES):
        from bartizan.stores.audit.postgres import PostgresAudit  # noqa: PLC0415 - its driver is an extra

        return PostgresAudit("postgresql://" + location.partition("://")[2])
    if "://" in location and not location.startswith(SQLITE):
        raise StoreError(
            f"audit logs cannot be kept in {location.partition('://')[0]}",
            remedy="use a path, or postgresql+psycopg://user@host/name.",
        )
    from bartizan.stores.audit.sqlite import SqliteAudit  # noqa: PLC0415 - only what is needed

    return SqliteAudit(location.removeprefix(SQLITE), serving=serving)


__all__ = ["open_audit"]
