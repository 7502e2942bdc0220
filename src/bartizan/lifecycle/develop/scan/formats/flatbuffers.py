"""A bounded reader of FlatBuffers: tables, vectors and texts that point to each other by offsets.

Format: https://flatbuffers.dev/internals. Every offset is held against the bytes before it is
followed, and what was read is noted, so that bytes that nothing points to can be told.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.limits import LimitError
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer

MOST_TABLES = 3_000_000
"""Tables and vectors that are followed: many offsets may lead to one place."""
LONGEST_TEXT = 1 << 16


class FlatError(Exception):
    """An offset leads outside the bytes; the text says which."""

    def __init__(self, text: str, at: int) -> None:
        super().__init__(text)
        self.at = at


class Vector(NamedTuple):
    """A list: where its first item lies and how many there are."""

    start: int
    length: int


class Flat:
    """The bytes and what was read of them."""

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self.size = len(data)
        self.spans: set[tuple[int, int]] = set()
        self.left = MOST_TABLES

    def claim(self, start: int, size: int) -> int:
        """Note that bytes were read; returns where they begin."""
        if start < 0 or size < 0 or start + size > self.size:
            raise FlatError(f"{size} bytes at {start} lie outside the file", min(max(start, 0), self.size))
        self.left -= 1
        if self.left < 0:
            raise LimitError(f"more than {MOST_TABLES} parts")
        self.spans.add((start, start + size))
        return start

    def unpack(self, form: str, at: int) -> int:
        """A number."""
        size = struct.calcsize(form)
        if at < 0 or at + size > self.size:
            raise FlatError(f"a number at {at} lies outside the file", min(max(at, 0), self.size))
        return int(struct.unpack_from("<" + form, self.data, at)[0])

    def follow(self, at: int) -> int:
        """Where the offset at a place leads."""
        offset = self.unpack("I", at)
        if offset == 0 or offset >= 1 << 31:
            raise FlatError(f"an offset of {offset}", at)
        return at + offset

    def root(self) -> Table:
        """The outermost table."""
        self.claim(0, 8)
        return Table(self, self.follow(0))

    def vector(self, at: int, width: int) -> Vector:
        """The list at a place, each item of so many bytes."""
        count = self.unpack("I", at)
        self.claim(at, 4 + count * width)
        return Vector(at + 4, count)

    def text(self, at: int) -> str:
        """The text at a place."""
        vector = self.vector(at, 1)
        if vector.start + vector.length < self.size:
            self.claim(vector.start + vector.length, 1)
        return bytes(self.data[vector.start : vector.start + min(vector.length, LONGEST_TEXT)]).decode(
            "utf-8", "replace"
        )


class Table:
    """One table: a list of field offsets, and the fields."""

    def __init__(self, flat: Flat, at: int) -> None:
        self.flat = flat
        self.at = at
        self.fields = at - _signed(flat.unpack("I", at))
        size = flat.unpack("H", self.fields)
        inline = flat.unpack("H", self.fields + 2)
        if size < 4 or size % 2 or inline < 4:  # noqa: PLR2004 -- its own two numbers come first
            raise FlatError(f"a table with {size} bytes of fields", at)
        flat.claim(self.fields, size)
        flat.claim(at, inline)
        self.count = (size - 4) // 2
        self.inline = inline

    def place(self, field: int) -> int:
        """Where a field lies; 0 when it is left out."""
        offset = self.flat.unpack("H", self.fields + 4 + 2 * field) if field < self.count else 0
        if offset >= self.inline:
            raise FlatError(f"field {field} lies outside its table", self.at)
        return self.at + offset if offset else 0

    def number(self, field: int, form: str, default: int = 0) -> int:
        """A number."""
        at = self.place(field)
        return self.flat.unpack(form, at) if at else default

    def table(self, field: int) -> Table | None:
        """A table inside this one."""
        at = self.place(field)
        return Table(self.flat, self.flat.follow(at)) if at else None

    def tables(self, field: int) -> Iterator[Table]:
        """A list of tables."""
        vector = self.vector(field, 4)
        for number in range(vector.length):
            yield Table(self.flat, self.flat.follow(vector.start + 4 * number))

    def vector(self, field: int, width: int) -> Vector:
        """A list; an empty one when it is left out."""
        at = self.place(field)
        return self.flat.vector(self.flat.follow(at), width) if at else Vector(0, 0)

    def numbers(self, field: int, form: str) -> tuple[int, ...]:
        """A list of numbers."""
        vector = self.vector(field, struct.calcsize(form))
        return struct.unpack_from(f"<{vector.length}{form}", self.flat.data, vector.start)

    def text(self, field: int) -> str:
        """A text."""
        at = self.place(field)
        return self.flat.text(self.flat.follow(at)) if at else ""


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value
