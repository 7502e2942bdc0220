"""What installed packages bring, by entry point."""

from __future__ import annotations

import functools
from importlib import metadata


@functools.cache
def entry_points(group: str) -> metadata.EntryPoints:
    """Entry points of a group. Read once in a process, since all packages are looked through for it."""
    return metadata.entry_points(group=group)


__all__ = ["entry_points"]
