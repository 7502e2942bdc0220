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
from fixtures.effort import within
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
        mock.patch.object(stream, "Leaper", return_value=None),
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
        return [
            "call",
            symbol.built,
            str(symbol.subject),
            *([shown(part, depth - 1) for part in parts] if depth else []),
        ]
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


Thing = types.SimpleNamespace
SHARED = [*(f"word {number}" for number in range(60)), "bb", 1.5, (1, 2), Thing(z=1), frozenset({1})]
"""What several items refer to."""
LEAVES = (
    lambda rng: rng.randrange(300),
    lambda rng: rng.randrange(1 << 40),
    lambda rng: rng.random(),
    lambda _rng: None,
    lambda rng: rng.random() < 0.5,
    lambda rng: f"t{rng.randrange(50)}",
    lambda rng: rng.choice(SHARED),
    lambda rng: b"x" * rng.randrange(20),
    lambda rng: "y" * rng.randrange(140),
)
WHOLE = (
    lambda _rng, make: tuple(one() for one in make),
    lambda _rng, make: [one() for one in make],
    lambda rng, make: [rng.choice(make)() for _ in range(rng.randrange(6))],
    lambda _rng, make: {f"k{number}": one() for number, one in enumerate(make)},
    lambda rng, make: {f"k{number}": rng.choice(make)() for number in range(rng.randrange(5))},
    lambda _rng, make: Thing(**{f"a{number}": one() for number, one in enumerate(make)}),
    lambda _rng, make: collections.OrderedDict((f"o{number}", one()) for number, one in enumerate(make)),
    lambda rng, make: collections.defaultdict(list, {number: rng.choice(make)() for number in range(2)}),
    lambda rng, make: rng.choice(make)(),
    lambda rng, _make: {rng.randrange(9) for _ in range(3)},
)


def maker(rng, depth):
    """A function that makes items of one shape, more or less."""
    if not depth or rng.random() < 0.2:
        leaves = rng.sample(LEAVES, rng.randint(1, 3))
        return lambda: rng.choice(leaves)(rng)
    parts = [maker(rng, depth - 1) for _ in range(rng.randint(1, 3))]
    whole = rng.choice(WHOLE)
    return lambda: whole(rng, parts)


def structure(rng):
    """Lists, tuples and dicts of many items alike."""
    parts = []
    for make in [maker(rng, 3) for _ in range(rng.randint(1, 3))]:
        items = [make() for _ in range(rng.randrange(10, 80))]
        keyed = {f"key{number}": item for number, item in enumerate(items)}
        parts.append(rng.choice([items, tuple(items), keyed, dict(enumerate(items)), collections.OrderedDict(keyed)]))
    return parts


INSERTED = [
    *(b"cos\nsystem\n", imports("os", "system"), calls("os", "system", text("id")), b"ccollections\nOrderedDict\n"),
    *(bytes([opcode]) for opcode in b"02b\x85\x86\x87(teusa]})R\x81\x94N\x931\x90\x91ld.o\x98Q"),
    *(b"h\x01", b"h\x05", b"h\x10", b"j\x20\0\0\0", b"r\x03\0\0\0", b"q\x07", b"q\xf0", b"P1\n", b"g3\n", b"p9\n"),
    *(b"\x95" + size.to_bytes(8, "little") for size in (0, 32, 511)),
]


def boundaries(data):
    """Where opcodes begin."""
    found = []
    with contextlib.suppress(Exception):
        found += [at for _, _, at in pickletools.genops(data)]
    return found


def damaged(rng, data):
    """The pickle with opcodes put in, or bytes changed."""
    out = bytearray(data)
    starts = boundaries(data)
    for _ in range(rng.randint(1, 3)):
        at = min(rng.choice(starts), len(out) - 1)
        match rng.randrange(5):
            case 3:
                out[at] = rng.choice(sorted(op.VALID))
            case 4:
                out[rng.randrange(len(out))] = rng.randrange(256)
            case _:
                out[at:at] = rng.choice(INSERTED)
    return bytes(out)


@pytest.mark.parametrize("seed", range(8))
def test_shortcuts_change_nothing(seed):
    rng = random.Random(seed)
    saved = 0
    for _ in range(5):
        data = pickle.dumps(structure(rng), rng.choice([2, 3, 4, 4, 5]))
        saved += compared(data)
        for _ in range(4):
            compared(damaged(rng, data))
    assert saved > 0


def objects(count):
    """Objects with a list each."""
    return [Thing(number=number, held=[number / 2]) for number in range(count)]


WORDS = [f"word {number}" for number in range(99)]
SHAPES = {
    "records": lambda count: [{"id": number, "tag": f"t{number}", "value": number / 3} for number in range(count)],
    "tuples": lambda count: [(number, number / 3, f"t{number}", None) for number in range(count)],
    "nested tuples": lambda count: [((number, (number / 3, 1.0)), (number,)) for number in range(count)],
    "objects": objects,
    "ordered dicts": lambda count: [collections.OrderedDict(a=number) for number in range(count)],
    "vocabulary": lambda count: {f"w{number}": number for number in range(count)},
    "dicts in a dict": lambda count: {f"w{number}": {"at": number, "of": [1.5, 2.5]} for number in range(count)},
    "lists of texts": lambda count: [[f"{number}-{each}" for each in range(number % 5)] for number in range(count)],
    "few texts": lambda count: [(number, WORDS[number % 99], WORDS[number % 7]) for number in range(count)],
    "long integers": lambda count: {f"w{number}": number + (1 << 33) for number in range(count)},
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_items_alike_are_stepped_over(shape, protocol):
    data = pickle.dumps(shape(8000), protocol)
    found = walk(data, 0, Meter(Limits()))
    assert (found.ended, found.end, found.issues) == ("stop", len(data), ())
    assert found.opcodes < 5000
    with never():
        assert walk(data, 0, Meter(Limits())).calls == found.calls


def test_more_objects_than_may_be_kept_are_examined():
    data = pickle.dumps(objects(20_000), 4)
    limits = Limits(nodes=5000, memo=5000)
    found = walk(data, 0, Meter(limits))
    assert (found.ended, found.calls) == ("stop", 20_000)
    with never():
        assert walk(data, 0, Meter(limits)).ended == "limit"


@pytest.mark.parametrize("place", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_one_hostile_item_among_thousands_is_found(shape, place):
    data = pickle.dumps(shape(3000), 4)
    starts = boundaries(data)
    at = starts[int(place * len(starts))]
    assert "pickle/dangerous-callable" in {
        issue.rule
        for issue in walk(data[:at] + calls("os", "system", text("id")) + b"0" + data[at:], 0, Meter(Limits())).issues
    }


def test_what_has_a_rule_is_not_stepped_over():
    """Were it so, the thousandth array could have a shape that the first had not."""
    good = calls("builtins", "bytearray", b"K\x08") + b"0"
    bad = calls("builtins", "bytearray", b"J\0\0\0\x7f")
    found = walk(b"\x80\x04" + good * 1000 + bad + b".", 0, Meter(Limits()))
    assert [issue.rule for issue in found.issues] == ["pickle/refused-argument"]


def test_a_memo_entry_that_changes_its_meaning_is_noticed():
    """A class that many objects fetch from the memo is replaced by another one later."""
    made = b"h\x00)\x81}b"
    start = b"\x80\x04" + imports("types", "SimpleNamespace") + b"\x940]("
    data = start + made * 500 + imports("os", "system") + b"q\x000" + made * 500 + b"e."
    with eagerly():
        found = walk(data, 0, Meter(Limits()))
    assert {issue.rule for issue in found.issues} >= {"pickle/dangerous-callable", "pickle/memo-overwrite"}
    compared(data)


def test_shared_items_in_runs_are_measured():
    """Eight levels of forty references each, with fewer than twenty containers in all."""
    levels = b"".join(b"(" + b"h\x00" * 40 + b"tq\x000" for _ in range(8))
    data = b"\x80\x02N\x85q\x000" + levels + b"h\x00."
    for manner in (never, eagerly):
        with manner():
            found = walk(data, 0, Meter(Limits()))
        assert "pickle/sharing" in {issue.rule for issue in found.issues}


def prefixes(rng, depth):
    """A tuple that begins with a tuple that begins with a tuple: what a parser might try in many ways."""
    if not depth:
        return b"K\x01"
    count = rng.randint(1, 3)
    return b"".join(prefixes(rng, depth - 1) if not part else b"K\x01" for part in range(count)) + bytes([0x84 + count])


def bombs():
    """Pickles that are made to waste the time of whoever looks for shapes."""
    rng = random.Random(5)
    tuples = [prefixes(rng, 6) for _ in range(2000)]
    yield "prefixes", b"".join(each + b"K\x01" * rng.randrange(90) + b"0" for each in tuples)
    yield "underflow", (b"K\x01" * 900 + b"0" * 899) * 90
    yield "taken back", (b"]" * 90 + b"\x86" * 10) * 900
    yield "deep", b"](" * 20_000 + b"N" + b"e" * 20_000
    yield "kinds", b"".join(rng.choice([*tuples[:9], b"]" * 3, b"\x8c\x03abc", b"N", b"(NNNNt"]) for _ in range(20_000))
    yield "numbered badly", b"".join(b"NN\x86r" + (at + at % 50).to_bytes(4, "little") for at in range(20_000))


@pytest.mark.parametrize(("name", "body"), list(bombs()), ids=[name for name, _ in bombs()])
def test_looking_for_shapes_takes_bounded_time(name, body):
    data = b"\x80\x04](" + body + b"e."
    with within(8):
        found = walk(data, 0, Meter(Limits()))
    assert found.ended == "stop"
    assert found.machine.leaper.lessons <= leap.MOST_LESSONS
