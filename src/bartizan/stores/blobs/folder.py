"""Blobs in a folder: ``objects/ab/cdef...``, put if absent, durable."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bartizan.core.digest import Digest, digest_bytes, parse_digest
from bartizan.core.errors import StatementError, StoreError

MAX_BLOB_BYTES = 256 * 1024 * 1024


class FolderBlobs:
    """See ``core.ports.Blobs``."""

    def __init__(self, folder: str | Path) -> None:
        self._objects = Path(folder) / "objects"

    def put(self, data: bytes, media_type: str = "application/octet-stream") -> Digest:
        """See ``core.ports.Blobs``. The media type is told by whoever names the digest."""
        del media_type
        if len(data) > MAX_BLOB_BYTES:
            raise StoreError(
                f"blob of {len(data)} bytes; at most {MAX_BLOB_BYTES} are kept", remedy="shorten the report."
            )
        digest = digest_bytes(data)
        path = self._path(digest)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self._sound(path, digest):
                _write(path, data)
        except OSError as error:
            raise StoreError(
                f"blob {digest[:12]} cannot be written: {error}", remedy="check space and rights."
            ) from error
        return digest

    def get(self, digest: Digest) -> bytes:
        """See ``core.ports.Blobs``."""
        path = self._path(digest)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as stream:
                data = stream.read(MAX_BLOB_BYTES + 1)
        except FileNotFoundError as error:
            raise StoreError(
                f"blob {digest[:12]} is not there", remedy="restore it, or run the check again."
            ) from error
        except OSError as error:
            raise StoreError(f"blob {digest[:12]} cannot be read: {error}", remedy="check the blob folder.") from error
        if digest_bytes(data) != digest:
            raise StoreError(f"blob {digest[:12]} is altered", remedy="restore it, or run the check again.")
        return data

    def has(self, digest: Digest) -> bool:
        """See ``core.ports.Blobs``."""
        return self._path(digest).is_file()

    def list(self) -> Iterator[Digest]:
        """See ``core.ports.Blobs``."""
        for path in sorted(self._objects.glob("??/*")):
            with contextlib.suppress(StatementError):
                yield parse_digest(path.parent.name + path.name)

    def _path(self, digest: Digest) -> Path:
        sound = parse_digest(digest)
        return self._objects / sound[:2] / sound[2:]

    def _sound(self, path: Path, digest: Digest) -> bool:
        if not path.exists():
            return False
        try:
            self.get(digest)
        except StoreError:
            return False
        return True


def _write(path: Path, data: bytes) -> None:
    """Write to a new file, flush it to disk, and only then give it its name."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
