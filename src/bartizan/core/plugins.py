"""What installed packages bring, by entry point."""

from __future__ import annotations

import functools
from importlib import metadata
from typing import Any


@functools.cache
def entry_points(group: str) -> metadata.EntryPoints:
    """Entry points of a group. All packages are looked through for them, once in a process."""
    found: metadata.EntryPoints = _all().select(group=group)
    return found


@functools.cache
def _all() -> Any:
    return metadata.entry_points()


__all__ = ["entry_points"]
