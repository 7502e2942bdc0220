"""Bounded access to the bytes of an HDF5 file: addresses, cursors, the superblock, and who owns which bytes."""

from __future__ import annotations

from bartizan.lifecycle.develop.scan.formats.hdf5.checksum import lookup3
from bartizan.lifecycle.develop.scan.limits import LimitError
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MOST_STEPS = 1_000_000
"""Structures (nodes, messages, heap objects) read from one file."""
SIZES = frozenset({2, 4, 8, 16, 32})
"""Widths of addresses and lengths."""


class BrokenHdf5Error(Exception):
    """A structure is not what the format says; the text says which."""


class UnknownHdf5Error(Exception):
    """A structure that this reader does not know; the text says which."""


class File:
    """The bytes of a file together with what its superblock says about them."""

    def __init__(self, data: Buffer, start: int) -> None:
        self.data = data
        self.start = start
        """Where the superblock stands."""
        self.base = start
        self.offset_size = 8
        self.length_size = 8
        self.end = len(data)
        """Where the file ends by its superblock."""
        self.root = 0
        self.extension: int | None = None
        self.driver: int | None = None
        self.claimed: list[tuple[int, int]] = []
        """Spans that belong to some structure."""
        self.steps = MOST_STEPS
        self.faults: list[tuple[str, int]] = []
        """Wrong checksums, with the place of the block."""
        self._sums: set[int] = set()

    def step(self) -> None:
        """Count one structure.

        Raises:
            LimitError: too many.
        """
        self.steps -= 1
        if self.steps < 0:
            raise LimitError(f"more than {MOST_STEPS} structures")

    def cursor(self, at: int, size: int, what: str) -> Cursor:
        """A cursor over ``size`` bytes, which become claimed.

        Raises:
            BrokenHdf5Error: they lead past the end.
        """
        self.step()
        if at < 0 or size < 0 or at + size > len(self.data):
            raise BrokenHdf5Error(f"{what} at {at} leads past the end")
        self.claim(at, at + size)
        return Cursor(self, at, at + size, what)

    def claim(self, start: int, end: int) -> None:
        """Note that a span belongs to some structure."""
        if self.claimed and self.claimed[-1][1] == start:
            start = self.claimed.pop()[0]
        self.claimed.append((start, end))

    def verify(self, start: int, end: int, what: str) -> None:
        """Compare the checksum that follows a block with the block's own (section II.A, "Checksum")."""
        if start in self._sums or end + 4 > len(self.data):
            return
        self._sums.add(start)
        stored = int.from_bytes(bytes(self.data[end : end + 4]), "little")
        if lookup3(bytes(self.data[start:end])) != stored:
            self.faults.append((what, start))


class Cursor:
    """Reads one structure from its first byte on, never past its end."""

    def __init__(self, file: File, at: int, end: int, what: str) -> None:
        self.file = file
        self.at = at
        self.end = end
        self.what = what

    @property
    def left(self) -> int:
        """Bytes that have not been read."""
        return self.end - self.at

    def take(self, size: int) -> bytes:
        """The next bytes.

        Raises:
            BrokenHdf5Error: there are fewer.
        """
        self.skip(size)
        return bytes(self.file.data[self.at - size : self.at])

    def skip(self, size: int) -> None:
        """Step over bytes; see ``take``."""
        if size < 0 or self.at + size > self.end:
            raise BrokenHdf5Error(f"{self.what} ends early at {self.at}")
        self.at += size

    def uint(self, size: int) -> int:
        """An unsigned number, low byte first."""
        return int.from_bytes(self.take(size), "little")

    def length(self) -> int:
        """A length of the file's width."""
        return self.uint(self.file.length_size)

    def address(self) -> int | None:
        """A place in the bytes; None for the undefined address."""
        value = self.uint(self.file.offset_size)
        return None if value == (1 << 8 * self.file.offset_size) - 1 else self.file.base + value

    def text(self) -> bytes:
        """Bytes up to a NUL, which is stepped over."""
        window = bytes(self.file.data[self.at : min(self.end, self.at + 65536)])
        end = window.find(b"\0")
        if end < 0:
            raise BrokenHdf5Error(f"a name in {self.what} at {self.at} has no end")
        self.at += end + 1
        return window[:end]

    def expect(self, signature: bytes, versions: frozenset[int] = frozenset({0})) -> int:
        """Step over a signature and return the version behind it.

        Raises:
            BrokenHdf5Error: other bytes stand there.
            UnknownHdf5Error: a version that is not known.
        """
        if self.take(len(signature)) != signature:
            raise BrokenHdf5Error(f"{self.what} at {self.at - len(signature)} has no signature {signature.decode()}")
        version = self.uint(1)
        if version not in versions:
            raise UnknownHdf5Error(f"{self.what} of version {version}")
        return version


def find_superblock(data: Buffer) -> int | None:
    """Where the first superblock stands: at 0, 512, 1024 ... (section II.A); None when there is none."""
    at = 0
    while at + len(SIGNATURE) <= len(data):
        if bytes(data[at : at + len(SIGNATURE)]) == SIGNATURE:
            return at
        at = at * 2 or 512
    return None


def open_file(data: Buffer, start: int) -> File:
    """Read the superblock (section II.A).

    Raises:
        BrokenHdf5Error: it is damaged.
        UnknownHdf5Error: its version is not known.
    """
    file = File(data, start)
    cursor = file.cursor(start, min(len(data) - start, 128), "superblock")
    file.claimed.pop()
    version = cursor.expect(SIGNATURE, frozenset(range(4)))
    if version < 2:  # noqa: PLR2004
        _old_superblock(file, cursor, version)
    else:
        _new_superblock(file, cursor)
    file.claimed.append((start, cursor.at))
    return file


def _widths(file: File, cursor: Cursor) -> None:
    file.offset_size, file.length_size = cursor.uint(1), cursor.uint(1)
    if not {file.offset_size, file.length_size} <= SIZES:
        raise BrokenHdf5Error(f"addresses of {file.offset_size} and lengths of {file.length_size} bytes")


def _place(cursor: Cursor, what: str) -> int:
    place = cursor.address()
    if place is None:
        raise BrokenHdf5Error(f"the superblock names no {what}")
    return place


def _old_superblock(file: File, cursor: Cursor, version: int) -> None:
    cursor.skip(4)  # versions of parts, all zero, and a reserved byte
    _widths(file, cursor)
    cursor.skip(1 + 4 + 4 + (4 if version else 0))  # tree ranks and flags
    file.base = 0
    file.base = _place(cursor, "base")
    cursor.address()  # free space, never kept in this version
    file.end = cursor.uint(file.offset_size)  # counts from the first byte of the file, whatever the base
    file.driver = cursor.address()
    cursor.address()  # name of the root
    file.root = _place(cursor, "root")
    cursor.skip(24)


def _new_superblock(file: File, cursor: Cursor) -> None:
    _widths(file, cursor)
    cursor.skip(1)
    file.base = 0
    file.base = _place(cursor, "base")
    file.extension = cursor.address()
    file.end = cursor.uint(file.offset_size)  # counts from the first byte of the file, whatever the base
    file.root = _place(cursor, "root")
    file.verify(file.start, cursor.at, "superblock")
    cursor.skip(4)
