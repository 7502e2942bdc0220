"""Runs of plain items, skipped at the speed of the regular-expression engine.

Large pickles consist mostly of batches: MARK, up to a thousand numbers, short texts, small tuples,
small lists of numbers or dicts of all these, then APPENDS or SETITEMS. Nothing in such a batch can
import or call, so it is matched as a whole. What it put into the memo is worked out only if the
pickle ever refers to an entry that lies behind it; how many items it has is never counted, so a key
without a value goes unnoticed here. A batch of records repeats its keys by fetching them from the
memo; the machine steps over it only when all that it fetches are constants.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.constants import BrokenPickleError, Buffer
from bartizan.lifecycle.develop.scan.pickle.values import DictSymbol, ListSymbol

LONGEST_TEXT = 63
MOST_SHORT = 255
"""Memo entries above this are fetched by LONG_BINGET."""

_PARTS = {
    b"NUMBERS": rb"(?:(?:G.{8})++|(?:J.{4})++|(?:M..)++|(?:K.)++|[N\x88\x89]++)",
    b"NUMBER": rb"(?:J.{4}|M..|K.|G.{8}|[N\x88\x89])",
    b"FRAME": rb"\x95.{8}",
    b"LENGTHS": b"|".join(re.escape(bytes([n])) + b".{%d}" % n for n in range(LONGEST_TEXT + 1)),
}


def _pattern(text: bytes) -> re.Pattern[bytes]:
    """A pattern in which the names above stand for their parts.

    No group may stand in a possessive repeat: some versions of CPython then raise ``SystemError``.
    """
    for name, part in _PARTS.items():
        text = text.replace(name, part)
    return re.compile(b"(?s)" + text)


_NUMBERS = _pattern(rb"(?:NUMBERS|FRAME){1,5000}+(?=[eu])")
"""Numbers alone; nothing enters the memo."""
_TEXT = rb"\x8c(?:LENGTHS)\x94"
_LIST = rb"\]\x94\((?:NUMBER{1,6}+e|(?:NUMBERS|FRAME){1,1000}+e)"
_TUPLE = (
    rb"NUMBER(?:\x85\x94"
    rb"|NUMBER(?:\x86\x94|NUMBER(?:\x87\x94|FRAME\x87\x94)?+|FRAME(?:\x86\x94|NUMBER\x87\x94)?+)?+"
    rb"|FRAME(?:\x85\x94|NUMBER(?:\x86\x94|NUMBER\x87\x94)?+)?+)?+"
)
"""One to three numbers, as a tuple or not; a frame may begin after each."""
_ITEMS = rb"|".join([_TEXT, _LIST, _TUPLE, rb"FRAME"])
_PLAIN = _pattern(rb"(?:" + _ITEMS + rb"){2,5000}+(?=[eu])")


def _records(fetched: bytes) -> re.Pattern[bytes]:
    """A batch in which dicts are, and what is fetched from the memo."""
    in_dict = _ITEMS + b"|" + fetched
    filled = rb"\((?:" + in_dict + rb"){2,400}+u|(?:" + in_dict + rb"){1,4}+s"
    each = rb"\}\x94(?:" + filled + rb")?+|" + _ITEMS + b"|" + fetched
    return _pattern(rb"(?:" + each + rb"){1,5000}+(?=[eu])")


_RECORDS = _records(rb"h.|j.{4}")
_TOKENS = rb"(?:NUMBERS|\x8c(?:LENGTHS)|[\]}\x94(eus\x85-\x87]%s)*+"
_FETCHES = _pattern(_TOKENS % rb"|FRAME" + rb"(?:h(.)|j(.{4})|\Z)")
_TO_FRAME = _pattern(_TOKENS % rb"|h.|j.{4}" + rb"\x95")
RUN_STARTS = frozenset({*op.FIXED, op.SHORT_BINUNICODE, op.EMPTY_LIST, op.EMPTY_DICT, op.FRAME})
"""Opcodes that a run can begin with."""


class Run:
    """Plain items from ``start`` to ``end``, all between a MARK and the opcode that consumes them."""

    __slots__ = ("dicts", "end", "fetches", "is_known", "items", "memoised", "memoises", "settle", "start")

    def __init__(self, start: int, end: int, *, memoises: bool, fetches: bool = False, is_known: bool = False) -> None:
        self.start = start
        self.end = end
        self.memoises = memoises
        """Whether it adds to the memo."""
        self.fetches = fetches
        """Whether it may fetch from the memo."""
        self.is_known = is_known
        """Whether all that it fetches is known to be constant."""
        self.settle: Callable[[], None] | None = None
        """Works out everything up to here, for a run that fetches."""
        self.dicts = 0
        """Dicts in it, once worked out."""
        self.memoised: list[Any] = []
        """What it adds, in order, once worked out."""
        self.items: list[Any] = []
        """What it pushes, once worked out."""

    def wanted(self, data: Buffer) -> set[int]:
        """Memo entries that it fetches."""
        found = set(_FETCHES.findall(data, self.start, self.end))
        return {int.from_bytes(short or long, "little") for short, long in found if short or long}

    def has_frames(self, data: Buffer) -> bool:
        """Whether a frame begins in it."""
        might = op.FRAME in bytes(data[self.start : self.end])
        return might and _TO_FRAME.match(data, self.start, self.end) is not None

    def ready(self, data: Buffer) -> list[Any]:
        """``items``, worked out now if they were not."""
        if self.settle is not None and not self.items:
            self.settle()
        self.work_out(data, [])
        return self.items

    def work_out(self, data: Buffer, memo: list[Any]) -> None:
        """Fill ``memoised`` and ``items``, once; ``memo`` is all that was memoised before.

        Raises:
            BrokenPickleError: it fetches what is not there, or fills what is no dict.
        """
        if self.items:
            return
        stack = self.items
        marks: list[int] = []
        pos = self.start
        while pos < self.end:
            opcode = data[pos]
            size = op.FIXED_SIZE[opcode]
            if size:
                stack.append(pos)
            elif opcode == op.SHORT_BINUNICODE:
                stack.append(pos)
                size = 2 + data[pos + 1]
            elif opcode == op.FRAME:
                size = 9
            elif opcode == op.BINGET or opcode == op.LONG_BINGET:  # noqa: PLR1714 -- twice as fast as a set
                size = 2 if opcode == op.BINGET else 5
                stack.append(self._fetch(int.from_bytes(bytes(data[pos + 1 : pos + size]), "little"), memo))
            else:
                self._settle(opcode, stack, marks)
                size = 1
            pos += size

    def _fetch(self, index: int, memo: list[Any]) -> Any:
        if index < len(memo):
            return memo[index]
        if index - len(memo) < len(self.memoised):
            return self.memoised[index - len(memo)]
        raise BrokenPickleError(f"memo entry {index} does not exist")

    def _fill(self, target: Any, items: list[Any]) -> None:
        if target.__class__ is not DictSymbol:
            raise BrokenPickleError("a key and a value are given to something that is no dict")
        target.extend(items)

    def _settle(self, opcode: int, stack: list[Any], marks: list[int]) -> None:
        """The opcodes of a run that are no constants."""
        if opcode == op.MEMOIZE:
            self.memoised.append(stack[-1])
        elif opcode == op.EMPTY_LIST:
            stack.append(ListSymbol())
        elif opcode == op.EMPTY_DICT:
            self.dicts += 1
            stack.append(DictSymbol())
        elif opcode == op.SETITEM:
            self._fill(stack[-3], stack[-2:])
            del stack[-2:]
        elif opcode == op.SETITEMS:
            mark = marks.pop()
            self._fill(stack[mark - 1], stack[mark:])
            del stack[mark:]
        elif opcode == op.MARK:
            marks.append(len(stack))
        elif opcode == op.APPENDS:
            mark = marks.pop()
            stack[mark - 1].constants = len(stack) - mark
            del stack[mark:]
        else:
            count = opcode - op.TUPLE1 + 1
            stack[-count:] = [tuple(stack[-count:])]


@functools.lru_cache(maxsize=16)
def records_with(fetched: frozenset[int]) -> re.Pattern[bytes]:
    """The pattern of batches of records that fetch only these memo entries."""
    short = [b"h" + re.escape(bytes([index])) for index in sorted(fetched) if index <= MOST_SHORT]
    long = [b"j" + re.escape(index.to_bytes(4, "little")) for index in sorted(fetched) if index > MOST_SHORT]
    return _records(b"|".join(short + long))


def find_run(data: Buffer, pos: int, records: re.Pattern[bytes] | None = None) -> Run | None:
    """The run that begins at ``pos``, right after a MARK, if the batch consists of nothing else.

    ``records`` is the pattern of those that fetch only what is known to be constant, and so need no second look.
    """
    match = _NUMBERS.match(data, pos)
    if match is not None:
        return Run(pos, match.end(), memoises=False)
    match = _PLAIN.match(data, pos)
    if match is not None:
        return Run(pos, match.end(), memoises=True)
    match = records.match(data, pos) if records is not None else None
    if match is not None:
        return Run(pos, match.end(), memoises=True, fetches=True, is_known=True)
    match = _RECORDS.match(data, pos)
    if match is not None:
        return Run(pos, match.end(), memoises=True, fetches=True)
    return None
