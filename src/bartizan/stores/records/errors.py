"""What a database says, as errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bartizan.core.errors import StoreError

_REMEDIES = (
    ("not a database", "the file is something else; point BARTIZAN_RECORDS at the ledger or restore it."),
    ("malformed", "the database file is damaged; restore it from a backup, then run `bartizan ledger verify`."),
    ("readonly", "give write access to the file and its folder."),
    ("read-only", "give write access."),
    ("locked", "another process holds the ledger; wait for it and run the command again."),
    ("unable to open", "make sure that the folder exists and can be written."),
    ("disk is full", "free some space; what was recorded is kept."),
    ("no such table", "tables are missing; restore the ledger from a backup."),
    ("does not exist", "create the database, or correct BARTIZAN_RECORDS."),
    ("connection", "make sure that the database server runs and can be reached."),
)


@contextmanager
def store_errors(place: str) -> Iterator[None]:
    """Turn the driver's errors into a StoreError that names ``place``.

    Raises:
        StoreError: the database failed, or holds values of the wrong kind.
    """
    try:
        yield
    except DBAPIError as error:
        text = " ".join(str(error.orig).split())
        remedy = next((remedy for sign, remedy in _REMEDIES if sign in text.lower()), "see the database's own log.")
        raise StoreError(f"the ledger at {place} failed: {text[:400]}", remedy=remedy) from error
    except SQLAlchemyError as error:
        raise StoreError(
            f"the ledger at {place} failed: {str(error)[:400]}", remedy="correct BARTIZAN_RECORDS."
        ) from error
    except (msgspec.ValidationError, UnicodeDecodeError, OverflowError) as error:
        raise StoreError(
            f"the ledger at {place} holds a value of the wrong kind: {error}",
            remedy="restore it from a backup, then run `bartizan ledger verify`.",
        ) from error
