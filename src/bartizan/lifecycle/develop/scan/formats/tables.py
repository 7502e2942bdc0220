"""Reads tables of flatbuffers without a schema compiler: fields by number, every offset checked.

Format: https://flatbuffers.dev/internals/. Offsets may point anywhere, also in circles, so readers
decide how far they follow; nothing here follows on its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer

LONGEST_TEXT = 64 << 20


class Table:
    """One table inside a buffer."""

    def __init__(self, data: Buffer, at: int) -> None:
        self.data = data
        self.at = at
        self._fields = at - _read(data, at, "<i")
        self._size = _read(data, self._fields, "<H")
        if self._size < 4 or self._size % 2 or self._fields + self._size > len(data):  # noqa: PLR2004 -- two sizes
            raise BrokenFormatError("the list of fields of a table is damaged", at)

    @classmethod
    def root(cls, data: Buffer, start: int = 0) -> Table:
        """The table that a buffer begins with."""
        return cls(data, start + _read(data, start, "<I"))

    def place(self, field: int) -> int:
        """Offset of a field; 0 when it has its default value."""
        slot = 4 + 2 * field
        if slot + 2 > self._size:
            return 0
        relative = _read(self.data, self._fields + slot, "<H")
        return self.at + relative if relative else 0

    def number(self, field: int, form: str, default: int = 0) -> int:
        """A number; ``form`` as ``struct`` names it."""
        place = self.place(field)
        return int(_read(self.data, place, f"<{form}")) if place else default

    def table(self, field: int) -> Table | None:
        """A table."""
        place = self.place(field)
        return Table(self.data, place + _read(self.data, place, "<I")) if place else None

    def text(self, field: int) -> bytes:
        """A text or a vector of bytes; empty when it is not there."""
        place = self.place(field)
        return _text(self.data, place) if place else b""

    def vector(self, field: int, item: int) -> tuple[int, int]:
        """Where a vector begins and how many items of ``item`` bytes it has."""
        place = self.place(field)
        return _vector(self.data, place, item) if place else (0, 0)

    def tables(self, field: int) -> Iterator[Table]:
        """The tables of a vector."""
        start, count = self.vector(field, 4)
        for at in range(start, start + 4 * count, 4):
            yield Table(self.data, at + _read(self.data, at, "<I"))

    def texts(self, field: int) -> Iterator[bytes]:
        """The texts of a vector."""
        start, count = self.vector(field, 4)
        for at in range(start, start + 4 * count, 4):
            yield _text(self.data, at)

    def numbers(self, field: int, form: str) -> Iterator[int]:
        """The numbers of a vector."""
        size = struct.calcsize(f"<{form}")
        start, count = self.vector(field, size)
        return (item[0] for item in struct.iter_unpack(f"<{form}", self.data[start : start + size * count]))


def _read(data: Buffer, at: int, form: str) -> int:
    try:
        if at < 0:
            raise BrokenFormatError("an offset leads before the beginning", 0)
        return int(struct.unpack_from(form, data, at)[0])
    except struct.error as error:
        raise BrokenFormatError("an offset leads past the end", at) from error


def _vector(data: Buffer, place: int, item: int) -> tuple[int, int]:
    at = place + _read(data, place, "<I")
    count = _read(data, at, "<I")
    if at + 4 + item * count > len(data):
        raise BrokenFormatError(f"a vector of {count} items leads past the end", at)
    return at + 4, count


def _text(data: Buffer, place: int) -> bytes:
    start, count = _vector(data, place, 1)
    if count > LONGEST_TEXT:
        raise BrokenFormatError(f"a text of {count} bytes", start)
    return bytes(data[start : start + count])
