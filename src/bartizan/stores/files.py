"""Artefacts on a filesystem: walked without following links, digested with large buffers and threads."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bartizan.core.digest import Digest, ManifestEntry, manifest_root
from bartizan.core.errors import ArtefactError

BUFFER_BYTES = 1 << 20
"""Measured: larger buffers leave the cache, smaller ones cost calls."""
SINGLE_FILE = "."
"""Name of a file that is signed by itself, as the reference implementation of OpenSSF Model Signing has it."""
MAX_FILES = 1_000_000
MAX_DEPTH = 128


class LocalFiles:
    """See ``core.ports.Files``."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or os.cpu_count() or 1

    def digest(self, path: Path) -> Digest:
        """See ``core.ports.Files``."""
        if _kind(path) == "folder":
            return manifest_root(self.manifest(path))
        return digest_file(path)

    def manifest(self, path: Path) -> list[ManifestEntry]:
        """See ``core.ports.Files``."""
        if _kind(path) == "file":
            return [ManifestEntry(SINGLE_FILE, digest_file(path))]
        files = sorted(walk(path))
        if not files:
            raise ArtefactError(f"{path} holds no files", remedy="give the folder that holds the artefact.")
        with ThreadPoolExecutor(self._threads) as pool:
            digests = pool.map(lambda name: digest_file(path / name), files)
            return [ManifestEntry(name, digest) for name, digest in zip(files, digests, strict=True)]


def digest_file(path: Path) -> Digest:
    """SHA-256 of a file, streamed.

    Raises:
        ArtefactError: it cannot be read, is no regular file, or changed while it was read.
    """
    buffer = bytearray(BUFFER_BYTES)
    window = memoryview(buffer)
    state = hashlib.sha256()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise ArtefactError(f"{_shown(path)} is no regular file", remedy="give a file or a folder of files.")
            total = 0
            while count := stream.readinto(buffer):
                state.update(window[:count])
                total += count
            after = os.fstat(descriptor)
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{_shown(path)} cannot be read: {error}", remedy="give a readable file.") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or total != after.st_size:
        raise ArtefactError(f"{_shown(path)} changed while it was read", remedy="try again when nothing writes to it.")
    return Digest(state.hexdigest())


def walk(folder: Path) -> Iterator[str]:
    """Names of all files below a folder, with ``/`` between parts.

    Raises:
        ArtefactError: a link, a special file, a name that is no text, too many files, or no access.
    """
    pending, count = [(folder, "", 0)], 0
    while pending:
        here, prefix, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise ArtefactError(f"{_shown(here)} lies more than {MAX_DEPTH} folders deep", remedy="flatten the folder.")
        try:
            found = list(os.scandir(here))
        except OSError as error:
            raise ArtefactError(f"{_shown(here)} cannot be read: {error}", remedy="give a readable folder.") from error
        for item in found:
            name = prefix + _name(item.name)
            if item.is_dir(follow_symlinks=False):
                pending.append((Path(item.path), f"{name}/", depth + 1))
            elif item.is_file(follow_symlinks=False):
                count += 1
                if count > MAX_FILES:
                    raise ArtefactError(f"{folder} holds more than {MAX_FILES} files", remedy="split the artefact.")
                yield name
            else:
                what = "a symbolic link" if item.is_symlink() else "no regular file"
                raise ArtefactError(f"{_shown(Path(item.path))} is {what}", remedy="put the file itself there.")


def _kind(path: Path) -> str:
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{_shown(path)} cannot be read: {error}", remedy="check the path.") from error
    if stat.S_ISLNK(mode):
        raise ArtefactError(f"{_shown(path)} is a symbolic link", remedy="give the path that it leads to.")
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISREG(mode):
        return "file"
    raise ArtefactError(f"{_shown(path)} is no regular file", remedy="give a file or a folder of files.")


def _name(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ArtefactError(f"file name {name!r} is not UTF-8", remedy="rename the file.") from error
    return name


def _shown(path: Path) -> str:
    return str(path).encode(errors="backslashreplace").decode()
