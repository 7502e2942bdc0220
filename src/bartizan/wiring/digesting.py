"""Files whose digests are remembered from one command to the next."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bartizan.stores.digest_cache import DigestCache, default_path
from bartizan.stores.files import LocalFiles


class CachedFiles(LocalFiles):
    """See ``core.ports.Files``; unchanged files are not read again."""

    def __init__(self, cache: DigestCache) -> None:
        super().__init__(known=cache)
        self._cache = cache

    @property
    def contradicted(self) -> list[str]:
        """Files that a full reading found changed although nothing showed it."""
        return sorted(self._cache.contradicted)


@contextmanager
def cached_files(path: Path | None, *, full: bool) -> Iterator[CachedFiles]:
    """Files with the cache at ``path`` (default: in the user's cache folder), which is saved afterwards.

    Raises:
        StoreError: the cache cannot be written, or others may write it.
    """
    cache = DigestCache(path or default_path(os.environ), full=full)
    yield CachedFiles(cache)
    cache.save()
