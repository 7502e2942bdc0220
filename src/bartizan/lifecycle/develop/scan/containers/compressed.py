"""Compressed streams (zlib, gzip, bzip2, xz, lzma, zstd, lz4, joblib's old ZFILE), unpacked under a bound.

joblib writes its compressed files in these formats; what they unpack to is examined like a file.
"""

from __future__ import annotations

import bz2
import contextlib
import functools
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol, cast

import zstandard
from lz4.frame import LZ4FrameDecompressor

from bartizan.lifecycle.develop.scan.containers.frames import LARGEST_WINDOW, LZ4_MAGIC, Frame, frames
from bartizan.lifecycle.develop.scan.containers.leftover import report_leftover
from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError
from bartizan.lifecycle.develop.scan.formats.embedded import Embedded
from bartizan.lifecycle.develop.scan.limits import Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import CHUNK, Draft, Examine, Examiner, Source, Spool, window
from bartizan.lifecycle.develop.scan.verdict import Report

LZMA_MEMORY = 128 << 20
"""Memory that an lzma stream may ask for; presets up to 9 need 65 MiB."""
FIRST_STEP = 1 << 10
"""Bytes first fed to a stream: there may be very many short ones in a row."""
CAREFUL_STEP = 16
TRIED = 1 << 16
"""Bytes that are unpacked to see whether a stream without a certain beginning is one."""
CERTAIN = 64
"""Bytes that have to come out of it."""
MOST_STREAMS = 100_000
GZIP_FIXED = 10
"""Bytes that every header of gzip begins with."""
GZIP_EXTRA, GZIP_NAME, GZIP_COMMENT = 4, 8, 16
ZFILE_HEADER = 21
"""``ZF`` and the length as hexadecimal text, padded to 19 characters."""


class Decompressor(Protocol):
    """What decompressors have in common."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Feed and take up to ``max_length`` bytes."""

    @property
    def needs_input(self) -> bool:
        """Whether all input has been used up."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream was seen."""

    @property
    def unused_data(self) -> bytes:
        """Bytes behind the end of the stream."""


class Inflater:
    """zlib's decompressor in the shape of the others."""

    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Feed and take up to ``max_length`` bytes."""
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)

    @property
    def needs_input(self) -> bool:
        """Whether all input has been used up."""
        return not self._inner.unconsumed_tail

    @property
    def eof(self) -> bool:
        """See ``Decompressor``."""
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        """See ``Decompressor``."""
        return self._inner.unused_data


MAKERS: dict[str, Callable[[], Decompressor]] = {
    "zlib": lambda: Inflater(15),
    "zfile": lambda: Inflater(15),
    "gzip": lambda: Inflater(31),
    "deflate": lambda: Inflater(-15),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY),
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=LZMA_MEMORY),
    "lz4": lambda: cast("Decompressor", LZ4FrameDecompressor()),
}
FRAMED = frozenset({"zstandard", "lz4"})
PADDED = {"gzip": 1, "xz": 4}
"""Streams that zeros may follow, in multiples of so many bytes (gzip's manual; xz file format 1.2, 2.2)."""
FAILURES = (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, EOFError, ValueError, RuntimeError, MemoryError)


class BombError(Exception):
    """The stream unpacks to more than it may; the text says how much."""


class Unpacked:
    """What came out of compressed bytes, and where they stopped making sense."""

    def __init__(self, limit: int) -> None:
        self.spool = Spool(limit)
        self.used = 0
        """Compressed bytes that belonged to the streams."""
        self.streams = 0
        self.fed = 0
        """Offset of the compressed bytes that were fed last."""
        self.failure = ""
        """Why unpacking stopped before the end."""
        self.obstacle = ""
        """Why a frame could not be unpacked although nothing is wrong with it."""
        self.hidden: list[tuple[int, int]] = []
        """Where content lies that readers pass over."""


def unpack(
    data: Buffer, kind: str, meter: Meter, *, several: bool = True, make: Callable[[], Decompressor] | None = None
) -> Unpacked:
    """Unpack one stream, or several in a row, into memory or a temporary file.

    ``make`` makes the decompressor of a kind that needs parameters.

    Raises:
        BombError: the ratio or the bytes left to spend are exceeded.
    """
    result = Unpacked(meter.limits.in_memory)
    try:
        if kind in FRAMED:
            _all_frames(data, meter, result)
        else:
            _all_streams(data, make or MAKERS[kind], meter, result, most=MOST_STREAMS if several else 1)
    except BombError:
        result.spool.discard()
        raise
    return result


def _all_streams(data: Buffer, make: Callable[[], Decompressor], meter: Meter, result: Unpacked, *, most: int) -> None:
    while result.used < len(data):
        try:
            used = _one_stream(data, result.used, make, meter, result)
        except FAILURES as error:
            if not result.streams:
                result.failure = str(error) or type(error).__name__
                _salvage(data, make, meter, result)
            return
        if used < 0:
            result.failure = "the stream ends early"
            return
        result.streams += 1
        result.used += used
        if result.streams >= most:
            return
        if make in _PADDING:
            result.used += _padding(data, result.used, _PADDING[make])


_PADDING = {MAKERS[kind]: step for kind, step in PADDED.items()}


def _padding(data: Buffer, start: int, step: int) -> int:
    """Zeros from ``start`` on, counted in whole steps."""
    at = start
    while at < len(data):
        part = bytes(data[at : at + CHUNK])
        rest = len(part.lstrip(b"\0"))
        at += len(part) - rest
        if rest:
            break
    return (at - start) // step * step


def _salvage(data: Buffer, make: Callable[[], Decompressor], meter: Meter, result: Unpacked) -> None:
    """Unpack a damaged stream again, in small steps near the damage: a loader may have used what came before it."""
    result.spool.discard()
    result.spool = Spool(meter.limits.in_memory)
    with contextlib.suppress(*FAILURES):
        _one_stream(data, 0, make, meter, result, careful_from=result.fed)


def _one_stream(
    data: Buffer,
    start: int,
    make: Callable[[], Decompressor],
    meter: Meter,
    result: Unpacked,
    *,
    careful_from: int | None = None,
) -> int:
    """Unpack the stream at ``start``; returns how many compressed bytes it has, or -1 when it is cut off."""
    machine = make()
    at = start
    step = FIRST_STEP
    while not machine.eof:
        part = b""
        if machine.needs_input:
            if at >= len(data):
                return -1
            if careful_from is not None:
                step = CAREFUL_STEP if at >= careful_from else min(step, careful_from - at)
            part = bytes(data[at : at + step])
            result.fed = at
            at += len(part)
            step = min(2 * step, CHUNK)
        out = machine.decompress(part, CHUNK)
        meter.expanded -= len(out)
        result.spool.write(out)
        _check(result.spool.size, at, meter)
    return at - start - len(machine.unused_data or b"")


def _all_frames(data: Buffer, meter: Meter, result: Unpacked) -> None:
    """Unpack frame after frame; of one that is cut off, what there is."""
    try:
        for frame in frames(data):
            _take_frame(data, frame, meter, result)
            result.used = frame.end
            result.streams += 1
            if result.streams >= MOST_STREAMS:
                return
    except BrokenFormatError as broken:
        is_begun = broken.offset != result.used
        if is_begun or not result.streams:
            result.failure = str(broken)
            with contextlib.suppress(*FAILURES):
                _unpack_frame(data, Frame(result.used, len(data)), meter, result)
    except FAILURES as error:
        result.failure = str(error) or type(error).__name__


def _take_frame(data: Buffer, frame: Frame, meter: Meter, result: Unpacked) -> None:
    if frame.content >= 0:
        if not frame.is_bookkeeping(data):
            result.hidden.append((frame.content, frame.end))
    elif frame.obstacle:
        result.obstacle = frame.obstacle
    else:
        _unpack_frame(data, frame, meter, result)


@functools.cache
def _zstd() -> zstandard.ZstdDecompressor:
    """The decompressor of all frames: they have nothing in common, and making one costs more than a small frame."""
    return zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)


def _unpack_frame(data: Buffer, frame: Frame, meter: Meter, result: Unpacked) -> None:
    part = window(data, frame.start, frame.end)
    if int.from_bytes(bytes(part[:4]), "little") == LZ4_MAGIC:
        if _one_stream(part, 0, MAKERS["lz4"], meter, result) < 0:
            raise EOFError("the stream ends early")
        return
    with _zstd().stream_reader(part, read_across_frames=False, read_size=CHUNK) as reader:
        while out := reader.read(CHUNK):
            meter.expanded -= len(out)
            result.spool.write(out)
            _check(result.spool.size, frame.end, meter)


def _check(size: int, packed: int, meter: Meter) -> None:
    limits = meter.limits
    if meter.expanded < 0:
        raise BombError(f"more than {limits.expanded} bytes unpacked in all")
    if size > limits.ratio_from and size > limits.ratio * packed:
        raise BombError(f"{packed} bytes unpack to more than {size}")


def _header_size(data: Buffer) -> int:
    """Bytes before the compressed stream of a ZFILE; joblib up to 0.8.4 under Python 2 wrote a space more."""
    return ZFILE_HEADER + (bytes(data[ZFILE_HEADER : ZFILE_HEADER + 1]) == b" ")


def _gzip_notes(data: Buffer) -> bytes:
    """The extra field, name and comment of the first member (RFC 1952), which nobody reads."""
    head = bytes(data[: GZIP_FIXED + (1 << 17)])
    flags = head[3] if len(head) > GZIP_FIXED else 0
    at = GZIP_FIXED
    if flags & GZIP_EXTRA:
        at += 2 + int.from_bytes(head[at : at + 2], "little")
    for flag in (GZIP_NAME, GZIP_COMMENT):
        end = head.find(b"\0", at) if flags & flag else at - 1
        at = end + 1 if end >= 0 else len(head)
    return head[GZIP_FIXED:at]


def examine_compressed(source: Source, kind: str, meter: Meter, examine: Examine) -> Report:
    """Unpack a compressed file and examine what is inside."""
    draft = Draft(source, kind, meter.limits.findings)
    skip = _header_size(source.data) if kind == "zfile" else 0
    if kind == "gzip":
        Embedded(draft, examine).judge_text("the header of the stream", _gzip_notes(source.data), GZIP_FIXED)
    try:
        unpacked = unpack(source.data[skip:], kind, meter, several=kind != "zfile")
    except BombError as bomb:
        draft.fire("archive/bomb", str(bomb))
        draft.miss("not unpacked: it exceeds the bounds")
        return draft.close()
    content = unpacked.spool.finish()
    draft.facts["expanded_bytes"] = len(content)
    if unpacked.failure:
        draft.fire("archive/corrupt", unpacked.failure, skip + unpacked.used)
    if unpacked.obstacle:
        draft.miss(f"not unpacked: {unpacked.obstacle}")
    for start, end in unpacked.hidden:
        report_leftover(draft, examine, skip + start, skip + end, "lie in a frame that readers pass over")
    if skip + unpacked.used < len(source.data) and not unpacked.failure:
        report_leftover(draft, examine, skip + unpacked.used, len(source.data), "follow the compressed stream")
    if len(content) or not (unpacked.failure or unpacked.obstacle):
        draft.members.append(examine(source.child("content", content)))
    return draft.close()


def is_zlib_with_small_window(source: Source) -> bool:
    """Whether a zlib stream begins here whose window is smaller than usual (RFC 1950): two bytes tell little."""
    head = bytes(source.data[:TRIED])
    if len(head) < 8 or head[0] & 0x8F != 0x08 or int.from_bytes(head[:2], "big") % 31 or head[1] & 0x20:  # noqa: PLR2004
        return False
    machine = zlib.decompressobj()
    try:
        out = machine.decompress(head, TRIED)
    except zlib.error:
        return False
    return machine.eof or len(out) >= CERTAIN


def _examiner(kind: str) -> Examiner:
    return lambda source, meter, examine: examine_compressed(source, kind, meter, examine)


examine_zlib = _examiner("zlib")
examine_zfile = _examiner("zfile")
examine_gzip = _examiner("gzip")
examine_bzip2 = _examiner("bzip2")
examine_xz = _examiner("xz")
examine_lzma = _examiner("lzma")
examine_lz4 = _examiner("lz4")
examine_zstandard = _examiner("zstandard")
