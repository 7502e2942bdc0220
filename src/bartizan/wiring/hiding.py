"""The salt under which secrets are marked: one for each project, readable by its owner only."""

from __future__ import annotations

import os
from pathlib import Path

from bartizan.core.errors import StoreError
from bartizan.lifecycle.develop.secrets.search import SALT_BYTES, new_salt
from bartizan.wiring.settings import STATE
from bartizan.wiring.workspace import Workspace

NAME = "secrets.salt"


def salt_of(workspace: Workspace) -> bytes:
    """The project's salt, made when there is none yet; outside of a project one for this run only.

    Raises:
        StoreError: it cannot be read or written, or was cut off.
    """
    if not workspace.declaration.is_file():
        return new_salt()
    path = workspace.folder / STATE / NAME
    try:
        return _read(path) if path.exists() else _write(path, new_salt())
    except OSError as error:
        raise StoreError(f"the salt {path} cannot be used: {error.strerror}", remedy="give access to it.") from error


def _read(path: Path) -> bytes:
    salt = path.read_bytes()
    if len(salt) != SALT_BYTES:
        raise StoreError(f"the salt {path} is damaged", remedy="remove it; marks then differ from earlier ones.")
    return salt


def _write(path: Path, salt: bytes) -> bytes:
    """Never over an existing one: whoever came first has the salt."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _read(path)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(salt)
    return salt
