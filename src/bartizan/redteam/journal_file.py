"""Journals as files: one append-only file for each run, readable after a kill at any moment.

A file is a header line followed by records. A record is a length (4 bytes, big endian), the
SHA-256 of what follows, the digest of the question (32 bytes), and the answer: kind of number,
number of columns (0 for labels), and the numbers, as wide as they were
answered. A record that was cut off by a kill is dropped.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bartizan.core.digest import Digest
from bartizan.core.errors import StoreError, WorkError
from bartizan.redteam.journal import Answer, Journal

MAGIC = b"bartizan journal 1\n"
MAX_RECORD = 1 << 30
_LENGTH = struct.Struct(">I")
_SHAPE = struct.Struct(">cI")
_DIGEST = 32
_SINGLE = 4
"""Bytes of a number in single precision."""
_KINDS: dict[bytes, np.dtype[Any]] = {b"i": np.dtype("<i8"), b"f": np.dtype("<f8"), b"s": np.dtype("<f4")}


class FolderJournals:
    """Keeps the journals of a workspace in one folder. See ``Journals``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def open(self, key: Digest) -> Iterator[Journal]:
        """See ``Journals.open``.

        Raises:
            StoreError: the file cannot be written.
            WorkError: another process has it open.
        """
        path = self._folder / f"{key}.journal"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreError(f"the journal {path} cannot be opened: {error.strerror}") from error
        try:
            yield FileJournal(path, descriptor)
        finally:
            os.close(descriptor)


class FileJournal:
    """One journal. See ``Journal``."""

    keeps = True

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkError(
                f"the journal {path.name} is in use", remedy="wait for the other run of this check, or stop it."
            ) from None
        self._place = self._begin()
        self._replaying = True

    def recall(self, question: bytes) -> Answer | None:
        """See ``Journal.recall``."""
        if not self._replaying:
            return None
        before, record = self._place, self._read()
        if record is None or record[:_DIGEST] != question:
            self._replaying, self._place = False, before
            os.ftruncate(self._descriptor, self._place)
            return None
        return _decode(record[_DIGEST:])

    def record(self, question: bytes, answer: Answer) -> None:
        """See ``Journal.record``. What was handed to the system survives a kill, though not a power cut."""
        body = question + _encode(answer)
        data = _LENGTH.pack(len(body)) + hashlib.sha256(body).digest() + body
        try:
            written = os.pwrite(self._descriptor, data, self._place)
        except OSError as error:
            raise StoreError(f"the journal {self._path} cannot be written: {error.strerror}") from error
        if written != len(data):
            raise StoreError(f"the journal {self._path} cannot be written: no space left")
        self._place += written

    def discard(self) -> None:
        """See ``Journal.discard``."""
        self._path.unlink(missing_ok=True)

    def _begin(self) -> int:
        """Write or check the header; returns where the records begin."""
        header = os.pread(self._descriptor, len(MAGIC), 0)
        if header != MAGIC:
            if MAGIC[: len(header)] != header:
                raise StoreError(f"{self._path} is no journal", remedy=f"delete {self._path}.")
            os.pwrite(self._descriptor, MAGIC, 0)
        return len(MAGIC)

    def _read(self) -> bytes | None:
        """The record at the present place; None at the end, and where a record is cut off or damaged."""
        head = os.pread(self._descriptor, _LENGTH.size + _DIGEST, self._place)
        if len(head) < _LENGTH.size + _DIGEST:
            return None
        (length,) = _LENGTH.unpack_from(head)
        if not _DIGEST + _SHAPE.size <= length <= MAX_RECORD:
            return None
        body = os.pread(self._descriptor, length, self._place + len(head))
        if len(body) != length or hashlib.sha256(body).digest() != head[_LENGTH.size :]:
            return None
        self._place += len(head) + length
        return body


def _encode(answer: Answer) -> bytes:
    kind = b"i" if answer.dtype.kind != "f" else b"s" if answer.dtype.itemsize == _SINGLE else b"f"
    columns = answer.shape[1] if answer.ndim > 1 else 0
    return _SHAPE.pack(kind, columns) + np.ascontiguousarray(answer, dtype=_KINDS[kind]).tobytes()


def _decode(data: bytes) -> Answer | None:
    kind, columns = _SHAPE.unpack_from(data)
    flat = np.frombuffer(data, dtype=_KINDS[kind], offset=_SHAPE.size)
    return flat.reshape(-1, columns) if columns else flat
