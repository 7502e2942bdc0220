"""numpy's array files (.npy): a short header, then raw numbers, or a pickle when the array holds objects.

Format: numpy.lib.format, versions 1.0 to 3.0. The header is a Python literal; it is read as one,
within bounds, and never evaluated.
"""

from __future__ import annotations

import ast
import re
import struct
from typing import Any, NamedTuple

from bartizan.lifecycle.develop.scan.formats.embedded import Embedded
from bartizan.lifecycle.develop.scan.limits import Meter
from bartizan.lifecycle.develop.scan.pickle.arrays import DEEPEST, DtypeError, Layout, parse_type, product
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source, window
from bartizan.lifecycle.develop.scan.verdict import Report

LONGEST_HEADER = 1 << 16
KEYS = {"descr", "fortran_order", "shape"}
_ESCAPE = r"\\(?:[\\'\"nrtabfv]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})"
_TOKEN = re.compile(
    rf"""\s*('(?:[^'\\\n]|{_ESCAPE})*+'|"(?:[^"\\\n]|{_ESCAPE})*+"|(?:0|[1-9]\d*+)(?=L?(?!\w))|True|False|[][(){{}},:-])L?\s*"""
)
"""A text, a number (Python 2 marked long ones), a truth value or punctuation."""
_PREFIX = {1: (10, "<H", "latin-1"), 2: (12, "<I", "latin-1"), 3: (12, "<I", "utf-8")}
"""Bytes before the header, form of its length and its encoding, by major version."""


class HeaderError(Exception):
    """The header is none that numpy writes; the text says why."""


class Header(NamedTuple):
    """What the header says."""

    layout: Layout
    shape: tuple[int, ...]
    data: int
    """Offset of the array."""


def read_header(data: Buffer) -> Header:
    """Read the header of an array file.

    Raises:
        HeaderError: it is not numpy's.
    """
    prefix = _PREFIX.get(data[6]) if len(data) > 12 else None  # noqa: PLR2004
    if prefix is None:
        raise HeaderError("the version is not known")
    start, form, encoding = prefix
    size = struct.unpack_from(form, data, 8)[0]
    if size > LONGEST_HEADER or start + size > len(data):
        raise HeaderError(f"a header of {size} bytes is too long")
    fields = _literal(bytes(data[start : start + size]), encoding)
    if not isinstance(fields, dict) or set(fields) != KEYS or not isinstance(fields["fortran_order"], bool):
        raise HeaderError("it does not consist of descr, fortran_order and shape")
    shape = fields["shape"]
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise HeaderError("the shape is no tuple of sizes")
    return Header(layout_of_descr(fields["descr"]), shape, start + size)


def _literal(raw: bytes, encoding: str) -> Any:
    """The header as a value. Only tokens that numpy writes reach Python's parser, which warns of others."""
    try:
        text = raw.decode(encoding)
        tokens = []
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise HeaderError(f"it is no header of numpy: {text[at : at + 40]!r}")
            tokens.append(match[1])
            at = match.end()
        return ast.literal_eval(" ".join(tokens))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise HeaderError("it is no Python literal") from error


def layout_of_descr(descr: Any, depth: int = 0) -> Layout:
    """Layout of a dtype description: a type string, or a list of fields.

    Raises:
        HeaderError: it is neither.
    """
    if depth > DEEPEST:
        raise HeaderError("the type is nested too deeply")
    if isinstance(descr, str):
        try:
            return parse_type(descr)
        except DtypeError as error:
            raise HeaderError(str(error)) from error
    if isinstance(descr, tuple) and len(descr) == 2:  # noqa: PLR2004 -- (type, shape)
        return _times(layout_of_descr(descr[0], depth + 1), descr[1])
    if not isinstance(descr, list):
        raise HeaderError("the type is neither text nor a list of fields")
    fields = [_field(field, depth) for field in descr]
    return Layout(sum(field.itemsize for field in fields), has_object=any(field.has_object for field in fields))


def _field(field: Any, depth: int) -> Layout:
    if not isinstance(field, tuple) or len(field) not in {2, 3}:
        raise HeaderError("a field is not (name, type)")
    inner = layout_of_descr(field[1], depth + 1)
    return _times(inner, field[2]) if len(field) == 3 else inner  # noqa: PLR2004 -- (name, type, shape)


def _times(layout: Layout, shape: Any) -> Layout:
    sides = shape if isinstance(shape, tuple) else (shape,)
    if not all(type(side) is int and side >= 0 for side in sides):
        raise HeaderError("the shape of a field is no tuple of sizes")
    return Layout(layout.itemsize * product(sides), layout.has_object)


def examine_npy(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine an array file; the objects of an object array are examined as the pickle they are."""
    draft = Draft(source, "npy", meter.limits.findings)
    try:
        header = read_header(source.data)
    except HeaderError as error:
        draft.fire("numpy/malformed", str(error), 0)
        draft.miss("the array cannot be told from the header")
        return draft.close()
    if header.layout.has_object:
        draft.fire("numpy/object-array", f"an array of objects, shape {header.shape}", header.data)
        part = window(source.data, header.data, len(source.data))
        draft.members.append(examine(source.child("objects", part)))
        return draft.close()
    end = header.data + header.layout.itemsize * product(header.shape)
    if end > len(source.data):
        draft.fire("numpy/size", f"{end - len(source.data)} bytes are missing", header.data)
    elif end < len(source.data):
        _trailing(source, end, draft, examine)
    Embedded(draft, examine).judge_numbers("the array", window(source.data, header.data, end), header.data)
    return draft.close()


def _trailing(source: Source, end: int, draft: Draft, examine: Examine) -> None:
    """Bytes behind the array: several arrays may be saved one after the other into one file."""
    part = window(source.data, end, len(source.data))
    if bytes(part[:6]) == b"\x93NUMPY":
        draft.members.append(examine(source.child(f"<array at {end}>", part)))
    else:
        draft.gap(end, len(source.data), "follow the array")
