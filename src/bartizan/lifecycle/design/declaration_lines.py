"""Where each key and value of a TOML document stands: key path to line.

``tomllib`` gives values without positions. This scanner walks the same text once, in linear time,
understands just enough of TOML 1.0 (https://toml.io/en/v1.0.0) to follow keys, tables and nesting,
and never fails: on text that is no TOML it skips to the next line. It also bounds what ``tomllib``
is asked to do, because that is quadratic in the length of a dotted key and recursive in nesting.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left

import msgspec

Place = tuple[str | int, ...]
"""Path to a value: keys, and positions in arrays."""

MAX_DEPTH = 16
MAX_VALUES = 100_000

_BLANK = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_SPACE = re.compile(r"[ \t]*+")
_BARE = re.compile(r"[A-Za-z0-9_-]++")
_LINE = re.compile(r"[^\n]*+")
_BASIC = re.compile(r'"(?:[^"\\\n]++|\\.)*+"')
_LITERAL = re.compile(r"'[^'\n]*+'")
_LONG_BASIC = re.compile(r'"""(?:[^"\\]++|\\.|"(?!""))*+"{3,5}', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''(?:[^']++|'(?!''))*+'{3,5}")
_SCALAR = re.compile(r"[^,\[\]{}#\n\"']++")


class Repeat(msgspec.Struct, frozen=True):
    """A key or table that was given more than once."""

    place: Place
    line: int
    first: int
    """Line on which it was given before."""


class LineIndex(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of a document, 1-based."""

    lines: dict[Place, int]
    repeats: tuple[Repeat, ...] = ()
    excess: str = ""
    """Why the document is too big to be read; empty when it is not."""
    excess_line: int = 0

    def line(self, place: Place) -> int:
        """Line of a place, or of the nearest place around it that is written down."""
        for end in range(len(place), 0, -1):
            if place[:end] in self.lines:
                return self.lines[place[:end]]
        return 1


def index_lines(text: str) -> LineIndex:
    """Scan a document. Text that is no TOML is indexed as far as it can be followed."""
    scanner = _Scanner(text)
    try:
        scanner.document()
    except _ExcessError as error:
        return LineIndex(
            lines=scanner.lines,
            repeats=tuple(scanner.repeats),
            excess=str(error),
            excess_line=scanner.here(),
        )
    return LineIndex(lines=scanner.lines, repeats=tuple(scanner.repeats))


class _ExcessError(Exception):
    """The document is nested too deeply or holds too many values."""


class _LostError(Exception):
    """What follows is no TOML; go on with the next line."""


class _Scanner:
    """One pass over one document."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Place, int] = {}
        self.repeats: list[Repeat] = []
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._given: dict[Place, int] = {}
        self._last: dict[Place, int] = {}
        self._values = 0

    def here(self) -> int:
        """The line that is being read."""
        return bisect_left(self._newlines, self.at) + 1

    def document(self) -> None:
        """Follow headers and key/value pairs to the end."""
        table: Place = ()
        while self._skip(_BLANK) < len(self.text):
            try:
                if self.text[self.at] == "[":
                    table = self._header()
                else:
                    self._pair(table)
            except _LostError:
                pass
            self._skip(_LINE)

    def _header(self) -> Place:
        """``[table]`` or ``[[array of tables]]``: where the keys below it belong."""
        line, many = self.here(), self.text.startswith("[[", self.at)
        self.at += 2 if many else 1
        self._skip(_SPACE)
        parts = self._key()
        place = (*self._inside(parts[:-1], line), parts[-1])
        self._note(place, line, given=not many)
        if many:
            self._last[place] = self._last.get(place, -1) + 1
            place = (*place, self._last[place])
            self._note(place, line)
        return place

    def _inside(self, parts: tuple[str, ...], line: int) -> Place:
        """Place of a super-table; in an array of tables that is the latest one."""
        place: Place = ()
        for part in parts:
            place = (*place, part)
            self._note(place, line)
            if place in self._last:
                place = (*place, self._last[place])
        return place

    def _pair(self, table: Place) -> None:
        line, parts = self.here(), self._key()
        for end in range(1, len(parts)):
            self._note((*table, *parts[:end]), line)
        place = (*table, *parts)
        self._note(place, line, given=True)
        if not self.text.startswith("=", self.at):
            raise _LostError
        self.at += 1
        self._skip(_SPACE)
        self._value(place)

    def _key(self) -> tuple[str, ...]:
        """A dotted key, with the blanks after it."""
        parts = [self._key_part()]
        while self._skip(_SPACE) < len(self.text) and self.text[self.at] == ".":
            if len(parts) >= MAX_DEPTH:
                raise _ExcessError(f"a key has more than {MAX_DEPTH} parts")
            self.at += 1
            self._skip(_SPACE)
            parts.append(self._key_part())
        return tuple(parts)

    def _key_part(self) -> str:
        for pattern in (_BARE, _LITERAL, _BASIC):
            match = pattern.match(self.text, self.at)
            if match:
                self.at = match.end()
                return _unquoted(match[0])
        raise _LostError

    def _value(self, place: Place) -> None:
        opening = self.text[self.at : self.at + 1]
        if opening == "[":
            self._array(place)
        elif opening == "{":
            self._inline_table(place)
        elif opening in {'"', "'"}:
            self._string()
        else:
            self._skip(_SCALAR)

    def _array(self, place: Place) -> None:
        self.at += 1
        index = 0
        while not self._closes("]"):
            before = self.at
            self._note((*place, index), self.here())
            self._value((*place, index))
            self._separator(before)
            index += 1

    def _inline_table(self, place: Place) -> None:
        self.at += 1
        while not self._closes("}"):
            before = self.at
            self._pair(place)
            self._separator(before)

    def _closes(self, bracket: str) -> bool:
        if self._skip(_BLANK) >= len(self.text):
            raise _LostError
        if self.text[self.at] != bracket:
            return False
        self.at += 1
        return True

    def _separator(self, before: int) -> None:
        self._skip(_BLANK)
        if self.text.startswith(",", self.at):
            self.at += 1
        if self.at == before:
            raise _LostError

    def _string(self) -> None:
        for pattern in (_LONG_BASIC, _LONG_LITERAL, _BASIC, _LITERAL):
            match = pattern.match(self.text, self.at)
            if match:
                self.at = match.end()
                return
        raise _LostError

    def _note(self, place: Place, line: int, *, given: bool = False) -> None:
        """Remember the line; ``given`` marks what TOML allows to be given only once."""
        self._values += 1
        if len(place) > MAX_DEPTH:
            raise _ExcessError(f"values are nested deeper than {MAX_DEPTH} levels")
        if self._values > MAX_VALUES:
            raise _ExcessError(f"more than {MAX_VALUES} keys and values")
        self.lines.setdefault(place, line)
        if given and place in self._given:
            self.repeats.append(Repeat(place, line, self._given[place]))
        elif given:
            self._given[place] = line

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.at


def _unquoted(part: str) -> str:
    """A key without its quotes."""
    if part[0] == "'":
        return part[1:-1]
    if part[0] != '"':
        return part
    try:
        return next(iter(tomllib.loads(f"{part} = 0")))
    except tomllib.TOMLDecodeError:
        return part[1:-1]
