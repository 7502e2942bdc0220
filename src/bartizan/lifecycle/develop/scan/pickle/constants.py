"""Values of constants, read on demand from the offset of their opcode."""

from __future__ import annotations

import codecs
import mmap
import struct
import warnings

from bartizan.lifecycle.develop.scan.pickle import opcodes as op

Buffer = bytes | memoryview
"""Bytes under examination; indexing yields integers, slicing does not copy large ones."""

LONG_LINE = 1 << 20
"""Text lines of protocol 0 above this are stepped over without being decoded."""
MAX_DIGITS = 4300
"""CPython's own bound on the digits of an integer in text."""

_INTEGERS = {op.BININT1: "<B", op.BININT2: "<H", op.BININT: "<i"}


def let_go(data: Buffer) -> None:
    """Have the pages of a mapped file leave this process, which are read again when they are needed."""
    mapped = data.obj if isinstance(data, memoryview) else None
    if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


class BrokenPickleError(Exception):
    """The stream breaks the rules of its format; the unpickler would stop here too."""


def line_end(data: Buffer, start: int) -> int:
    """Offset of the newline that ends the line from ``start``.

    A line may also be ended by the end of the file; the unpickler then takes its last character
    for the newline, imports and calls what it names, and only fails afterwards.

    Raises:
        BrokenPickleError: there is nothing left.
    """
    width = 256
    at = start
    while at < len(data):
        found = bytes(data[at : at + width]).find(b"\n")
        if found >= 0:
            return at + found
        at += width
        width = LONG_LINE
    if start >= len(data):
        raise BrokenPickleError("a text line is missing")
    return len(data) - 1


def line(data: Buffer, start: int) -> bytes:
    """The line from ``start`` without its newline."""
    return bytes(data[start : line_end(data, start)])


def counted_span(data: Buffer, pos: int) -> tuple[int, int]:
    """Start and end of the payload of the length-prefixed constant at ``pos``.

    Raises:
        BrokenPickleError: the length is negative or leads past the end.
    """
    width, signed = op.COUNTED[data[pos]]
    start = pos + 1 + width
    count = int.from_bytes(bytes(data[pos + 1 : start]), "little", signed=signed)
    if count < 0:
        raise BrokenPickleError("a constant has a negative length")
    if start + count > len(data):
        raise BrokenPickleError(f"a constant of {count} bytes leads past the end")
    return start, start + count


def check_line(data: Buffer, pos: int, end: int) -> None:
    """Check that the text up to ``end`` is a value of the opcode at ``pos``.

    Raises:
        BrokenPickleError: it is not.
    """
    if end - pos <= LONG_LINE or data[pos] not in op.TEXT:
        value_of_line(data[pos], bytes(data[pos + 1 : min(end, pos + LONG_LINE)]))


def value_of_line(opcode: int, text: bytes) -> int | float | str:
    """Value of a text constant.

    Raises:
        BrokenPickleError: ``text`` is not what the opcode announces.
    """
    try:
        if opcode == op.FLOAT:
            return float(text)
        if opcode == op.UNICODE:
            return text.decode("raw-unicode-escape")
        if opcode == op.STRING:
            return _quoted(text)
        if len(text) > MAX_DIGITS:
            raise BrokenPickleError("an integer has too many digits")
        return _integer(text.removesuffix(b"L") if opcode == op.LONG else text)
    except ValueError as error:
        raise BrokenPickleError(f"not a value of opcode {chr(opcode)!r}: {text[:40]!r}") from error


def _integer(text: bytes) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return int(text, 10)  # protocol 0 writes booleans as 00 and 01


def _quoted(text: bytes) -> str:
    if len(text) < 2 or text[0] != text[-1] or text[:1] not in {b"'", b'"'}:  # noqa: PLR2004 -- two quotes
        raise BrokenPickleError("a string constant is not quoted")
    if b"\\" not in text:
        return text[1:-1].decode("latin-1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # an escape that Python only warns of
        return codecs.escape_decode(text[1:-1])[0].decode("latin-1")


def text_span(data: Buffer, pos: object) -> tuple[int, int] | None:
    """Where the text lies that the constant at ``pos`` pushes, or None when it is no text."""
    if type(pos) is not int or data[pos] not in op.TEXT:
        return None
    return (pos + 1, line_end(data, pos + 1)) if data[pos] in op.LINES else counted_span(data, pos)


def text(data: Buffer, pos: int) -> str:
    """The text that the text constant at ``pos`` pushes.

    Raises:
        BrokenPickleError: the unpickler would refuse it.
    """
    opcode = data[pos]
    if opcode in op.LINES:
        return str(value_of_line(opcode, line(data, pos + 1)))
    start, end = counted_span(data, pos)
    codec = "latin-1" if opcode in {op.BINSTRING, op.SHORT_BINSTRING} else "utf-8"
    try:
        return bytes(data[start:end]).decode(codec, "surrogatepass" if codec == "utf-8" else "strict")
    except UnicodeDecodeError as error:
        raise BrokenPickleError("a text constant is not UTF-8") from error


def span(data: Buffer, pos: object) -> tuple[int, int] | None:
    """Where the bytes lie that the constant at ``pos`` pushes, or None when it pushes no bytes."""
    if type(pos) is not int or data[pos] not in op.BYTES or data[pos] == op.STRING:
        return None
    return counted_span(data, pos)


def number(data: Buffer, pos: object) -> int | None:
    """The integer (or boolean) that the constant at ``pos`` pushes, or None when it is no integer."""
    if type(pos) is not int:
        return None
    opcode = data[pos]
    if opcode in _INTEGERS:
        return int(struct.unpack_from(_INTEGERS[opcode], data, pos + 1)[0])
    if opcode in {op.NEWTRUE, op.NEWFALSE}:
        return int(opcode == op.NEWTRUE)
    if opcode in {op.INT, op.LONG}:
        return int(value_of_line(opcode, line(data, pos + 1)))
    if opcode in {op.LONG1, op.LONG4}:
        start, end = counted_span(data, pos)
        return int.from_bytes(bytes(data[start : min(end, start + 64)]), "little", signed=True)
    return None


def is_none(data: Buffer, pos: object) -> bool:
    """Whether the symbol is the constant None."""
    return type(pos) is int and data[pos] == op.NONE


def show(data: Buffer, pos: int, width: int = 60) -> str:
    """The constant at ``pos`` as Python would write it, cut to about ``width`` characters."""
    opcode = data[pos]
    if opcode in {op.NONE, op.NEWTRUE, op.NEWFALSE}:
        return {op.NONE: "None", op.NEWTRUE: "True", op.NEWFALSE: "False"}[opcode]
    if opcode == op.BINFLOAT:
        return repr(struct.unpack_from(">d", data, pos + 1)[0])
    if opcode in op.LINES:
        shown = repr(line(data, pos + 1)[: 4 * width].decode("latin-1"))
    elif opcode in op.COUNTED and opcode not in {op.LONG1, op.LONG4}:
        start, end = counted_span(data, pos)
        raw = bytes(data[start : min(end, start + 4 * width)])
        shown = repr(raw.decode("utf-8", "replace") if opcode in op.TEXT else raw)
    else:
        shown = repr(number(data, pos))
    return shown if len(shown) <= width else shown[: width - 4] + "..." + shown[0]
