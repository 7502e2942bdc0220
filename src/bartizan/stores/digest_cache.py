"""Digests that are known already, so that a folder of which little changed need not be read as a whole.

An entry is believed as long as device, inode, size, time of modification and time of change of a file are
those under which it was digested. The time of change is set by the kernel alone; who only may write the file
cannot set it back. To stay sound:

- A file that changed within the last two seconds before it was read is not remembered: it could change again
  within the same tick of the filesystem's clock.
- Only filesystems that keep these times themselves are trusted; a network filesystem is read every time.
- A file of entries that somebody else may write is refused.

One gap remains: a program that maps a file into memory may write to it without a new time each time. So
verification never asks the cache, and ``full`` reads everything and tells which entries were wrong.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import msgspec

from bartizan.core.digest import Digest
from bartizan.core.errors import StoreError

FORMAT = 1
MAX_ENTRIES = 1_000_000
MAX_BYTES = 256 * 1024 * 1024
SETTLED_NS = 2_000_000_000
"""Coarsest clock of a filesystem that is still in use (FAT counts two seconds)."""
TRUSTED = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "overlay", "zfs", "bcachefs"})

Key = tuple[int, int, int, int, int]


class _Stored(msgspec.Struct, array_like=True):
    format: int
    entries: dict[Key, bytes]


class DigestCache:
    """Digests by what the kernel says of a file; kept in one file that only its owner may write.

    Raises:
        StoreError: the file belongs to somebody else, or others may write it.
    """

    def __init__(self, path: Path, *, full: bool = False) -> None:
        self._path = path
        self._full = full
        self._entries = _load(path)
        self._changed = False
        self.contradicted: list[str] = []
        """With ``full``: files whose contents are others although everything that was asked is the same."""

    def get(self, found: os.stat_result) -> Digest | None:
        """The digest of a file that did not change; None when it must be read."""
        known = None if self._full else self._entries.get(_key(found))
        return Digest(known.hex()) if known is not None and _filesystem(found.st_dev) in TRUSTED else None

    def put(self, found: os.stat_result, digest: Digest, path: Path) -> None:
        """Remember what was just read, if nothing can have changed it unnoticed."""
        key, value = _key(found), bytes.fromhex(digest)
        if self._entries.get(key, value) != value:
            self.contradicted.append(str(path))
        settled = max(found.st_mtime_ns, found.st_ctime_ns) + SETTLED_NS < time.time_ns()
        if settled and _filesystem(found.st_dev) in TRUSTED:
            self._changed |= self._entries.get(key) != value
            self._entries[key] = value

    def save(self) -> None:
        """Write it back, whole or not at all.

        Raises:
            StoreError: it cannot be written.
        """
        if not self._changed:
            return
        kept = dict(list(self._entries.items())[-MAX_ENTRIES:])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile(dir=self._path.parent, prefix=".digests.", delete=False) as new:
                new.write(msgspec.msgpack.encode(_Stored(FORMAT, kept)))
            Path(new.name).replace(self._path)
        except OSError as error:
            raise StoreError(
                f"{self._path} cannot be written: {error.strerror}", remedy="give another file with --cache."
            ) from error
        self._changed = False


def default_path(environment: Mapping[str, str]) -> Path:
    """In the user's folder for caches."""
    chosen = environment.get("XDG_CACHE_HOME", "")
    return (
        Path(chosen) if chosen else Path(environment.get("HOME", "") or Path.home()) / ".cache"
    ) / "bartizan/digests"


def _key(found: os.stat_result) -> Key:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _load(path: Path) -> dict[Key, bytes]:
    """What was kept; nothing when there is nothing, or nothing that can be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}", remedy="remove it; it is made anew.") from error
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if found.st_uid != os.geteuid() or others or not stat.S_ISREG(found.st_mode):
            raise StoreError(f"others may write to {path}", remedy="remove it; it is made anew for you alone.")
        data = stream.read(MAX_BYTES + 1)
    try:
        stored = msgspec.msgpack.decode(data, type=_Stored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}  # a cache that is broken, or of another version, knows nothing
    sound = stored.format == FORMAT and len(data) <= MAX_BYTES
    return {key: value for key, value in stored.entries.items() if len(value) == 32} if sound else {}  # noqa: PLR2004


@lru_cache(maxsize=1024)
def _filesystem(device: int) -> str:
    """Kind of filesystem that the kernel says a device number belongs to; empty when it does not say."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        if before.split()[2:3] == [wanted]:
            return after.split()[0]
    return ""
