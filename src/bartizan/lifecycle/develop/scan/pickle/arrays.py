"""What a pickled numpy dtype says about the bytes of an array: item size and whether it holds objects."""

from __future__ import annotations

import re
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.pickle.reading import Reader
from bartizan.lifecycle.develop.scan.pickle.values import Call, Name, Symbol

_TYPE = re.compile(
    r"[<>=|]?(?:([biufc?])(\d{1,2})|([SUVa])(\d{0,9})|(O)8?|([mM])8?(?:\[[\w /*]{1,16}\])?|([?bBhHiIlLqQpPefdgFDGc]))\Z"
)
_NATIVE = dict(
    zip("?bBhHiIlLqQpPefdgFDGc", (1, 1, 1, 2, 2, 4, 4, 8, 8, 8, 8, 8, 8, 2, 4, 8, 16, 8, 16, 32, 1), strict=True)
)
_POINTER = 8
HAS_OBJECT = 1
"""Flag of a dtype that holds references."""
OBJECT_FLAGS = 63
"""Flags of the object dtype itself, as numpy pickles them."""
DEEPEST = 16


class Layout(NamedTuple):
    """What matters about a dtype."""

    itemsize: int
    has_object: bool


class DtypeError(Exception):
    """The dtype is none that numpy writes; the text says why."""


def parse_type(text: str) -> Layout:
    """Layout of a type string such as ``f8``, ``<U5``, ``O8`` or ``M8[ns]``.

    Raises:
        DtypeError: not a type string.
    """
    match = _TYPE.match(text)
    if match is None:
        raise DtypeError(f"{text[:40]!r} is no type string")
    number, width, string, length, reference, time, code = match.groups()
    if number:
        return Layout(int(width), has_object=False)
    if string:
        return Layout(int(length or 0) * (4 if string == "U" else 1), has_object=False)
    if reference or time:
        return Layout(_POINTER, has_object=bool(reference))
    return Layout(_NATIVE[code], has_object=False)


def layout_of(reader: Reader, dtype: Symbol, depth: int = 0) -> Layout:
    """Layout of a pickled dtype: the call of ``numpy.dtype`` together with its state.

    Raises:
        DtypeError: it is no such call, or its state contradicts itself.
    """
    if dtype.__class__ is not Call or str(dtype.callee) != "numpy.dtype" or depth > DEEPEST:
        raise DtypeError("it is not made by numpy.dtype alone")
    base = base_layout(reader, dtype.args)
    return base if dtype.state is None else check_state(reader, base, dtype.state, depth)


def base_layout(reader: Reader, args: Symbol) -> Layout:
    """Layout of ``numpy.dtype(*args)`` before it is given a state.

    Raises:
        DtypeError: it is not made from a type string, or a record type and its size.
    """
    if args.__class__ is not tuple or not args:
        raise DtypeError("numpy.dtype has no arguments")
    made_of = args[0]
    if made_of.__class__ is Name and str(made_of) == "numpy.record":
        return Layout(0, has_object=False)
    if made_of.__class__ is tuple and len(made_of) == 2 and made_of[0].__class__ is Name:  # noqa: PLR2004 -- (scalar type, string)
        made_of = made_of[1]
    text = reader.text(made_of)
    if text is None:
        raise DtypeError("numpy.dtype is not given a type string")
    return parse_type(text)


def check_state(reader: Reader, base: Layout, state: Symbol, depth: int = 0) -> Layout:
    """Layout of a dtype after ``dtype.__setstate__(state)``.

    numpy trusts the flags in the state: a dtype that holds references but does not say so lets raw
    bytes pass for pointers.

    Raises:
        DtypeError: the state contradicts itself or is not understood.
    """
    if state.__class__ is not tuple or len(state) not in {8, 9}:
        raise DtypeError("its state has not eight or nine parts")
    version, _order, subarray, _names, fields, size, _alignment, flags = state[:8]
    numbers = [reader.number(item) for item in (version, size, flags)]
    if numbers[0] not in {3, 4} or numbers[1] is None or numbers[2] is None:
        raise DtypeError("its state is of an unknown version")
    itemsize = base.itemsize if numbers[1] < 0 else numbers[1]
    has_object = base.has_object
    if not reader.is_none(subarray):
        has_object |= _subarray(reader, subarray, itemsize, depth)
    if not reader.is_none(fields):
        has_object |= _fields(reader, fields, itemsize, depth)
    if has_object and not numbers[2] & HAS_OBJECT:
        raise DtypeError("it holds objects and its flags deny it")
    if base.has_object and numbers[2] != OBJECT_FLAGS:
        raise DtypeError("the flags of its object type are not numpy's")
    return Layout(itemsize, has_object=has_object or bool(numbers[2] & HAS_OBJECT))


def _subarray(reader: Reader, subarray: Symbol, itemsize: int, depth: int) -> bool:
    if subarray.__class__ is not tuple or len(subarray) != 2:  # noqa: PLR2004 -- (dtype, shape)
        raise DtypeError("its subarray is not (dtype, shape)")
    inner = layout_of(reader, subarray[0], depth + 1)
    shape = reader.numbers(subarray[1])
    if shape is None:
        only = reader.number(subarray[1])
        shape = None if only is None else (only,)
    if shape is None or any(side < 0 for side in shape) or product(shape) * inner.itemsize != itemsize:
        raise DtypeError("its subarray does not fill it")
    return inner.has_object


def _fields(reader: Reader, fields: Symbol, itemsize: int, depth: int) -> bool:
    pairs = reader.pairs(fields)
    if pairs is None:
        raise DtypeError("its fields cannot be read")
    has_object = False
    for _, field in pairs:
        if field.__class__ is not tuple or len(field) not in {2, 3}:
            raise DtypeError("a field is not (dtype, offset)")
        inner = layout_of(reader, field[0], depth + 1)
        offset = reader.number(field[1])
        if offset is None or offset < 0 or offset + inner.itemsize > itemsize:
            raise DtypeError("a field lies outside the item")
        has_object |= inner.has_object
    return has_object


def product(sides: tuple[int, ...]) -> int:
    """Number of elements of a shape."""
    total = 1
    for side in sides:
        total *= side
    return total
