"""What a database says, as errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bartizan.core.errors import StoreError

_RESTORE = "restore it from a backup, then run `bartizan ledger verify`."
_BUSY = "another process holds the ledger; wait for it and run the command again."
_FULL = "free some space; what was recorded is kept."
_SERVER = "make sure that the database server runs and can be reached, then run the command again."
_LOGIN = "correct the user, the password or the rights in the database."

_BY_CODE = {
    # SQLite, https://www.sqlite.org/rescode.html
    "SQLITE_BUSY": _BUSY,
    "SQLITE_LOCKED": _BUSY,
    "SQLITE_READONLY": "give write access to the file and its folder.",
    "SQLITE_PERM": "give write access to the file and its folder.",
    "SQLITE_CANTOPEN": "make sure that the folder exists and can be written, and that the path is a file.",
    "SQLITE_NOTADB": "the file is something else; point BARTIZAN_RECORDS at the ledger or restore it.",
    "SQLITE_CORRUPT": f"the database file is damaged; {_RESTORE}",
    "SQLITE_IOERR": f"the disk failed; check it, {_RESTORE}",
    "SQLITE_PROTOCOL": _BUSY,
    "SQLITE_FULL": _FULL,
    # PostgreSQL, https://www.postgresql.org/docs/current/errcodes-appendix.html
    "08": _SERVER,
    "57": _SERVER,
    "28": _LOGIN,
    "42501": _LOGIN,
    "3D": "create the database, or correct BARTIZAN_RECORDS.",
    "25006": "give write access, or connect to the primary server.",
    "53100": _FULL,
    "53": "the database server has too little memory or too many connections; try again later.",
    "55P03": _BUSY,
    "XX": f"the database is damaged; {_RESTORE}",
    "58": f"the database server's disk failed; check it, {_RESTORE}",
}
_BY_WORDS = {
    # A connection that was never made has no code, and SQLite has one code for most mistakes.
    "no such": f"tables are missing; {_RESTORE}",
    "could not decode": _RESTORE,
    "authentication": _LOGIN,
    "does not exist": "create the database, or correct BARTIZAN_RECORDS.",
    "connection": _SERVER,
}


@contextmanager
def store_errors(place: str) -> Iterator[None]:
    """Turn the driver's errors into a StoreError that names ``place``; other errors pass.

    Raises:
        StoreError: the database failed.
    """
    try:
        yield
    except DBAPIError as error:
        text = " ".join(str(error.orig).split())
        raise StoreError(f"the ledger at {place} failed: {text[:400]}", remedy=_remedy(error.orig, text)) from error
    except SQLAlchemyError as error:
        text = str(error).partition("\n")[0]
        raise StoreError(f"the ledger at {place} failed: {text[:400]}", remedy="correct BARTIZAN_RECORDS.") from error
    except UnicodeDecodeError as error:
        # SQLite quotes a damaged schema in its complaint, and the driver stumbles over the quotation.
        raise StoreError(f"the ledger at {place} is damaged: {error.reason}", remedy=_RESTORE) from error


def altered(place: str, error: Exception) -> StoreError:
    """A row holds what no ledger would have written."""
    return StoreError(f"the ledger at {place} holds a value of the wrong kind: {error}", remedy=_RESTORE)


def _remedy(error: BaseException | None, text: str) -> str:
    code = str(getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or "")
    # The longest matching code is the most exact: SQLITE_READONLY for SQLITE_READONLY_DIRECTORY, 53 for 53200.
    for length in range(len(code), 1, -1):
        if code[:length] in _BY_CODE:
            return _BY_CODE[code[:length]]
    lower = text.lower()
    return next((remedy for sign, remedy in _BY_WORDS.items() if sign in lower), "see the database's own log.")
