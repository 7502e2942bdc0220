"""What the machine steps over makes no difference: with and without shortcuts a walk finds and counts the same."""

from __future__ import annotations

import collections
import contextlib
import pickle
import pickletools
import random
import types
from collections.abc import Iterator
from unittest import mock

import pytest

from bartizan.lifecycle.develop.scan.limits import Limits, Meter
from bartizan.lifecycle.develop.scan.pickle import leap, stream
from bartizan.lifecycle.develop.scan.pickle import machine as machine_module
from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.bulk import Run
from bartizan.lifecycle.develop.scan.pickle.stream import walk
from bartizan.lifecycle.develop.scan.pickle.structure import measure
from bartizan.lifecycle.develop.scan.pickle.values import Call, Name
from fixtures.hostile_models import calls, imports, text

MOST_SYMBOLS = 300


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Shortcuts are taken from the first opcodes on, wherever they are possible."""
    settings = {"FIRST": 12, "DISTANCE": 40, "FEWEST": 1}
    with contextlib.ExitStack() as stack:
        for name, value in settings.items():
            stack.enter_context(mock.patch.object(leap, name, value))
        yield


@contextlib.contextmanager
def never() -> Iterator[None]:
    """Every opcode is carried out."""
    with (
        mock.patch.object(stream, "Leaper", lambda _machine: None),
        mock.patch.object(machine_module, "NUMBERS_START", frozenset()),
    ):
        yield


def expanded(symbols):
    """The symbols, those of a run in its place."""
    return [each for item in symbols for each in (item.ready() if isinstance(item, Run) else (item,))]


def shown(symbol, depth=4):
    """A symbol with what it holds, in a form that can be compared. Constants that need not be kept are left out."""
    if isinstance(symbol, Name):
        return str(symbol)
    if isinstance(symbol, Call):
        grown = [part for part in expanded(symbol.grown or ()) if not isinstance(part, int)]
        parts = [symbol.callee, symbol.args, symbol.state, *grown]
        return ["call", symbol.built, str(symbol.subject), *([shown(part, depth - 1) for part in parts] if depth else [])]
    if not isinstance(symbol, (list, tuple)):
        return symbol
    kind = type(symbol).__name__
    held = expanded(symbol)
    is_whole = kind == "tuple" or getattr(symbol, "whole", False)
    kept = held if is_whole else [part for part in held if not isinstance(part, int)]
    count = len(held) + symbol.constants if kind == "ListSymbol" else len(kept)
    return [kind, is_whole, count, [shown(part, depth - 1) for part in kept] if depth else None]


def memo_of(machine):
    """The entries of the memo."""
    found = list(machine.memo)
    found += [machine.far.get(index) for index in range(machine.far.total())]
    return [shown(value) for value in found[:MOST_SYMBOLS]], {key: shown(one) for key, one in machine.sparse.items()}


def outcome(data):
    """What there is to know about one walk."""
    walked = walk(data, 0, Meter(Limits()))
    machine = walked.machine
    found = {
        "end": (walked.ended, walked.why, walked.end),
        "issues": walked.issues,
        "counts": (walked.calls, walked.arrays, walked.names, walked.dropped, len(walked.persistent_ids)),
        "names": {key: (name.used, name.listed) for key, name in walked.judge.names.items()},
        "frame": machine.frame_end,
        "memo": machine.filled(),
    }
    if walked.ended == "stop":
        found["top"] = shown(walked.top)
        found["size"] = measure(walked.top, exactly=True)[0]
        found["entries"] = memo_of(machine)
    return found, walked


def compared(data):
    """Compare both walks; returns how many opcodes the shortcuts saved."""
    with never():
        slow, stepping = outcome(data)
    with eagerly():
        fast, leaping = outcome(data)
    assert fast == slow, data
    return stepping.opcodes - leaping.opcodes
