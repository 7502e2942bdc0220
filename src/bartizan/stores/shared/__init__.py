"""State that replicas of the gateway share: in memory, in a file on one machine, or in Valkey."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.state import SharedState
from bartizan.stores.shared.file import FileState
from bartizan.stores.shared.memory import MemoryState

_REMEDY = "write memory:, a path or file: URL, unix:///run/valkey.sock, or valkeys://HOST:PORT."


def open_state(location: str, *, password: str = "", ca_file: str = "") -> SharedState:
    """Open shared state by its address; nothing is connected yet.

    Raises:
        InputError: this is no address, or one that would send the password over a network in the clear.
    """
    scheme = urlsplit(location).scheme
    if location in {"memory", "memory:", "memory://"}:
        return MemoryState()
    if scheme in {"unix", "valkey", "valkeys", "redis", "rediss"}:
        # The client takes a tenth of a second to import, and one replica alone never needs it.
        from bartizan.stores.shared.valkey import ValkeyState  # noqa: PLC0415

        return ValkeyState(location, password=password, ca_file=ca_file)
    if scheme in {"", "file"} and location:
        path = unquote(urlsplit(location).path) if scheme else location
        return FileState(Path(path))
    raise InputError(f"shared state cannot lie at an address of the kind {scheme[:20]!r}", remedy=_REMEDY)


__all__ = ["FileState", "MemoryState", "open_state"]
