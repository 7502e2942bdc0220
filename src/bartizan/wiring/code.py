"""The code that measures, as a digest: what was kept is worth nothing once the code that made it is another."""

from __future__ import annotations

import functools
import hashlib
from importlib import resources
from importlib.resources.abc import Traversable

from bartizan import __version__
from bartizan.core.digest import Digest

MEASURING = ("adapters", "lifecycle/develop/choose", "lifecycle/develop/harden", "redteam", "targets")
"""Packages whose code decides what a measurement comes to."""


@functools.cache
def code_digest(packages: tuple[str, ...] = MEASURING) -> Digest:
    """SHA-256 over the version and the names and bytes of all modules of these packages."""
    found = hashlib.sha256(__version__.encode())
    for package in packages:
        for name, data in _modules(resources.files("bartizan").joinpath(package), package):
            found.update(f"\n{name} {len(data)}\n".encode())
            found.update(data)
    return Digest(found.hexdigest())


def _modules(folder: Traversable, name: str) -> list[tuple[str, bytes]]:
    """Name and bytes of each module below a folder, by name."""
    found = []
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        path = f"{name}/{item.name}"
        if item.is_dir():
            found += _modules(item, path)
        elif item.name.endswith(".py"):
            found.append((path, item.read_bytes()))
    return found
