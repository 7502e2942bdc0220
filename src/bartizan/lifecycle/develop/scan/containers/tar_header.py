"""One header block of a tar archive, read as the most forgiving reader does, and what is wrong with it.

Formats: POSIX.1-1988 (ustar), POSIX.1-2001 (pax), GNU tar, and the one before them (v7), which has
no magic: it is told by its checksum alone. Python's ``tarfile`` never asks for the magic either, and
``torch.load`` asks ``tarfile`` before it unpickles, so a checksum is what makes a file a tar archive.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.pickle.constants import Buffer

BLOCK = 512
MAGIC_AT = 257
CHECKSUM = slice(148, 156)
_OCTAL = re.compile(rb"[ \0]*[0-7]{1,11}[ \0]*\Z")
_EMPTY = re.compile(rb"[ \0]*\Z")


class Header(NamedTuple):
    """The fields of a header block."""

    name: str
    """With the prefix in front of it."""
    short_name: str
    """Without, as readers see it that know no prefix."""
    mode: int
    size: int
    kind: str
    """The type flag, one character."""
    target: str
    """What a link points to."""
    problems: tuple[str, ...]


def is_header(block: Buffer) -> bool:
    """Whether these bytes begin with the header of a tar archive, intact or damaged."""
    raw = bytes(block[:BLOCK])
    if len(raw) < BLOCK:
        return False
    stored = number(raw[CHECKSUM])
    if stored is None:
        return False
    return stored in checksums(raw) or raw[MAGIC_AT : MAGIC_AT + 5] == b"ustar"


def checksums(raw: bytes) -> tuple[int, int]:
    """Sum of the bytes with the checksum taken for spaces: unsigned, and signed as some old systems wrote it."""
    rest = raw[:148] + raw[156:BLOCK]
    unsigned = sum(rest) + 8 * ord(" ")
    return unsigned, unsigned - 256 * sum(byte > 127 for byte in rest)  # noqa: PLR2004 -- bytes that are negative


def number(field: bytes) -> int | None:
    """A number field: octal text, or base 256 when the top bit is set (GNU); None when it is neither."""
    if field[0] in {0x80, 0xFF}:
        value = int.from_bytes(field[1:], "big")
        return value - (1 << 8 * (len(field) - 1)) if field[0] == 0xFF else value  # noqa: PLR2004
    text = field.split(b"\0")[0] if field[:1] != b"\0" else field
    if _EMPTY.match(text):
        return 0
    return int(text.strip(b" \0"), 8) if _OCTAL.match(text) else None


def text(field: bytes) -> str:
    """A text field, up to its first NUL."""
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def read_header(block: Buffer) -> Header:
    """The header in these 512 bytes."""
    raw = bytes(block[:BLOCK])
    problems = []
    stored = number(raw[CHECKSUM])
    if stored not in checksums(raw):
        problems.append("the checksum of a header is wrong")
    size = number(raw[124:136])
    mode = number(raw[100:108])
    if size is None or mode is None or size < 0 or mode < 0:
        problems.append("a header holds a number that is none")
    short_name, prefix = text(raw[:100]), text(raw[345:500])
    is_posix = raw[MAGIC_AT : MAGIC_AT + 6] == b"ustar\0"
    name = f"{prefix}/{short_name}" if is_posix and prefix else short_name
    kind = chr(raw[156])
    return Header(name, short_name, max(mode or 0, 0), max(size or 0, 0), kind, text(raw[157:257]), tuple(problems))
