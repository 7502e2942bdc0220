"""A bounded reader of protocol buffer messages, told by tables of their fields.

Wire format: https://protobuf.dev/programming-guides/encoding. The tables (``schema_*.json``) hold the
field numbers that ONNX, TensorFlow and Core ML publish. Every byte of a message belongs to a field
that its table knows, or is reported: a loader skips fields that it does not know, and what it skips
can hide there. Payloads are stepped over, never copied; nothing recurses.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from itertools import islice
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.limits import LimitError, Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import Draft, Source, window

VARINT, FIXED64, LENGTH, GROUP_START, GROUP_END, FIXED32 = range(6)
WIRES = {"int": VARINT, "fixed64": FIXED64, "double": FIXED64, "fixed32": FIXED32, "float": FIXED32}
"""Wire type of each scalar; texts, bytes and messages carry a length."""
WIDTHS = {"fixed64": 8, "double": 8, "fixed32": 4, "float": 4}
LONGEST_VARINT = 10
DEEPEST = 100
"""Messages inside messages, the bound of protobuf's own parsers."""
MOST_FIELDS = 20_000_000
"""Fields of one file that are looked at."""
KEPT = 2048
"""Fields up to which a message is read once; a larger one is read again for each question, in no memory."""
LONGEST_TEXT = 1 << 16
LONGEST_LIST = 4096
SHOWN = 20
"""Unknown or repeated fields that are reported one by one."""


class WireError(Exception):
    """The bytes are no message; the text says why, ``at`` where."""

    def __init__(self, text: str, at: int) -> None:
        super().__init__(text)
        self.at = at


class Rule(NamedTuple):
    """What a table says about a field."""

    name: str
    kind: str
    """A scalar, ``text``, ``bytes``, or the name of a message."""
    repeated: bool

    @property
    def is_message(self) -> bool:
        """Whether the field holds a message."""
        return self.kind not in WIRES and self.kind not in {"text", "bytes"}


class Value(NamedTuple):
    """One field as it stands in the file."""

    number: int
    wire: int
    value: int
    """Of a number; 0 for what carries a length."""
    start: int
    end: int
    """Where its payload lies."""


Schema = dict[str, dict[int, Rule]]


@functools.cache
def schema(name: str) -> Schema:
    """The table of one family: ``onnx``, ``coreml`` or ``tensorflow``."""
    raw = json.loads(files(__package__).joinpath(f"schema_{name}.json").read_text())
    return {kind: {int(number): _rule(text) for number, text in fields.items()} for kind, fields in raw.items()}


def _rule(text: str) -> Rule:
    name, _, kind = text.partition(":")
    return Rule(name.lstrip("*"), kind, name.startswith("*"))


def varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    """A number of variable length and the offset behind it.

    Raises:
        WireError: it does not end within ten bytes, or leads past the end.
    """
    value = shift = 0
    for here in range(at, min(end, at + LONGEST_VARINT)):
        byte = data[here]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 -- the last byte of a number
            return value & 0xFFFF_FFFF_FFFF_FFFF, here + 1
        shift += 7
    raise WireError("a number does not end", at)


def signed(value: int) -> int:
    """A number as two's complement of 64 bits."""
    return value - (1 << 64) if value >> 63 else value


def scan_fields(data: Buffer, start: int, end: int) -> Iterator[Value]:
    """The fields between two offsets.

    Raises:
        WireError: the bytes are no fields.
    """
    at = start
    while at < end:
        began = at
        key, at = varint(data, at, end)
        number, wire = key >> 3, key & 7
        value = 0
        if not 0 < number < 1 << 29:
            raise WireError(f"field number {number}", began)
        if wire == VARINT:
            first = at
            value, at = varint(data, at, end)
            yield Value(number, wire, value, first, at)
            continue
        if wire == LENGTH:
            size, at = varint(data, at, end)
        elif wire in {FIXED32, FIXED64}:
            size = 4 if wire == FIXED32 else 8
        else:
            raise WireError(f"wire type {wire}", began)
        if size > end - at:
            raise WireError(f"a field of {size} bytes leads past the end", began)
        if wire != LENGTH:
            value = int.from_bytes(bytes(data[at : at + size]), "little")
        yield Value(number, wire, value, at, at + size)
        at += size


class Message:
    """One message: where it lies, and questions about its fields."""

    def __init__(self, tree: Tree, kind: str, start: int, end: int, parents: tuple[str, ...]) -> None:
        self.tree = tree
        self.kind = kind
        self.start = start
        self.end = end
        self.parents = parents
        """Kinds of the messages around it, outermost first."""
        self.kept: dict[str, list[Value]] | None = None

    def values(self, name: str) -> Iterator[Value]:
        """The occurrences of a field, in order."""
        if self.kept is not None:
            yield from self.kept.get(name, ())
            return
        rules = self.tree.schema[self.kind]
        try:
            for value in self.tree.read(self.start, self.end):
                rule = rules.get(value.number)
                if rule is not None and rule.name == name:
                    yield value
        except WireError:
            return

    def has(self, name: str) -> bool:
        """Whether the field occurs."""
        return next(self.values(name), None) is not None

    def last(self, name: str) -> Value | None:
        """The occurrence that counts when a field stands there more than once."""
        found = None
        for found in self.values(name):  # noqa: B007 -- the last one is wanted
            pass
        return found

    def number(self, name: str, default: int = 0) -> int:
        """A number, signed."""
        value = self.last(name)
        return default if value is None else signed(value.value)

    def text(self, name: str) -> str:
        """A text, at most ``LONGEST_TEXT`` bytes of it."""
        value = self.last(name)
        return "" if value is None else self.tree.text(value)

    def texts(self, name: str) -> list[str]:
        """The first texts of a list."""
        found = []
        for value in self.values(name):
            found.append(self.tree.text(value))
            if len(found) >= LONGEST_LIST:
                break
        return found

    def numbers(self, name: str, most: int = LONGEST_LIST) -> list[int]:
        """The first numbers of a list of integers, packed or not."""
        found: list[int] = []
        for value in self.values(name):
            if value.wire == VARINT:
                found.append(signed(value.value))
            elif value.wire == LENGTH:
                found += self._packed(value, most - len(found))
            if len(found) >= most:
                break
        return found

    def _packed(self, value: Value, most: int) -> list[int]:
        """The first numbers of a packed list; what cannot be read ends it."""
        found: list[int] = []
        at = value.start
        try:
            while at < value.end and len(found) < most:
                item, at = varint(self.tree.data, at, value.end)
                found.append(signed(item))
        except WireError:
            pass
        return found

    def messages(self, name: str) -> Iterator[Message]:
        """The messages in a field."""
        rules = self.tree.schema[self.kind]
        kind = next(rule.kind for rule in rules.values() if rule.name == name)
        for value in self.values(name):
            yield self.tree.message(kind, value.start, value.end, (*self.parents, self.kind))

    def message(self, name: str) -> Message | None:
        """The message in a field that occurs once."""
        return next(self.messages(name), None)

    def size(self, name: str) -> int:
        """Bytes of all occurrences together."""
        return sum(value.end - value.start for value in self.values(name))


Visit = Callable[[Message], None]


class Tree:
    """All messages of one file."""

    def __init__(self, source: Source, meter: Meter, draft: Draft, family: str) -> None:
        self.data = source.data
        self.source = source
        self.draft = draft
        self.schema = schema(family)
        self.left = min(MOST_FIELDS, meter.opcodes)
        self.odd = 0
        self.is_whole = True

    def read(self, start: int, end: int) -> Iterator[Value]:
        """The fields between two offsets, each of which counts.

        Raises:
            LimitError: too many have been read.
        """
        for value in scan_fields(self.data, start, end):
            self.left -= 1
            if self.left < 0:
                raise LimitError(f"more than {MOST_FIELDS} fields")
            yield value

    def text(self, value: Value) -> str:
        """A payload as text; what is no UTF-8 is replaced."""
        return bytes(self.data[value.start : min(value.end, value.start + LONGEST_TEXT)]).decode("utf-8", "replace")

    def message(self, kind: str, start: int, end: int, parents: tuple[str, ...] = ()) -> Message:
        """A message that is asked for out of turn; a broken one has no fields."""
        made = Message(self, kind, start, end, parents)
        made.kept = {}
        rules = self.schema[kind]
        try:
            for count, value in enumerate(self.read(start, end)):
                if count >= KEPT:
                    made.kept = None
                    break
                if rule := rules.get(value.number):
                    made.kept.setdefault(rule.name, []).append(value)
        except WireError:
            made.kept = {}
        return made

    def walk(self, kind: str, start: int, end: int, visits: Mapping[str, Visit]) -> None:
        """Check every message below one and hand those of some kinds to ``visits``, parents first.

        Raises:
            LimitError: there are too many fields.
        """
        todo = [iter([(kind, start, end)])]
        parents: list[str] = []
        while todo:
            child = next(todo[-1], None)
            if child is None:
                todo.pop()
                if parents:
                    parents.pop()
                continue
            if len(todo) > DEEPEST:
                self._break(f"messages are nested more than {DEEPEST} deep", child[1])
                continue
            message = Message(self, *child, tuple(parents))
            if not self._check(message):
                continue
            if visit := visits.get(message.kind):
                visit(message)
            parents.append(message.kind)
            todo.append(self._children(message))

    def _children(self, message: Message) -> Iterator[tuple[str, int, int]]:
        rules = self.schema[message.kind]
        values = (
            self.read(message.start, message.end)
            if message.kept is None
            else (value for each in message.kept.values() for value in each)
        )
        for value in values:
            rule = rules.get(value.number)
            if rule is not None and rule.is_message and value.wire == LENGTH:
                yield rule.kind, value.start, value.end

    def _check(self, message: Message) -> bool:
        """Whether the message can be read; whatever is wrong with it is reported."""
        kept: dict[str, list[Value]] | None = {}
        seen: set[int] = set()
        rules = self.schema[message.kind]
        count = 0
        try:
            for value in self.read(message.start, message.end):
                count += 1
                rule = rules.get(value.number)
                if rule is None:
                    self._unknown(message, value)
                    continue
                self._check_field(message, value, rule, seen)
                if kept is not None:
                    kept.setdefault(rule.name, []).append(value)
                    if count > KEPT:
                        kept = None
        except WireError as broken:
            self._break(f"{message.kind}: {broken}", broken.at)
            return False
        message.kept = kept
        return True

    def _check_field(self, message: Message, value: Value, rule: Rule, seen: set[int]) -> None:
        shown = f"{message.kind}.{rule.name}"
        if not rule.repeated:
            if value.number in seen:
                self._odd("protobuf/duplicate-field", f"{shown} stands there twice", value.start)
            seen.add(value.number)
        expected = WIRES.get(rule.kind, LENGTH)
        if value.wire == expected:
            return
        if not rule.repeated or value.wire != LENGTH:
            self._break(f"{shown} has wire type {value.wire}", value.start)
        elif (width := WIDTHS.get(rule.kind)) and (value.end - value.start) % width:
            self._break(f"{shown} is no list of numbers of {width} bytes", value.start)

    def _unknown(self, message: Message, value: Value) -> None:
        self._odd(
            "protobuf/unknown-field",
            f"field {value.number} of {message.kind}, {value.end - value.start} bytes",
            value.start,
        )

    def _odd(self, rule: str, detail: str, at: int) -> None:
        self.odd += 1
        if self.odd <= SHOWN:
            self.draft.fire(rule, detail, at)

    def _break(self, detail: str, at: int) -> None:
        self._odd("protobuf/malformed", detail, at)
        if self.is_whole:
            self.is_whole = False
            self.draft.miss("a message cannot be read to its end")


def payload(message: Message, value: Value) -> memoryview:
    """The bytes of a field, without a copy."""
    return window(message.tree.data, value.start, value.end)


FITTED = 64
"""Fields of a message that a recogniser looks at."""


def fits(data: Buffer, family: str, kind: str, wanted: frozenset[str]) -> bool:
    """Whether ``wanted`` are among the first fields and all known ones have their type. A cut file still fits."""
    rules = schema(family)[kind]
    seen: set[str] = set()
    try:
        for value in islice(scan_fields(data, 0, len(data)), FITTED):
            rule = rules.get(value.number)
            if rule is not None and not _plausible(value, rule):
                return False
            seen.add(rule.name if rule else "")
    except WireError as broken:
        return _is_cut(data, broken.at, rules, seen, wanted)
    return wanted <= seen


def fits_exactly(data: Buffer, family: str, kind: str, wanted: frozenset[str], most: int = FITTED) -> bool:
    """Whether the bytes are a message of few fields, all of them known and ``wanted`` among them."""
    rules = schema(family)[kind]
    try:
        values = list(islice(scan_fields(data, 0, len(data)), most + 1))
    except WireError:
        return False
    if len(values) > most or any(value.number not in rules for value in values):
        return False
    numbers = [value.number for value in values if not rules[value.number].repeated]
    is_single = len(set(numbers)) == len(numbers)
    names = {rules[value.number].name for value in values}
    return is_single and wanted <= names and all(_plausible(value, rules[value.number]) for value in values)


def _is_cut(data: Buffer, at: int, rules: Mapping[int, Rule], seen: set[str], wanted: frozenset[str]) -> bool:
    """Whether the field that leads past the end is the last one that was wanted."""
    try:
        key, _ = varint(data, at, len(data))
    except WireError:
        return False
    rule = rules.get(key >> 3)
    return rule is not None and key & 7 == WIRES.get(rule.kind, LENGTH) and wanted <= seen | {rule.name}


def _plausible(value: Value, rule: Rule) -> bool:
    return value.wire == WIRES.get(rule.kind, LENGTH) or (rule.repeated and value.wire == LENGTH)
