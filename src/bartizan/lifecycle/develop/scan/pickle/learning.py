"""Learning: some hundred opcodes are read ahead, and what stands at every place of an item is noted.

A number, a text, a tuple of such, a dict with these keys. Only what cannot matter is learnt, whatever the numbers and
texts are: constants, containers of them, what the memo holds for certain, and instances of listed classes that are
made, filled and given a state without any rule for their arguments or states. An item uses nothing that lies below it
on the stack, so where it stands does not matter either.
"""

from __future__ import annotations

import itertools
import struct
from typing import TYPE_CHECKING

from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.judge import NEVER_HANDED_ON
from bartizan.lifecycle.develop.scan.pickle.places import (
    FETCH,
    FILLS,
    LONGEST_BYTES,
    LONGEST_TEXT,
    LOOSE,
    LOOSE_ITEMS,
    NUMBERS,
    WIDTH,
    Key,
    Place,
    key_of,
    loosened,
)
from bartizan.lifecycle.develop.scan.pickle.shapes import MOST_GROUPS, Shape
from bartizan.lifecycle.develop.scan.pickle.states import is_plain_callable
from bartizan.lifecycle.develop.scan.pickle.values import Call, Name, SetSymbol, Symbol, Use

if TYPE_CHECKING:
    from bartizan.lifecycle.develop.scan.pickle.machine import Machine

MOST_OPCODES = 600
"""Opcodes that are read ahead."""
MOST_DEPTH = 6
MOST_PARTS = 40
MOST_PLACES = 160
"""Places of a shape; one with more is given up."""
CUT_OFF = 3
"""Items at the end of what was read that may be the beginning of a longer one."""
MOST_REPLACED = 8
_KIND = {
    op.BININT1: op.BININT,
    op.BININT2: op.BININT,
    op.BININT: op.BININT,
    op.BINFLOAT: op.BINFLOAT,
    op.NONE: op.NONE,
    op.NEWTRUE: op.NONE,
    op.NEWFALSE: op.NONE,
}


class Learner:
    """Reads ahead and learns the shape of the items."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.data = machine.data
        self.places = [Place()]
        """What was learnt: of all items alike, or of two kinds that take turns."""
        self.fetched: dict[int, Symbol] = {}
        self.replaced = 0
        """How often other items were learnt in place of those from before."""
        self.stack: list[Place | None] = []
        self.marks: list[int] = []

    def forget(self) -> None:
        """Begin anew."""
        self.places, self.fetched = [Place()], {}

    def learn(self, pos: int) -> Shape | None:
        """The shape of the items around ``pos`` and of those learnt from before; None when there is none."""
        self.stack, self.marks = [], []
        try:
            for _ in range(MOST_OPCODES):
                after = self._step(pos)
                if after < 0:
                    break
                pos = after
        except (IndexError, struct.error):
            pass
        self._take_in(self._items())
        for place in self.places:
            place.generalise(self.fetched)
        if sum(place.size() for place in self.places) > MOST_PLACES or not self._is_readable():
            self.forget()
        if len(set().union(*(place.memos() for place in self.places))) > 1:
            self.forget()
        return None if any(place.is_empty() for place in self.places) else Shape(self.places, self.fetched)

    def _is_readable(self) -> bool:
        """Whether the memo indexes in items can be told: in containers of any length there are too many."""
        source = b"".join(place.pattern() for place in self.places)
        return FETCH not in source or (LOOSE_ITEMS not in source and 2 * source.count(FETCH) <= MOST_GROUPS)

    def _take_in(self, items: list[Place]) -> None:
        """Add items to what was learnt."""
        known = [item for item in items if item is not None]
        kinds_known = {kind for place in self.places for kind in place.kinds()}
        if self.replaced < MOST_REPLACED and not kinds_known & {kind for item in known for kind in item.kinds()}:
            self.replaced += 1
            self.places = [Place()]
        turns = [[item for item in items[start::2] if item is not None] for start in (0, 1)]
        kinds = [{kind for item in turn for kind in item.kinds()} for turn in turns]
        takes_turns = bool(kinds[0]) and bool(kinds[1]) and not kinds[0] & kinds[1]
        if takes_turns and _is_rather_key(turns[1]) > _is_rather_key(turns[0]):
            turns, kinds = turns[::-1], kinds[::-1]
        if takes_turns and self.places[0].is_empty():
            self.places = [Place(), Place()]
        is_like = not any(kinds[1 - number] & set(place.kinds()) for number, place in enumerate(self.places))
        if len(self.places) == 2 and not (takes_turns and is_like):  # noqa: PLR2004 -- of two kinds
            self.places[0].merge(self.places.pop())
        for place, members in zip(self.places, turns if len(self.places) == 2 else [known], strict=True):  # noqa: PLR2004
            for item in members:
                place.merge(item)

    def _items(self) -> list[Place]:
        """Whole items: those of the level on which there are most."""
        bounds = [0, *self.marks, len(self.stack)]
        level = max((self.stack[start:end] for start, end in itertools.pairwise(bounds)), key=len)
        whole = len(level) - max(CUT_OFF, min(CUT_OFF * MOST_DEPTH, len(level) // 2))
        return [item for item in level[: max(whole, 0)] if item is not None]

    def _step(self, pos: int) -> int:
        """Read the opcode at ``pos``; returns the offset of the next one, or -1 where nothing more is learnt."""
        data = self.data
        opcode = data[pos]
        if opcode in _KIND:
            self._push_constant(_KIND[opcode], 0)
            return pos + op.FIXED_SIZE[opcode]
        if opcode in WIDTH:
            return self._text(opcode, pos)
        if opcode in {op.MEMOIZE, op.LONG_BINPUT, op.BINPUT}:
            self._memoise("memoize" if opcode == op.MEMOIZE else "put")
            return pos + {op.MEMOIZE: 1, op.BINPUT: 2, op.LONG_BINPUT: 5}[opcode]
        if opcode in {op.BINGET, op.LONG_BINGET}:
            end = pos + (2 if opcode == op.BINGET else 5)
            self.stack.append(self._fetch(bytes(data[pos:end])))
            return end
        if opcode == op.FRAME:
            return pos + 9
        return pos + 1 if self._compose(opcode) else -1

    def _push_constant(self, kind: int, length: int) -> None:
        place = Place()
        place.texts[(kind, "")] = length
        self.stack.append(place)

    def _text(self, opcode: int, pos: int) -> int:
        width = WIDTH[opcode]
        size = int.from_bytes(bytes(self.data[pos + 1 : pos + 1 + width]), "little")
        if size > (LONGEST_BYTES if opcode in {op.SHORT_BINBYTES, op.LONG1} else LONGEST_TEXT):
            self.stack.append(None)
        else:
            self._push_constant(opcode, size)
        return pos + 1 + width + size

    def _memoise(self, memo: str) -> None:
        place = self._take(1)[0]
        if place is None:
            self.stack.append(None)
            return
        out = Place()
        out.depth = place.depth
        out.texts = {(kind, memo): length for (kind, before), length in place.texts.items() if not before}
        out.forms = {
            key._replace(memo=memo): parts for key, parts in place.forms.items() if not (key.memo or key.fills)
        }
        is_number = any(kind in NUMBERS for kind, _ in out.texts)
        self.stack.append(out if (out.texts or out.forms) and not is_number else None)

    def _fetch(self, literal: bytes) -> Place | None:
        index = int.from_bytes(literal[1:], "little")
        value = self.fetched.get(index)
        if value is None:
            value = self.machine.peek(index)
            if not _may_be_fetched(value):
                return None
            self.fetched[index] = value
        place = Place()
        place.fetched.add(literal)
        return place

    def _take(self, count: int) -> list[Place | None]:
        """The last items of the open level; None for those that lie below what was read."""
        floor = self.marks[-1] if self.marks else 0
        have = len(self.stack) - floor
        if have >= count:
            taken = self.stack[len(self.stack) - count :]
            del self.stack[len(self.stack) - count :]
            return taken
        del self.stack[floor:]
        return [None] * count

    def _take_marked(self) -> list[Place | None]:
        if not self.marks:
            self.stack.clear()
            return [None]
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _compose(self, opcode: int) -> bool:
        """Carry out an opcode that makes or fills something; false for those that are none of a plain item."""
        push = self.stack.append
        if opcode == op.MARK:
            self.marks.append(len(self.stack))
        elif opcode in {op.EMPTY_TUPLE, op.EMPTY_LIST, op.EMPTY_DICT, op.EMPTY_SET}:
            push(_made(key_of(opcode, 0), []))
        elif op.TUPLE1 <= opcode <= op.TUPLE3:
            count = opcode - op.TUPLE1 + 1
            push(_made(key_of(opcode, count), self._take(count)))
        elif opcode in {op.TUPLE, op.FROZENSET}:
            items = self._take_marked()
            push(_made(key_of(opcode, len(items)), items))
        elif opcode in {op.NEWOBJ, op.REDUCE}:
            push(self._called(opcode, *self._take(2)))
        elif opcode in {op.APPENDS, op.SETITEMS, op.ADDITEMS}:
            items = self._take_marked()
            push(self._filled(bytes([opcode]), self._take(1)[0], items))
        elif opcode in {op.APPEND, op.SETITEM, op.BUILD}:
            target, *items = self._take(3 if opcode == op.SETITEM else 2)
            push(self._filled(bytes([opcode]), target, items))
        else:
            return False
        return True

    def _name(self, literal: bytes) -> Symbol:
        """What an opcode fetches that is among what was fetched before."""
        return self.fetched.get(int.from_bytes(literal[1:], "little")) if literal else None

    def _called(self, opcode: int, callee: Place | None, args: Place | None) -> Place | None:
        if callee is None or args is None or len(callee.fetched) != 1 or len(args.forms) != 1:
            return None
        literal = next(iter(callee.fetched))
        name = self._name(literal)
        use = Use.NEW if opcode == op.NEWOBJ else Use.CALL
        if name.__class__ is not Name or not name.listed or not name.uses & use or self.machine.is_watched(name):
            return None
        key, given = next(iter(args.forms.items()))
        rule = name.state_rule if opcode == op.NEWOBJ else name.args_rule
        if rule and (opcode == op.NEWOBJ or not self._passes(rule, given)):
            return None
        if key.opcode not in {op.EMPTY_TUPLE, op.TUPLE, op.TUPLE1, op.TUPLE2, op.TUPLE3}:
            return None
        return _made(key_of(opcode, 1, literal), [args])

    def _passes(self, rule: str, args: list[Place]) -> bool:
        """Whether arguments pass a rule whatever the constants among them are (see ``arguments``)."""
        fetched = [[self._name(literal) for literal in sorted(part.fetched)] for part in args]
        if rule == "items":
            is_call = any(key.callee for part in args for key in part.forms)
            return not is_call and not any(value.__class__ is Call for values in fetched for value in values)
        if rule == "constants":
            return all(value.__class__ is int for values in fetched for value in values) and not any(
                part.forms for part in args
            )
        is_name = bool(args) and not args[0].texts and not args[0].forms
        return rule == "factory" and is_name and all(is_plain_callable(value) for value in fetched[0])

    def _filled(self, fill: bytes, target: Place | None, items: list[Place | None]) -> Place | None:
        if target is None or len(target.forms) != 1 or target.texts or target.fetched:
            return None
        key, parts = next(iter(target.forms.items()))
        if not self._takes(key, fill, len(items)) or key.fills == LOOSE:
            return None
        if key.opcode in FILLS and len(items) > MOST_PARTS:
            return _wide(key, [*parts, *items])
        return _made(key._replace(fills=(*key.fills, (fill, len(items)))), [*parts, *items])

    def _takes(self, key: Key, fill: bytes, count: int) -> bool:
        """Whether what has this form takes such items, and nobody minds."""
        if not count or (fill == b"u" and count % 2):
            return False
        if key.opcode in FILLS:
            return fill in FILLS[key.opcode]
        if not key.callee:
            return False
        name = self._name(key.callee)
        is_built = any(each == b"b" for each, _ in key.fills)
        if name.__class__ is not Name or is_built or name.state_rule:
            return False
        return bool(name.uses & (Use.BUILD if fill == b"b" else Use.ITEMS))


def _is_rather_key(items: list[Place]) -> tuple[bool, bool]:
    """How much items look like the keys of a dict and not like its values: constants, and of those texts."""
    is_constant = not any(item.forms for item in items)
    return is_constant, is_constant and any(kind in WIDTH for item in items for kind, _ in item.texts)


def _may_be_fetched(value: Symbol) -> bool:
    """Whether it may stand anywhere without being judged."""
    if value.__class__ is Name:
        return value.args_rule not in NEVER_HANDED_ON
    if value.__class__ is tuple:
        return not any(item.__class__ is Name and item.args_rule in NEVER_HANDED_ON for item in value)
    return value.__class__ in {int, Call, SetSymbol}


def _made(key: Key, parts: list[Place | None]) -> Place | None:
    """A composite item; None when one of its parts is unknown, or it is too large."""
    known = [part for part in parts if part is not None]
    place = Place()
    place.depth = 1 + max((part.depth for part in known), default=0)
    if len(known) < len(parts) or len(parts) > MOST_PARTS or place.depth > MOST_DEPTH:
        return None
    place.forms[key] = known
    return place


def _wide(key: Key, parts: list[Place | None]) -> Place | None:
    """A container of many items, whatever their number; None when one of them is unknown, or it is too deep."""
    known = [part for part in parts if part is not None]
    place = Place()
    place.depth = 1 + max(part.depth for part in known) if known else 1
    if len(known) < len(parts) or place.depth > MOST_DEPTH:
        return None
    place.loose.add((key.opcode, key.memo))
    loose, each = loosened(key, known)
    place.forms[loose] = each
    return place
