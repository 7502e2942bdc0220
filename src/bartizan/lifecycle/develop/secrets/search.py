"""Searches files and folders for secrets, and says where they lie without saying what they are."""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from bartizan.core.errors import ArtefactError
from bartizan.core.finding import Finding, Severity, worst_first
from bartizan.lifecycle.develop.secrets.finding import Hit, find
from bartizan.lifecycle.develop.secrets.reading import Limits, Piece, Reading, pieces_of
from bartizan.lifecycle.develop.secrets.rules import ASSIGNED_PASSWORD, REMEDIES, SEVERITIES, TITLES

SHOWN = 4
"""Most characters of a secret that are ever shown; never more than a quarter of it."""
MARK_DIGITS = 16
SALT_BYTES = 32
MOST_FOUND = 10_000
LEAST_RUN = 20
"""No secret with a form of its own is shorter."""
MOST_RUNS = 100
"""Runs in a window from which on it is quicker to search all of it."""
_PRINTABLE = np.array([32 <= code < 127 or code in (9, 10, 13) for code in range(256)])  # noqa: PLR2004 -- ASCII
_BARE = (".env", ".yaml", ".yml", ".ini", ".cfg", ".conf", ".properties", ".toml", ".netrc", ".pypirc", ".npmrc")
"""Ends of names of files that write values without quotes."""


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """One secret, known by what cannot be used: its kind, its place, its first letters and its mark."""

    rule: str
    where: str
    """``notes.ipynb!/cell-3/outputs:2``, ``config.yaml:7``, ``model.bin@1048576``."""
    begins: str
    """Its first characters: at most four, and at most a quarter of it."""
    length: int
    """In bytes."""
    mark: str
    """Keyed digest: equal secrets have equal marks under one salt, and nobody without the salt can guess."""

    @property
    def severity(self) -> Severity:
        """As its rule has it."""
        return SEVERITIES[self.rule]

    def finding(self) -> Finding:
        """The secret as a finding."""
        return Finding(
            rule=self.rule,
            severity=self.severity,
            title=TITLES[self.rule],
            where=self.where,
            detail=f"begins with {self.begins!r}, {self.length} bytes, mark {self.mark}",
            remedy=REMEDIES[self.rule],
            cwe=("CWE-256", "CWE-312") if self.rule == ASSIGNED_PASSWORD else ("CWE-798", "CWE-312"),
            techniques=("AML.T0055",),
        )


class Searched(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found, and what it did not look at."""

    found: tuple[Secret, ...]
    files: int
    bytes: int
    unread: tuple[str, ...]

    @property
    def findings(self) -> list[Finding]:
        """Worst first."""
        return worst_first([secret.finding() for secret in self.found])

    @property
    def exit_code(self) -> int:
        """0 nothing found, 1 something found, 2 nothing found and not everything looked at."""
        return 1 if self.found else 2 if self.unread else 0


def new_salt() -> bytes:
    """A salt for marks; keep it as you would keep a key."""
    return os.urandom(SALT_BYTES)


def search(
    path: Path,
    *,
    salt: bytes,
    skip: frozenset[str] = frozenset(),
    allow_marked: bool = False,
    limits: Limits | None = None,
) -> Searched:
    """Search a file, or everything below a folder.

    Raises:
        ArtefactError: there is no such file or folder.
    """
    if not path.exists():
        raise ArtefactError(f"there is no {path}", remedy="give an existing file or folder.")
    reading = Reading(limits)
    found: list[Secret] = []
    for secret in _secrets(path, reading, skip, salt, allow_marked=allow_marked):
        found.append(secret)
        if len(found) >= MOST_FOUND:
            reading.miss(secret.where, f"{MOST_FOUND} secrets were found; the rest is not searched")
            break
    return Searched(found=tuple(found), files=reading.files, bytes=reading.read, unread=tuple(reading.unread))


def _secrets(
    path: Path, reading: Reading, skip: frozenset[str], salt: bytes, *, allow_marked: bool
) -> Iterator[Secret]:
    for piece in pieces_of(path, reading, skip):
        is_bare = _is_bare(piece.name)
        if not piece.is_text:
            yield from (_secret(piece, hit, salt) for hit in _in_binary(piece.data) if hit.start < piece.fresh)
            continue
        for hit in find(piece.data, bare=is_bare, allow_marked=allow_marked):
            if hit.start < piece.fresh:
                yield _secret(piece, hit, salt)


def _in_binary(data: bytes) -> Iterator[Hit]:
    """Secrets in the runs of printable characters; numbers hold few, so most of a model is passed over quickly."""
    printable = _PRINTABLE[np.frombuffer(data, np.uint8)]
    edges = np.flatnonzero(np.diff(printable, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    long = ends - starts >= LEAST_RUN
    if int(long.sum()) > MOST_RUNS:
        yield from find(data, is_text=False)
        return
    for start, end in zip(starts[long].tolist(), ends[long].tolist(), strict=True):
        for hit in find(data[start:end], is_text=False):
            yield msgspec.structs.replace(hit, start=hit.start + start)


def _is_bare(name: str) -> bool:
    base = name.rsplit("/", 1)[-1].lower()
    return base.endswith(_BARE) or base.startswith(".env")


def _secret(piece: Piece, hit: Hit, salt: bytes) -> Secret:
    begins = hit.secret.lstrip(b"\\rn \r\n\t")[: min(SHOWN, len(hit.secret) // 4)]
    return Secret(
        rule=hit.rule,
        where=_where(piece, hit.start),
        begins=begins.decode("ascii", "replace"),
        length=len(hit.secret),
        mark=hmac.digest(salt, hit.secret, "sha256").hex()[:MARK_DIGITS],
    )


def _where(piece: Piece, start: int) -> str:
    if not piece.is_text:
        return f"{piece.name}@{piece.offset + start}"
    line = piece.lines + piece.data.count(b"\n", 0, start) + 1
    return f"{piece.name}:{line}"
