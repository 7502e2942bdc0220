"""Shapes: what the items of a large pickle have in common, learnt from some of them.

A million records, tuples or objects of one kind are the same opcodes over and over. ``Learner`` reads
some hundred opcodes ahead and notes for every place of an item what stands there: a number, a text, a
tuple of such, a dict with these keys. From that follows a regular expression for items of exactly that
kind, and the machine steps over all that it matches.

Only what cannot matter is learnt, whatever the numbers and texts are: constants, containers of
them, what the memo holds for certain, and instances of listed classes that are made, filled and given
a state without any rule for their arguments or states. An item uses nothing that lies below it on the
stack, so where it stands does not matter either. Alternatives are atomic and every repetition is
possessive: what has matched once is never tried in another way.
"""

from __future__ import annotations

import functools
import itertools
import re
import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from bartizan.lifecycle.develop.scan.pickle import opcodes as op
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.pickle.judge import NEVER_HANDED_ON
from bartizan.lifecycle.develop.scan.pickle.states import is_plain_callable
from bartizan.lifecycle.develop.scan.pickle.values import Call, Name, SetSymbol, Symbol, Use

if TYPE_CHECKING:
    from bartizan.lifecycle.develop.scan.pickle.machine import Machine

MOST_OPCODES = 600
"""Opcodes that are read ahead."""
MOST_FORMS = 3
"""Kinds of lists or dicts at one place above which their length is no longer part of the shape."""
MOST_ALTERNATIVES = 6
"""Kinds of composite items at one place; more are not learnt."""
MOST_DEPTH = 6
MOST_PARTS = 40
MOST_PLACES = 160
"""Places of a shape; one with more is given up."""
LONGEST_TEXT = 127
LONGEST_BYTES = 15
MOST_FETCHED = 24
"""Memo entries that are fetched at one place and told from others."""
CUT_OFF = 3
"""Items at the end of what was read that may be the beginning of a longer one."""
MOST_REPLACED = 8
MOST_GROUPS = 90
MANY = 32
"""Matches in one go."""
LOOSE = ((b"*", 0),)

Match = Callable[[Buffer, int], re.Match[bytes] | None]

TAKES_ALL = {b"e": op.EMPTY_LIST, b"u": op.EMPTY_DICT, b"\x90": op.EMPTY_SET}
FILLS = {
    op.EMPTY_LIST: frozenset({b"e", b"a"}),
    op.EMPTY_DICT: frozenset({b"u", b"s"}),
    op.EMPTY_SET: frozenset({b"\x90"}),
}
_PUT = rb"r.{4}"
_FETCH = rb"h.|j.{4}"
_LOOSE_ITEMS = rb"){1,1000}+"
_MEMO = {"": b"", "memoize": b"\x94", "put": _PUT}
_NUMBERS = {
    op.BININT: rb"K.|M..|J.{4}",
    op.BINFLOAT: rb"G.{8}",
    op.NONE: rb"[N\x88\x89]",
}
_KIND = {
    op.BININT1: op.BININT,
    op.BININT2: op.BININT,
    op.BININT: op.BININT,
    op.BINFLOAT: op.BINFLOAT,
    op.NONE: op.NONE,
    op.NEWTRUE: op.NONE,
    op.NEWFALSE: op.NONE,
}
_WIDTH = {op.SHORT_BINUNICODE: 1, op.SHORT_BINBYTES: 1, op.LONG1: 1, op.BINUNICODE: 4}


class Key(NamedTuple):
    """What two composite items must have in common to be of the same form."""

    opcode: int
    """That makes it."""
    before: int
    """Parts that the opcode takes."""
    callee: bytes
    """The opcode that fetches what is called."""
    memo: str
    fills: tuple[tuple[bytes, int], ...]
    """What fills it afterwards: opcode and number of parts; ``LOOSE`` for any number of them."""


def _key(opcode: int, before: int, callee: bytes = b"") -> Key:
    return Key(opcode, before, callee, "", ())


class Place:
    """What was seen at one place of an item, or what an item consists of."""

    __slots__ = ("depth", "fetched", "fetches_any", "forms", "loose", "texts")

    def __init__(self) -> None:
        self.texts: dict[tuple[int, str], int] = {}
        """Constants: kind and memo to the greatest length."""
        self.fetched: set[bytes] = set()
        """Opcodes that fetch something from the memo."""
        self.fetches_any = False
        """Whether any constant of the memo may be fetched: there were too many to tell."""
        self.forms: dict[Key, list[Place]] = {}
        self.loose: set[tuple[int, str]] = set()
        """Kinds of containers of which the length does not matter."""
        self.depth = 0

    def merge(self, other: Place) -> None:
        """Add what was seen elsewhere."""
        for kind, length in other.texts.items():
            self.texts[kind] = max(length, self.texts.get(kind, 0))
        self.fetched |= other.fetched
        self.fetches_any |= other.fetches_any
        self.depth = max(self.depth, other.depth)
        for container in other.loose - self.loose:
            self._loosen(container)
        for key, parts in other.forms.items():
            self._take(key, parts)

    def _take(self, key: Key, parts: list[Place]) -> None:
        container = (key.opcode, key.memo)
        if container in self.loose and key.fills != LOOSE:
            key, parts = _loosened(key, parts)
        known = self.forms.get(key)
        if known is not None:
            for mine, part in zip(known, parts, strict=True):
                mine.merge(part)
        elif key.opcode in FILLS and key.fills != LOOSE and self._lengths(container) >= MOST_FORMS:
            self._loosen(container)
            self._take(key, parts)
        elif len(self.forms) < MOST_ALTERNATIVES:
            self.forms[key] = parts

    def _lengths(self, container: tuple[int, str]) -> int:
        return sum((key.opcode, key.memo) == container for key in self.forms)

    def _loosen(self, container: tuple[int, str]) -> None:
        self.loose.add(container)
        strict = [key for key in self.forms if (key.opcode, key.memo) == container and key.fills != LOOSE]
        for key, parts in [(key, self.forms.pop(key)) for key in strict]:
            self._take(key, parts)

    def kinds(self) -> list[tuple[object, ...]]:
        """Of what kind the items are, roughly."""
        found: list[tuple[object, ...]] = [(kind, -1) for kind, _ in self.texts]
        found += [(key.opcode, key.before, key.callee) for key in self.forms]
        return [*found, (-1, -1)] if self.fetched or self.fetches_any else found

    def is_empty(self) -> bool:
        """Whether nothing was seen."""
        return not (self.texts or self.fetched or self.fetches_any or self.forms)

    def is_numbers(self) -> bool:
        """Whether nothing but numbers was seen."""
        is_plain = not (self.fetched or self.fetches_any or self.forms)
        return is_plain and all(kind in _NUMBERS for kind, _ in self.texts)

    def generalise(self, fetched: dict[int, Symbol]) -> None:
        """Where many constants were fetched, let it be any; where many others were, give up those."""
        constants = {each for each in self.fetched if fetched.get(int.from_bytes(each[1:], "little")).__class__ is int}
        if self.fetches_any or len(constants) > MOST_FETCHED:
            self.fetches_any = True
            self.fetched -= constants
        self.fetched = set(sorted(self.fetched)[:MOST_FETCHED])
        for part in itertools.chain.from_iterable(self.forms.values()):
            part.generalise(fetched)

    def size(self) -> int:
        """Places in it, itself included."""
        return 1 + sum(part.size() for parts in self.forms.values() for part in parts)

    def pattern(self) -> bytes:
        """The regular expression of what was seen here."""
        forms = sorted(self.forms.items(), key=lambda form: (not form[0].callee, -form[0].before))
        found = [_form_pattern(key, parts) for key, parts in forms]
        found += [_fetch_pattern(self.fetched)] if self.fetched else []
        found += [_FETCH] if self.fetches_any else []
        found += [_constant_pattern(*kind, length) for kind, length in sorted(self.texts.items())]
        return b"(?>" + b"|".join(found) + b")"

    def memos(self) -> set[str]:
        """In which ways something enters the memo."""
        found = {memo for _, memo in self.texts} | {key.memo for key in self.forms}
        return found.union(*(part.memos() for parts in self.forms.values() for part in parts)) - {""}

    def callers(self) -> tuple[bytes, int | None]:
        """The regular expression of the items that are the result of a call, and how many calls are in each."""
        calling = Place()
        calling.forms = {key: parts for key, parts in self.forms.items() if key.callee}
        others = Place()
        others.forms = {key: parts for key, parts in self.forms.items() if not key.callee}
        if not calling.forms or (others.forms and others.calls() != 0):
            return b"", None
        return calling.pattern(), calling.calls()

    def entries(self) -> int | None:
        """Memo entries that an item of this shape adds; None when they differ."""
        return self.counted(lambda key: key.memo != "", lambda kind: kind[1] != "")

    def calls(self) -> int | None:
        """Calls in an item of this shape; None when they differ."""
        return self.counted(lambda key: key.callee != b"", lambda _kind: False)

    def counted(self, own: Callable[[Key], bool], of_constant: Callable[[tuple[int, str]], bool]) -> int | None:
        """How often something happens in an item; None when items differ."""
        counts = {int(of_constant(kind)) for kind in self.texts} | ({0} if self.fetched or self.fetches_any else set())
        for key, parts in self.forms.items():
            inner = [part.counted(own, of_constant) for part in parts]
            if None in inner or (key.fills == LOOSE and any(inner)):
                return None
            counts.add(int(own(key)) + sum(each for each in inner if each))
        return counts.pop() if len(counts) == 1 else None


def _loosened(key: Key, parts: list[Place]) -> tuple[Key, list[Place]]:
    """The same container, whatever its length."""
    each = [Place(), Place()] if key.opcode == op.EMPTY_DICT else [Place()]
    for number, part in enumerate(parts):
        each[number % len(each)].merge(part)
    return key._replace(fills=LOOSE), each


def _form_pattern(key: Key, parts: list[Place]) -> bytes:
    made = re.escape(bytes([key.opcode])) + _MEMO[key.memo]
    if key.fills == LOOSE:
        return made + _loose_pattern(key.opcode, parts)
    patterns = [part.pattern() for part in parts]
    before = b"".join(patterns[: key.before])
    marked = rb"\(" if key.opcode in {op.TUPLE, op.FROZENSET} else b""
    out = marked + re.escape(key.callee) + before + made
    at = key.before
    for fill, count in key.fills:
        mark = rb"\(" if fill in TAKES_ALL else b""
        out += mark + b"".join(patterns[at : at + count]) + re.escape(fill)
        at += count
    return out


def _loose_pattern(opcode: int, parts: list[Place]) -> bytes:
    if any(part.is_empty() for part in parts):
        return b""
    item = b"".join(part.pattern() for part in parts)
    one = {op.EMPTY_LIST: b"|" + item + b"a", op.EMPTY_DICT: b"|" + item + b"s"}.get(opcode, b"")
    many = next(fill for fill, made in TAKES_ALL.items() if made == opcode)
    return rb"(?>\((?:" + item + _LOOSE_ITEMS + re.escape(many) + one + rb"){0,64}+"


def _fetch_pattern(fetched: set[bytes]) -> bytes:
    short = sorted(literal[1:] for literal in fetched if literal[:1] == b"h")
    found = [b"h[" + b"".join(re.escape(index) for index in short) + b"]"] if short else []
    found += [re.escape(literal) for literal in sorted(fetched) if literal[:1] != b"h"]
    return b"|".join(found)


def _constant_pattern(kind: int, memo: str, longest: int) -> bytes:
    if kind in _NUMBERS:
        return _NUMBERS[kind]
    width = _WIDTH[kind]
    bound = LONGEST_BYTES if kind in {op.SHORT_BINBYTES, op.LONG1} else LONGEST_TEXT
    sizes = range(min(2 * longest + 8, bound) + 1)
    lengths = [re.escape(size.to_bytes(width, "little")) + b".{%d}" % size for size in sizes]
    if len(lengths) > 24:  # noqa: PLR2004 -- from here on two steps are quicker than one
        groups = [(start, lengths[start : start + 16]) for start in range(0, len(lengths), 16)]
        lengths = [_from_to(start, start + 15) + b"(?>" + b"|".join(group) + b")" for start, group in groups]
    return re.escape(bytes([kind])) + b"(?>" + b"|".join(lengths) + b")" + _MEMO[memo]


def _from_to(first: int, last: int) -> bytes:
    return b"(?=[" + re.escape(bytes([first])) + b"-" + re.escape(bytes([last])) + b"])"


class Shape:
    """What items look like, as a regular expression: one after another, or two kinds in turn."""

    def __init__(self, places: list[Place], fetched: dict[int, Symbol]) -> None:
        self.source = b"".join(place.pattern() for place in places)
        self.items = len(places)
        """How many items one match is."""
        self.entries = _sum(place.entries() for place in places)
        """Memo entries for each match; None when they differ."""
        self.calls = _sum(place.calls() for place in places)
        """Calls in each match; None when they differ."""
        self.has_puts = _PUT in self.source
        self.fetches_any = _FETCH in self.source
        """Whether it fetches what has to be looked at before."""
        self.fetched = fetched
        self.shares = any(value.__class__ not in {int, Name} for value in fetched.values())
        """Whether something is fetched that may hold something."""
        self.opcodes = sum(place.size() for place in places)
        """About as many opcodes are in each."""
        self.is_numbers = self.items == 1 and places[0].is_numbers()
        """Whether items are nothing but numbers."""
        self._callers = places[0].callers() if len(places) == 1 else (b"", None)

    @functools.cached_property
    def one(self) -> Match:
        """Matches one."""
        return re.compile(b"(?s)" + self.source).match

    @functools.cached_property
    def many(self) -> Match:
        """Matches ``MANY`` of them."""
        return re.compile(b"(?s)(?:" + self.source + b"){%d}+" % MANY).match

    @functools.cached_property
    def _calling(self) -> re.Pattern[bytes]:
        pattern = self._callers[0]
        return re.compile(b"(?s)(?:(?!" + pattern + b")" + self.source + b")*+(?:" + pattern + rb"(?<=(.))|\Z)")

    @functools.cached_property
    def _with_puts(self) -> re.Pattern[bytes]:
        return re.compile(b"(?s)" + self.source.replace(_PUT, b"r(.{4})"))

    @functools.cached_property
    def _with_fetches(self) -> re.Pattern[bytes]:
        return re.compile(b"(?s)" + self.source.replace(_FETCH, b"h(.)|j(.{4})"))

    def puts(self, data: Buffer, start: int, end: int) -> bytes | None:
        """Memo indexes of all LONG_BINPUTs from ``start`` to ``end``; None where their number varies."""
        if self.entries is None or self.source.count(_PUT) > MOST_GROUPS or _LOOSE_ITEMS in self.source:
            return None
        found = self._with_puts.findall(data, start, end)
        return b"".join(found if self._with_puts.groups == 1 else itertools.chain.from_iterable(found))

    def fetches(self, data: Buffer, start: int, end: int) -> set[bytes]:
        """Memo indexes that matches from ``start`` to ``end`` fetch, besides those that are known."""
        return set(itertools.chain.from_iterable(self._with_fetches.findall(data, start, end)))

    def part_without(self, unwanted: set[bytes], data: Buffer, start: int, end: int) -> tuple[int, int]:
        """Up to where matches fetch nothing that is unwanted, and how many they are."""
        count = 0
        at = start
        for match in self._with_fetches.finditer(data, start, end):
            if not unwanted.isdisjoint(match.groups()):
                break
            at = match.end()
            count += 1
        return at, count

    def count_calls(self, data: Buffer, start: int, end: int) -> int | None:
        """Calls in matches of this shape from ``start`` to ``end``, where each caller has as many as the next."""
        pattern, calls = self._callers
        if not pattern or calls is None:
            return None
        return calls * sum(1 for caller in self._calling.findall(data, start, end) if caller)


def _sum(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


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
        return _FETCH not in source or (_LOOSE_ITEMS not in source and 2 * source.count(_FETCH) <= MOST_GROUPS)

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
        if opcode in _WIDTH:
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
        width = _WIDTH[opcode]
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
        is_number = any(kind in _NUMBERS for kind, _ in out.texts)
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
            push(_made(_key(opcode, 0), []))
        elif op.TUPLE1 <= opcode <= op.TUPLE3:
            count = opcode - op.TUPLE1 + 1
            push(_made(_key(opcode, count), self._take(count)))
        elif opcode in {op.TUPLE, op.FROZENSET}:
            items = self._take_marked()
            push(_made(_key(opcode, len(items)), items))
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
        return _made(_key(opcode, 1, literal), [args])

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
    return is_constant, is_constant and any(kind in _WIDTH for item in items for kind, _ in item.texts)


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
    loose, each = _loosened(key, known)
    place.forms[loose] = each
    return place
