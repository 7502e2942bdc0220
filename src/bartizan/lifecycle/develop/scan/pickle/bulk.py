"""Runs of plain items, skipped at the speed of the regular-expression engine.

Large pickles consist mostly of batches: MARK, up to a thousand numbers, short texts, small tuples
or small lists of numbers, then APPENDS or SETITEMS. Nothing in such a batch can import or call, so
it is matched as a whole. What it put into the memo is worked out only if the pickle ever refers to
an entry that lies behind it; how many items it has is never counted, so a key without a value goes
unnoticed here.
"""

from __future__ import annotations

import re
from typing import Any

from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.pickle.values import ListSymbol

LONGEST_TEXT = 63

_PARTS = {
    b"NUMBERS": rb"(?:(?:G.{8})++|(?:J.{4})++|(?:M..)++|(?:K.)++|[N\x88\x89]++)",
    b"NUMBER": rb"(?:J.{4}|M..|K.|G.{8}|[N\x88\x89])",
    b"FRAME": rb"(\x95).{8}",
    b"LENGTHS": b"|".join(re.escape(bytes([n])) + b".{%d}" % n for n in range(LONGEST_TEXT + 1)),
}


def _pattern(text: bytes) -> re.Pattern[bytes]:
    """A pattern in which the names above stand for their parts; the only groups are where a frame begins."""
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
_PLAIN = _pattern(rb"(?:" + rb"|".join([_TEXT, _LIST, _TUPLE, rb"FRAME"]) + rb"){2,5000}+(?=[eu])")
RUN_STARTS = frozenset({*op.FIXED, op.SHORT_BINUNICODE, op.EMPTY_LIST, op.FRAME})
"""Opcodes that a run can begin with."""


class Run:
    """Plain items from ``start`` to ``end``, all between a MARK and the opcode that consumes them."""

    __slots__ = ("end", "has_frames", "items", "memoised", "memoises", "start")

    def __init__(self, start: int, end: int, *, memoises: bool, has_frames: bool) -> None:
        self.start = start
        self.end = end
        self.memoises = memoises
        """Whether it adds to the memo."""
        self.has_frames = has_frames
        self.memoised: list[Any] = []
        """What it adds, in order, once worked out."""
        self.items: list[Any] = []
        """What it pushes, once worked out."""

    def work_out(self, data: Buffer) -> None:
        """Fill ``memoised`` and ``items``, once."""
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
            else:
                self._settle(opcode, stack, marks)
                size = 1
            pos += size

    def _settle(self, opcode: int, stack: list[Any], marks: list[int]) -> None:
        """The opcodes of a run that are no constants."""
        if opcode == op.MEMOIZE:
            self.memoised.append(stack[-1])
        elif opcode == op.EMPTY_LIST:
            stack.append(ListSymbol())
        elif opcode == op.MARK:
            marks.append(len(stack))
        elif opcode == op.APPENDS:
            mark = marks.pop()
            stack[mark - 1].constants = len(stack) - mark
            del stack[mark:]
        else:
            count = opcode - op.TUPLE1 + 1
            stack[-count:] = [tuple(stack[-count:])]


def find_run(data: Buffer, pos: int) -> Run | None:
    """The run that begins at ``pos``, right after a MARK, if the batch consists of nothing else."""
    match = _NUMBERS.match(data, pos)
    if match is not None:
        return Run(pos, match.end(), memoises=False, has_frames=match.lastindex is not None)
    match = _PLAIN.match(data, pos)
    if match is not None:
        return Run(pos, match.end(), memoises=True, has_frames=match.lastindex is not None)
    return None
