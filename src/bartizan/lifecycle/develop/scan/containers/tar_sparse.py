"""Sparse files in tar archives: pieces of content with holes of zeros between them.

GNU tar has four ways to write the map of the pieces: in the header (old), in pax records (0.0 and
0.1), and in front of the content (1.0). What a reader unpacks is examined, not what is packed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.containers.tar_header import BLOCK, Header, number
from bartizan.lifecycle.develop.scan.containers.tar_pax import Records
from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError, Cursor
from bartizan.lifecycle.develop.scan.limits import Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import CHUNK, Spool, chunks

Piece = tuple[int, int]
"""Offset in the unpacked file and size."""
MOST_PIECES = 100_000
IN_HEADER, IN_BLOCK = 4, 21
"""Pieces that a header and an additional block have room for."""
PIECE = 24
LONGEST_NUMBER = 20


class Layout(NamedTuple):
    """A sparse file."""

    pieces: list[Piece]
    size: int
    """Bytes of the unpacked file."""
    start: int
    """Offset in the archive at which the packed content begins, its map included where it has one."""
    content: int
    """Offset of the first piece."""
    packed: int


def layout_of(data: Buffer, at: int, header: Header, records: Records) -> Layout | None:
    """The layout of the member whose header is at ``at``; None when it is not sparse.

    Raises:
        BrokenFormatError: the map makes no sense.
    """
    if header.kind == "S":
        return _checked(_old(data, at, header))
    start = at + BLOCK
    real = records.get("GNU.sparse.realsize", records.get("GNU.sparse.size"))
    if (records.get("GNU.sparse.major"), records.get("GNU.sparse.minor")) == ("1", "0"):
        pieces, content = _map_in_front(data, start, start + header.size)
        return _checked(Layout(pieces, _whole(real), start, content, start + header.size - content))
    if "GNU.sparse.map" in records:
        flat = [_whole(value) for value in records["GNU.sparse.map"].split(",")[: 2 * MOST_PIECES]]
    elif "GNU.sparse.offset" in records:
        offsets = records["GNU.sparse.offset"].split(",")[:MOST_PIECES]
        sizes = records.get("GNU.sparse.numbytes", "").split(",")[:MOST_PIECES]
        flat = [_whole(value) for pair in zip(offsets, sizes, strict=False) for value in pair]
    else:
        return None
    return _checked(Layout(list(zip(flat[::2], flat[1::2], strict=False)), _whole(real), start, start, header.size))


def _whole(value: str | None) -> int:
    if value is None or not value.isascii() or not value.isdigit() or len(value) > LONGEST_NUMBER:
        raise BrokenFormatError(f"{value and value[:40]!r} is no number")
    return int(value)


def _old(data: Buffer, at: int, header: Header) -> Layout:
    """The map of the old GNU format: four pieces in the header, more in additional blocks."""
    pieces = _pieces_in(bytes(data[at + 386 : at + 386 + IN_HEADER * PIECE]))
    size = number(bytes(data[at + 483 : at + 495]))
    more = bool(data[at + 482])
    start = at + BLOCK
    while more:
        block = Cursor(data, start).take(BLOCK)
        pieces += _pieces_in(block[: IN_BLOCK * PIECE])
        more = bool(block[504])
        start += BLOCK
        if len(pieces) > MOST_PIECES:
            raise BrokenFormatError(f"more than {MOST_PIECES} pieces")
    return Layout(pieces, -1 if size is None else size, start, start, header.size)


def _pieces_in(raw: bytes) -> list[Piece]:
    pieces = []
    for at in range(0, len(raw) - PIECE + 1, PIECE):
        if not any(raw[at : at + PIECE]):
            break
        offset, size = number(raw[at : at + 12]), number(raw[at + 12 : at + 24])
        if offset is None or size is None:
            raise BrokenFormatError("a piece has no numbers")
        pieces.append((offset, size))
    return pieces


def _map_in_front(data: Buffer, start: int, end: int) -> tuple[list[Piece], int]:
    """The map of format 1.0: decimal numbers, one a line, padded to whole blocks."""
    at = start

    def line() -> int:
        nonlocal at
        raw = bytes(data[at : min(at + LONGEST_NUMBER + 1, end)])
        found = raw.find(b"\n")
        if found < 0:
            raise BrokenFormatError("a number has no end")
        at += found + 1
        return _whole(raw[:found].decode("latin-1"))

    count = line()
    if count > MOST_PIECES:
        raise BrokenFormatError(f"{count} pieces")
    pieces = [(line(), line()) for _ in range(count)]
    content = start + -(-(at - start) // BLOCK) * BLOCK
    if content > end:
        raise BrokenFormatError("the map leads past the content")
    return pieces, content


def _checked(layout: Layout) -> Layout:
    """The layout, with its pieces in order, within the file, and as long together as what is packed."""
    ends = [offset + size for offset, size in layout.pieces]
    if layout.size < 0 or any(offset < 0 or size < 0 for offset, size in layout.pieces):
        raise BrokenFormatError("a number is negative")
    if any(later[0] < end for end, (_, later) in zip(ends, pairwise(layout.pieces), strict=False)):
        raise BrokenFormatError("pieces overlap")
    if ends and max(ends) > layout.size:
        raise BrokenFormatError("a piece leads past the end of the file")
    if sum(size for _, size in layout.pieces) != layout.packed:
        raise BrokenFormatError("the pieces are not as long as the content")
    return layout


def expand(data: Buffer, layout: Layout, meter: Meter) -> Buffer | None:
    """The unpacked file; None when that is more than the scan may spend."""
    limits = meter.limits
    is_bomb = layout.size > limits.ratio_from and layout.size > limits.ratio * max(layout.packed, 1)
    if is_bomb or layout.size > meter.expanded:
        return None
    meter.expanded -= layout.size
    spool = Spool(limits.in_memory)
    packed = layout.content
    for offset, size in layout.pieces:
        _zeros(spool, offset)
        for part in chunks(data, packed, min(packed + size, len(data))):
            spool.write(bytes(part))
        packed += size
    _zeros(spool, layout.size)
    return spool.finish()


def _zeros(spool: Spool, until: int) -> None:
    while spool.size < until:
        spool.write(bytes(min(CHUNK, until - spool.size)))
