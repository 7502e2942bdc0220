"""Word vectors: fastText models (.bin, .ftz) and word2vec's binary form.

Formats: ``FastText::saveModel``, ``Dictionary::save``, ``DenseMatrix::save`` and ``QuantMatrix::save`` of
fastText 0.9; ``word2vec.c`` (a line ``words dimensions``, then per word its text, a space, and floats).
"""

from __future__ import annotations

import re

from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError, Cursor
from bartizan.lifecycle.develop.scan.formats.text import is_text
from bartizan.lifecycle.develop.scan.limits import Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source
from bartizan.lifecycle.develop.scan.verdict import Report

FASTTEXT = (793712314).to_bytes(4, "little")
VERSIONS = {11, 12}
LONGEST_WORD = 4096
BELIEVED = 256 << 20
"""Bytes of memory that a damaged file may take without doing harm."""
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]|[\x80-\xff](?![\x80-\xff])")
"""What text in any of its encodings has nowhere, or hardly ever."""
_HEAD = re.compile(rb"(\d{1,9}) (\d{1,5})\n")


class _SizeError(Exception):
    """More is announced than there is; the text says what."""


def examine_fasttext(source: Source, meter: Meter, _examine: Examine) -> Report:
    """Examine a model of fastText: arguments, dictionary, two matrices."""
    draft = Draft(source, "fasttext", meter.limits.findings)
    cursor = Cursor(source.data, 4)
    try:
        _arguments(cursor)
        draft.facts["words"] = _dictionary(cursor)
        is_packed = _flag(cursor)
        _matrix(cursor, is_packed=is_packed)
        _matrix(cursor, is_packed=_flag(cursor) and is_packed)
    except BrokenFormatError as broken:
        draft.fire("vectors/malformed", str(broken), broken.offset)
        draft.miss("the model cannot be read to its end")
        return draft.close()
    except _SizeError as error:
        draft.fire("vectors/size", str(error), cursor.at)
        draft.miss("the model cannot be read to its end")
        return draft.close()
    if cursor.left:
        draft.gap(cursor.at, cursor.end, "follow the model")
    return draft.close()


def _arguments(cursor: Cursor) -> None:
    version = cursor.unsigned(4)
    if version not in VERSIONS:
        raise BrokenFormatError(f"version {version} is not known", 4)
    cursor.skip(12 * 4 + 8)


def _flag(cursor: Cursor) -> bool:
    value = cursor.unsigned(1)
    if value > 1:
        raise BrokenFormatError(f"{value} is no truth value", cursor.at - 1)
    return bool(value)


def _sizes(cursor: Cursor, *sizes: int) -> list[int]:
    made = [cursor.signed(size) for size in sizes]
    if any(value < 0 for value in made):
        raise BrokenFormatError(f"a size is negative: {min(made)}", cursor.at)
    return made


def _dictionary(cursor: Cursor) -> int:
    size, words, labels = _sizes(cursor, 4, 4, 4)
    cursor.skip(8)
    pruned = cursor.signed(8)
    if size != words + labels:
        raise BrokenFormatError(f"{words} words and {labels} labels are not {size} entries", cursor.at)
    _announce(size * 10 + max(pruned, 0) * 8, f"{size} words and {pruned} pruned ones", cursor)
    for _ in range(size):
        end = _find(cursor.data, b"\0", cursor.at)
        cursor.skip(end + 1 - cursor.at + 8)
        if cursor.unsigned(1) > 1:
            raise BrokenFormatError("an entry is neither a word nor a label", cursor.at - 1)
    cursor.skip(max(pruned, 0) * 8)
    return size


def _announce(size: int, what: str, cursor: Cursor) -> None:
    """Refuse what is not there; far more than there is fills the memory of whoever believes it."""
    if size > cursor.left + BELIEVED:
        raise _SizeError(f"{what} are announced for {cursor.left} bytes")
    if size > cursor.left:
        raise BrokenFormatError(f"{what} are announced for {cursor.left} bytes", cursor.at)


def _find(data: Buffer, mark: bytes, at: int) -> int:
    end = bytes(data[at : at + LONGEST_WORD]).find(mark)
    if end < 0:
        raise BrokenFormatError("a word does not end", at)
    return at + end


def _matrix(cursor: Cursor, *, is_packed: bool) -> None:
    has_norms = is_packed and _flag(cursor)
    rows, columns = _sizes(cursor, 8, 8)
    if not is_packed:
        _announce(rows * columns * 4, f"a matrix of {rows} times {columns} numbers", cursor)
        cursor.skip(rows * columns * 4)
        return
    codes = _sizes(cursor, 4)[0]
    cursor.skip(codes)
    _quantiser(cursor)
    if has_norms:
        cursor.skip(rows)
        _quantiser(cursor)


def _quantiser(cursor: Cursor) -> None:
    dimensions = _sizes(cursor, 4, 4, 4, 4)[0]
    cursor.skip(dimensions * 256 * 4)


def is_word2vec(source: Source) -> bool:
    """Whether bytes begin as word2vec's binary form: a line of two counts, then words with vectors."""
    data = source.data
    match = _HEAD.match(bytes(data[:32]))
    if match is None or not int(match[2]) or not _BINARY.search(bytes(data[match.end() : 1 << 16])) or is_text(source):
        return False
    cursor = Cursor(data, match.end())
    try:
        return all(_word(cursor, 4 * int(match[2])) for _ in range(min(int(match[1]), 3)))
    except BrokenFormatError:
        return False


def _word(cursor: Cursor, size: int) -> bool:
    """Step over a word and its vector; returns whether the word is one."""
    end = _find(cursor.data, b" ", cursor.at)
    word = bytes(cursor.data[cursor.at : end]).lstrip(b"\n")
    cursor.skip(end + 1 - cursor.at + size)
    return bool(word) and min(word) > 0x20  # noqa: PLR2004 -- control characters


def examine_word2vec(source: Source, meter: Meter, _examine: Examine) -> Report:
    """Examine vectors in word2vec's binary form, word by word."""
    draft = Draft(source, "word2vec", meter.limits.findings)
    match = _HEAD.match(bytes(source.data[:32]))
    words, dimensions = (int(match[1]), int(match[2])) if match else (0, 0)
    cursor = Cursor(source.data, match.end() if match else 0)
    draft.facts["words"] = words
    try:
        _announce(words * (2 + 4 * dimensions), f"{words} words of {dimensions} numbers", cursor)
        for _ in range(words):
            if not _word(cursor, 4 * dimensions):
                draft.fire("vectors/malformed", "a word has control characters", cursor.at)
                break
    except (BrokenFormatError, _SizeError) as broken:
        rule = "vectors/size" if isinstance(broken, _SizeError) else "vectors/malformed"
        draft.fire(rule, str(broken), cursor.at)
        draft.miss("the vectors cannot be read to their end")
        return draft.close()
    if bytes(source.data[cursor.at : cursor.at + 1]) == b"\n":
        cursor.skip(1)
    if cursor.left:
        draft.gap(cursor.at, cursor.end, "follow the vectors")
    return draft.close()
