"""Frames of zstd and lz4: where each begins and ends, told from its headers before anything is unpacked.

Formats: RFC 8878 (zstd) and the LZ4 frame format 1.6.1. Both allow frames in a row, and *skippable*
frames with any content, which readers pass over. A dictionary that is not at hand makes a frame
unreadable.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError, Cursor
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer

ZSTD_MAGIC = 0xFD2FB528
LZ4_MAGIC = 0x184D2204
SKIPPABLE = range(0x184D2A50, 0x184D2A60)
SEEK_TABLE = 0x184D2A5E
SEEK_TABLE_END = b"\xb1\xea\x92\x8f"
PZSTD_SIZE = 4
"""``pzstd`` writes the size of the next frame into a skippable frame of its own."""
LARGEST_WINDOW = 1 << 27
"""Bytes of window up to which frames are unpacked; what ``zstd --ultra -22`` writes."""
LARGEST_BLOCK = 1 << 17


class Frame(NamedTuple):
    """One frame."""

    start: int
    end: int
    content: int = -1
    """Offset of the content of a skippable frame; -1 for a frame with data."""
    obstacle: str = ""
    """Why it cannot be unpacked."""

    def is_bookkeeping(self, data: Buffer) -> bool:
        """Whether a skippable frame is one that a compressor writes for itself."""
        magic = int.from_bytes(bytes(data[self.start : self.content]), "little") & 0xFFFFFFFF
        size = self.end - self.content
        if magic == SKIPPABLE.start and size == PZSTD_SIZE:
            return True
        is_table = magic == SEEK_TABLE and bytes(data[self.end - 4 : self.end]) == SEEK_TABLE_END
        return size == 0 or (is_table and self._counts(data) == size)

    def _counts(self, data: Buffer) -> int:
        """Size of a seek table by its own count and flags (``zstd_seekable_compression_format.md``)."""
        frames = int.from_bytes(bytes(data[self.end - 9 : self.end - 5]), "little")
        with_checksums = bool(data[self.end - 5] & 0x80)
        return 9 + frames * (12 if with_checksums else 8)


def frames(data: Buffer) -> Iterator[Frame]:
    """The frames from the first byte on; the first one with data says which of the two formats it is.

    Raises:
        BrokenFormatError: no frame begins where one should, or it is cut off.
    """
    cursor = Cursor(data)
    expected = {ZSTD_MAGIC, LZ4_MAGIC}
    while cursor.left:
        start = cursor.at
        magic = cursor.unsigned(4)
        if magic in SKIPPABLE:
            size = cursor.unsigned(4)
            content = cursor.skip(size)
            yield Frame(start, cursor.at, content)
        elif magic in expected:
            expected = {magic}
            obstacle = (_step_over_lz4 if magic == LZ4_MAGIC else _step_over_zstd)(cursor)
            yield Frame(start, cursor.at, obstacle=obstacle)
        else:
            raise BrokenFormatError("no frame begins here", start)


def _step_over_zstd(cursor: Cursor) -> str:
    """RFC 8878, 3.1.1: header, blocks up to the last one, checksum."""
    descriptor = cursor.unsigned(1)
    if descriptor & 0x08:
        raise BrokenFormatError("a reserved bit of a frame header is set", cursor.at - 1)
    is_single = bool(descriptor & 0x20)
    window = 0 if is_single else _window(cursor.unsigned(1))
    dictionary = cursor.unsigned((0, 1, 2, 4)[descriptor & 3])
    size = cursor.unsigned((int(is_single), 2, 4, 8)[descriptor >> 6])
    _step_over_blocks(cursor)
    cursor.skip(4 if descriptor & 0x04 else 0)
    if dictionary:
        return f"it needs the dictionary {dictionary}"
    window = size if is_single else window
    return f"it asks for a window of {window} bytes" if window > LARGEST_WINDOW else ""


def _window(described: int) -> int:
    base = 1 << (10 + (described >> 3))
    return base + (base >> 3) * (described & 7)


def _step_over_blocks(cursor: Cursor) -> None:
    is_last = False
    while not is_last:
        header = cursor.unsigned(3)
        is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        if kind == 3 or size > LARGEST_BLOCK:  # noqa: PLR2004 -- 3 is reserved
            raise BrokenFormatError("a block is of no known type or too large", cursor.at - 3)
        cursor.skip(1 if kind == 1 else size)


def _step_over_lz4(cursor: Cursor) -> str:
    """Header, blocks up to an empty one, checksum."""
    flags = cursor.unsigned(1)
    if flags >> 6 != 1 or flags & 0x02:
        raise BrokenFormatError("the version of a frame is not 1", cursor.at - 1)
    cursor.skip(1 + (8 if flags & 0x08 else 0))
    dictionary = cursor.unsigned(4) if flags & 0x01 else None
    cursor.skip(1)
    while size := cursor.unsigned(4) & 0x7FFFFFFF:
        cursor.skip(size + (4 if flags & 0x10 else 0))
    cursor.skip(4 if flags & 0x04 else 0)
    return "" if dictionary is None else f"it needs the dictionary {dictionary}"
