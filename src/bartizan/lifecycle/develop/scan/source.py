"""Bytes under examination, and the report that grows while they are examined."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, cast

from bartizan.core.digest import Digest
from bartizan.core.errors import ArtefactError
from bartizan.core.finding import Finding
from bartizan.lifecycle.develop.scan.limits import MIB, Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.pickle.stream import Walk
from bartizan.lifecycle.develop.scan.rules import RULES
from bartizan.lifecycle.develop.scan.verdict import Coverage, Report, Verdict

CHUNK = 1 * MIB


class Storages(Protocol):
    """Takes note of the tensor storages that a pickle declares by persistent ids."""

    def declare(self, walk: Walk, draft: Draft) -> None:
        """Take over the persistent ids of a pickle; fire ``torch/storage`` for those that are wrong."""


class Source(NamedTuple):
    """One file or member, as bytes that may lie in memory or in a mapped file."""

    data: Buffer
    name: str
    """Last part of the place: a file name, a member's name."""
    where: str
    """Whole place, ``model.zip!/archive/data.pkl``."""
    depth: int = 0
    """Containers around it."""
    storages: Storages | None = None
    """Set where persistent ids have a meaning: in a file that torch loads."""

    def child(self, name: str, data: Buffer, *, storages: Storages | None = None) -> Source:
        """A part of this source, under its own name."""
        return Source(data, name, f"{self.where}!/{name}", self.depth + 1, storages)


Examine = Callable[[Source], Report]
"""Examines a source whatever it contains; handed to the containers for their members."""
Examiner = Callable[[Source, Meter, Examine], Report]
"""Examines a source of one format."""
Recogniser = Callable[[Source], bool]
"""Tells whether a source is of one format. Looks at a bounded part of it."""


def printable(text: str) -> str:
    """Text that can be written as UTF-8: what cannot (half characters, odd file names) is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


class Draft:
    """A report in the making."""

    def __init__(self, source: Source, kind: str, most_findings: int) -> None:
        self.source = source
        self.kind = kind
        self.most_findings = most_findings
        self.coverage = Coverage.EXAMINED
        self.reasons: list[str] = []
        self.findings: list[Finding] = []
        self.verdict = Verdict.CLEAN
        self.facts: dict[str, int | str] = {}
        self.members: list[Report] = []
        self.claims: dict[str, int] = {}
        """See ``Report.claims``."""

    def fire(self, rule_id: str, detail: str, offset: int | None = None) -> None:
        """A rule fired, at an offset or for the whole; where no more are kept, what is worse takes the last place."""
        rule = RULES[rule_id]
        is_worse = rule.verdict.rank > self.verdict.rank
        self.verdict = rule.verdict if is_worse else self.verdict
        if len(self.findings) >= self.most_findings:
            self.facts["findings_left_out"] = int(self.facts.get("findings_left_out", 0)) + 1
            if not (is_worse and self.findings):
                return
            self.findings.pop()
        where = self.source.where if offset is None else f"{self.source.where}@{offset}"
        self.findings.append(rule.finding(printable(where), printable(detail)))

    def miss(self, reason: str, coverage: Coverage = Coverage.PARTLY, *, rule: str = "file/not-examined") -> None:
        """Something could not be examined."""
        if self.coverage is Coverage.EXAMINED or coverage is Coverage.NOT_EXAMINED:
            self.coverage = coverage
        self.reasons.append(reason)
        self.fire(rule, reason)

    def gap(self, start: int, end: int, what: str = "") -> None:
        """Bytes from ``start`` to ``end`` belong to no part."""
        self.fire("file/unaccounted-bytes", f"{end - start} bytes {what or 'belong to no part'}", start)

    def close(self, digest: Digest | None = None) -> Report:
        """The finished report."""
        return Report(
            name=printable(self.source.name),
            format=self.kind,
            size=len(self.source.data),
            digest=digest,
            coverage=self.coverage,
            reason="; ".join(self.reasons),
            own_verdict=self.verdict,
            own_findings=tuple(self.findings),
            facts=self.facts,
            members=tuple(self.members),
            claims=self.claims,
        )


class Folder(NamedTuple):
    """A folder whose files have been examined."""

    path: Path
    reports: dict[str, Report]
    """By path relative to the folder, with ``/``."""
    places: Mapping[str, str]
    """Where the files lie: for a link that was followed, what it leads to."""

    def read(self, name: str, most: int) -> bytes:
        """The first ``most`` bytes of one of its files; empty when it cannot be read."""
        try:
            place = self.places.get(name, self.path / name)
            handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return b""
        with os.fdopen(handle, "rb") as file:
            return file.read(most) if stat.S_ISREG(os.fstat(handle).st_mode) else b""


FolderExaminer = Callable[[Folder, Draft], None]
"""Adds to the report of a folder what only shows when its files are seen together."""


class Opened(NamedTuple):
    """A file that was opened."""

    data: Buffer
    digest: Digest
    stamp: tuple[int, int, int]
    """Inode, size and time of change when it was opened."""


def read_file(path: Path, meter: Meter) -> Opened:
    """Bytes of a regular file and their digest; large files are mapped instead of read.

    NOTE: the system ends a process that reads behind the end of a mapped file, so somebody who cuts
    a large file short while it is scanned ends the scan; checks run in worker processes.

    Raises:
        ArtefactError: it is a link, no regular file, or cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ArtefactError(
            f"{path} cannot be opened: {error.strerror}", remedy="check the path and its rights."
        ) from error
    with os.fdopen(handle, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ArtefactError(f"{path} is no regular file", remedy="only files and folders are scanned.")
        if status.st_size <= meter.limits.in_memory:
            data = _read_all(file, status.st_size)
            return Opened(data, Digest(hashlib.sha256(data).hexdigest()), _stamp(status))
        return Opened(_map(file.fileno()), _digest(file), _stamp(status))


def has_changed(path: Path, opened: Opened) -> bool:
    """Whether the file is no longer the one that was opened."""
    try:
        return _stamp(path.lstat()) != opened.stamp
    except OSError:
        return True


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read_all(file: BinaryIO, size: int) -> bytes:
    """At most ``size`` bytes: a file that grows meanwhile is examined as it was."""
    parts = []
    while size > 0:
        part = file.read(size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _map(descriptor: int) -> memoryview:
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))


def _digest(file: BinaryIO) -> Digest:
    """SHA-256 by reading rather than through the mapping, which would count as memory."""
    state = hashlib.sha256()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    while count := file.readinto(buffer):  # type: ignore[attr-defined]  # a FileIO
        state.update(view[:count])
    return Digest(state.hexdigest())


def window(data: Buffer, start: int, end: int) -> memoryview:
    """Part of a buffer, without a copy."""
    return memoryview(data)[start:end]


def chunks(data: Buffer, start: int, end: int) -> Iterator[Buffer]:
    """The bytes from ``start`` to ``end`` in pieces."""
    for at in range(start, end, CHUNK):
        yield data[at : min(at + CHUNK, end)]


class Spool:
    """Collects unpacked bytes: in memory while few, else in a file without a name."""

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._limit = limit
        self._parts: list[bytes] = []
        self._file: BinaryIO | None = None

    def write(self, part: bytes) -> None:
        """Add bytes."""
        self.size += len(part)
        if self._file is None and self.size > self._limit:
            self._file = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 -- closed by ``finish`` or ``discard``
            self._file.writelines(self._parts)
            self._parts.clear()
        if self._file is None:
            self._parts.append(part)
        else:
            self._file.write(part)

    def finish(self) -> Buffer:
        """Everything that was written; nothing can be added any more."""
        if self._file is None:
            return b"".join(self._parts)
        with self._file as file:
            file.flush()
            return _map(file.fileno())

    def discard(self) -> None:
        """Give everything up."""
        self._parts.clear()
        if self._file is not None:
            self._file.close()
