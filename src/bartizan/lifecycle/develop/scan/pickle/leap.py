"""Leaps: how the machine gets from opcode to opcode and, where items repeat, over many of them at once.

After every few opcodes ``Leaper.leap`` tries whether items of the known shape lie ahead. Where they do,
the machine steps over them and goes on one opcode at a time, to be there when the next items begin;
where they do not, the tries become rare. Shapes are learnt again and again, at growing distances, as long as
opcodes have to be carried out one by one. Tries that fail are counted, so that no pickle can
make them what a scan spends its time on.
"""

from __future__ import annotations

import struct

from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.bulk import Run, find_numbers
from bartizan.lifecycle.develop.scan.pickle.learning import CUT_OFF, Learner
from bartizan.lifecycle.develop.scan.pickle.machine import CHUNK, Machine
from bartizan.lifecycle.develop.scan.pickle.shapes import MANY, Shape

FIRST = 512
"""Opcodes before the first shape is learnt, and between two rounds of tries."""
TRIES = 40
"""Single opcodes after a leap, each followed by a try."""
FEWEST = 4
"""Items that are worth a leap."""
DISTANCE = 1 << 13
"""Bytes between learning and learning again; grows each time by as many."""
MOST_LESSONS = 40
CREDIT = 1500
"""Tries that may fail before the shape is given up; a leap gives some back."""
REGRET = 200
"""What a leap costs that was in vain."""
MOST_CREDIT = 20_000
ALL_ARE_TAKEN = frozenset({op.APPENDS, op.SETITEMS, op.ADDITEMS, op.TUPLE, op.FROZENSET})
"""Opcodes that take all items since the MARK; before any other the last items may be parts of a longer one."""


class Leaper:
    """Finds what one machine can leap over."""

    def __init__(self, machine: Machine) -> None:
        self.learner = Learner(machine)
        self.shape: Shape | None = None
        self.tries = 0
        """Left in this round."""
        self.stride = FIRST
        self.lessons = 0
        self.due = 0
        """Offset from which on the next lesson may be."""
        self.learnt_at = 0
        """Opcodes that had been carried out at the last lesson."""
        self.wanted = FIRST
        """Opcodes that have to be carried out one by one before the next lesson."""
        self.credit = CREDIT
        self.constants = {b""}
        """Memo indexes that were found to be constants; a fetch has either a short one or a long one."""

    def forget(self) -> None:
        """Begin anew: what the memo holds has changed."""
        self.shape = None
        self.constants = {b""}
        self.learner.forget()

    def regret(self) -> None:
        """Leap less: something took what was leapt over."""
        self.credit -= REGRET

    def leap(self, machine: Machine) -> int:
        """Leap if that is possible here; returns how many opcodes to carry out until the next call."""
        if self.shape is not None and self.credit > 0:
            if self._leap(machine, self.shape):
                self.tries = TRIES + 8 * self.shape.opcodes
                self.stride = FIRST
                self.credit = min(self.credit + 2 * TRIES, MOST_CREDIT)
                return 1
            self.credit -= 1
            if self.tries > 0:
                self.tries -= 1
                return 1
        is_due = machine.pos >= self.due and machine.opcodes - self.learnt_at >= self.wanted
        if is_due and self.lessons < MOST_LESSONS and not machine.sparse:
            self._learn(machine)
            return 1
        self.tries = TRIES
        self.stride = min(2 * self.stride, CHUNK)
        return self.stride if self.shape is not None and self.credit > 0 else FIRST

    def _learn(self, machine: Machine) -> None:
        self.lessons += 1
        self.learnt_at = machine.opcodes
        self.due = machine.pos + DISTANCE * self.lessons
        found = self.learner.learn(machine.pos)
        if found is not None and (self.shape is None or found.source != self.shape.source):
            self.shape = found
        else:
            self.wanted *= 2
        self.credit = max(self.credit, CREDIT)
        self.tries = TRIES

    def _leap(self, machine: Machine, shape: Shape) -> bool:
        """Step over as many items as there are, except for the last few if something else may take them."""
        data, start = machine.data, machine.pos
        if shape.is_numbers:
            numbers = find_numbers(machine, data, start)
            if numbers is not None:
                machine.step_over(numbers)
            return numbers is not None
        one = shape.one
        match = one(data, start)
        if match is None or machine.sparse:
            return False
        ends = [start]
        count = 0
        many = shape.many
        at = start
        while (match := many(data, at)) is not None:
            ends = [at]
            count += MANY
            at = match.end()
        count -= MANY if count else 0
        at = ends[0]
        while (match := one(data, at)) is not None:
            at = match.end()
            ends.append(at)
        is_taken = at < len(data) and data[at] in ALL_ARE_TAKEN
        kept = len(ends) - 1 if is_taken else len(ends) - 1 - CUT_OFF
        count += max(kept, 0)
        if kept < 0 or count < FEWEST:
            return False
        return self._step_over(machine, shape, ends[kept], count)

    def _step_over(self, machine: Machine, shape: Shape, end: int, count: int) -> bool:
        if shape.fetches_any:
            unwanted = self._unwanted(machine, shape.fetches(machine.data, machine.pos, end))
            if unwanted:
                end, count = shape.part_without(unwanted, machine.data, machine.pos, end)
            if count < FEWEST:
                return False
        run = Run(machine, machine.pos, end)
        run.fetched = shape.fetched
        entries = None if shape.entries is None else count * shape.entries
        calls = None if shape.calls is None else count * shape.calls
        run.known(count * shape.items, entries, calls)
        run.shape = shape
        if shape.has_puts and not self._numbers_itself_well(machine, shape, run):
            return False
        machine.step_over(run, shares=count if shape.shares else 0)
        return True

    def _unwanted(self, machine: Machine, fetched: set[bytes]) -> set[bytes]:
        """Those memo indexes that are no constants. What is one is remembered, for all runs."""
        unknown = fetched - self.constants
        for literal in list(unknown):
            index = int.from_bytes(literal, "little")
            value = machine.peek(index)
            if value.__class__ is int:
                self.learner.fetched[index] = value
                self.constants.add(literal)
                unknown.discard(literal)
        return unknown

    def _numbers_itself_well(self, machine: Machine, shape: Shape, run: Run) -> bool:
        """Whether each LONG_BINPUT of a run adds the next memo entry."""
        run.first = machine.filled()
        indexes = shape.puts(machine.data, run.start, run.end)
        indexes = b"".join(run.indexes()) if indexes is None else indexes
        count = len(indexes) >> 2
        return indexes == struct.pack(f"<{count}I", *range(run.first, run.first + count))
