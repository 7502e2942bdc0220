"""The pickle machine, run on symbols: it follows every opcode and builds nothing.

``Machine.run`` walks one pickle from its first opcode to STOP exactly as CPython's unpickler would
(``Lib/pickle.py``, ``_Unpickler``), with three differences: objects are symbols (``values``), what
an import or a call would do is put to a ``Judge``, and text and bytes are never copied. Where the
unpickler would raise, the walk ends as malformed; what was judged until then stands, because a real
load would have done it as well.

The loop in ``_spin`` handles the ten opcodes that make up nearly all of a large pickle itself; all
others are functions in ``steps``.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from bartizan.lifecycle.develop.scan.limits import LimitError, Meter
from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.bulk import RUN_STARTS, Run, find_run, records_with
from bartizan.lifecycle.develop.scan.pickle.constants import BrokenPickleError, Buffer
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

CHUNK = 1 << 12
"""Opcodes between two looks at the limits."""
FAR_MEMO = 1 << 20
"""A memo index this far past what the pickle has filled makes the unpickler allocate for nothing."""
WORTH_LEARNING = 1 << 18
"""Bytes of records after which a pattern is built that knows what they fetch."""
MOST_LEARNT = 64

_U32 = struct.Struct("<I").unpack_from

Step = Callable[["Machine", int], int]
"""Carries out the opcode at an offset and returns the offset of the next one."""


class StopError(Exception):
    """STOP was carried out."""


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
        self.pending: deque[Symbol] = deque()
        """Memo entries behind a run that has not been worked out."""
        self.sparse: dict[int, Symbol] = {}
        """Memo entries past the end of ``memo``."""
        self.constant: set[int] = set()
        """Memo entries that records fetched and that are constants."""
        self.records: re.Pattern[bytes] | None = None
        """Pattern of records that fetch nothing else."""
        self.records_seen = 0
        """Bytes of records since that pattern was built."""
        self.is_dense = True
        """Whether ``memo`` is all there is: nothing pending, nothing sparse."""
        self.protocol = 0
        self.start = 0
        self.pos = 0
        self.frame_end = 0
        """End of the current FRAME; -1 when it cannot be told."""
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
        before.settle()
        self.memo, before.memo = before.memo, []
        self.sparse, before.sparse = before.sparse, {}
        self.is_dense = not self.sparse

    def run(self, start: int = 0) -> int:
        """Walk the pickle that begins at ``start``; returns the offset after the last opcode carried out."""
        self.start = self.pos = self.frame_end = start
        try:
            while True:
                self._spin(min(CHUNK, self.meter.opcodes + 1))
                self._check_limits()
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

    def _end(self, how: str, why: str) -> None:
        self.ended = how
        self.why = why

    def _check_limits(self) -> None:
        limits = self.limits
        if self.meter.opcodes <= 0:
            raise LimitError(f"more than {limits.opcodes} opcodes")
        if len(self.memo) + len(self.pending) + len(self.sparse) > limits.memo:
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
        memoize = memo.append if is_dense else self.pending.append
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
                        self.put(len(memo) + len(self.sparse))
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
                    run = find_run(data, pos, self.records) if data[pos] in RUN_STARTS else None
                    if run is not None:
                        if run.is_known or not run.fetches or self._fetches_constants(run):
                            push(run)
                            self._skip(run)
                            pos = run.end
                        is_dense = self.is_dense
                        memoize = memo.append if is_dense else self.pending.append
                elif opcode == TUPLE2:
                    last = stack.pop()
                    first = stack[-1]
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
                        memoize = memo.append if is_dense else self.pending.append
            done = budget
        finally:
            self.pos = pos
            self.opcodes += done
            self.meter.opcodes -= done
            self.nodes += nodes
            self.wraps += wraps

    def _fetches_constants(self, run: Run) -> bool:
        """Whether a run fetches nothing from the memo but constants, so that it may be stepped over."""
        wanted = run.wanted(self.data)
        if self.sparse or not wanted:
            return not wanted
        self.settle(max(wanted) + 1)
        known = len(self.memo)
        if max(wanted) >= known:
            try:
                run.work_out(self.data, self.memo)
            except BrokenPickleError:
                return False
        are_constant = all(
            (self.memo[index] if index < known else run.memoised[index - known]).__class__ is int for index in wanted
        )
        if are_constant:
            self._learn(run, wanted)
        return are_constant

    def _learn(self, run: Run, fetched: set[int]) -> None:
        """Once enough records went by, look for others that fetch the same; building that pattern takes its time."""
        self.records_seen += run.end - run.start
        self.constant |= fetched
        if self.records_seen > WORTH_LEARNING and len(self.constant) <= MOST_LEARNT:
            self.records = records_with(frozenset(self.constant))
            self.records_seen = 0

    def _skip(self, run: Run) -> None:
        """Take note of a run that the loop steps over."""
        run.settle = self.settle if run.fetches else None
        if run.memoises:
            if self.sparse:
                run.work_out(self.data, self.memo)
                for value in run.memoised:
                    self.stack.append(value)
                    self.put(len(self.memo) + len(self.sparse))
                    self.stack.pop()
            else:
                self.pending.append(run)
                self.is_dense = False
        if 0 <= self.frame_end < run.end:
            is_chained = self.frame_end >= run.start and self.data[self.frame_end] == op.FRAME
            if is_chained or run.has_frames(self.data):
                self._follow_frames(run.end)

    def _follow_frames(self, until: int) -> None:
        """Follow the chain of frames through a run: each begins where the one before it ended."""
        while 0 <= self.frame_end < until:
            if self.data[self.frame_end] != op.FRAME:
                self.frame_end = -1
                return
            self.frame_end += 9 + int.from_bytes(bytes(self.data[self.frame_end + 1 : self.frame_end + 9]), "little")

    def settle(self, until: int | None = None) -> None:
        """Work out the memo entries of skipped runs: all of them, or as many as give ``until`` entries.

        Raises:
            LimitError: there are too many.
        """
        pending = self.pending
        memo = self.memo
        while pending and (until is None or len(memo) < until):
            value = pending.popleft()
            if value.__class__ is Run:
                value.work_out(self.data, memo)
                memo.extend(value.memoised)
                self.nodes += value.dicts
            else:
                memo.append(value)
            if len(memo) > self.limits.memo:
                raise LimitError(f"more than {self.limits.memo} memo entries")
            if self.nodes > self.limits.nodes:
                raise LimitError(f"more than {self.limits.nodes} containers and calls")
        self.is_dense = not self.sparse and not pending

    def put(self, index: int) -> None:
        """Store the top of the stack under a memo index, wherever that is.

        Raises:
            BrokenPickleError: the index is negative.
        """
        self.settle()
        self.constant.clear()
        self.records = None
        value = self.stack[-1]
        filled = len(self.memo) + len(self.sparse)
        if index < 0:
            raise BrokenPickleError("a memo index is negative")
        if index < len(self.memo):
            self._overwrite(index, self.memo[index])
            self.memo[index] = value
        elif index == len(self.memo) and index not in self.sparse:
            self.memo.append(value)
        else:
            if index in self.sparse:
                self._overwrite(index, self.sparse[index])
            elif index > FAR_MEMO and index > 8 * (filled + 1):
                self.judge.report("pickle/memo-bomb", f"memo index {index} after {filled} entries", self.pos)
            self.sparse[index] = value
            self.is_dense = False

    def _overwrite(self, index: int, old: Symbol) -> None:
        if old is not self.stack[-1]:
            self.judge.report("pickle/memo-overwrite", f"memo entry {index} is filled a second time", self.pos)

    def get(self, index: int) -> Symbol:
        """The memo entry ``index``.

        Raises:
            BrokenPickleError: there is none.
        """
        self.settle(index + 1)
        if 0 <= index < len(self.memo):
            value = self.memo[index]
        elif index in self.sparse:
            value = self.sparse[index]
        else:
            raise BrokenPickleError(f"memo entry {index} does not exist")
        if is_container(value):
            self.shares += 1
        return value

    def pop_mark(self) -> list[Symbol]:
        """Close the innermost MARK and return what was pushed since.

        Raises:
            BrokenPickleError: no MARK is open.
        """
        if not self.frames:
            raise BrokenPickleError("no MARK is open")
        items = self.stack
        self.stack = self.frames.pop()
        self.below -= len(self.stack)
        return items
