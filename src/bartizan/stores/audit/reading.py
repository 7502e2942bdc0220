"""Questions that SQLite and PostgreSQL answer alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from bartizan.core.errors import StoreError
from bartizan.lifecycle.deploy.gateway.audit.store import Coordinates, Head, Kept, Row, Secret

Ask = Callable[[str, Sequence[Any]], Any]
"""Runs a question with ``?`` for its values; the answer is iterated over."""
PAGE = 1024
"""Rows that are fetched at a time: a reader never holds the whole log."""

TABLES = (
    """CREATE TABLE IF NOT EXISTS record (
        seq BIGINT PRIMARY KEY, at BIGINT NOT NULL, kind SMALLINT NOT NULL,
        leaf {bytes} NOT NULL, digest {bytes}, body {bytes})""",
    "CREATE INDEX IF NOT EXISTS record_at ON record (at)",
    "CREATE TABLE IF NOT EXISTS mention (term BIGINT, block BIGINT, PRIMARY KEY (term, block)) {keyed}",
    "CREATE TABLE IF NOT EXISTS sketch (block BIGINT PRIMARY KEY, prints {bytes} NOT NULL)",
    """CREATE TABLE IF NOT EXISTS node (
        level SMALLINT, place BIGINT, hash {bytes} NOT NULL, PRIMARY KEY (level, place)) {keyed}""",
    "CREATE TABLE IF NOT EXISTS note (size BIGINT PRIMARY KEY, note TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS head (one SMALLINT PRIMARY KEY, size BIGINT NOT NULL, frontier {bytes} NOT NULL)",
    "CREATE TABLE IF NOT EXISTS secret (name TEXT PRIMARY KEY, key {bytes} NOT NULL, until BIGINT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS content (
        name TEXT PRIMARY KEY, kind SMALLINT NOT NULL, at BIGINT NOT NULL, key TEXT NOT NULL,
        sealed {bytes} NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS content_at ON content (at)",
    "CREATE TABLE IF NOT EXISTS audit_schema (version INTEGER PRIMARY KEY)",
)
SCHEMA = 1
DROP = (
    "UPDATE record SET digest = ?, body = NULL WHERE seq = ?",
    "SELECT seq, body FROM record WHERE kind = ? AND at >= ? AND at < ? AND body IS NOT NULL ORDER BY seq LIMIT ?",
)


def raw(value: Any) -> bytes:
    """Bytes out of whatever a driver gives for them.

    Raises:
        StoreError: it is none.
    """
    if isinstance(value, bytes | memoryview | bytearray):
        return bytes(value)
    raise StoreError("the audit log holds a value of the wrong kind", remedy="run `bartizan audit verify`.")


def perhaps(value: Any) -> bytes | None:
    """Bytes, or nothing."""
    return None if value is None else raw(value)


class SqlReading:
    """See ``store.Reading``."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def head(self) -> Head:
        """See ``Reading.head``."""
        found = list(self._ask("SELECT size, frontier FROM head WHERE one = 1", ()))
        return Head(int(found[0][0]), raw(found[0][1])) if found else Head()

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """See ``Reading.rows``."""
        while start < stop:
            page = list(
                self._ask(
                    "SELECT seq, at, kind, leaf, digest, body FROM record WHERE seq >= ? AND seq < ? "
                    "ORDER BY seq LIMIT ?",
                    (start, stop, PAGE),
                )
            )
            for seq, at, kind, leaf, digest, body in page:
                yield Row(int(seq), int(at), int(kind), raw(leaf), perhaps(digest), perhaps(body))
            if len(page) < PAGE:
                return
            start = int(page[-1][0]) + 1

    def leaves(self, start: int, stop: int) -> list[bytes]:
        """See ``Reading.leaves``."""
        found = self._ask("SELECT seq, leaf FROM record WHERE seq >= ? AND seq < ? ORDER BY seq", (start, stop))
        leaves = []
        for expected, (seq, leaf) in enumerate(found, start=start):
            if seq != expected:
                break
            leaves.append(raw(leaf))
        return leaves

    def nodes(self, wanted: Collection[Coordinates]) -> dict[Coordinates, bytes]:
        """See ``Reading.nodes``."""
        found = {}
        for level, place in wanted:
            for (value,) in self._ask("SELECT hash FROM node WHERE level = ? AND place = ?", (level, place)):
                found[level, place] = raw(value)
        return found

    def notes(self, above: int = -1) -> Iterator[tuple[int, str]]:
        """See ``Reading.notes``."""
        while True:
            page = list(self._ask("SELECT size, note FROM note WHERE size > ? ORDER BY size LIMIT ?", (above, PAGE)))
            for size, note in page:
                yield int(size), str(note)
            if len(page) < PAGE:
                return
            above = int(page[-1][0])

    def newest_note(self) -> tuple[int, str] | None:
        """See ``Reading.newest_note``."""
        found = list(self._ask("SELECT size, note FROM note ORDER BY size DESC LIMIT 1", ()))
        return (int(found[0][0]), str(found[0][1])) if found else None

    def blocks(self, term: int, before: int, limit: int) -> list[int]:
        """See ``Reading.blocks``."""
        found = self._ask(
            "SELECT block FROM mention WHERE term = ? AND block < ? ORDER BY block DESC LIMIT ?", (term, before, limit)
        )
        return [int(block) for (block,) in found]

    def mentioned(self, terms: Collection[int], number: int) -> int:
        """See ``Reading.mentioned``."""
        question = "SELECT count(*) FROM mention WHERE term = ? AND block = ?"
        return sum(int(next(iter(self._ask(question, (word, number))))[0]) for word in terms)

    def sketches(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """See ``Reading.sketches``."""
        while start < stop:
            page = list(
                self._ask(
                    "SELECT block, prints FROM sketch WHERE block >= ? AND block < ? ORDER BY block DESC LIMIT ?",
                    (start, stop, PAGE),
                )
            )
            for block, prints in page:
                yield int(block), raw(prints)
            if len(page) < PAGE:
                return
            stop = int(page[-1][0])

    def between(self, start: int, stop: int) -> tuple[int, int]:
        """See ``Reading.between``."""
        found = list(self._ask("SELECT min(seq), max(seq) FROM record WHERE at >= ? AND at < ?", (start, stop)))
        return (0, -1) if found[0][0] is None else (int(found[0][0]), int(found[0][1]))

    def content(self, name: str) -> Kept | None:
        """See ``Reading.content``."""
        found = list(self._ask("SELECT name, kind, at, key, sealed FROM content WHERE name = ?", (name,)))
        return Kept(found[0][0], int(found[0][1]), int(found[0][2]), found[0][3], raw(found[0][4])) if found else None

    def secret(self, name: str) -> Secret | None:
        """See ``Reading.secret``."""
        found = list(self._ask("SELECT name, key, until FROM secret WHERE name = ?", (name,)))
        return Secret(found[0][0], raw(found[0][1]), int(found[0][2])) if found else None

    def secrets(self) -> list[Secret]:
        """See ``Reading.secrets``."""
        found = self._ask("SELECT name, key, until FROM secret ORDER BY name", ())
        return [Secret(name, raw(key), int(until)) for name, key, until in found]


__all__ = ["DROP", "PAGE", "SCHEMA", "TABLES", "Ask", "SqlReading", "raw"]
