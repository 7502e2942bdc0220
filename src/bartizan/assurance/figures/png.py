"""PNG files from levels, pure: pictures of attacked images inside the one file that a report is."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, COLOUR = 0, 2
DEPTH = 8
Pixel = tuple[int, ...]


def png(pixels: Sequence[Sequence[Pixel]]) -> bytes:
    """An image of rows of pixels, each one level (grey) or three (red, green, blue) from 0 to 255.

    W3C PNG specification, third edition (2025): 8 bits, no interlace, no filter.
    """
    kind = COLOUR if len(pixels[0][0]) > 1 else GREY
    header = struct.pack(">IIBBBBB", len(pixels[0]), len(pixels), DEPTH, kind, 0, 0, 0)
    lines = b"".join(b"\x00" + bytes(level for pixel in row for level in pixel) for row in pixels)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines, 9)) + _chunk(b"IEND", b"")


def data_uri(pixels: Sequence[Sequence[Pixel]]) -> str:
    """The same as an address that holds the image itself."""
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
