"""Universal Binary JSON as XGBoost writes it: one value, numbers in big-endian order, typed arrays.

Format: https://ubjson.org and ``UBJReader`` in ``src/common/json.cc`` of XGBoost. Arrays of one
numeric type are kept as a view of the file; everything else becomes Python values, within bounds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError, Cursor
from bartizan.lifecycle.develop.scan.limits import LimitError
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import window

FORMS = {"i": "b", "U": "B", "I": "h", "l": "i", "L": "q", "d": "f", "D": "d"}
"""Markers of numbers and how ``struct`` names them."""
CONSTANTS: dict[str, Any] = {"Z": None, "T": True, "F": False}
DEEPEST = 64
MOST_VALUES = 1_000_000
LONGEST_TEXT = 1 << 24


class Numbers(NamedTuple):
    """An array of numbers of one type, still in the file."""

    form: str
    """As ``struct`` names it."""
    raw: memoryview

    def __len__(self) -> int:
        """How many numbers."""
        return len(self.raw) // struct.calcsize(f">{self.form}")

    def values(self) -> Iterator[Any]:
        """The numbers, one after the other."""
        return (item[0] for item in struct.iter_unpack(f">{self.form}", self.raw))


class _Reader:
    def __init__(self, data: Buffer) -> None:
        self.cursor = Cursor(data)
        self.values_left = MOST_VALUES
        self.duplicates: list[str] = []

    def value(self, marker: str, depth: int) -> Any:
        self.values_left -= 1
        if self.values_left < 0:
            raise LimitError(f"more than {MOST_VALUES} values")
        if depth > DEEPEST:
            raise BrokenFormatError(f"values are nested more than {DEEPEST} deep", self.cursor.at)
        if marker in FORMS:
            return self.number(marker)
        if marker in CONSTANTS:
            return CONSTANTS[marker]
        if marker == "S":
            return self.text()
        if marker == "C":
            return self.cursor.take(1).decode("latin-1")
        if marker == "{":
            return self.map(depth)
        if marker == "[":
            return self.array(depth)
        raise BrokenFormatError(f"{marker!r} begins no value", self.cursor.at - 1)

    def marker(self) -> str:
        return self.cursor.take(1).decode("latin-1")

    def number(self, marker: str) -> Any:
        form = f">{FORMS[marker]}"
        return struct.unpack(form, self.cursor.take(struct.calcsize(form)))[0]

    def size(self) -> int:
        marker = self.marker()
        size = self.number(marker) if marker in "iUIlL" else -1
        if size < 0:
            raise BrokenFormatError("a size is no size", self.cursor.at)
        return int(size)

    def text(self) -> str:
        size = self.size()
        if size > LONGEST_TEXT:
            raise BrokenFormatError(f"a text of {size} bytes", self.cursor.at)
        return self.cursor.take(size).decode("utf-8", "backslashreplace")

    def map(self, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        while bytes(self.cursor.data[self.cursor.at : self.cursor.at + 1]) != b"}":
            key = self.text()
            if key in made and len(self.duplicates) < DEEPEST:
                self.duplicates.append(key)
            made[key] = self.value(self.marker(), depth + 1)
        self.cursor.skip(1)
        return made

    def array(self, depth: int) -> Any:
        marker = self.marker()
        if marker == "$":
            return self.numbers()
        if marker == "#":
            count = self.size()
            if count > self.cursor.left:
                raise BrokenFormatError(f"{count} values are announced", self.cursor.at)
            return [self.value(self.marker(), depth + 1) for _ in range(count)]
        made = []
        while marker != "]":
            made.append(self.value(marker, depth + 1))
            marker = self.marker()
        return made

    def numbers(self) -> Numbers:
        kind = self.marker()
        if kind not in FORMS or self.marker() != "#":
            raise BrokenFormatError(f"an array of {kind!r} has no known layout", self.cursor.at)
        size = self.size() * struct.calcsize(f">{FORMS[kind]}")
        at = self.cursor.skip(size)
        return Numbers(FORMS[kind], window(self.cursor.data, at, at + size))


class Document(NamedTuple):
    """One value and what came with it."""

    value: Any
    end: int
    """Offset behind the value."""
    duplicates: list[str]
    """Keys that occur twice in one map."""


def read_ubjson(data: Buffer) -> Document:
    """Read the value at the beginning.

    Raises:
        BrokenFormatError: it is no UBJSON.
        LimitError: it has more values than the structure of a model.
    """
    reader = _Reader(data)
    value = reader.value(reader.marker(), 0)
    return Document(value, reader.cursor.at, reader.duplicates)
