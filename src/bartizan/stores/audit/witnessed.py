"""Checkpoints in files on another disk: what this machine shows, and what a witness of other logs remembers."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bartizan.core import checkpoint as notes
from bartizan.core.errors import EvidenceError, LedgerError, StoreError
from bartizan.lifecycle.deploy.gateway.audit.tree import extends
from bartizan.lifecycle.deploy.gateway.audit.verifying import Seen
from bartizan.lifecycle.deploy.gateway.audit.witnesses import Proof

MAX_FILE = 256 << 20
"""A note a minute for a year."""
MAX_LINE = 128 * 1024


class _Line(msgspec.Struct, frozen=True):
    note: str


class FileWitness:
    """A file that only grows: one checkpoint a line. See ``witnesses.Witness``.

    Put it where whoever can write the database cannot write: another disk, append-only (``chattr +a``), a share.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.place = path, f"file {path}"

    def show(self, note: str, proof: Proof) -> str:
        """See ``Witness.show``."""
        said, _ = notes.parse(note)
        with _locked(self._path) as handle:
            last = _last_note(handle, self.place)
            if last:
                before, _ = notes.parse(last)
                if before.size == said.size and before.root == said.root:
                    return ""
                grown = before.size < said.size and extends(
                    before.size, said.size, before.root, said.root, list(proof(before.size))
                )
                if not grown:
                    raise LedgerError(
                        f"{self.place} has seen {before.size} records that this log of {said.size} does not extend",
                        remedy="run `bartizan audit verify`; keep a copy of the database.",
                    )
            line = msgspec.json.encode(_Line(note)) + b"\n"
            if os.write(handle, line) != len(line):
                raise StoreError(f"{self.place} took a part of a checkpoint only", remedy="free some space.")
            os.fsync(handle)
        return ""

    def seen(self) -> list[Seen]:
        """See ``Witness.seen``."""
        try:
            with self._path.open("rb") as stream:
                data = stream.read(MAX_FILE + 1)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self.place} cannot be read: {error}", remedy="give read access.") from error
        if len(data) > MAX_FILE:
            raise StoreError(f"{self.place} is too long", remedy="begin a new file and keep the old one.")
        return [Seen(place=self.place, note=_decode(line, self.place)) for line in data.splitlines() if line.strip()]


class FileBook:
    """What a witness of other logs remembers: a file for each log. See ``witnesses.Book``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def newest(self, origin: str) -> str:
        """See ``Book.newest``."""
        with _locked(self._file(origin)) as handle:
            return _last_note(handle, str(self._file(origin)))

    def keep(self, origin: str, before: str, note: str) -> bool:
        """See ``Book.keep``."""
        with _locked(self._file(origin)) as handle:
            if _last_note(handle, str(self._file(origin))) != before:
                return False
            os.write(handle, msgspec.json.encode(_Line(note)) + b"\n")
            os.fsync(handle)
        return True

    def _file(self, origin: str) -> Path:
        return self._folder / ("".join(f"{byte:02x}" for byte in origin.encode())[:200] + ".notes")


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)
    except OSError as error:
        raise StoreError(f"checkpoints cannot be kept in {path}: {error}", remedy="give write access.") from error


def _last_note(handle: int, place: str) -> str:
    size = os.fstat(handle).st_size
    tail = os.pread(handle, MAX_LINE, max(0, size - MAX_LINE))
    lines = [line for line in tail.splitlines() if line.strip()]
    return _decode(lines[-1], place) if lines else ""


def _decode(line: bytes, place: str) -> str:
    try:
        note = msgspec.json.decode(line, type=_Line).note
        notes.parse(note)
    except (msgspec.DecodeError, UnicodeDecodeError, EvidenceError) as error:
        raise LedgerError(f"{place} holds a line that is no checkpoint: {error}", remedy="restore it.") from error
    return note


__all__ = ["FileBook", "FileWitness"]
