"""The header of a 7z archive: packed streams, the chains of coders that unpack them, and the files inside.

Format: ``7zFormat.txt`` of the LZMA SDK. A *folder* is one packed stream with its coders; it unpacks
to the content of one or many files, one behind the other.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError, Cursor

END, HEADER, PROPERTIES, ADDITIONAL, STREAMS, FILES, PACK, UNPACK, SUBSTREAMS, SIZES, CRC = range(11)
FOLDER, UNPACK_SIZES, COUNTS, EMPTY_STREAM, EMPTY_FILE, ANTI, NAMES = range(11, 18)
ATTRIBUTES, ENCODED, DUMMY = 0x15, 0x17, 0x19
MOST_CODERS = 8
MOST_STREAMS = 32
UNIX = 0x8000
"""Set in the attributes when their upper half is a Unix mode."""


class Coder(NamedTuple):
    """One step of unpacking."""

    method: bytes
    inputs: int
    outputs: int
    properties: bytes


class Folder(NamedTuple):
    """One packed stream, or several, and how they are unpacked."""

    coders: tuple[Coder, ...]
    bonds: tuple[tuple[int, int], ...]
    """Input and output of coders that are joined."""
    packed: tuple[int, ...]
    """Inputs that packed streams feed."""
    sizes: tuple[int, ...] = ()
    """Bytes that come out of each output."""
    checksum: int | None = None

    @property
    def size(self) -> int:
        """Bytes that the folder unpacks to: those of the output that no input takes."""
        bound = {output for _, output in self.bonds}
        free = [size for index, size in enumerate(self.sizes) if index not in bound]
        if len(free) != 1:
            raise BrokenFormatError("the coders of a folder have no single end")
        return free[0]


class Substream(NamedTuple):
    """The content of one file within its folder."""

    size: int
    checksum: int | None


class File(NamedTuple):
    """One file or folder of the archive."""

    name: str
    has_content: bool
    is_folder: bool
    is_anti: bool
    """Unpacking it removes a file."""
    mode: int


class Streams(NamedTuple):
    """What lies packed in the archive."""

    start: int = 0
    """Offset of the first packed stream behind the signature header."""
    packed: tuple[int, ...] = ()
    """Sizes of the packed streams."""
    folders: tuple[Folder, ...] = ()
    substreams: tuple[tuple[Substream, ...], ...] = ()
    """By folder."""


class HeaderReader:
    """Reads one header; ``most`` bounds every count in it."""

    def __init__(self, data: bytes, most: int) -> None:
        self.cursor = Cursor(data)
        self.most = most

    def number(self) -> int:
        """An integer of one to nine bytes: the leading ones of the first byte tell how many follow."""
        first = self.cursor.unsigned(1)
        follow = 8
        for count in range(8):
            if not first & (0x80 >> count):
                follow = count
                break
        low = self.cursor.unsigned(follow) if follow else 0
        return low | (first & ((0x80 >> follow) - 1 if follow < 8 else 0)) << (8 * follow)  # noqa: PLR2004 -- 64 bits

    def count(self) -> int:
        """A number of things that each take room somewhere."""
        value = self.number()
        if value > self.most:
            raise BrokenFormatError(f"{value} things are announced", self.cursor.at)
        return value

    def kind(self) -> int:
        """The number of a property."""
        return self.cursor.unsigned(1)

    def expect(self, wanted: int) -> None:
        """The property that has to stand here."""
        if (found := self.kind()) != wanted:
            raise BrokenFormatError(f"property {found} stands where {wanted} belongs", self.cursor.at - 1)

    def bits(self, count: int) -> list[bool]:
        """One bit for each of ``count`` things."""
        raw = self.cursor.take((count + 7) // 8)
        return [bool(raw[index >> 3] & (0x80 >> (index & 7))) for index in range(count)]

    def optional_bits(self, count: int) -> list[bool]:
        """The same, with a byte before it that says that all are set."""
        return [True] * count if self.cursor.unsigned(1) else self.bits(count)

    def checksums(self, count: int) -> list[int | None]:
        """A CRC-32 for each thing that has one."""
        return [self.cursor.unsigned(4) if known else None for known in self.optional_bits(count)]

    def streams(self) -> Streams:
        """``StreamsInfo``: packed streams, folders, substreams."""
        start = 0
        packed: tuple[int, ...] = ()
        folders: tuple[Folder, ...] = ()
        substreams: list[tuple[Substream, ...]] | None = None
        while (kind := self.kind()) != END:
            if kind == PACK:
                start, packed = self._pack()
            elif kind == UNPACK:
                folders = self._folders()
            elif kind == SUBSTREAMS:
                substreams = self._substreams(folders)
            else:
                raise BrokenFormatError(f"property {kind} among the streams", self.cursor.at - 1)
        if substreams is None:
            substreams = [(Substream(folder.size, folder.checksum),) for folder in folders]
        return Streams(start, packed, folders, tuple(substreams))

    def _pack(self) -> tuple[int, tuple[int, ...]]:
        start, count = self.number(), self.count()
        sizes: tuple[int, ...] = ()
        while (kind := self.kind()) != END:
            if kind == SIZES:
                sizes = tuple(self.number() for _ in range(count))
            elif kind == CRC:
                self.checksums(count)
            else:
                raise BrokenFormatError(f"property {kind} among the packed streams", self.cursor.at - 1)
        if len(sizes) != count:
            raise BrokenFormatError("packed streams have no sizes", self.cursor.at)
        return start, sizes

    def _folders(self) -> tuple[Folder, ...]:
        self.expect(FOLDER)
        count = self.count()
        if self.cursor.unsigned(1):
            raise BrokenFormatError("folders are described elsewhere", self.cursor.at - 1)
        folders = [self._folder() for _ in range(count)]
        self.expect(UNPACK_SIZES)
        folders = [
            each._replace(sizes=tuple(self.number() for coder in each.coders for _ in range(coder.outputs)))
            for each in folders
        ]
        while (kind := self.kind()) != END:
            if kind != CRC:
                raise BrokenFormatError(f"property {kind} among the folders", self.cursor.at - 1)
            checksums = self.checksums(count)
            folders = [each._replace(checksum=crc) for each, crc in zip(folders, checksums, strict=True)]
        return tuple(folders)

    def _folder(self) -> Folder:
        count = self.number()
        if not 1 <= count <= MOST_CODERS:
            raise BrokenFormatError(f"a folder has {count} coders", self.cursor.at)
        coders = tuple(self._coder() for _ in range(count))
        inputs, outputs = sum(each.inputs for each in coders), sum(each.outputs for each in coders)
        if inputs > MOST_STREAMS or not 1 <= outputs <= MOST_STREAMS or inputs < outputs - 1:
            raise BrokenFormatError("the coders of a folder do not fit together", self.cursor.at)
        bonds = tuple((self.number(), self.number()) for _ in range(outputs - 1))
        bound = {each for each, _ in bonds}
        free = inputs - len(bonds)
        packed = tuple(self.number() for _ in range(free)) if free != 1 else ()
        return Folder(coders, bonds, packed or tuple(index for index in range(inputs) if index not in bound))

    def _coder(self) -> Coder:
        flags = self.cursor.unsigned(1)
        if flags & 0xC0:
            raise BrokenFormatError("a coder has alternatives", self.cursor.at - 1)
        method = self.cursor.take(flags & 0x0F)
        inputs, outputs = (self.number(), self.number()) if flags & 0x10 else (1, 1)
        if inputs > MOST_STREAMS or outputs > MOST_STREAMS:
            raise BrokenFormatError("a coder has too many streams", self.cursor.at)
        properties = self.cursor.take(self.number()) if flags & 0x20 else b""
        return Coder(method, inputs, outputs, properties)

    def _substreams(self, folders: tuple[Folder, ...]) -> list[tuple[Substream, ...]]:
        counts = [1] * len(folders)
        kind = self.kind()
        if kind == COUNTS:
            counts = [self.count() for _ in folders]
            kind = self.kind()
        if sum(counts) > self.most:
            raise BrokenFormatError(f"{sum(counts)} files are announced", self.cursor.at)
        sizes = self._substream_sizes(folders, counts, with_sizes=kind == SIZES)
        kind = self.kind() if kind == SIZES else kind
        known = [folder.checksum if count == 1 else None for folder, count in zip(folders, counts, strict=True)]
        missing = sum(
            count for count, checksum in zip(counts, known, strict=True) if not (count == 1 and checksum is not None)
        )
        found: list[int | None] = [None] * missing
        while kind != END:
            if kind != CRC:
                raise BrokenFormatError(f"property {kind} among the files of a folder", self.cursor.at - 1)
            found = self.checksums(missing)
            kind = self.kind()
        return _joined(sizes, known, found)

    def _substream_sizes(self, folders: tuple[Folder, ...], counts: list[int], *, with_sizes: bool) -> list[list[int]]:
        """Sizes of the files: the last one of a folder is what the others leave."""
        sizes = []
        for folder, count in zip(folders, counts, strict=True):
            first = [self.number() for _ in range(count - 1)] if with_sizes else []
            last = folder.size - sum(first)
            if last < 0 or (count > 1 and not with_sizes):
                raise BrokenFormatError("files are larger than their folder", self.cursor.at)
            sizes.append([*first, last] if count else [])
        return sizes

    def files(self) -> list[File]:
        """``FilesInfo``: names and what else is known of each file."""
        count = self.count()
        names: list[str] = []
        empty = [False] * count
        flags: dict[int, list[bool]] = {}
        modes = [0] * count
        while (kind := self.kind()) != END:
            size = self.number()
            part = HeaderReader(self.cursor.take(size), self.most)
            if kind == EMPTY_STREAM:
                empty = part.bits(count)
            elif kind in {EMPTY_FILE, ANTI}:
                flags[kind] = part.bits(sum(empty))
            elif kind == NAMES:
                names = part.names()
            elif kind == ATTRIBUTES:
                modes = part.modes(count)
        if len(names) != count:
            raise BrokenFormatError(f"{count} files have {len(names)} names", self.cursor.at)
        return _described(names, empty, flags, modes)

    def names(self) -> list[str]:
        """Names in UTF-16, each ended by a zero."""
        if self.cursor.unsigned(1):
            raise BrokenFormatError("names lie elsewhere", self.cursor.at - 1)
        raw = self.cursor.take(self.cursor.left)
        if raw and (len(raw) % 2 or raw[-2:] != b"\0\0"):
            raise BrokenFormatError("the last name has no end")
        return raw.decode("utf-16-le", "surrogatepass").split("\0")[:-1]

    def modes(self, count: int) -> list[int]:
        """Unix modes from the attributes; 0 where there are none."""
        known = self.optional_bits(count)
        if self.cursor.unsigned(1):
            raise BrokenFormatError("attributes lie elsewhere", self.cursor.at - 1)
        values = [struct.unpack("<L", self.cursor.take(4))[0] if each else 0 for each in known]
        return [value >> 16 if value & UNIX else 0 for value in values]


def _joined(sizes: list[list[int]], known: list[int | None], found: list[int | None]) -> list[tuple[Substream, ...]]:
    rest = iter(found)
    return [
        tuple(Substream(size, checksum if checksum is not None else next(rest, None)) for size in each)
        for each, checksum in zip(sizes, known, strict=True)
    ]


def _described(names: list[str], empty: list[bool], flags: dict[int, list[bool]], modes: list[int]) -> list[File]:
    none = [False] * sum(empty)
    empty_files, anti = iter(flags.get(EMPTY_FILE, none)), iter(flags.get(ANTI, none))
    files = []
    for name, without, mode in zip(names, empty, modes, strict=True):
        is_file = not without or next(empty_files, False)
        is_anti = without and next(anti, False)
        files.append(File(name, not without, not is_file, is_anti, mode))
    return files
