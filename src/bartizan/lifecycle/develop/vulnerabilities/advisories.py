"""Reads OSV advisories from a local export: a zip of JSON files, a folder of them, or a folder of such zips.

Source: Open Source Vulnerability format, https://ossf.github.io/osv-schema/, versions 1.0 to 1.7. An
export is untrusted input like any other: sizes and counts are bounded, a broken advisory is counted
and told, and no database, or an empty one, is an error and never an all-clear.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from bartizan.core.digest import Digest, digest_json
from bartizan.core.errors import InputError

LARGEST_ADVISORY = 8 << 20
MOST_ADVISORIES = 2_000_000
MOST_BYTES = 16 << 30
"""Bytes that a zip may unpack to."""
LARGEST_INDEX = 4 << 30
_FORMAT = 1
_REMEDY = "download the export of your ecosystems (all.zip) where there is a network, and give its path."


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event of a range; exactly one field is set."""

    introduced: str = ""
    fixed: str = ""
    last_affected: str = ""
    limit: str = ""


class Range(msgspec.Struct, frozen=True, omit_defaults=True):
    """Versions from one event to another."""

    type: str
    events: tuple[Event, ...] = ()


class Package(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which package is meant."""

    name: str
    ecosystem: str
    purl: str = ""


class Severity(msgspec.Struct, frozen=True):
    """A CVSS vector, or another score."""

    type: str
    score: str


class Affected(msgspec.Struct, frozen=True, omit_defaults=True):
    """One package that an advisory concerns."""

    package: Package | None = None
    ranges: tuple[Range, ...] = ()
    versions: tuple[str, ...] = ()
    severity: tuple[Severity, ...] = ()


class Advisory(msgspec.Struct, frozen=True, omit_defaults=True):
    """One advisory, without its long texts."""

    id: str
    modified: str = ""
    published: str = ""
    withdrawn: str = ""
    aliases: tuple[str, ...] = ()
    summary: str = ""
    severity: tuple[Severity, ...] = ()
    affected: tuple[Affected, ...] = ()
    database_specific: dict[str, Any] = {}

    @property
    def cwe(self) -> tuple[str, ...]:
        """CWE ids, where the database has them."""
        found = self.database_specific.get("cwe_ids")
        return tuple(str(each) for each in found) if isinstance(found, list) else ()


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Advisories by the packages that they concern."""

    form: int = _FORMAT
    digest: Digest
    """What the export is known by."""
    newest: str
    """Latest ``modified`` of all advisories."""
    count: int
    unreadable: int
    """Entries that are no advisory."""
    advisories: tuple[Advisory, ...]
    by_package: dict[str, tuple[int, ...]]
    """``ecosystem/name`` to places in ``advisories``."""

    def about(self, ecosystem: str, name: str) -> list[Advisory]:
        """Advisories on a package; the name is written as its ecosystem writes it."""
        return [self.advisories[at] for at in self.by_package.get(key_of(ecosystem, name), ())]

    @property
    def modified(self) -> datetime | None:
        """When the newest advisory was changed; a time without a zone is read as UTC."""
        return moment_of(self.newest)


def moment_of(text: str) -> datetime | None:
    """A time as an advisory has it; None when it is none. Without a zone it is read as UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def key_of(ecosystem: str, name: str) -> str:
    """One spelling for a package: release numbers of distributions stay, PyPI names are folded (PEP 503)."""
    family = ecosystem.partition(":")[0].lower()
    if family == "pypi":
        name = name.lower().replace("_", "-").replace(".", "-")
        while "--" in name:
            name = name.replace("--", "-")
    return f"{family}/{name}"


def export_digest(path: Path) -> Digest:
    """What an export is known by: the content of its zips, and of loose files what changes with every writing.

    The time of change is the kernel's own: whoever writes to a file cannot set it back.

    Raises:
        InputError: there is no export at ``path``.
    """
    parts: list[list[Any]] = []
    for file in _files(path):
        if file.suffix == ".zip":
            parts.append([_place(file, path), _sha256(file)])
        else:
            status = file.stat()
            times = [status.st_mtime_ns, status.st_ctime_ns]
            parts.append([_place(file, path), status.st_dev, status.st_ino, status.st_size, *times])
    return digest_json(parts)


def _place(file: Path, export: Path) -> str:
    """Where a file lies in an export."""
    return file.relative_to(export).as_posix() if file != export else file.name


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(path: Path) -> list[Path]:
    """The zips and JSON files of an export.

    Raises:
        InputError: there are none.
    """
    if path.is_file():
        return [path]
    found = sorted(each for each in path.rglob("*") if each.suffix in {".zip", ".json"} and each.is_file())
    if not found:
        raise InputError(f"there is no vulnerability database at {path}", remedy=_REMEDY)
    return found


def read_export(path: Path, cache: Path | None = None) -> Index:
    """The index of an export; taken from ``cache`` (a folder) when it was made there from the same export.

    Raises:
        InputError: there is no export, or no advisory in it.
    """
    digest = export_digest(path)
    kept = cache / f"osv-{digest[:32]}.msgpack" if cache else None
    if kept is not None and (index := _cached(kept, digest)) is not None:
        return index
    index = _build(path, digest)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".part")
        partial.write_bytes(msgspec.msgpack.encode(index))
        partial.replace(kept)
    return index


def _cached(path: Path, digest: Digest) -> Index | None:
    try:
        if path.stat().st_size > LARGEST_INDEX:
            return None
        index = msgspec.msgpack.decode(path.read_bytes(), type=Index)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return index if (index.form, index.digest) == (_FORMAT, digest) else None


_DECODER = msgspec.json.Decoder(Advisory)


def _build(path: Path, digest: Digest) -> Index:
    advisories: list[Advisory] = []
    by_package: dict[str, list[int]] = {}
    unreadable = 0
    for raw in _entries(_files(path)):
        try:
            advisory = _DECODER.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            unreadable += 1
            continue
        for each in advisory.affected:
            if each.package is not None:
                places = by_package.setdefault(key_of(each.package.ecosystem, each.package.name), [])
                if not places or places[-1] != len(advisories):
                    places.append(len(advisories))
        advisories.append(advisory)
        if len(advisories) > MOST_ADVISORIES:
            raise InputError(f"the vulnerability database has more than {MOST_ADVISORIES} advisories")
    if not advisories:
        raise InputError(f"there is no advisory in {path}", remedy=_REMEDY)
    return Index(
        digest=digest,
        newest=max((advisory.modified for advisory in advisories), default=""),
        count=len(advisories),
        unreadable=unreadable,
        advisories=tuple(advisories),
        by_package={key: tuple(places) for key, places in by_package.items()},
    )


def _entries(files: Iterable[Path]) -> Iterator[bytes]:
    """The bytes of every JSON file, packed or loose."""
    left = MOST_BYTES
    for file in files:
        for raw in _unpacked(file) if file.suffix != ".json" else [_loose(file)]:
            left -= len(raw)
            if left < 0:
                raise InputError(f"the vulnerability database unpacks to more than {MOST_BYTES} bytes")
            yield raw


def _loose(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(LARGEST_ADVISORY)


def _unpacked(file: Path) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".json"):
                    with archive.open(entry) as member:
                        yield member.read(LARGEST_ADVISORY)
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, NotImplementedError, EOFError) as error:
        raise InputError(f"{file} is no sound zip: {error}", remedy=_REMEDY) from error
