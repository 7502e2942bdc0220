"""Symbolic links in a scanned folder: which are followed, and to what.

A Hugging Face cache, ``models--ORG--NAME/{blobs,refs,snapshots/REVISION}``, keeps content below ``blobs``
under a hash and leads to it by links with the names that a loader reads. Elsewhere a link may lead to a
file that is no part of the model, so it is followed only to files below the scanned folder.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_HASHED = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""Names below ``blobs``: the SHA-1 of git, or the SHA-256 of large files."""


class Links:
    """The links of one folder."""

    def __init__(self, root: Path) -> None:
        real = os.path.realpath(root)
        cache = _cache_of(Path(real))
        self._inside = [real] if cache is None else [real, str(cache / "blobs")]
        self._blobs = str(cache / "blobs") if cache else None
        self._reached: set[str] = set()

    def target(self, link: str) -> str | None:
        """Path of the plain file that a link leads to; None when it leads elsewhere, or nowhere."""
        try:
            real = os.path.realpath(link, strict=True)
        except (OSError, ValueError):
            return None
        inside = any(os.path.commonpath([real, folder]) == folder for folder in self._inside)
        if not inside or not os.path.isfile(real):  # noqa: PTH113 -- a path of text is at hand
            return None
        self._reached.add(real)
        return real

    def without_repeats(self, found: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Files without the blobs of a cache that a followed link gave their real names; all others stay."""
        return [(name, path) for name, path in found if not self._is_repeated(name, path)]

    def _is_repeated(self, name: str, path: str) -> bool:
        if self._blobs is None or not name.startswith("blobs/") or not _HASHED.fullmatch(name.removeprefix("blobs/")):
            return False
        return os.path.realpath(path) in self._reached


def _cache_of(folder: Path) -> Path | None:
    """The cache of one repository that a folder is, or is a snapshot of."""
    candidates = [folder, folder.parent.parent] if folder.parent.name == "snapshots" else [folder]
    for each in candidates:
        if (each / "blobs").is_dir() and not (each / "blobs").is_symlink() and (each / "snapshots").is_dir():
            return each
    return None
