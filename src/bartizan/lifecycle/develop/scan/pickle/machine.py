"""The pickle machine, run on symbols: it follows every opcode and builds nothing.

``Machine.run`` walks one pickle from its first opcode to STOP exactly as CPython's unpickler would
(``Lib/pickle.py``, ``_Unpickler``), with three differences: objects are symbols (``values``), what
an import or a call would do is put to a ``Judge``, and text and bytes are never copied. Where the
unpickler would raise, the walk ends as malformed; what was judged until then stands, because a real
load would have done it as well.

The loop in ``_spin`` handles the ten opcodes that make up nearly all of a large pickle itself; all
others are functions in ``steps``. Items that repeat are stepped over in runs (``bulk``, ``leap``): one
symbol then stands for many on the stack. It is always the last of a list in ``frames``, the list
``stack`` begins anew behind it, and whatever takes more than is there has it worked out first.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from bartizan.lifecycle.develop.scan.limits import LimitError, Meter
from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.bulk import NUMBERS_START, Run, RunMemo, find_numbers
from bartizan.lifecycle.develop.scan.pickle.constants import BrokenPickleError, Buffer, let_go
from bartizan.lifecycle.develop.scan.pickle.memo import FarMemo
from bartizan.lifecycle.develop.scan.pickle.opcodes import (
    BINGET,
    BINPUT,
    BINUNICODE,
    EMPTY_LIST,
    LONG_BINGET,
    LONG_BINPUT,
    MARK,
    MEMOIZE,
    SHORT_BINUNICODE,
    TUPLE2,
)
from bartizan.lifecycle.develop.scan.pickle.values import ListSymbol, Name, Symbol, is_container

if TYPE_CHECKING:
    from bartizan.lifecycle.develop.scan.pickle.judge import Judge

MAPPED = 1 << 24
"""Bytes of a mapped file that stay in memory behind the walk."""
CHUNK = 1 << 12
"""Opcodes between two looks at the limits."""
FAR_MEMO = 1 << 20
"""A memo index this far past what the pickle has filled makes the unpickler allocate for nothing."""
PEEKED = 1 << 16
"""Bytes of a run that are worked out merely to learn a shape."""

TAKERS = frozenset({MEMOIZE, BINPUT, LONG_BINPUT, TUPLE2})
"""Opcodes of the loop that may find too little on the stack; until then they have changed nothing."""

_U32 = struct.Struct("<I").unpack_from

Step = Callable[["Machine", int], int]
"""Carries out the opcode at an offset and returns the offset of the next one."""


class StopError(Exception):
    """STOP was carried out."""


class Leaps(Protocol):
    """Finds items that can be stepped over (``leap.Leaper``)."""

    def leap(self, machine: Machine) -> int:
        """Step over what lies ahead; returns how many opcodes to carry out until the next call."""

    def forget(self) -> None:
        """Forget what was learnt of the memo."""

    def regret(self) -> None:
        """What was stepped over had to be worked out."""


class BuildHook(Protocol):
    """What a loader adds to BUILD (joblib reads an array from the file)."""

    def __call__(self, machine: Machine, pos: int) -> int:
        """Look at the object on top of the stack, return where the stream goes on."""


class Machine:
    """One walk over one pickle."""

    def __init__(
        self,
        data: Buffer,
        judge: Judge,
        meter: Meter,
        steps: tuple[Step | None, ...],
        after_build: BuildHook | None = None,
    ) -> None:
        self.data = data
        self.judge = judge
        self.meter = meter
        self.limits = meter.limits
        self.steps = steps
        self.after_build = after_build
        self.stack: list[Symbol] = []
        self.frames: list[list[Symbol]] = []
        """Stacks below the open MARKs."""
        self.below = 0
        """Symbols in them."""
        self.memo: list[Symbol] = []
        self.far = FarMemo()
        """Memo entries behind ``memo``, from the first run on that adds some."""
        self.sparse: dict[int, Symbol] = {}
        """Memo entries past the end of both."""
        self.is_dense = True
        """Whether ``memo`` is all there is."""
        self.leaper: Leaps | None = None
        self.watched: frozenset[str] = frozenset()
        """Classes that ``after_build`` looks at."""
        self.number_runs = NUMBERS_START
        """What may begin a run of numbers."""
        self.runs: list[Run] = []
        """Runs of which the calls have not been counted."""
        self.unfolded = 0
        """Symbols in the runs that were worked out."""
        self.protocol = 0
        self.start = 0
        self.pos = 0
        self.frame_end = 0
        """End of the current FRAME."""
        self.opcodes = 0
        self.nodes = 0
        self.shares = 0
        """How often a container was fetched from the memo or duplicated."""
        self.wraps = 0
        """How often a tuple was put around a container that was on the stack already."""
        self.height = 0
        """Most symbols and marks that were seen on the stack at once, give or take ``CHUNK``."""
        self.calls = 0
        self.arrays = 0
        self.ended = ""
        """``stop``, ``malformed`` or ``limit``."""
        self.why = ""
        """Why it ended other than by STOP."""

    def inherit(self, before: Machine) -> None:
        """Begin with the memo that another machine on the same bytes ended with, which loses it.

        Raises:
            LimitError: it has too many entries.
            BrokenPickleError: it cannot be worked out.
        """
        self.memo, before.memo = before.memo, []
        self.sparse, before.sparse = before.sparse, {}
        self.far, before.far = before.far, FarMemo()
        self.unfolded = before.unfolded
        self.is_dense = not self.sparse and not self.far.entries

    def run(self, start: int = 0) -> int:
        """Walk the pickle that begins at ``start``; returns the offset after the last opcode carried out."""
        self.start = self.pos = self.frame_end = start
        try:
            self._walk()
        except StopError:
            self.pos += 1
            self._end("stop", "")
        except LimitError as limit:
            self._end("limit", str(limit))
        except BrokenPickleError as broken:
            self._end("malformed", str(broken))
        except (IndexError, struct.error):
            cut = self.pos + 16 > len(self.data)
            self._end(
                "malformed",
                "the stream ends in the middle" if cut else "it takes more from the stack than it put there",
            )
        return self.pos

    def _walk(self) -> None:
        stride = CHUNK if self.leaper is None else 1
        let_go_at = self.pos + MAPPED
        while True:
            if self.pos > let_go_at:
                let_go(self.data)
                let_go_at = self.pos + MAPPED
            try:
                self._spin(min(stride, self.meter.opcodes + 1))
            except IndexError:
                if not self.is_soft() or self.pos >= len(self.data) or self.data[self.pos] not in TAKERS:
                    raise
                self.unfold()
            self._check_limits()
            if self.leaper is not None:
                stride = self.leaper.leap(self)

    def _end(self, how: str, why: str) -> None:
        self.ended = how
        self.why = why

    def _check_limits(self) -> None:
        limits = self.limits
        if self.meter.opcodes <= 0:
            raise LimitError(f"more than {limits.opcodes} opcodes")
        if len(self.memo) + len(self.far.entries) + len(self.sparse) + self.unfolded > limits.memo:
            raise LimitError(f"more than {limits.memo} memo entries")
        height = len(self.frames) + self.below + len(self.stack)
        self.height = max(self.height, height)
        if height > limits.stack:
            raise LimitError(f"more than {limits.stack} symbols on the stack")
        if self.nodes > limits.nodes:
            raise LimitError(f"more than {limits.nodes} containers and calls")

    def _spin(self, budget: int) -> None:  # noqa: C901, PLR0912, PLR0915 -- one loop on purpose: a call per opcode would cost five times as much
        """Carry out up to ``budget`` opcodes."""
        data = self.data
        fixed_size = op.FIXED_SIZE
        u32 = _U32
        steps = self.steps
        stack = self.stack
        push = stack.append
        memo = self.memo
        is_dense = self.is_dense
        number_runs = self.number_runs
        memoize = memo.append if is_dense else self.far.entries.append
        pos = self.pos
        done = nodes = wraps = 0
        try:
            for done in range(budget):  # noqa: B007 -- the count is needed after the loop, however it ends
                opcode = data[pos]
                size = fixed_size[opcode]
                if size:
                    push(pos)
                    pos += size
                elif opcode == MEMOIZE:
                    if self.sparse:
                        self.pos = pos
                        self.put(self.filled())
                    else:
                        memoize(stack[-1])
                    pos += 1
                elif opcode == SHORT_BINUNICODE:
                    push(pos)
                    pos += 2 + data[pos + 1]
                elif opcode == BINGET and data[pos + 1] < len(memo):
                    value = memo[data[pos + 1]]
                    if value.__class__ is not int and value.__class__ is not Name:
                        self.shares += 1
                    push(value)
                    pos += 2
                elif opcode == BINUNICODE:
                    push(pos)
                    pos += 5 + u32(data, pos + 1)[0]
                elif opcode == BINPUT and is_dense and data[pos + 1] == len(memo):
                    memo.append(stack[-1])
                    pos += 2
                elif opcode == LONG_BINPUT and is_dense and u32(data, pos + 1)[0] == len(memo):
                    memo.append(stack[-1])
                    pos += 5
                elif opcode == LONG_BINGET and u32(data, pos + 1)[0] < len(memo):
                    value = memo[u32(data, pos + 1)[0]]
                    if value.__class__ is not int and value.__class__ is not Name:
                        self.shares += 1
                    push(value)
                    pos += 5
                elif opcode == MARK:
                    self.frames.append(stack)
                    self.below += len(stack)
                    self.stack = stack = []
                    push = stack.append
                    pos += 1
                    if data[pos] in number_runs:
                        run = find_numbers(self, data, pos)
                        if run is not None:
                            self.step_over(run)
                            stack = self.stack
                            push = stack.append
                            pos = run.end
                elif opcode == TUPLE2:
                    first = stack[-2]
                    last = stack.pop()
                    if last.__class__ is not int or first.__class__ is not int:
                        wraps += 1
                    stack[-1] = (first, last)
                    nodes += 1
                    pos += 1
                elif opcode == EMPTY_LIST:
                    push(ListSymbol())
                    nodes += 1
                    pos += 1
                else:
                    step = steps[opcode]
                    if step is None:
                        raise BrokenPickleError(f"byte 0x{opcode:02x} is no opcode")
                    self.pos = pos
                    pos = step(self, pos)
                    stack = self.stack
                    push = stack.append
                    if self.is_dense is not is_dense:
                        is_dense = self.is_dense
                        memoize = memo.append if is_dense else self.far.entries.append
            done = budget
        finally:
            self.pos = pos
            self.opcodes += done
            self.meter.opcodes -= done
            self.nodes += nodes
            self.wraps += wraps

    def step_over(self, run: Run, shares: int = 0) -> None:
        """Take a run as carried out, in which something that holds others was fetched ``shares`` times."""
        self.stack.append(run)
        self.frames.append(self.stack)
        self.below += len(self.stack)
        self.stack = []
        self.pos = run.end
        self.shares += shares
        if run.adds():
            self.far.entries.append(run)
            self.is_dense = False
        if run.has_calls():
            self.runs.append(run)

    def is_soft(self) -> bool:
        """Whether what lies below the stack is a run and not a MARK."""
        return bool(self.frames) and bool(self.frames[-1]) and self.frames[-1][-1].__class__ is Run

    def reach(self, count: int) -> None:
        """Have ``count`` symbols on the stack, as far as they are there: runs below it are worked out."""
        while len(self.stack) < count and self.is_soft():
            self.unfold()

    def unfold(self) -> None:
        """Put what a run pushes in its place.

        Raises:
            LimitError: that is too much.
        """
        lower = self.frames.pop()
        self.below -= len(lower)
        run = lower.pop()
        lower += run.ready()
        lower += self.stack
        self.stack = lower
        if self.leaper is not None:
            self.leaper.regret()

    def work_out(self, run: Run) -> None:
        """Carry out a run opcode by opcode and keep what it pushes and memoises.

        Raises:
            LimitError: that is too much.
        """
        data = self.data if len(self.data) == run.end else memoryview(self.data)[: run.end]
        inner = Machine(data, self.judge, self.meter, self.steps)
        memo = RunMemo(run)
        inner.memo = cast("list[Symbol]", memo)  # has of a list what the loop needs
        inner.number_runs = frozenset()
        inner.pos = run.start
        inner.frame_end = run.end
        with contextlib.suppress(IndexError):
            while inner.pos < run.end:
                inner._spin(min(CHUNK, self.meter.opcodes + 1))
                if self.meter.opcodes <= 0:
                    raise LimitError(f"more than {self.limits.opcodes} opcodes")
        run.items, run.memoised = inner.stack, memo.added
        if run.is_listed:
            run.drop_constants()
        self.nodes += inner.nodes
        self.unfolded += len(memo.added)
        self._check_limits()

    def count_calls(self) -> None:
        """Add the calls in runs to ``calls``."""
        self.calls += sum(run.calls() for run in self.runs)
        self.runs.clear()

    def is_watched(self, name: Name) -> bool:
        """Whether instances of a class have to be looked at one by one."""
        return str(name) in self.watched

    def filled(self) -> int:
        """Number of memo entries."""
        return len(self.memo) + self.far.total() + len(self.sparse)

    def peek(self, index: int) -> Symbol:
        """The memo entry ``index``, which nobody fetches; None when there is none, or it would take long to tell."""
        if index < len(self.memo):
            return self.memo[index]
        if index >= self.filled() or self.sparse:
            return None
        entry = self.far.holder(index - len(self.memo))
        if entry.__class__ is Run and entry.items is None and entry.end - entry.start > PEEKED:
            return None
        return self.far.get(index - len(self.memo))

    def put(self, index: int) -> None:
        """Store the top of the stack under a memo index, wherever that is.

        Raises:
            BrokenPickleError: the index is negative.
        """
        value = self.stack[-1]
        near = len(self.memo)
        dense = near + self.far.total()
        if index < 0:
            raise BrokenPickleError("a memo index is negative")
        if index < near:
            self._overwrite(index, self.memo[index])
            self.memo[index] = value
        elif index < dense:
            self._overwrite(index, self.far.get(index - near))
            self.far.replace(index - near, value)
        elif index == dense and index not in self.sparse:
            (self.far.entries or self.memo).append(value)
        else:
            self._put_far(index, value)

    def _put_far(self, index: int, value: Symbol) -> None:
        filled = self.filled()
        if index in self.sparse:
            self._overwrite(index, self.sparse[index])
        elif index > FAR_MEMO and index > 8 * (filled + 1):
            self.judge.report("pickle/memo-bomb", f"memo index {index} after {filled} entries", self.pos)
        self.sparse[index] = value
        self.is_dense = False

    def _overwrite(self, index: int, old: Symbol) -> None:
        if self.leaper is not None:
            self.leaper.forget()
        if old is not self.stack[-1]:
            self.judge.report("pickle/memo-overwrite", f"memo entry {index} is filled a second time", self.pos)

    def get(self, index: int) -> Symbol:
        """The memo entry ``index``.

        Raises:
            BrokenPickleError: there is none.
        """
        near = len(self.memo)
        if 0 <= index < near:
            value = self.memo[index]
        elif near <= index < near + self.far.total():
            value = self.far.get(index - near)
        elif index in self.sparse:
            value = self.sparse[index]
        else:
            raise BrokenPickleError(f"memo entry {index} does not exist")
        if is_container(value):
            self.shares += 1
        return value

    def pop_items(self) -> list[Symbol]:
        """Close the innermost MARK and return what was pushed since; a run in it stands for many items.

        Raises:
            BrokenPickleError: no MARK is open.
        """
        levels = [self.stack]
        while self.is_soft():
            levels.append(self.frames.pop())
            self.below -= len(levels[-1])
        items = levels.pop()
        for level in reversed(levels):
            items += level
        if not self.frames:
            self.stack = items
            raise BrokenPickleError("no MARK is open")
        self.stack = self.frames.pop()
        self.below -= len(self.stack)
        return items

    def pop_mark(self) -> list[Symbol]:
        """Close the innermost MARK and return each item that was pushed since.

        Raises:
            BrokenPickleError: no MARK is open.
            LimitError: runs are too much to be worked out.
        """
        items = self.pop_items()
        if any(item.__class__ is Run for item in items):
            return [each for item in items for each in (item.ready() if item.__class__ is Run else (item,))]
        return items

    def pop_filling(self) -> tuple[Symbol, list[Symbol]]:
        """Close the innermost MARK; returns what lies below it, and what ``pop_items`` returns.

        Raises:
            BrokenPickleError: no MARK is open.
        """
        items = self.pop_items()
        self.reach(1)
        return self.stack[-1], items
