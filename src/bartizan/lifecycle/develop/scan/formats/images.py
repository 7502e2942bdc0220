"""Pictures and sound that lie beside models: PNG, JPEG, GIF, BMP, WebP and WAV.

Only the structure is followed, from part to part, so that every byte belongs to one. Pixels are stepped
over. What lies behind the end is where programs and pickles have been hidden: it is reported as a gap
and examined as whatever it is.

Formats: PNG (ISO/IEC 15948), JPEG (ITU-T T.81, annex B), GIF 89a, BMP (``BITMAPFILEHEADER``), RIFF.
"""

from __future__ import annotations

import struct
from typing import Literal

from bartizan.lifecycle.develop.scan.detect import detect
from bartizan.lifecycle.develop.scan.limits import MIB, Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.registry import LOADABLE
from bartizan.lifecycle.develop.scan.source import CHUNK, Draft, Examine, Source, window
from bartizan.lifecycle.develop.scan.verdict import Report

MOST_PARTS = 1_000_000
PNG_MAGIC = 8
LONGEST_GIF = 64 * MIB
"""Its pixels lie in blocks of up to 255 bytes, each of which is visited."""
GIF_HEADS = (b"GIF87a", b"GIF89a")
BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
"""Sizes of the second header that programs write."""
BMP_LEAST = 18
STUFFED, FILL = 0x00, 0xFF
MARKERS_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""JPEG markers without a length: TEM and the restart markers."""
JPEG_START, JPEG_END, JPEG_SCAN = 0xD8, 0xD9, 0xDA
PADDING = 4
"""A file may be filled up with this many zeros."""


class _BrokenError(Exception):
    """The structure ends or contradicts itself at an offset; the text says how."""

    def __init__(self, why: str, offset: int) -> None:
        super().__init__(why)
        self.why = why
        self.offset = offset


def _finish(source: Source, draft: Draft, end: int, examine: Examine) -> Report:
    """Account for what follows the end of a picture."""
    if end < len(source.data):
        rest = window(source.data, end, len(source.data))
        if len(rest) > PADDING or any(rest):
            draft.gap(end, len(source.data), "follow the end of the picture")
            draft.members.append(examine(source.child(f"<bytes from {end}>", rest)))
    return draft.close()


def _refuse(draft: Draft, broken: _BrokenError) -> Report:
    draft.fire("image/malformed", broken.why, broken.offset)
    draft.miss(f"what follows byte {broken.offset} cannot be read")
    return draft.close()


def examine_png(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine a PNG: chunks from IHDR to IEND."""
    draft = Draft(source, "png", meter.limits.findings)
    try:
        end = _png_end(source, draft, examine)
    except _BrokenError as broken:
        return _refuse(draft, broken)
    return _finish(source, draft, end, examine)


PNG_PARTS = frozenset(
    b"IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sBIT sRGB cICP mDCV cLLI tEXt zTXt iTXt bKGD hIST pHYs sPLT eXIf tIME "
    b"acTL fcTL fdAT iDOT vpAg orNT caBX oFFs sTER pCAL sCAL gIFg gIFx".split()
)
"""Chunks of the standard, its extensions and common programs."""


def _hidden(source: Source, start: int, end: int, draft: Draft, examine: Examine) -> None:
    """The content of a part that is not known: examined where it is something that can be loaded."""
    part = window(source.data, start, end)
    if detect(part) in LOADABLE:
        draft.gap(start, end, "of a format that can be loaded lie in a part of the picture")
        draft.members.append(examine(source.child(f"<bytes from {start}>", part)))


def _png_end(source: Source, draft: Draft, examine: Examine) -> int:
    data, at, chunks = source.data, PNG_MAGIC, 0
    while True:
        if at + 12 > len(data) or chunks > MOST_PARTS:
            raise _BrokenError("the chunks do not end with IEND", at)
        size, kind = int.from_bytes(bytes(data[at : at + 4]), "big"), bytes(data[at + 4 : at + 8])
        if not kind.isalpha() or at + 12 + size > len(data):
            raise _BrokenError(f"chunk {kind!r} of {size} bytes does not fit", at)
        if (chunks == 0) != (kind == b"IHDR"):
            raise _BrokenError("the first chunk and no other has to be IHDR", at)
        if kind[:1].isupper() and kind not in {b"IHDR", b"PLTE", b"IDAT", b"IEND"}:
            raise _BrokenError(f"the critical chunk {kind!r} is not known", at)
        if kind not in PNG_PARTS or kind in {b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP"}:
            _hidden(source, at + 8, at + 8 + size, draft, examine)
        chunks, at = chunks + 1, at + 12 + size
        if kind == b"IEND":
            draft.facts["chunks"] = chunks
            return at


def examine_jpeg(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine a JPEG: segments from SOI to EOI."""
    draft = Draft(source, "jpeg", meter.limits.findings)
    try:
        end = _jpeg_end(source, draft)
    except _BrokenError as broken:
        return _refuse(draft, broken)
    return _finish(source, draft, end, examine)


def _jpeg_end(source: Source, draft: Draft) -> int:
    data, at, segments = source.data, 2, 0
    while True:
        while bytes(data[at : at + 2]) == b"\xff\xff":
            at += 1
        if at + 2 > len(data) or data[at] != FILL or segments > MOST_PARTS:
            raise _BrokenError("a segment has no marker", at)
        marker, at, segments = data[at + 1], at + 2, segments + 1
        if marker == JPEG_END:
            draft.facts["segments"] = segments
            return at
        if marker in MARKERS_ALONE:
            continue
        size = int.from_bytes(bytes(data[at : at + 2]), "big")
        if marker in {STUFFED, JPEG_START} or size < 2 or at + size > len(data):  # noqa: PLR2004 -- the size counts itself
            raise _BrokenError(f"segment {marker:#04x} of {size} bytes does not fit", at)
        at += size
        if marker == JPEG_SCAN:
            at = _after_scan(data, at)


def _after_scan(data: Buffer, at: int) -> int:
    """Offset of the marker that ends the entropy-coded data from ``at`` on."""
    while at < len(data):
        part = bytes(data[at : at + CHUNK])
        inside = part.find(b"\xff")
        if inside < 0:
            at += len(part)
            continue
        while inside >= 0 and inside + 1 < len(part):
            following = part[inside + 1]
            if following != STUFFED and following not in MARKERS_ALONE:
                return at + inside
            inside = part.find(b"\xff", inside + 2)
        at += inside if inside > 0 else len(part)
    raise _BrokenError("the picture ends in the middle of its data", at)


def is_gif(source: Source) -> bool:
    """Whether a source begins like a GIF. Its first bytes can begin a pickle as well, which is tried before."""
    return bytes(source.data[:6]) in GIF_HEADS


def examine_gif(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine a GIF: blocks up to the trailer."""
    draft = Draft(source, "gif", meter.limits.findings)
    if len(source.data) > LONGEST_GIF:
        draft.miss(f"a GIF is examined up to {LONGEST_GIF} bytes", rule="file/limit")
        return draft.close()
    try:
        end = _gif_end(source, draft)
    except (_BrokenError, IndexError) as error:
        at = len(source.data)
        return _refuse(draft, error if isinstance(error, _BrokenError) else _BrokenError("it ends within a block", at))
    return _finish(source, draft, end, examine)


def _gif_end(source: Source, draft: Draft) -> int:
    data, blocks = source.data, 0
    at = 13 + _table(data[10])
    while True:
        kind, blocks = data[at], blocks + 1
        if kind == ord(";"):
            draft.facts["blocks"] = blocks
            return at + 1
        if kind == ord("!"):
            at = _sub_blocks(data, at + 2)
        elif kind == ord(","):
            at = _sub_blocks(data, at + 11 + _table(data[at + 9]))
        else:
            raise _BrokenError(f"a block begins with {kind:#04x}", at)


def _table(flags: int) -> int:
    """Bytes of the colour table that ``flags`` announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _sub_blocks(data: Buffer, at: int) -> int:
    while size := data[at]:
        at += size + 1
    return at + 1


def is_bmp(source: Source) -> bool:
    """Whether a source begins like a BMP whose headers fit together."""
    if len(source.data) < BMP_LEAST or bytes(source.data[:2]) != b"BM":
        return False
    _, _, offset, header = struct.unpack("<IIII", source.data[2:18])
    return header in BMP_HEADERS and 14 + header <= offset <= len(source.data)


def examine_bmp(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine a BMP: its headers, and pixels up to the size that they tell."""
    draft = Draft(source, "bmp", meter.limits.findings)
    data = source.data
    size, _, offset, header = struct.unpack("<IIII", data[2:18])
    if offset - 14 - header > 1024 + 16:
        draft.gap(14 + header, offset, "lie between the headers and the pixels")
    if size > len(data):
        return _refuse(draft, _BrokenError(f"{size - len(data)} bytes are missing", len(data)))
    end = max(size, offset)
    return _finish(source, draft, end if size else len(data), examine)


WAVE_PARTS = frozenset(
    {b"fmt ", b"data", b"fact", b"LIST", b"cue ", b"PEAK", b"bext", b"smpl", b"inst", b"id3 ", b"ID3 ", b"JUNK"}
)
RIFF_ORDERS: dict[bytes, Literal["little", "big"]] = {b"RIFF": "little", b"RIFX": "big"}
WEBP_PARTS = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "})


def examine_riff(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine a WebP picture or WAV sound: chunks inside one RIFF chunk."""
    kind, known = ("webp", WEBP_PARTS) if bytes(source.data[8:12]) == b"WEBP" else ("wav", WAVE_PARTS)
    draft = Draft(source, kind, meter.limits.findings)
    try:
        end = _riff_end(source, draft, known)
    except _BrokenError as broken:
        return _refuse(draft, broken)
    return _finish(source, draft, end, examine)


def _riff_end(source: Source, draft: Draft, known: frozenset[bytes]) -> int:
    data = source.data
    order = RIFF_ORDERS.get(bytes(data[:4]))
    if order is None:
        raise _BrokenError("it does not begin with RIFF", 0)
    end, at, chunks = 8 + int.from_bytes(bytes(data[4:8]), order), 12, 0
    if end > len(data):
        raise _BrokenError(f"{end - len(data)} bytes are missing", len(data))
    while at < end:
        kind, size = bytes(data[at : at + 4]), int.from_bytes(bytes(data[at + 4 : at + 8]), order)
        if at + 8 + size > end or chunks > MOST_PARTS:
            raise _BrokenError(f"chunk {kind!r} of {size} bytes does not fit", at)
        if kind not in known:
            draft.gap(at, at + 8 + size, f"lie in a chunk {kind!r} that is not known")
        chunks, at = chunks + 1, at + 8 + size + size % 2
    draft.facts["chunks"] = chunks
    return end


__all__ = [
    "examine_bmp",
    "examine_gif",
    "examine_jpeg",
    "examine_png",
    "examine_riff",
    "is_bmp",
    "is_gif",
]
