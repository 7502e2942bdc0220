"""Runs: stretches of a pickle that are stepped over at the speed of the regular-expression engine.

Large pickles consist mostly of batches: MARK, up to a thousand items, APPENDS or SETITEMS. Batches of
numbers are matched here as they are; other items are learnt from the pickle itself (see ``learning``).
A run touches nothing but what it pushed itself, and nothing in it can fire a rule. What it pushes and
memoises is worked out only when something refers to it, by the machine itself (``Machine.work_out``).
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.pickle.values import DictSymbol

if TYPE_CHECKING:
    from bartizan.lifecycle.develop.scan.pickle.machine import Machine
    from bartizan.lifecycle.develop.scan.pickle.shapes import Shape

NUMBERS_START = frozenset({*op.FIXED, op.LONG1})
"""Opcodes that a run of numbers can begin with."""
_LONG = rb"\x8a(?>\x05.{5}|\x06.{6}|\x07.{7}|\x08.{8}|\x09.{9})"
_NUMBER = rb"(?:G.{8})++|(?:J.{4})++|(?:M..)++|(?:K.)++|[N\x88\x89]++|(?:" + _LONG + rb")++"


@functools.cache
def _numbers() -> re.Pattern[bytes]:
    """Numbers alone, up to what consumes them all or to a frame; nothing enters the memo.

    No group may capture in a possessive repeat: some versions of CPython then raise ``SystemError``.
    """
    return re.compile(rb"(?s)(?:" + _NUMBER + rb"){1,5000}+(?=[e\x90\x95])")


@functools.cache
def _each_number() -> re.Pattern[bytes]:
    return re.compile(rb"(?s)G.{8}|J.{4}|M..|K.|[N\x88\x89]|" + _LONG)


@functools.cache
def _between(wanted: bytes) -> re.Pattern[bytes]:
    """Opcodes up to the next one that is ``wanted``, a set in the manner of a pattern; ``MARK`` to ``BUILD``."""
    sizes = [(size, b".{%d}" % size) for size in range(256)]
    by_length = b"|".join(re.escape(bytes([size])) + content for size, content in sizes)
    by_long_length = b"|".join(re.escape(bytes([size, 0, 0, 0])) + content for size, content in sizes)
    others = bytes(sorted(set(b"])}(eusabtlR\x81\x85\x86\x87\x8f\x90\x91\x94N\x88\x89") - set(wanted)))
    tokens = [rb"[" + re.escape(others) + rb"]", rb"h.", rb"K.", rb"M..", rb"J.{4}", rb"G.{8}", rb"j.{4}"]
    tokens += [rb"[\x8cC\x8a](?>" + by_length + rb")", rb"X(?>" + by_long_length + rb")"]
    tokens += [] if wanted == b"r" else [rb"r.{4}"]
    found = rb"r(.{4})" if wanted == b"r" else rb"([" + re.escape(wanted) + rb"])"
    return re.compile(rb"(?s)(?:" + rb"|".join(tokens) + rb")*+(?:" + found + rb"|\Z)")


class Run:
    """Items from ``start`` to ``end`` of which nothing is kept."""

    __slots__ = (
        "_calls",
        "_count",
        "_entries",
        "end",
        "fetched",
        "first",
        "is_listed",
        "items",
        "machine",
        "memoised",
        "shape",
        "start",
    )

    def __init__(self, machine: Machine, start: int, end: int) -> None:
        self.machine = machine
        self.start = start
        self.end = end
        self.fetched: dict[int, Any] = {}
        """What it may fetch, by memo index."""
        self.first = 0
        """Memo index that its first entry got, where it says so itself (below protocol 4)."""
        self.is_listed = False
        """Whether its items are those of a list, which are no states of anything."""
        self.items: list[Any] | None = None
        """What it pushes, once worked out."""
        self.memoised: list[Any] = []
        """What it adds to the memo, once worked out."""
        self.shape: Shape | None = None
        """What it was matched with."""
        self._count: int | None = None
        self._entries: int | None = 0
        self._calls: int | None = 0

    def known(self, count: int | None, entries: int | None, calls: int | None) -> None:
        """Take note of how much it pushes, memoises and calls; None where that varies."""
        self._count, self._entries, self._calls = count, entries, calls

    def adds(self) -> bool:
        """Whether it may add to the memo."""
        return self._entries != 0

    def has_calls(self) -> bool:
        """Whether there may be calls in it."""
        return self._calls != 0

    def ready(self) -> list[Any]:
        """``items``, worked out now if they were not.

        Raises:
            LimitError: that is too much.
        """
        if self.items is None:
            self.machine.work_out(self)
        return self.items or []

    def drop_constants(self) -> None:
        """See ``DictSymbol.drop_constants``: its items are handed to a list."""
        self.is_listed = True
        for item in self.items or ():
            if item.__class__ is DictSymbol:
                item.drop_constants()

    def count(self) -> int:
        """Number of symbols that it pushes."""
        if self._count is None:
            self._count = len(_each_number().findall(self.machine.data, self.start, self.end))
        return self._count

    def entries(self) -> int:
        """Number of entries that it adds to the memo."""
        if self._entries is None:
            self._entries = self._occurrences(b"\x94") + len(self.indexes())
        return self._entries

    def calls(self) -> int:
        """Number of calls in it."""
        if self._calls is None:
            counted = (
                self.shape.count_calls(self.machine.data, self.start, self.end) if self.shape is not None else None
            )
            self._calls = self._occurrences(b"\x81R") if counted is None else counted
        return self._calls

    def indexes(self) -> list[bytes]:
        """Memo indexes of the LONG_BINPUTs in it."""
        return [index for index in _between(b"r").findall(self.machine.data, self.start, self.end) if index]

    def _occurrences(self, wanted: bytes) -> int:
        found: list[bytes] = _between(wanted).findall(self.machine.data, self.start, self.end)
        return sum(1 for each in found if each)

    def shared(self) -> list[Any]:
        """What it fetches that is no constant."""
        return [value for value in self.fetched.values() if value.__class__ is not int]


class RunMemo:
    """The memo as a run sees it: what it may fetch, and what it adds itself."""

    __slots__ = ("added", "append", "run")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.added: list[Any] = []
        self.append = self.added.append

    def __len__(self) -> int:
        return self.run.first + len(self.added) if self.run.first else 1 << 40

    def __getitem__(self, index: int) -> Any:
        return self.run.fetched[index]


def find_numbers(machine: Machine, data: Buffer, pos: int) -> Run | None:
    """The run of numbers that begins at ``pos``, right after a MARK, if the batch consists of nothing else."""
    match = _numbers().match(data, pos)
    if match is None:
        return None
    run = Run(machine, pos, match.end())
    run.known(None, 0, 0)
    return run
