"""SentencePiece models: a protocol buffer of pieces, how they were trained, and how text is normalised.

Format: ``sentencepiece_model.proto`` of SentencePiece. Only its fields occur; a model has no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError, Cursor
from bartizan.lifecycle.develop.scan.formats.trees import code_in
from bartizan.lifecycle.develop.scan.limits import Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source, window
from bartizan.lifecycle.develop.scan.verdict import Report

MOST_PIECES = 5_000_000
LONGEST_PIECE = 4096
_PIECES, _TRAINER, _NORMALISER, _SELF_TEST, _DENORMALISER = 1, 2, 3, 4, 5
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
"""Wire types."""
_CHARSMAP, _RULES = 2, 6
EXTENSIONS = 200
"""From this number on every message of the format may be extended."""


class Field(NamedTuple):
    """One field of a message."""

    number: int
    wire: int
    start: int
    end: int


def read_fields(data: Buffer, start: int, end: int) -> Iterator[Field]:
    """The fields of a message between two offsets.

    Raises:
        BrokenFormatError: they do not fill it.
    """
    cursor = Cursor(window(data, 0, end), start)
    while cursor.left:
        key = _varint(cursor)
        wire, number = key & 7, key >> 3
        at = cursor.at
        if wire == _VARINT:
            _varint(cursor)
        elif wire == _BYTES:
            size = _varint(cursor)
            at = cursor.skip(size)
        elif wire in {_EIGHT, _FOUR}:
            cursor.skip(8 if wire == _EIGHT else 4)
        else:
            raise BrokenFormatError(f"a field of wire type {wire}", at)
        yield Field(number, wire, at, cursor.at)


def _varint(cursor: Cursor) -> int:
    made = 0
    for shift in range(0, 70, 7):
        byte = cursor.unsigned(1)
        made |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return made
    raise BrokenFormatError("an integer has more than ten bytes", cursor.at)


def is_sentencepiece(source: Source) -> bool:
    """Whether bytes begin with a piece: a text and its score."""
    data = source.data
    try:
        first = next(read_fields(data, 0, len(data)))
        parts = list(read_fields(data, first.start, first.end)) if first.end - first.start <= LONGEST_PIECE else []
    except (BrokenFormatError, StopIteration):
        return False
    kinds = [(part.number, part.wire) for part in parts]
    return (first.number, first.wire) == (_PIECES, _BYTES) and kinds[:2] == [(1, _BYTES), (2, _FOUR)]


def examine_sentencepiece(source: Source, meter: Meter, _examine: Examine) -> Report:
    """Examine a model field by field."""
    draft = Draft(source, "sentencepiece", meter.limits.findings)
    pieces = 0
    has_settings = False
    try:
        for field in read_fields(source.data, 0, len(source.data)):
            pieces += field.number == _PIECES
            if pieces > MOST_PIECES:
                draft.miss(f"more than {MOST_PIECES} pieces", rule="file/limit")
                break
            has_settings = has_settings or field.number in {_TRAINER, _NORMALISER}
            _judge(field, source.data, draft)
    except BrokenFormatError as broken:
        draft.fire("vectors/malformed", str(broken), broken.offset)
        draft.miss("the model cannot be read to its end")
    if not has_settings:
        draft.fire("vectors/malformed", "the settings behind the pieces are missing")
    draft.facts["pieces"] = pieces
    return draft.close()


def _judge(field: Field, data: Buffer, draft: Draft) -> None:
    if field.number >= EXTENSIONS or not _PIECES <= field.number <= _DENORMALISER or field.wire != _BYTES:
        draft.fire("vectors/malformed", f"field {field.number} is none of a model", field.start)
        return
    for part in read_fields(data, field.start, field.end):
        if field.number == _PIECES:
            _judge_piece(part, draft)
        elif part.wire == _BYTES and (field.number, part.number) != (_NORMALISER, _CHARSMAP):
            text = bytes(data[part.start : part.end]).decode("utf-8", "replace")
            if found := code_in(text):
                draft.fire("trees/code-in-text", f"field {field.number}.{part.number} holds {found!r}", part.start)


def _judge_piece(part: Field, draft: Draft) -> None:
    kinds = {1: _BYTES, 2: _FOUR, 3: _VARINT}
    if kinds.get(part.number) != part.wire:
        draft.fire("vectors/malformed", f"field {part.number} is none of a piece", part.start)
    elif part.number == 1 and part.end - part.start > LONGEST_PIECE:
        draft.fire("vectors/malformed", f"a piece of {part.end - part.start} bytes", part.start)
