"""Blobs in a folder: ``objects/ab/cdef...``, put if absent, durable, private."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bartizan.core.digest import Digest, parse_digest
from bartizan.core.errors import StatementError, StoreError
from bartizan.stores.blobs.common import MAX_BLOB_BYTES, absent, checked, name_of

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FolderBlobs:
    """See ``core.ports.Blobs``. Below the folder no link is followed."""

    def __init__(self, folder: str | Path) -> None:
        self._root = Path(folder)

    def put(self, data: bytes, media_type: str = "application/octet-stream") -> Digest:
        """See ``core.ports.Blobs``. An altered blob is replaced; the media type is told by whoever names the digest."""
        del media_type
        digest = name_of(data)
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._shard(digest, create=True) as shard:
                if not _is_sound(shard, digest):
                    _write(shard, digest[2:], data)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"blob {digest[:12]} cannot be written: {error}", remedy="check space and rights."
            ) from error
        return digest

    def get(self, digest: Digest) -> bytes:
        """See ``core.ports.Blobs``."""
        sound = parse_digest(digest)
        try:
            with self._shard(sound) as shard:
                return checked(_read(shard, sound[2:]), sound)
        except FileNotFoundError as error:
            raise absent(sound) from error
        except (OSError, ValueError) as error:
            raise StoreError(f"blob {sound[:12]} cannot be read: {error}", remedy="check the blob folder.") from error

    def has(self, digest: Digest) -> bool:
        """See ``core.ports.Blobs``."""
        sound = parse_digest(digest)
        try:
            with self._shard(sound) as shard:
                return stat.S_ISREG(os.stat(sound[2:], dir_fd=shard, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise StoreError(f"blob {sound[:12]} cannot be read: {error}", remedy="check the blob folder.") from error

    def list(self) -> Iterator[Digest]:
        """See ``core.ports.Blobs``."""
        objects = self._root / "objects"
        try:
            for shard in sorted(objects.iterdir()) if objects.exists() else ():
                for path in sorted(shard.iterdir()) if shard.is_dir() and not shard.is_symlink() else ():
                    with contextlib.suppress(StatementError):
                        yield parse_digest(shard.name + path.name)
        except (OSError, ValueError) as error:
            raise StoreError(f"blobs in {objects} cannot be listed: {error}", remedy="check the folder.") from error

    @contextmanager
    def _shard(self, digest: Digest, *, create: bool = False) -> Iterator[int]:
        """Descriptor of the folder that a blob lies in."""
        here = os.open(self._root, _FOLDER)
        try:
            for part in ("objects", digest[:2]):
                if create:
                    _make_folder(here, part)
                outer, here = here, os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=here)
                os.close(outer)
            yield here
        finally:
            os.close(here)


def _make_folder(parent: int, name: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
        os.fsync(parent)


def _read(shard: int, name: str) -> bytes:
    with os.fdopen(os.open(name, _READ, dir_fd=shard), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError("it is no regular file")
        return stream.read(MAX_BLOB_BYTES + 1)


def _is_sound(shard: int, digest: Digest) -> bool:
    try:
        checked(_read(shard, digest[2:]), digest)
    except (OSError, StoreError):
        return False
    return True


def _write(shard: int, name: str, data: bytes) -> None:
    """Write to a new file, flush it to disk, and only then give it its name."""
    new = f".new-{secrets.token_hex(8)}"
    try:
        with os.fdopen(os.open(new, _CREATE, 0o600, dir_fd=shard), "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(new, name, src_dir_fd=shard, dst_dir_fd=shard)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=shard)
        raise
    os.fsync(shard)
