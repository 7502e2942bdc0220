"""A file made of pickles: one, several in a row, joblib's with arrays in between, and what is left over."""

from __future__ import annotations

from typing import NamedTuple

from bartizan.lifecycle.develop.scan.limits import LimitError, Meter
from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.constants import BrokenPickleError, Buffer
from bartizan.lifecycle.develop.scan.pickle.joblib import COMPANIONS, WRAPPERS, ArrayReader
from bartizan.lifecycle.develop.scan.pickle.judge import Issue, Judge, Persistent
from bartizan.lifecycle.develop.scan.pickle.leap import Leaper
from bartizan.lifecycle.develop.scan.pickle.machine import CHUNK, BuildHook, Machine
from bartizan.lifecycle.develop.scan.pickle.policy import load_policy
from bartizan.lifecycle.develop.scan.pickle.steps import STEPS
from bartizan.lifecycle.develop.scan.pickle.structure import DEEP, LARGE, measure
from bartizan.lifecycle.develop.scan.pickle.values import Symbol

SHARES_WORTH_MEASURING = 20
"""Fewer shared containers cannot multiply the leaves by more than a million."""

MISREAD_RULES = frozenset(
    f"pickle/{name}"
    for name in (
        "dangerous-callable",
        "unlisted-callable",
        "computed-callable",
        "dotted-walk",
        "extension-code",
        "refused-argument",
        "refused-state",
    )
)
"""What counts when bytes are read as opcodes that nobody wrote as such; the rest is what garbage looks like."""


SHARED_RULES = frozenset({"pickle/dangerous-callable"})
"""What counts when a pickle is read with the memo of the one before it. Nearly every such reading is garbage in
which one text stands for another, so only names count that nobody can have meant."""


class Walk(NamedTuple):
    """One pickle that was walked."""

    start: int
    end: int
    ended: str
    """``stop``, ``malformed`` or ``limit``."""
    why: str
    issues: tuple[Issue, ...]
    dropped: int
    opcodes: int
    calls: int
    arrays: int
    names: int
    nested: tuple[tuple[Buffer, int], ...]
    persistent_ids: tuple[Persistent, ...]
    top: Symbol
    judge: Judge
    machine: Machine


def walk(data: Buffer, start: int, meter: Meter, *, torch: bool = False, with_arrays: bool = True) -> Walk:
    """Walk the pickle at ``start`` in every way a loader might: as ``joblib.load`` and as ``pickle.load``.

    The two differ only when an array wrapper is built. Then the bytes of the array are skipped by
    the one and carried out as opcodes by the other, so both readings are judged.
    """
    judge = Judge(data, load_policy(), meter.limits, torch=torch)
    nested_opcodes = [0]

    def walk_nested(pos: int) -> int:
        inner = _machine(data, judge, meter)
        after = inner.run(pos)
        nested_opcodes[0] += inner.opcodes
        if inner.ended != "stop":
            raise BrokenPickleError(f"the pickle of an object array: {inner.why}")
        return after

    arrays = ArrayReader(walk_nested) if with_arrays else None
    machine = _run(data, start, meter, judge, arrays)
    if arrays is not None and arrays.first >= 0 and arrays.first < len(data) and data[arrays.first] in op.VALID:
        _judge_misreading(data, start, meter, judge)
    return _walked(start, machine, judge, nested_opcodes[0])


def walk_sharing(data: Buffer, start: int, meter: Meter, before: Machine) -> Walk:
    """Walk the pickle at ``start`` with the memo that an earlier one left behind, which is spent on it.

    ``pickle.Unpickler`` keeps its memo from one ``load`` to the next, ``pickle.load`` does not. Memo entries that
    ``MEMOIZE`` adds therefore have other numbers, and what is fetched from the memo may be something else.
    """
    judge = Judge(data, load_policy(), meter.limits)
    machine = _machine(data, judge, meter)
    machine.inherit(before)
    machine.run(start)
    return _walked(start, machine, judge, 0)


def _walked(start: int, machine: Machine, judge: Judge, nested_opcodes: int) -> Walk:
    judge.finish()
    machine.count_calls()
    return Walk(
        start=start,
        end=machine.pos,
        ended=machine.ended,
        why=machine.why,
        issues=tuple(sorted(judge.issues, key=lambda issue: issue.offset)),
        dropped=judge.dropped,
        opcodes=machine.opcodes + nested_opcodes,
        calls=machine.calls,
        arrays=machine.arrays,
        names=len(judge.names),
        nested=tuple(judge.nested),
        persistent_ids=tuple(judge.persistent_ids),
        top=machine.stack[-1] if machine.stack else None,
        judge=judge,
        machine=machine,
    )


def _run(data: Buffer, start: int, meter: Meter, judge: Judge, hook: BuildHook | None) -> Machine:
    machine = _machine(data, judge, meter, hook)
    machine.run(start)
    if machine.ended == "stop":
        try:
            _judge_shape(machine)
        except LimitError as limit:
            machine.ended, machine.why = "limit", str(limit)
    return machine


def _machine(data: Buffer, judge: Judge, meter: Meter, hook: BuildHook | None = None) -> Machine:
    machine = Machine(data, judge, meter, STEPS, hook)
    machine.watched = WRAPPERS | COMPANIONS if hook is not None else frozenset()
    machine.leaper = Leaper(machine)
    return machine


def _judge_misreading(data: Buffer, start: int, meter: Meter, judge: Judge) -> None:
    """Read a joblib stream as ``pickle.load`` does, which takes the bytes of its arrays for opcodes."""
    plain = Judge(data, load_policy(), meter.limits, torch=judge.torch, misread=True)
    _run(data, start, meter, plain, None)
    for issue in plain.issues:
        if issue.rule in MISREAD_RULES:
            judge.report(*issue)


def _judge_shape(machine: Machine) -> None:
    """Report objects that cannot be walked: nested too deeply, or shared until they are endless.

    Each level of nesting needs a symbol or mark on the stack, a tuple put around what is there, or
    something fetched from the memo; so most pickles need no measuring.
    """
    may_be_deep = machine.height + machine.wraps + machine.shares + CHUNK > DEEP
    if not may_be_deep and machine.shares < SHARES_WORTH_MEASURING:
        return
    limit = max(LARGE, (machine.pos - machine.start) ** 2)
    depth, leaves = measure(machine.stack[-1])
    if depth > DEEP or leaves > limit:
        depth, leaves = measure(machine.stack[-1], exactly=True)
    if depth > DEEP:
        machine.judge.report("pickle/deep-nesting", f"containers are nested {depth} deep", machine.start)
    if leaves > limit:
        size = f"{leaves:.1e}" if leaves < 1 << 80 else "more than 1e24"
        machine.judge.report("pickle/sharing", f"shared containers unfold to {size} items", machine.start)
