"""Arrow files (Feather 2), Arrow streams and Parquet files: tables that lie beside models.

Formats: https://arrow.apache.org/docs/format/Columnar.html and
https://parquet.apache.org/docs/file-format/. Column types may be extensions whose parameters are
bytes of the file; ``arrow.py_extension_type`` is a pickle that pyarrow before 14.0.1 loads
(CVE-2023-47248).
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError, Cursor
from bartizan.lifecycle.develop.scan.formats.tables import Table
from bartizan.lifecycle.develop.scan.formats.trees import code_in
from bartizan.lifecycle.develop.scan.limits import Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source, window
from bartizan.lifecycle.develop.scan.verdict import Report

ARROW = b"ARROW1"
PARQUET = b"PAR1"
CONTINUATION = b"\xff\xff\xff\xff"
MOST_FIELDS = 200_000
MOST_MESSAGES = 5_000_000
DEEPEST = 64
EXTENSION_NAME = b"ARROW:extension:name"
EXTENSION_DATA = b"ARROW:extension:metadata"
PICKLED = b"arrow.py_extension_type"
KNOWN_EXTENSIONS = (
    b"arrow.",
    b"pandas.",
    b"geoarrow.",
    b"parquet.",
    b"google:sqlType:",
    b"datasets.features.features.Array",
    b"ray.data.arrow_tensor",
    b"huggingface.",
)
_SCHEMA, _DICTIONARY, _BATCH, _TENSOR, _SPARSE = 1, 2, 3, 4, 5
"""Kinds of messages (``MessageHeader`` in ``Message.fbs``)."""
MORE = 0xFFFFFFFF
"""Stands before the size of a message since version 0.15."""
EDGE = 8
"""Bytes of the magic in front, padded."""


def examine_arrow_file(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine an Arrow file: messages between two magics, and a footer that finds them."""
    draft = Draft(source, "arrow", meter.limits.findings)
    data = source.data
    try:
        footer_size = int.from_bytes(bytes(data[-10:-6]), "little")
        footer = len(data) - 10 - footer_size
        _check_footer(data, footer)
        table = Table.root(window(data, footer, len(data) - 10))
        schema = table.table(1)
        if schema is not None:
            _Schema(draft, source, examine).judge(schema)
        _check_blocks(table, footer, draft)
        end = _read_messages(source, EDGE, footer, draft, examine)
        if end != footer:
            draft.gap(end, footer, "stand between the messages and the footer")
    except BrokenFormatError as broken:
        draft.fire("arrow/malformed", str(broken), broken.offset)
        draft.miss("the file cannot be read to its end")
    return draft.close()


def _check_footer(data: Buffer, footer: int) -> None:
    if bytes(data[-6:]) != ARROW or not EDGE <= footer <= len(data) - 10:
        raise BrokenFormatError("the footer is missing")


def _check_blocks(footer: Table, end: int, draft: Draft) -> None:
    """Blocks of the footer: offset, size of the metadata, size of the body."""
    for field in (2, 3):
        start, count = footer.vector(field, 24)
        for offset, metadata, body in struct.iter_unpack("<qi4xq", footer.data[start : start + 24 * count]):
            if offset < EDGE or metadata < 0 or body < 0 or offset + metadata + body > end:
                draft.fire("arrow/malformed", f"a block at {offset} leads outside the file")
                return


def is_arrow_stream(source: Source) -> bool:
    """Whether bytes begin with a message that holds a schema."""
    data = source.data
    if bytes(data[:4]) != CONTINUATION or len(data) < 16:  # noqa: PLR2004
        return False
    size = int.from_bytes(bytes(data[4:8]), "little")
    try:
        return 0 < size <= len(data) - EDGE and Table.root(window(data, EDGE, EDGE + size)).number(1, "B") == _SCHEMA
    except BrokenFormatError:
        return False


def examine_arrow_stream(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine a stream: messages one after the other."""
    draft = Draft(source, "arrow", meter.limits.findings)
    try:
        end = _read_messages(source, 0, len(source.data), draft, examine)
        if end != len(source.data):
            draft.gap(end, len(source.data), "follow the stream")
    except BrokenFormatError as broken:
        draft.fire("arrow/malformed", str(broken), broken.offset)
        draft.miss("the stream cannot be read to its end")
    return draft.close()


def _read_messages(source: Source, start: int, end: int, draft: Draft, examine: Examine) -> int:
    """Read messages up to the mark of the end; returns where they end."""
    cursor = Cursor(window(source.data, 0, end), start)
    batches = 0
    while cursor.left >= 4:  # noqa: PLR2004 -- size of a message
        size = cursor.unsigned(4)
        if size == MORE:
            size = cursor.unsigned(4)
        if not size:
            break
        at = cursor.skip(size)
        message = Table.root(window(source.data, at, at + size))
        kind = message.number(1, "B")
        if not _SCHEMA <= kind <= _SPARSE:
            raise BrokenFormatError(f"a message of kind {kind}", at)
        if kind == _SCHEMA and (schema := message.table(2)) is not None:
            _Schema(draft, source, examine).judge(schema)
        batches += kind == _BATCH
        cursor.skip(message.number(3, "q"))
        if batches > MOST_MESSAGES:
            raise BrokenFormatError(f"more than {MOST_MESSAGES} messages", at)
    draft.facts["batches"] = batches
    return cursor.at


class _Schema:
    """Judges the fields of a schema and what is written about them."""

    def __init__(self, draft: Draft, source: Source, examine: Examine) -> None:
        self.draft = draft
        self.source = source
        self.examine = examine
        self.fields = 0

    def judge(self, schema: Table) -> None:
        self._pairs(schema.tables(2))
        todo = [(field, 0) for field in schema.tables(1)]
        while todo:
            field, depth = todo.pop()
            self.fields += 1
            if depth > DEEPEST or self.fields > MOST_FIELDS:
                raise BrokenFormatError("fields are too many or nested too deeply", field.at)
            self._pairs(field.tables(6))
            todo += [(child, depth + 1) for child in field.tables(5)]
            if len(todo) > MOST_FIELDS:
                raise BrokenFormatError(f"more than {MOST_FIELDS} fields", field.at)
        self.draft.facts["fields"] = self.fields

    def _pairs(self, tables: Iterator[Table]) -> None:
        self.judge_pairs({pair.text(0): pair.text(1) for pair in tables})

    def judge_pairs(self, pairs: dict[bytes, bytes]) -> None:
        """Judge what a schema or a field says about itself."""
        extension = pairs.get(EXTENSION_NAME)
        if extension == PICKLED:
            self.draft.fire("arrow/extension-pickle", "a column has the type arrow.py_extension_type")
            data = pairs.get(EXTENSION_DATA, b"")
            if data:
                self.draft.members.append(self.examine(self.source.child("<extension type>", data)))
        elif extension is not None and not extension.startswith(KNOWN_EXTENSIONS):
            self.draft.fire("arrow/extension-type", repr(extension[:80]))
        for key, value in pairs.items():
            if found := code_in(value.decode("utf-8", "replace")):
                self.draft.fire("trees/code-in-text", f"{key[:40]!r} holds {found!r}")


class Thrift(NamedTuple):
    """One field of a struct in Thrift's compact protocol."""

    number: int
    value: Any
    """Numbers, bytes, a list, or a dict of fields by number."""


class ThriftReader:
    """Reads Thrift's compact protocol, as Parquet writes its footer."""

    def __init__(self, data: Buffer) -> None:
        self.cursor = Cursor(data)
        self.values_left = 5_000_000

    def varint(self) -> int:
        """An unsigned integer in groups of seven bits."""
        made = 0
        for shift in range(0, 70, 7):
            byte = self.cursor.unsigned(1)
            made |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return made
        raise BrokenFormatError("an integer has more than ten bytes", self.cursor.at)

    def signed(self) -> int:
        """A signed integer, its sign in the lowest bit."""
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """A struct, its fields by number."""
        made: dict[int, Any] = {}
        number = 0
        while header := self.cursor.unsigned(1):
            number = number + (header >> 4) if header >> 4 else self.signed()
            kind = header & 15
            made[number] = kind == 1 if kind in {1, 2} else self.value(kind, depth + 1)
        return made

    def value(self, kind: int, depth: int) -> Any:
        """A value of one of the protocol's kinds."""
        self.values_left -= 1
        if depth > DEEPEST or self.values_left < 0:
            raise BrokenFormatError("values are too many or nested too deeply", self.cursor.at)
        if kind in {1, 2, 3}:
            return self.cursor.signed(1)
        if kind in {4, 5, 6}:
            return self.signed()
        if kind == 7:  # noqa: PLR2004 -- a double
            return self.cursor.take(8)
        if kind == 8:  # noqa: PLR2004 -- bytes
            return self.cursor.take(self.varint())
        if kind in {9, 10}:
            return self.list(depth)
        if kind == 12:  # noqa: PLR2004 -- a struct
            return self.struct(depth)
        raise BrokenFormatError(f"a value of kind {kind}", self.cursor.at)

    def list(self, depth: int) -> list[Any]:
        """A list or a set."""
        header = self.cursor.unsigned(1)
        count = header >> 4 if header >> 4 < 15 else self.varint()  # noqa: PLR2004 -- 15: the count follows
        if count > self.cursor.left:
            raise BrokenFormatError(f"a list of {count} values", self.cursor.at)
        return [self.value(header & 15, depth + 1) for _ in range(count)]


def examine_parquet(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine a Parquet file: columns as packed pages, then a footer that finds them."""
    draft = Draft(source, "parquet", meter.limits.findings)
    data = source.data
    tail = bytes(data[-8:])
    size = int.from_bytes(tail[:4], "little")
    start = len(data) - 8 - size
    if tail[4:] != PARQUET or start < len(PARQUET):
        draft.fire("arrow/malformed", "the footer is missing or longer than the file")
        draft.miss("the footer cannot be read")
        return draft.close()
    reader = ThriftReader(window(data, start, len(data) - 8))
    try:
        footer = reader.struct()
        _judge_footer(footer, start, source, draft, examine)
        if reader.cursor.left:
            draft.gap(start + reader.cursor.at, len(data) - 8, "follow the footer")
    except BrokenFormatError as broken:
        draft.fire("arrow/malformed", str(broken), start + (broken.offset or 0))
        draft.miss("the footer cannot be read to its end")
    return draft.close()


def _judge_footer(footer: dict[int, Any], start: int, source: Source, draft: Draft, examine: Examine) -> None:
    """``FileMetaData`` of ``parquet.thrift``: 2 schema, 3 rows, 4 row groups, 5 pairs."""
    groups = footer.get(4, [])
    draft.facts["row_groups"] = len(groups) if isinstance(groups, list) else 0
    for chunk in _chunks(groups):
        if 1 in chunk:
            path = chunk[1] if isinstance(chunk[1], bytes) else b"?"
            draft.fire("parquet/external-file", f"a column lies in {path[:120].decode('utf-8', 'replace')!r}")
        _judge_chunk(chunk.get(3), start, draft)
    pairs = {
        pair[1]: pair[2]
        for pair in _dicts(footer.get(5))
        if isinstance(pair.get(1), bytes) and isinstance(pair.get(2), bytes)
    }
    schema = _Schema(draft, source, examine)
    packed = pairs.pop(b"ARROW:schema", b"")
    schema.judge_pairs(pairs)
    _judge_pandas(pairs.get(b"pandas", b""), draft)
    if packed:
        _judge_arrow_schema(packed, schema)


def _dicts(value: Any) -> list[dict[int, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _chunks(groups: Any) -> Iterator[dict[int, Any]]:
    for group in _dicts(groups):
        yield from _dicts(group.get(1))


def _judge_chunk(meta: Any, end: int, draft: Draft) -> None:
    """``ColumnMetaData``: 7 size, 9 offset of the data, 11 offset of the dictionary."""
    if not isinstance(meta, dict):
        return
    size, data, dictionary = meta.get(7, 0), meta.get(9, 0), meta.get(11) or meta.get(9, 0)
    if not all(isinstance(each, int) and each >= 0 for each in (size, data, dictionary)):
        draft.fire("arrow/malformed", "offsets of a column are no offsets")
    elif min(data, dictionary) + size > end:
        draft.fire("arrow/malformed", f"a column of {size} bytes at {min(data, dictionary)} leads into the footer")


def _judge_pandas(text: bytes, draft: Draft) -> None:
    if not text:
        return
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        draft.fire("arrow/malformed", "what it says about pandas is no JSON")


def _judge_arrow_schema(packed: bytes, schema: _Schema) -> None:
    try:
        raw = base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BrokenFormatError("its Arrow schema is no base64") from error
    cursor = Cursor(raw)
    size = cursor.unsigned(4)
    if size == MORE:
        size = cursor.unsigned(4)
    at = cursor.skip(size)
    table = Table.root(raw[at : at + size]).table(2)
    if table is not None:
        schema.judge(table)
