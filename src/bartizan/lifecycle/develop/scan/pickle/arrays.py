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
OBJECT_FLAGS = 63
"""Flags of the object dtype itself, as numpy pickles them (``numpy/ndarraytypes.h``)."""
REFERENCE_FLAGS = 3
"""Flags of a structure that holds references: NPY_ITEM_REFCOUNT and NPY_LIST_PICKLE."""
HARMLESS_FLAGS = 0x98
"""NPY_NEEDS_INIT, NPY_NEEDS_PYAPI and NPY_ALIGNED_STRUCT."""
_ORDERS = frozenset("<>|=")
_ALIGNMENTS = frozenset({-1, 1, 2, 4, 8, 16, 32})
_LARGEST = 1 << 31
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
    if dtype.state is None:
        return base
    if len(dtype.args) != 3 or reader.number(dtype.args[2]) != 1:  # noqa: PLR2004 -- (type, align, copy)
        raise DtypeError("it changes a dtype that all arrays share")
    return check_state(reader, base, dtype.state, depth)


RECORDS = frozenset({"numpy.record", "numpy.core.records.record", "numpy._core.records.record", "numpy.rec.record"})
"""The class of the items of record arrays, by all its names."""


def base_layout(reader: Reader, args: Symbol) -> Layout:
    """Layout of ``numpy.dtype(*args)`` before it is given a state.

    Raises:
        DtypeError: it is not made from a type string, or a record type and its size.
    """
    if args.__class__ is not tuple or not args:
        raise DtypeError("numpy.dtype has no arguments")
    made_of = args[0]
    if made_of.__class__ is Name and str(made_of) in RECORDS:
        return Layout(0, has_object=False)
    if made_of.__class__ is tuple and len(made_of) == 2 and made_of[0].__class__ is Name:  # noqa: PLR2004 -- (scalar type, string)
        made_of = made_of[1]
    text = reader.text(made_of)
    if text is None:
        raise DtypeError("numpy.dtype is not given a type string")
    return parse_type(text)


def check_state(reader: Reader, base: Layout, state: Symbol, depth: int = 0) -> Layout:
    """Layout of a dtype after ``dtype.__setstate__(state)``.

    numpy trusts this state, flags included: wrong ones crash the process or let raw bytes pass for
    pointers. So nothing is accepted but what numpy writes.

    Raises:
        DtypeError: the state contradicts itself or is not one that numpy writes.
    """
    if state.__class__ is not tuple or len(state) not in {8, 9}:
        raise DtypeError("its state has not eight or nine parts")
    version, order, subarray, names, fields = state[:5]
    size, alignment, flags = (reader.number(item) for item in state[5:8])
    if reader.number(version) != len(state) - 5 or reader.text(order) not in _ORDERS:
        raise DtypeError("its state is of an unknown version")
    if size is None or alignment is None or flags is None or alignment not in _ALIGNMENTS or not -1 <= size < _LARGEST:
        raise DtypeError("its size, alignment and flags are not numpy's")
    has_object = base.has_object
    itemsize = base.itemsize if size < 0 else size
    if not reader.is_none(subarray):
        has_object |= _subarray(reader, subarray, itemsize, depth)
    if not reader.is_none(fields):
        has_object |= _fields(reader, fields, itemsize, depth)
        _check_names(reader, names, fields)
    elif not reader.is_none(names):
        raise DtypeError("it has names and no fields")
    _check_flags(flags, has_object=has_object, is_plain=base.has_object)
    return Layout(itemsize, has_object=has_object)


def _check_flags(flags: int, *, has_object: bool, is_plain: bool) -> None:
    expected = OBJECT_FLAGS if is_plain else REFERENCE_FLAGS if has_object else 0
    if flags != OBJECT_FLAGS and flags & ~HARMLESS_FLAGS == expected:
        return
    if flags != OBJECT_FLAGS or not has_object:
        raise DtypeError(f"its flags are {flags}, which numpy does not write for it")


def _check_names(reader: Reader, names: Symbol, fields: Symbol) -> None:
    listed = [reader.text(name) for name in names] if names.__class__ is tuple else [None]
    known = {reader.text(key) for key, _ in reader.pairs(fields) or ()}
    if None in listed or len(set(listed)) != len(listed) or not set(listed) <= known:
        raise DtypeError("its names are not those of its fields")


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
