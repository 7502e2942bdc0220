"""What was seen at the places of repeated items, and the regular expressions that follow from it.

Alternatives are atomic and every repetition is possessive: what has matched once is never tried in another way.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.values import Symbol

MOST_FORMS = 3
"""Kinds of lists or dicts at one place above which their length is no longer part of the shape."""
MOST_ALTERNATIVES = 6
"""Kinds of composite items at one place; more are not learnt."""
LONGEST_TEXT = 127
LONGEST_BYTES = 15
MOST_FETCHED = 24
"""Memo entries that are fetched at one place and told from others."""
LOOSE = ((b"*", 0),)

TAKES_ALL = {b"e": op.EMPTY_LIST, b"u": op.EMPTY_DICT, b"\x90": op.EMPTY_SET}
FILLS = {
    op.EMPTY_LIST: frozenset({b"e", b"a"}),
    op.EMPTY_DICT: frozenset({b"u", b"s"}),
    op.EMPTY_SET: frozenset({b"\x90"}),
}
PUT = rb"r.{4}"
FETCH = rb"h.|j.{4}"
LOOSE_ITEMS = rb"){1,1000}+"
_MEMO = {"": b"", "memoize": b"\x94", "put": PUT}
NUMBERS = {
    op.BININT: rb"K.|M..|J.{4}",
    op.BINFLOAT: rb"G.{8}",
    op.NONE: rb"[N\x88\x89]",
}
"""Opcode that stands for a kind of numbers to what all of that kind look like."""
WIDTH = {op.SHORT_BINUNICODE: 1, op.SHORT_BINBYTES: 1, op.LONG1: 1, op.BINUNICODE: 4}
"""Opcodes of texts and bytes, and how many bytes say their length."""


class Key(NamedTuple):
    """What two composite items must have in common to be of the same form."""

    opcode: int
    """That makes it."""
    before: int
    """Parts that the opcode takes."""
    callee: bytes
    """The opcode that fetches what is called."""
    memo: str
    fills: tuple[tuple[bytes, int], ...]
    """What fills it afterwards: opcode and number of parts; ``LOOSE`` for any number of them."""


def key_of(opcode: int, before: int, callee: bytes = b"") -> Key:
    """The form of what an opcode has just made: not memoised, and not filled yet."""
    return Key(opcode, before, callee, "", ())


class Place:
    """What was seen at one place of an item, or what an item consists of."""

    __slots__ = ("depth", "fetched", "fetches_any", "forms", "loose", "texts")

    def __init__(self) -> None:
        self.texts: dict[tuple[int, str], int] = {}
        """Constants: kind and memo to the greatest length."""
        self.fetched: set[bytes] = set()
        """Opcodes that fetch something from the memo."""
        self.fetches_any = False
        """Whether any constant of the memo may be fetched: there were too many to tell."""
        self.forms: dict[Key, list[Place]] = {}
        self.loose: set[tuple[int, str]] = set()
        """Kinds of containers of which the length does not matter."""
        self.depth = 0

    def merge(self, other: Place) -> None:
        """Add what was seen elsewhere."""
        for kind, length in other.texts.items():
            self.texts[kind] = max(length, self.texts.get(kind, 0))
        self.fetched |= other.fetched
        self.fetches_any |= other.fetches_any
        self.depth = max(self.depth, other.depth)
        for container in other.loose - self.loose:
            self._loosen(container)
        for key, parts in other.forms.items():
            self._take(key, parts)

    def _take(self, key: Key, parts: list[Place]) -> None:
        container = (key.opcode, key.memo)
        if container in self.loose and key.fills != LOOSE:
            key, parts = loosened(key, parts)
        known = self.forms.get(key)
        if known is not None:
            for mine, part in zip(known, parts, strict=True):
                mine.merge(part)
        elif key.opcode in FILLS and key.fills != LOOSE and self._lengths(container) >= MOST_FORMS:
            self._loosen(container)
            self._take(key, parts)
        elif len(self.forms) < MOST_ALTERNATIVES:
            self.forms[key] = parts

    def _lengths(self, container: tuple[int, str]) -> int:
        return sum((key.opcode, key.memo) == container for key in self.forms)

    def _loosen(self, container: tuple[int, str]) -> None:
        self.loose.add(container)
        strict = [key for key in self.forms if (key.opcode, key.memo) == container and key.fills != LOOSE]
        for key, parts in [(key, self.forms.pop(key)) for key in strict]:
            self._take(key, parts)

    def kinds(self) -> list[tuple[object, ...]]:
        """Of what kind the items are, roughly."""
        found: list[tuple[object, ...]] = [(kind, -1) for kind, _ in self.texts]
        found += [(key.opcode, key.before, key.callee) for key in self.forms]
        return [*found, (-1, -1)] if self.fetched or self.fetches_any else found

    def is_empty(self) -> bool:
        """Whether nothing was seen."""
        return not (self.texts or self.fetched or self.fetches_any or self.forms)

    def is_numbers(self) -> bool:
        """Whether nothing but numbers was seen."""
        is_plain = not (self.fetched or self.fetches_any or self.forms)
        return is_plain and all(kind in NUMBERS for kind, _ in self.texts)

    def generalise(self, fetched: dict[int, Symbol]) -> None:
        """Where many constants were fetched, let it be any; where many others were, give up those."""
        constants = {each for each in self.fetched if fetched.get(int.from_bytes(each[1:], "little")).__class__ is int}
        if self.fetches_any or len(constants) > MOST_FETCHED:
            self.fetches_any = True
            self.fetched -= constants
        self.fetched = set(sorted(self.fetched)[:MOST_FETCHED])
        for part in itertools.chain.from_iterable(self.forms.values()):
            part.generalise(fetched)

    def size(self) -> int:
        """Places in it, itself included."""
        return 1 + sum(part.size() for parts in self.forms.values() for part in parts)

    def pattern(self) -> bytes:
        """The regular expression of what was seen here."""
        forms = sorted(self.forms.items(), key=lambda form: (not form[0].callee, -form[0].before))
        found = [_form_pattern(key, parts) for key, parts in forms]
        found += [_fetch_pattern(self.fetched)] if self.fetched else []
        found += [FETCH] if self.fetches_any else []
        found += [_constant_pattern(*kind, length) for kind, length in sorted(self.texts.items())]
        return b"(?>" + b"|".join(found) + b")"

    def memos(self) -> set[str]:
        """In which ways something enters the memo."""
        found = {memo for _, memo in self.texts} | {key.memo for key in self.forms}
        return found.union(*(part.memos() for parts in self.forms.values() for part in parts)) - {""}

    def callers(self) -> tuple[bytes, int | None]:
        """The regular expression of the items that are the result of a call, and how many calls are in each."""
        calling = Place()
        calling.forms = {key: parts for key, parts in self.forms.items() if key.callee}
        others = Place()
        others.forms = {key: parts for key, parts in self.forms.items() if not key.callee}
        if not calling.forms or (others.forms and others.calls() != 0):
            return b"", None
        return calling.pattern(), calling.calls()

    def entries(self) -> int | None:
        """Memo entries that an item of this shape adds; None when they differ."""
        return self.counted(lambda key: key.memo != "", lambda kind: kind[1] != "")

    def calls(self) -> int | None:
        """Calls in an item of this shape; None when they differ."""
        return self.counted(lambda key: key.callee != b"", lambda _kind: False)

    def counted(self, own: Callable[[Key], bool], of_constant: Callable[[tuple[int, str]], bool]) -> int | None:
        """How often something happens in an item; None when items differ."""
        counts = {int(of_constant(kind)) for kind in self.texts} | ({0} if self.fetched or self.fetches_any else set())
        for key, parts in self.forms.items():
            inner = [part.counted(own, of_constant) for part in parts]
            if None in inner or (key.fills == LOOSE and any(inner)):
                return None
            counts.add(int(own(key)) + sum(each for each in inner if each))
        return counts.pop() if len(counts) == 1 else None


def loosened(key: Key, parts: list[Place]) -> tuple[Key, list[Place]]:
    """The same container, whatever its length."""
    each = [Place(), Place()] if key.opcode == op.EMPTY_DICT else [Place()]
    for number, part in enumerate(parts):
        each[number % len(each)].merge(part)
    return key._replace(fills=LOOSE), each


def _form_pattern(key: Key, parts: list[Place]) -> bytes:
    made = re.escape(bytes([key.opcode])) + _MEMO[key.memo]
    if key.fills == LOOSE:
        return made + _loose_pattern(key.opcode, parts)
    patterns = [part.pattern() for part in parts]
    before = b"".join(patterns[: key.before])
    marked = rb"\(" if key.opcode in {op.TUPLE, op.FROZENSET} else b""
    out = marked + re.escape(key.callee) + before + made
    at = key.before
    for fill, count in key.fills:
        mark = rb"\(" if fill in TAKES_ALL else b""
        out += mark + b"".join(patterns[at : at + count]) + re.escape(fill)
        at += count
    return out


def _loose_pattern(opcode: int, parts: list[Place]) -> bytes:
    if any(part.is_empty() for part in parts):
        return b""
    item = b"".join(part.pattern() for part in parts)
    one = {op.EMPTY_LIST: b"|" + item + b"a", op.EMPTY_DICT: b"|" + item + b"s"}.get(opcode, b"")
    many = next(fill for fill, made in TAKES_ALL.items() if made == opcode)
    return rb"(?>\((?:" + item + LOOSE_ITEMS + re.escape(many) + one + rb"){0,64}+"


def _fetch_pattern(fetched: set[bytes]) -> bytes:
    short = sorted(literal[1:] for literal in fetched if literal[:1] == b"h")
    found = [b"h[" + b"".join(re.escape(index) for index in short) + b"]"] if short else []
    found += [re.escape(literal) for literal in sorted(fetched) if literal[:1] != b"h"]
    return b"|".join(found)


def _constant_pattern(kind: int, memo: str, longest: int) -> bytes:
    if kind in NUMBERS:
        return NUMBERS[kind]
    width = WIDTH[kind]
    bound = LONGEST_BYTES if kind in {op.SHORT_BINBYTES, op.LONG1} else LONGEST_TEXT
    sizes = range(min(2 * longest + 8, bound) + 1)
    lengths = [re.escape(size.to_bytes(width, "little")) + b".{%d}" % size for size in sizes]
    if len(lengths) > 24:  # noqa: PLR2004 -- from here on two steps are quicker than one
        groups = [(start, lengths[start : start + 16]) for start in range(0, len(lengths), 16)]
        lengths = [_from_to(start, start + 15) + b"(?>" + b"|".join(group) + b")" for start, group in groups]
    return re.escape(bytes([kind])) + b"(?>" + b"|".join(lengths) + b")" + _MEMO[memo]


def _from_to(first: int, last: int) -> bytes:
    return b"(?=[" + re.escape(bytes([first])) + b"-" + re.escape(bytes([last])) + b"])"
