"""Single compressed streams (zlib, gzip, bzip2, xz, lzma, joblib's old ZFILE), unpacked under a bound.

joblib writes its compressed files in these formats; what they unpack to is examined like a file.
"""

from __future__ import annotations

import bz2
import contextlib
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

from bartizan.lifecycle.develop.scan.limits import Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import CHUNK, Draft, Examine, Examiner, Source, Spool
from bartizan.lifecycle.develop.scan.verdict import Report

LZMA_MEMORY = 128 << 20
"""Memory that an lzma stream may ask for; presets up to 9 need 65 MiB."""
FIRST_STEP = 1 << 10
"""Bytes first fed to a stream: there may be very many short ones in a row."""
CAREFUL_STEP = 16
MOST_STREAMS = 100_000
ZFILE_HEADER = 21
"""``ZF`` and the length as hexadecimal text, padded to 19 characters."""


class Decompressor(Protocol):
    """What the standard library's decompressors have in common."""

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


MAKERS: dict[str, Callable[[], Inflater | bz2.BZ2Decompressor | lzma.LZMADecompressor]] = {
    "zlib": lambda: Inflater(15),
    "zfile": lambda: Inflater(15),
    "gzip": lambda: Inflater(31),
    "deflate": lambda: Inflater(-15),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY),
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=LZMA_MEMORY),
}
FAILURES = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)


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


def unpack(data: Buffer, kind: str, meter: Meter, *, several: bool = True) -> Unpacked:
    """Unpack one stream, or several in a row, into memory or a temporary file.

    Raises:
        BombError: the ratio or the bytes left to spend are exceeded.
    """
    result = Unpacked(meter.limits.in_memory)
    try:
        _all_streams(data, kind, meter, result, several=several)
    except BombError:
        result.spool.discard()
        raise
    return result


def _all_streams(data: Buffer, kind: str, meter: Meter, result: Unpacked, *, several: bool) -> None:
    while result.used < len(data):
        try:
            used = _one_stream(data, result.used, kind, meter, result)
        except FAILURES as error:
            if not result.streams:
                result.failure = str(error) or type(error).__name__
                _salvage(data, kind, meter, result)
            return
        if used < 0:
            result.failure = "the stream ends early"
            return
        result.streams += 1
        result.used += used
        if not several or result.streams >= MOST_STREAMS:
            return


def _salvage(data: Buffer, kind: str, meter: Meter, result: Unpacked) -> None:
    """Unpack a damaged stream again, in small steps near the damage: a loader may have used what came before it."""
    result.spool.discard()
    result.spool = Spool(meter.limits.in_memory)
    with contextlib.suppress(*FAILURES):
        _one_stream(data, 0, kind, meter, result, careful_from=result.fed)


def _one_stream(
    data: Buffer, start: int, kind: str, meter: Meter, result: Unpacked, *, careful_from: int | None = None
) -> int:
    """Unpack the stream at ``start``; returns how many compressed bytes it has, or -1 when it is cut off."""
    machine = MAKERS[kind]()
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
    return at - start - len(machine.unused_data)


def _check(size: int, packed: int, meter: Meter) -> None:
    limits = meter.limits
    if meter.expanded < 0:
        raise BombError(f"more than {limits.expanded} bytes unpacked in all")
    if size > limits.ratio_from and size > limits.ratio * packed:
        raise BombError(f"{packed} bytes unpack to more than {size}")


def _header_size(data: Buffer) -> int:
    """Bytes before the compressed stream of a ZFILE; joblib up to 0.8.4 under Python 2 wrote a space more."""
    return ZFILE_HEADER + (bytes(data[ZFILE_HEADER : ZFILE_HEADER + 1]) == b" ")


def examine_compressed(source: Source, kind: str, meter: Meter, examine: Examine) -> Report:
    """Unpack a compressed file and examine what is inside."""
    draft = Draft(source, kind, meter.limits.findings)
    skip = _header_size(source.data) if kind == "zfile" else 0
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
    if skip + unpacked.used < len(source.data) and not unpacked.failure:
        draft.gap(skip + unpacked.used, len(source.data), "follow the compressed stream")
    if len(content) or not unpacked.failure:
        draft.members.append(examine(source.child("content", content)))
    return draft.close()


def _examiner(kind: str) -> Examiner:
    return lambda source, meter, examine: examine_compressed(source, kind, meter, examine)


examine_zlib = _examiner("zlib")
examine_zfile = _examiner("zfile")
examine_gzip = _examiner("gzip")
examine_bzip2 = _examiner("bzip2")
examine_xz = _examiner("xz")
examine_lzma = _examiner("lzma")
