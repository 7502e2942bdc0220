"""The directory of a zip archive, read strictly: each member as the central directory and as its local header tell it.

Format: PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5. Readers of zip files famously disagree (first or
last directory, local or central sizes), so both descriptions are read and every byte is claimed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.pickle.constants import Buffer

EOCD = struct.Struct("<4s4H2LH")
EOCD64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR64 = struct.Struct("<4sLQL")
CENTRAL = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
EOCD_MAGIC = b"PK\x05\x06"
EOCD64_MAGIC = b"PK\x06\x06"
LOCATOR64_MAGIC = b"PK\x06\x07"
CENTRAL_MAGIC = b"PK\x01\x02"
LOCAL_MAGIC = b"PK\x03\x04"
DESCRIPTOR_MAGIC = b"PK\x07\x08"
LONGEST_COMMENT = 0xFFFF
BIG32 = 0xFFFFFFFF
BIG16 = 0xFFFF
ZIP64_EXTRA = 1
ENCRYPTED = 0x0001
STREAMED = 0x0008
UTF8 = 0x0800
KNOWN_FLAGS = 0x080F
"""Encrypted, two bits about the compression, streamed, UTF-8: what writers of models may set."""
UNICODE_PATH_EXTRA = 0x7075
EOCD64_SIZE = 44
"""Size of the zip64 record as it states it itself: without its first twelve bytes."""


class BrokenZipError(Exception):
    """The archive breaks its format; the text says where and how."""


class End(NamedTuple):
    """The end of the central directory."""

    directory: int
    """Offset of the central directory in the file."""
    directory_size: int
    entries: int
    prefix: int
    """Bytes before the archive: all offsets in it count from here."""
    end_records: int
    """Offset at which the closing records begin."""
    end: int
    """Offset behind the archive, its comment included."""
    problems: tuple[str, ...] = ()
    """In what the closing records contradict one another."""


class Entry(NamedTuple):
    """One member as the central directory tells it."""

    name: str
    method: int
    flags: int
    checksum: int
    packed: int
    size: int
    offset: int
    """Of the local header, in the file."""
    mode: int
    """Unix file mode; 0 when the archive was made elsewhere."""
    other_name: str = ""
    """The name that an extra field gives, where readers of such fields see another one."""
    problems: tuple[str, ...] = ()


class Local(NamedTuple):
    """One member as its local header tells it."""

    name: str
    method: int
    flags: int
    checksum: int
    packed: int
    size: int
    data: int
    """Offset of the content."""


def find_end(data: Buffer) -> End | None:
    """The closing records of an archive, or None when there are none.

    The last record counts, as for Python and torch, even when its comment does not fit.
    """
    tail_start = max(0, len(data) - LONGEST_COMMENT - EOCD.size)
    tail = bytes(data[tail_start:])
    at = tail.rfind(EOCD_MAGIC)
    while at >= 0:
        if at + EOCD.size <= len(tail):
            return _end(data, tail_start + at, EOCD.unpack_from(tail, at))
        at = tail.rfind(EOCD_MAGIC, 0, at)
    return None


def _end(data: Buffer, at: int, fields: tuple[bytes, int, int, int, int, int, int, int]) -> End | None:
    _, disk, first_disk, here, entries, size, offset, comment = fields
    begins = at
    wide = _end64(data, at)
    problems = _contradictions(fields, wide)
    if disk or first_disk or here != entries:
        problems.append("the archive claims to go on in other files")
    if at + EOCD.size + comment > len(data):
        problems.append("the comment of the archive leads past the end")
    if wide is not None:
        begins = wide[3]
        entries = wide[0] if entries == BIG16 else entries
        size = wide[1] if size == BIG32 else size
        offset = wide[2] if offset == BIG32 else offset
    directory = begins - size
    prefix = directory - offset
    if directory < 0 or prefix < 0:
        return None
    if wide is not None and wide[4] + prefix != begins:
        problems.append("the zip64 record is not where its locator says")
    end = min(at + EOCD.size + comment, len(data))
    if _is_orphan(data, at, wide):
        problems.append("the locator of a zip64 record stands alone")
    return End(directory, size, entries, prefix, begins, end, tuple(problems))


Wide = tuple[int, int, int, int, int, int]


def _end64(data: Buffer, at: int) -> Wide | None:
    """The zip64 record whose locator stands right before ``at``.

    Its entries, size and offset, its own place, its place by the locator, and the size it states.
    """
    start = at - LOCATOR64.size
    if start < 0:
        return None
    magic, _disk, where, _disks = LOCATOR64.unpack_from(data, start)
    record = start - EOCD64.size
    if magic != LOCATOR64_MAGIC or record < 0:
        return None
    fields = EOCD64.unpack_from(data, record)
    return (fields[7], fields[8], fields[9], record, where, fields[1]) if fields[0] == EOCD64_MAGIC else None


def _is_orphan(data: Buffer, at: int, wide: Wide | None) -> bool:
    """Whether a locator stands there without its record: some readers go where it points (CVE-2025-8291)."""
    start = at - LOCATOR64.size
    return wide is None and start >= 0 and bytes(data[start : start + 4]) == LOCATOR64_MAGIC


def _contradictions(fields: tuple[bytes, int, int, int, int, int, int, int], wide: Wide | None) -> list[str]:
    """Where the zip64 record says other things than the plain one: readers follow either."""
    if wide is None:
        return []
    pairs = (
        ("entries", fields[4], wide[0], BIG16),
        ("size", fields[5], wide[1], BIG32),
        ("offset", fields[6], wide[2], BIG32),
    )
    found = [
        f"the {what} of the directory: {narrow} and {full}"
        for what, narrow, full, most in pairs
        if narrow not in {full, most}
    ]
    return found if wide[5] == EOCD64_SIZE else [*found, "the zip64 record is not of its usual size"]


def read_entries(data: Buffer, end: End, most: int) -> list[Entry]:
    """The members that the central directory lists.

    Raises:
        BrokenZipError: the directory is not what the closing record says.
    """
    entries: list[Entry] = []
    at = end.directory
    stop = end.directory + end.directory_size
    while at < stop:
        if len(entries) >= most:
            raise BrokenZipError(f"the directory lists more than {most} members")
        entry, at = _entry(data, at, stop, end.prefix)
        entries.append(entry)
    if len(entries) != end.entries:
        raise BrokenZipError(f"the directory lists {len(entries)} members and its end says {end.entries}")
    return entries


def _entry(data: Buffer, at: int, stop: int, prefix: int) -> tuple[Entry, int]:
    if at + CENTRAL.size > stop or bytes(data[at : at + 4]) != CENTRAL_MAGIC:
        raise BrokenZipError(f"no directory entry at offset {at}")
    fields = CENTRAL.unpack_from(data, at)
    made_by, flags, method = fields[1], fields[3], fields[4]
    checksum, packed, size = fields[7:10]
    name_size, extra_size, comment_size = fields[10:13]
    attributes, offset = fields[15], fields[16]
    name_at = at + CENTRAL.size
    extra_at = name_at + name_size
    after = extra_at + extra_size + comment_size
    if after > stop:
        raise BrokenZipError(f"the directory entry at offset {at} leads past the directory")
    name = _name(bytes(data[name_at:extra_at]), flags)
    extra = bytes(data[extra_at : extra_at + extra_size])
    problems = [f"unusual flags {flags & ~KNOWN_FLAGS:#06x}"] if flags & ~KNOWN_FLAGS else []
    if len(_extra_fields(extra, ZIP64_EXTRA)) > 1:
        problems.append("two zip64 fields")
    size, packed, offset = _zip64(extra, size, packed, offset)
    mode = attributes >> 16 if made_by >> 8 == 3 else 0  # noqa: PLR2004 -- 3 is Unix
    other = _other_name(bytes(data[name_at:extra_at]), extra, name)
    return Entry(name, method, flags, checksum, packed, size, prefix + offset, mode, other, tuple(problems)), after


def _other_name(raw: bytes, extra: bytes, name: str) -> str:
    """The name in Info-ZIP's field for Unicode paths (APPNOTE 4.6.9), if readers take it and it differs."""
    for field in _extra_fields(extra, UNICODE_PATH_EXTRA):
        if len(field) > 5 and field[0] == 1 and int.from_bytes(field[1:5], "little") == zlib.crc32(raw):  # noqa: PLR2004
            other = field[5:].decode("utf-8", "replace")
            return other if other != name else ""
    return ""


def _name(raw: bytes, flags: int) -> str:
    try:
        return raw.decode("utf-8" if flags & UTF8 else "cp437")
    except UnicodeDecodeError as error:
        raise BrokenZipError(f"the name {raw[:40]!r} is not UTF-8") from error


def _zip64(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Sizes and offset with their 64-bit values from the extra field, where the 32-bit ones are full."""
    wide = (_extra_fields(extra, ZIP64_EXTRA) or [b""])[0]
    values = [size, packed, offset]
    at = 0
    for index, value in enumerate(values):
        if value == BIG32 and at + 8 <= len(wide):
            values[index] = struct.unpack_from("<Q", wide, at)[0]
            at += 8
    return values[0], values[1], values[2]


def _extra_fields(extra: bytes, wanted: int) -> list[bytes]:
    found = []
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == wanted:
            found.append(extra[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def read_local(data: Buffer, entry: Entry) -> Local:
    """The local header of a member.

    Raises:
        BrokenZipError: there is none where the directory says.
    """
    at = entry.offset
    if at < 0 or at + LOCAL.size > len(data) or bytes(data[at : at + 4]) != LOCAL_MAGIC:
        raise BrokenZipError(f"no local header for {entry.name[:80]!r} at offset {at}")
    _, _version, flags, method, _time, _date, checksum, packed, size, name_size, extra_size = LOCAL.unpack_from(
        data, at
    )
    name_at = at + LOCAL.size
    extra_at = name_at + name_size
    extra = bytes(data[extra_at : extra_at + extra_size])
    size, packed, _ = _zip64(extra, size, packed, 0)
    return Local(
        _name(bytes(data[name_at:extra_at]), flags), method, flags, checksum, packed, size, extra_at + extra_size
    )


def local_extra(data: Buffer, entry: Entry) -> tuple[int, int]:
    """Where the extra fields of a local header lie that ``read_local`` accepts."""
    name_size, extra_size = struct.unpack_from("<2H", data, entry.offset + LOCAL.size - 4)
    start = entry.offset + LOCAL.size + name_size
    return start, start + extra_size


def notes(data: Buffer, end: End) -> Iterator[tuple[int, int]]:
    """Where the extra fields and comments of the directory's entries and the archive's comment lie."""
    at = end.directory
    while at + CENTRAL.size <= end.directory + end.directory_size:
        name_size, extra_size, comment_size = CENTRAL.unpack_from(data, at)[10:13]
        start = at + CENTRAL.size + name_size
        at = start + extra_size + comment_size
        yield start, at
    yield bytes(data[end.end_records : end.end]).rfind(EOCD_MAGIC) + end.end_records + EOCD.size, end.end


def descriptor_end(data: Buffer, entry: Entry, start: int) -> int:
    """Offset behind the data descriptor that follows streamed content at ``start``; ``start`` when none fits."""
    for with_magic in (True, False):
        for width in ("L", "Q"):
            form = struct.Struct(f"<L2{width}")
            at = start + 4 * with_magic
            if at + form.size > len(data) or (with_magic and bytes(data[start : start + 4]) != DESCRIPTOR_MAGIC):
                continue
            if form.unpack_from(data, at) == (entry.checksum, entry.packed, entry.size):
                return at + form.size
    return start
