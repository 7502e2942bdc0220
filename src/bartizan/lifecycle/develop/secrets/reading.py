"""Walks folders and opens what is packed, and gives everything in windows of bounded size.

Files of any length are read in windows that overlap, so memory stays bounded and nothing falls between
two of them. Notebooks are taken apart, because their code and outputs are JSON texts with everything
escaped. Members of zip archives and what gzip, bzip2, xz, zstd and LZ4 pack are looked into, as deep
and as long as the limits let. What was not looked at is named, never passed over.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import os
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, cast

import lz4.frame
import msgspec
import zstandard

WINDOW = 1 << 20
OVERLAP = 16 << 10
"""No match reaches farther than this."""
LARGEST_NOTEBOOK = 64 << 20
NO_HISTORY = frozenset({"objects"})
"""Folders of ``.git`` whose content is packed; the history is not searched."""
_SPOOL = 16 << 20
_HEAD = 4096
_FAILURES = (
    OSError, EOFError, ValueError, KeyError, IndexError, RuntimeError, NotImplementedError, OverflowError,
    struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError,
)  # fmt: skip
"""What the unpackers raise on bytes that are none of theirs."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much is looked at."""

    unpacked: int = 8 << 30
    """Bytes of all files and members together."""
    files: int = 200_000
    """Files and members together."""
    nesting: int = 4
    """Archives within archives."""


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Some bytes of one file, member or cell."""

    name: str
    data: bytes
    offset: int
    """Where they begin in the file."""
    lines: int
    """Line ends before them."""
    fresh: int
    """Only matches that begin before this place are new; the rest comes again in the next window."""
    is_text: bool


class Reading:
    """What is being read, how much is left, and what could not be looked at."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.files = 0
        self.read = 0
        self.unread: list[str] = []

    def miss(self, name: str, why: str) -> None:
        """Note that something was not looked at."""
        self.unread.append(f"{name}: {why}")

    def has_room(self, name: str) -> bool:
        """Count one more file; False when there have been too many."""
        self.files += 1
        if self.files == self.limits.files + 1:
            self.miss(name, f"more than {self.limits.files} files; this one and the rest are not searched")
        return self.files <= self.limits.files


def pieces_of(path: Path, reading: Reading, skip: frozenset[str] = frozenset()) -> Iterator[Piece]:
    """Everything in a file, or in all files below a folder, in the order of their names.

    Links are not followed. ``skip`` holds names of folders that are passed over.
    """
    for file, name in _files(path, reading, skip):
        if not reading.has_room(name):
            return
        try:
            with _open(file) as stream:
                yield from _pieces(stream, name, reading, 0)
        except _FAILURES as error:
            reading.miss(name, f"it cannot be read ({_reason(error)})")


def _files(path: Path, reading: Reading, skip: frozenset[str]) -> Iterator[tuple[Path, str]]:
    if not path.is_dir():
        yield path, path.name
        return
    for folder, folders, names in os.walk(path, onerror=lambda error: _missed_folder(reading, error)):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if name not in skip and not _is_history(here, name))
        for name in sorted(names):
            file = here / name
            if not file.is_symlink():
                yield file, file.relative_to(path).as_posix()


def _missed_folder(reading: Reading, error: OSError) -> None:
    reading.miss(Path(str(error.filename)).name, f"the folder cannot be read ({error.strerror})")


def _is_history(here: Path, name: str) -> bool:
    return here.name == ".git" and name in NO_HISTORY


def _open(file: Path) -> BinaryIO:
    """A regular file, opened so that neither a link nor a pipe can take its place."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is no regular file")
    return os.fdopen(descriptor, "rb")


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)[:120]


def _pieces(stream: BinaryIO, name: str, reading: Reading, depth: int) -> Iterator[Piece]:
    """Pieces of a file that can seek: notebooks and archives taken apart, the rest as it is."""
    head = stream.read(_HEAD)
    stream.seek(0)
    if head.startswith((b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07")):
        reading.miss(name, "7z and rar archives are not opened")
    elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        yield from _zip(stream, name, reading, depth)
    elif unpack := _unpacker(head):
        yield from _unpacked(unpack(stream), name, reading, depth)
    elif name.endswith(".ipynb"):
        yield from _notebook(stream, name, reading)
    else:
        yield from _windows(stream, name, reading, head)


def _unpacker(head: bytes) -> Callable[[BinaryIO], Any] | None:
    for magic, unpack in _UNPACKERS:
        if head.startswith(magic):
            return unpack
    return None


_UNPACKERS: tuple[tuple[bytes, Callable[[BinaryIO], Any]], ...] = (
    (b"\x1f\x8b", lambda stream: gzip.GzipFile(fileobj=stream)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\0", lzma.LZMAFile),
    (b"\x28\xb5\x2f\xfd", lambda stream: zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)),
    (b"\x04\x22\x4d\x18", lz4.frame.LZ4FrameFile),
)


def _unpacked(stream: BinaryIO, name: str, reading: Reading, depth: int) -> Iterator[Piece]:
    if depth >= reading.limits.nesting:
        reading.miss(name, f"it is packed more than {reading.limits.nesting} times")
        return
    inner = name.rsplit(".", 1)[0] if name.endswith((".gz", ".bz2", ".xz", ".zst", ".lz4")) else name
    with closing(stream), _spooled(stream, name, reading) as spool:
        yield from _pieces(spool, inner if inner != name else f"{name}!/content", reading, depth + 1)


def _spooled(stream: BinaryIO, name: str, reading: Reading) -> BinaryIO:
    """Unpacked bytes in a temporary file, as many as may still be read."""
    spool = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=_SPOOL))  # noqa: SIM115 -- the caller closes it
    left = reading.limits.unpacked - reading.read
    try:
        while left > 0 and (part := stream.read(min(WINDOW, left))):
            spool.write(part)
            left -= len(part)
        if left <= 0 and stream.read(1):
            reading.miss(name, "it holds more than is searched; the rest is passed over")
    except _FAILURES as error:
        reading.miss(name, f"it cannot be unpacked to its end ({_reason(error)})")
    spool.seek(0)
    return spool


def _zip(stream: BinaryIO, name: str, reading: Reading, depth: int) -> Iterator[Piece]:
    if depth >= reading.limits.nesting:
        reading.miss(name, f"it is packed more than {reading.limits.nesting} times")
        return
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            inner = f"{name}!/{info.filename}"
            if info.is_dir():
                continue
            if not reading.has_room(inner):
                return
            try:
                yield from _member(archive, info, inner, reading, depth)
            except _FAILURES as error:
                reading.miss(inner, f"it cannot be unpacked ({_reason(error)})")


def _member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, reading: Reading, depth: int
) -> Iterator[Piece]:
    with archive.open(info) as packed, _spooled(cast("BinaryIO", packed), name, reading) as spool:
        yield from _pieces(spool, name, reading, depth + 1)


def _windows(stream: BinaryIO, name: str, reading: Reading, head: bytes) -> Iterator[Piece]:
    """A whole file in windows that overlap."""
    decode = _decoder(head)
    is_text = decode is not None or b"\0" not in head
    carried, offset, lines = b"", 0, 0
    part = _read(stream, reading)
    while True:
        if part and reading.read > reading.limits.unpacked:
            reading.miss(name, "more was read than the limit; the rest of it is not searched")
            return
        after = _read(stream, reading) if part else b""
        data = carried + (decode(part) if decode else part)
        fresh = max(0, len(data) - OVERLAP) if after else len(data)
        yield Piece(name=name, data=data, offset=offset, lines=lines, fresh=fresh, is_text=is_text)
        if not after:
            return
        lines += data.count(b"\n", 0, fresh)
        offset, carried, part = offset + fresh, data[fresh:], after


def _read(stream: BinaryIO, reading: Reading) -> bytes:
    part = stream.read(WINDOW)
    reading.read += len(part)
    return part


def _decoder(head: bytes) -> Callable[[bytes], bytes] | None:
    """UTF-16 text as UTF-8, told by its byte-order mark."""
    if not head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return None
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    return lambda data: decoder.decode(data).encode("utf-8", "replace")


def _notebook(stream: BinaryIO, name: str, reading: Reading) -> Iterator[Piece]:
    """Each text of a notebook by itself, named by its cell; a broken notebook as it is."""
    data = stream.read(LARGEST_NOTEBOOK + 1)
    stream.seek(0)
    try:
        document = msgspec.json.decode(data) if len(data) <= LARGEST_NOTEBOOK else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document = None
    if not isinstance(document, dict):
        yield from _windows(stream, name, reading, data[:_HEAD])
        return
    reading.read += len(data)
    for place, text in _texts(document):
        inner = text.encode("utf-8", "surrogatepass")
        yield Piece(name=f"{name}!/{place}", data=inner, offset=0, lines=0, fresh=len(inner), is_text=True)


def _texts(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Place and text of everything in a notebook; lines that belong together are joined."""
    sheets = [document, *(sheet for sheet in _list(document.get("worksheets")) if isinstance(sheet, dict))]
    number = 0
    for sheet in sheets:
        for cell in _list(sheet.get("cells")):
            number += 1
            for place, text in _leaves(cell):
                yield f"cell-{number}{place}", text
    for place, text in _leaves({key: value for key, value in document.items() if key not in {"cells", "worksheets"}}):
        yield f"notebook{place}", text


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _leaves(value: Any) -> Iterator[tuple[str, str]]:
    """Texts of a JSON value with the keys that lead there, without recursion. Keys of a text go before it."""
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        place, item = pending.pop()
        if isinstance(item, str):
            yield place, item
        elif isinstance(item, dict):
            pending += [(f"{place}/{_short(key)}", _named(key, inner)) for key, inner in reversed(item.items())]
        elif isinstance(item, list) and item and all(isinstance(line, str) for line in item):
            yield place, "".join(item)
        elif isinstance(item, list):
            pending += [(place, inner) for inner in reversed(item)]


def _short(key: object) -> str:
    return "".join(letter for letter in str(key)[:40] if letter.isalnum() or letter in "-_.")


def _named(key: object, value: Any) -> Any:
    """A single word keeps its key in front, as in the file: the name beside it says that it is a secret."""
    if isinstance(value, str) and "\n" not in value and '"' not in value:
        return f'"{_short(key)}": "{value}"'
    return value
