"""Object headers and the messages in them (sections IV.A.1 and IV.A.2)."""

from __future__ import annotations

import math
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.formats.hdf5.file import BrokenHdf5Error, Cursor, File, UnknownHdf5Error

DATASPACE, LINK_INFO, DATATYPE, FILL_OLD, FILL, LINK, EXTERNAL, LAYOUT = range(1, 9)
FILTERS, ATTRIBUTE = 0x0B, 0x0C
SHARED_TABLE, CONTINUATION, SYMBOL_TABLE = 0x0F, 0x10, 0x11
DRIVER, ATTRIBUTE_INFO = 0x14, 0x15
LAST_KIND = 0x18
IS_SHARED = 2
MUST_UNDERSTAND = 0x88
"""Message flags: fail when this message is not known, for writing or always."""
MOST_BLOCKS = 10_000
DEEPEST_TYPE = 32
MOST_MEMBERS = 8192
"""Members of a compound type or an enumeration."""
MOST_RANK = 32

FIXED, FLOAT, TIME, STRING, BITS, OPAQUE, COMPOUND, REFERENCE, ENUM, SEQUENCE, ARRAY, COMPLEX = range(12)
"""Classes of datatypes."""


class Message(NamedTuple):
    """One header message and where its body lies."""

    kind: int
    flags: int
    start: int
    end: int

    def open(self, file: File) -> Cursor:
        """A cursor over the body."""
        file.step()
        return Cursor(file, self.start, self.end, f"message {self.kind:#x}")


class Datatype(NamedTuple):
    """What an element is."""

    kind: int
    size: int
    bits: int = 0
    base: Datatype | None = None


class Filter(NamedTuple):
    """One stage of a pipeline that chunks go through."""

    number: int
    name: bytes


def read_header(file: File, at: int) -> list[Message]:
    """All messages of the object at a place, those of continuation blocks included.

    Raises:
        BrokenHdf5Error, UnknownHdf5Error, LimitError: it cannot be read.
    """
    if bytes(file.data[at : at + 4]) == b"OHDR":
        return _new_header(file, at)
    cursor = file.cursor(at, 16, "object header")
    if cursor.uint(1) != 1:
        raise BrokenHdf5Error(f"no object header at {at}")
    cursor.skip(1)
    cursor.skip(2)
    cursor.skip(4)
    return _collect(file, file.cursor(at + 16, cursor.uint(4), "object header"), order_size=None)


def _new_header(file: File, at: int) -> list[Message]:
    cursor = file.cursor(at, 6, "object header")
    cursor.expect(b"OHDR", frozenset({2}))
    flags = cursor.uint(1)
    more = (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    prefix = file.cursor(at + 6, more + (1 << (flags & 3)), "object header")
    prefix.skip(more)
    size = prefix.uint(1 << (flags & 3))
    messages = file.cursor(prefix.at, size, "object header")
    file.cursor(messages.end, 4, "checksum")
    file.verify(at, messages.end, "object header")
    return _collect(file, messages, order_size=2 if flags & 4 else 0)


def _collect(file: File, first: Cursor, order_size: int | None) -> list[Message]:
    """Messages of a block and of the blocks that continue it. ``order_size`` is None in version 1."""
    found: list[Message] = []
    todo, seen = [first], {first.at}
    while todo:
        for message in _messages(file, todo.pop(), order_size):
            if message.kind == CONTINUATION:
                block = _continuation(file, message, is_new=order_size is not None)
                if block.at in seen or len(seen) > MOST_BLOCKS:
                    raise BrokenHdf5Error(f"the header's blocks lead in a circle at {block.at}")
                seen.add(block.at)
                todo.append(block)
            else:
                found.append(message)
    return found


def _messages(file: File, cursor: Cursor, order_size: int | None) -> list[Message]:
    found = []
    prefix = 8 if order_size is None else 4 + order_size
    while cursor.left >= prefix:
        file.step()
        kind = cursor.uint(2 if order_size is None else 1)
        size = cursor.uint(2)
        flags = cursor.uint(1)
        cursor.skip(3 if order_size is None else order_size)
        found.append(Message(kind, flags, cursor.at, cursor.at + size))
        cursor.skip(size)
    return found


def _continuation(file: File, message: Message, *, is_new: bool) -> Cursor:
    cursor = message.open(file)
    at, size = cursor.address(), cursor.length()
    if at is None:
        raise BrokenHdf5Error(f"a continuation at {message.start} leads nowhere")
    block = file.cursor(at, size, "continuation of an object header")
    if is_new:
        if block.take(4) != b"OCHK":
            raise BrokenHdf5Error(f"no continuation of an object header at {at}")
        block.end -= 4
        file.verify(at, block.end, "continuation of an object header")
    return block


def resolve(file: File, message: Message) -> Message:
    """The message itself, or the one that it shares.

    Raises:
        BrokenHdf5Error, UnknownHdf5Error, LimitError: it is not found.
    """
    if not message.flags & IS_SHARED:
        return message
    return shared(file, message.open(file), message.kind)


def shared(file: File, cursor: Cursor, kind: int) -> Message:
    """The message in another header that a shared message stands for (section IV.A.2, "Shared Message")."""
    version = cursor.uint(1)
    where = cursor.uint(1)
    if version not in {1, 2, 3}:
        raise UnknownHdf5Error(f"a shared message of version {version}")
    if version == 3 and where == 1:  # noqa: PLR2004
        raise UnknownHdf5Error("messages shared through a heap")
    cursor.skip(6 if version == 1 else 0)
    at = cursor.address()
    for each in read_header(file, at) if at is not None else ():
        if each.kind == kind and not each.flags & IS_SHARED:
            return each
    raise BrokenHdf5Error(f"the shared message at {cursor.at} leads to none of kind {kind:#x}")


def read_shape(cursor: Cursor) -> tuple[int, ...]:
    """Sides of a dataspace; one element has none, no elements have a 0 (message 0x01)."""
    version = cursor.uint(1)
    rank, flags = cursor.uint(1), cursor.uint(1)
    if version not in {1, 2} or rank > MOST_RANK:
        raise BrokenHdf5Error(f"a dataspace of version {version} and rank {rank}")
    kind = 1
    if version == 1:
        cursor.skip(5)
    else:
        kind = cursor.uint(1)
    sides = tuple(cursor.length() for _ in range(rank))
    if flags & 1:
        cursor.skip(rank * cursor.file.length_size)
    return (0,) if kind == 2 else sides  # noqa: PLR2004 -- the null dataspace


def count(shape: tuple[int, ...]) -> int:
    """Elements of a shape."""
    return math.prod(shape)


def read_type(cursor: Cursor, depth: int = 0) -> Datatype:
    """A datatype (message 0x03), which may be nested.

    Raises:
        BrokenHdf5Error, UnknownHdf5Error: it is damaged, too deep or of a class that is not known.
    """
    cursor.file.step()
    if depth > DEEPEST_TYPE:
        raise BrokenHdf5Error(f"datatypes are nested more than {DEEPEST_TYPE} deep")
    first, bits, size = cursor.uint(1), cursor.uint(3), cursor.uint(4)
    kind, version = first & 15, first >> 4
    if version not in {1, 2, 3, 4, 5}:
        raise UnknownHdf5Error(f"a datatype of version {version}")
    described = Datatype(kind, size, bits)
    return described._replace(base=_properties(cursor, described, version, depth))


_FIXED_PROPERTIES = {FIXED: 4, FLOAT: 12, TIME: 2, STRING: 0, BITS: 4, REFERENCE: 0}


def _properties(cursor: Cursor, described: Datatype, version: int, depth: int) -> Datatype | None:
    """Step over what follows the type's first eight bytes; the base type where there is one."""
    kind, bits = described.kind, described.bits
    if kind in _FIXED_PROPERTIES:
        cursor.skip(_FIXED_PROPERTIES[kind])
        return None
    if kind == OPAQUE:
        cursor.skip((bits & 0xFF) + 7 & ~7)
        return None
    if kind == COMPOUND:
        return _compound(cursor, described, version, depth)
    if kind == ARRAY:
        rank = cursor.uint(1)
        cursor.skip((0 if version > 2 else 3 + 4 * rank) + 4 * rank)  # noqa: PLR2004
        return read_type(cursor, depth + 1)
    if kind not in {ENUM, SEQUENCE, COMPLEX}:
        raise UnknownHdf5Error(f"a datatype of class {kind}")
    base = read_type(cursor, depth + 1)
    if kind == ENUM:
        for _ in range(_members(bits & 0xFFFF)):
            _name(cursor, version)
        cursor.skip(base.size * (bits & 0xFFFF))
    return base


def _members(number: int) -> int:
    if number > MOST_MEMBERS:
        raise BrokenHdf5Error(f"a datatype of {number} members")
    return number


def _name(cursor: Cursor, version: int) -> None:
    before = cursor.at
    cursor.text()
    if version < 3:  # noqa: PLR2004 -- padded to a multiple of eight
        cursor.skip(-(cursor.at - before) % 8)


def _compound(cursor: Cursor, described: Datatype, version: int, depth: int) -> Datatype | None:
    """Step over the members; the first one with a variable length, if any, stands for all."""
    variable = None
    for _ in range(_members(described.bits & 0xFFFF)):
        _name(cursor, version)
        cursor.skip(4 if version < 3 else max(1, (described.size.bit_length() + 7) // 8))  # noqa: PLR2004
        cursor.skip(28 if version == 1 else 0)
        member = read_type(cursor, depth + 1)
        variable = variable or (member if member.kind == SEQUENCE else None)
    return variable


def read_filters(cursor: Cursor) -> list[Filter]:
    """Stages of a filter pipeline (message 0x0B)."""
    version, stages = cursor.uint(1), cursor.uint(1)
    if version not in {1, 2}:
        raise UnknownHdf5Error(f"a filter pipeline of version {version}")
    cursor.skip(6 if version == 1 else 0)
    return [_filter(cursor, version) for _ in range(stages)]


def _filter(cursor: Cursor, version: int) -> Filter:
    number = cursor.uint(2)
    size = cursor.uint(2) if version == 1 or number >= 256 else 0  # noqa: PLR2004 -- known ones have no name
    cursor.skip(2)
    values = cursor.uint(2)
    name = cursor.take(size + (-size % 8 if version == 1 else 0)).rstrip(b"\0")
    cursor.skip(4 * values + (4 if version == 1 and values % 2 else 0))
    return Filter(number, name)
