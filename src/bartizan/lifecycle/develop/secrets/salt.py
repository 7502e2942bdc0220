"""The salt under which secrets are marked: one for each project, readable by its owner only."""

from __future__ import annotations

import os
from pathlib import Path

from bartizan.core.errors import StoreError
from bartizan.lifecycle.develop.secrets.search import SALT_BYTES, new_salt

NAME = "secrets.salt"


def salt_in(folder: Path) -> bytes:
    """The salt in a state folder, made when there is none yet.

    Raises:
        StoreError: it cannot be read or written, or was cut off.
    """
    path = folder / NAME
    try:
        return _read(path) if path.exists() else _write(path, new_salt())
    except OSError as error:
        raise StoreError(f"the salt {path} cannot be used: {error.strerror}", remedy="give access to it.") from error


def _read(path: Path) -> bytes:
    with path.open("rb") as stream:
        salt = stream.read(SALT_BYTES + 1)
    if len(salt) != SALT_BYTES:
        raise StoreError(f"the salt {path} is damaged", remedy="remove it; marks then differ from earlier ones.")
    return salt


def _write(path: Path, salt: bytes) -> bytes:
    """Whole or not at all, and never over another: whoever came first has the salt."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f".{NAME}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(salt)
    try:
        path.hardlink_to(new)
    except FileExistsError:
        return _read(path)
    finally:
        new.unlink(missing_ok=True)
    return salt
