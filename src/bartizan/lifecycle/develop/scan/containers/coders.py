"""Decoders that need to be told more than the stream itself says: LZMA as zip and 7z store it."""

from __future__ import annotations

import lzma

from bartizan.lifecycle.develop.scan.containers.compressed import LZMA_MEMORY
from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError

MARK = 16
"""Bytes that the mark at the end of an LZMA stream takes at most, rounded up."""
LZMA_HEADER = 9
"""Bytes before the LZMA stream of a zip member (APPNOTE 5.8.8): version, size of the properties, properties."""


class UnsupportedError(Exception):
    """A coder cannot be carried out; the text says which."""


def within_memory(size: int) -> int:
    """The size of a dictionary, if the scan may reserve it.

    Raises:
        UnsupportedError: it may not.
    """
    if size > LZMA_MEMORY:
        raise UnsupportedError(f"it asks for {size} bytes of memory")
    return max(size, 4096)


class RawLzma:
    """An LZMA stream without a header: it may end by a mark or just by its size."""

    def __init__(self, properties: bytes, size: int) -> None:
        bits = properties[0]
        if bits >= 225:  # noqa: PLR2004 -- 9 * 5 * 5
            raise BrokenFormatError("LZMA has no such properties")
        filters = [
            {
                "id": lzma.FILTER_LZMA1,
                "dict_size": within_memory(int.from_bytes(properties[1:5], "little")),
                "lc": bits % 9,
                "lp": bits // 9 % 5,
                "pb": bits // 45,
            }
        ]
        self._inner = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
        self._left = size

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """See ``compressed.Decompressor``."""
        out = self._inner.decompress(data, max_length)
        self._left -= len(out)
        return out

    @property
    def needs_input(self) -> bool:
        """See ``compressed.Decompressor``."""
        return self._inner.needs_input

    @property
    def eof(self) -> bool:
        """See ``compressed.Decompressor``."""
        return self._inner.eof or (self._left <= 0 and self._inner.needs_input)

    @property
    def unused_data(self) -> bytes:
        """See ``compressed.Decompressor``."""
        return self._inner.unused_data if self._inner.eof else b""


def zip_lzma(packed: bytes, size: int) -> RawLzma:
    """The decompressor of a zip member with this header that unpacks to ``size`` bytes.

    Raises:
        UnsupportedError: it asks for too much memory, or its header is none.
    """
    if len(packed) < LZMA_HEADER or packed[2:4] != b"\5\0":
        raise UnsupportedError("its LZMA header is none")
    try:
        return RawLzma(packed[4:LZMA_HEADER], size)
    except (BrokenFormatError, lzma.LZMAError, ValueError) as error:
        raise UnsupportedError(f"its LZMA header is none: {error}") from error
