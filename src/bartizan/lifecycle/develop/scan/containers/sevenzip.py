"""7z archives: every file by content, through the standard library's decoders.

Format: ``7zFormat.txt`` of the LZMA SDK. Understood are Copy, LZMA, LZMA2, Delta, the filters for
branches (BCJ), Deflate, BZip2 and zstd; what needs another coder or a password is not examined.
torch never opens such files, but people unpack them, and scanners that do not let models pass
(CVE-2025-1889 and its relatives).
"""

from __future__ import annotations

import bz2
import lzma
import stat
import struct
import zlib
from collections.abc import Callable, Iterator

from bartizan.lifecycle.develop.scan.containers.coders import MARK, RawLzma, UnsupportedError, within_memory
from bartizan.lifecycle.develop.scan.containers.compressed import (
    BombError,
    Decompressor,
    Inflater,
    unpack,
)
from bartizan.lifecycle.develop.scan.containers.leftover import report_leftover
from bartizan.lifecycle.develop.scan.containers.names import Names
from bartizan.lifecycle.develop.scan.containers.sevenzip_header import (
    ADDITIONAL,
    ENCODED,
    END,
    FILES,
    HEADER,
    PROPERTIES,
    STREAMS,
    Coder,
    File,
    Folder,
    HeaderReader,
    Streams,
    Substream,
)
from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError
from bartizan.lifecycle.develop.scan.limits import Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source, Spool, chunks, window
from bartizan.lifecycle.develop.scan.verdict import Report

START = struct.Struct("<6s2BLQQL")
MOST_THINGS = 1_000_000
"""Files, streams or folders that one header may announce."""
MOST_LAYERS = 4
"""Times that a header may be packed into another."""
COPY, LZMA, LZMA2, DELTA = b"\x00", b"\x03\x01\x01", b"\x21", b"\x03"
DEFLATE, BZIP2, ZSTD, AES = b"\x04\x01\x08", b"\x04\x02\x02", b"\x04\xf7\x11\x01", b"\x06\xf1\x07\x01"
BRANCHES = {
    b"\x04": lzma.FILTER_X86,
    b"\x03\x03\x01\x03": lzma.FILTER_X86,
    b"\x05": lzma.FILTER_POWERPC,
    b"\x03\x03\x02\x05": lzma.FILTER_POWERPC,
    b"\x06": lzma.FILTER_IA64,
    b"\x03\x03\x04\x01": lzma.FILTER_IA64,
    b"\x07": lzma.FILTER_ARM,
    b"\x03\x03\x05\x01": lzma.FILTER_ARM,
    b"\x08": lzma.FILTER_ARMTHUMB,
    b"\x03\x03\x07\x01": lzma.FILTER_ARMTHUMB,
    b"\x09": lzma.FILTER_SPARC,
    b"\x03\x03\x08\x05": lzma.FILTER_SPARC,
}
NAMES_OF_OTHERS = {b"\x03\x04\x01": "PPMd", b"\x03\x03\x01\x1b": "BCJ2", b"\x0a": "ARM64", AES: "AES"}


class SevenZipExaminer:
    """Examines one archive."""

    def __init__(self, source: Source, meter: Meter, examine: Examine) -> None:
        self.source = source
        self.data = source.data
        self.meter = meter
        self.examine = examine
        self.draft = Draft(source, "7z", meter.limits.findings)
        self.claimed: list[tuple[int, int]] = [(0, START.size)]

    def run(self) -> Report:
        """Read the header, then unpack folder after folder."""
        try:
            self._read()
        except (BrokenFormatError, UnicodeDecodeError) as broken:
            self.draft.fire("archive/malformed", str(broken))
            self.draft.miss("its files cannot be listed")
        except UnsupportedError as unsupported:
            self.draft.miss(f"its header cannot be read: {unsupported}")
        except BombError as bomb:
            self.draft.fire("archive/bomb", str(bomb))
            self.draft.miss("its header was not unpacked")
        else:
            self._account()
        return self.draft.close()

    def _read(self) -> None:
        if len(self.data) < START.size:
            raise BrokenFormatError("the archive ends in its first header")
        _, _major, _minor, checksum, offset, size, header_checksum = START.unpack_from(self.data)
        if zlib.crc32(bytes(self.data[12 : START.size])) != checksum:
            self.draft.fire("archive/checksum", "the first header", 8)
        if not size:
            return
        header = self._header(START.size + offset, size, header_checksum)
        reader = self._unfold(header)
        streams, files = self._contents(reader)
        self._examine_all(streams, files)

    def _header(self, start: int, size: int, checksum: int) -> bytes:
        if size > self.meter.limits.header or start + size > len(self.data):
            raise BrokenFormatError(f"its header of {size} bytes at offset {start} is not there")
        self.claimed.append((start, start + size))
        raw = bytes(self.data[start : start + size])
        if zlib.crc32(raw) != checksum:
            self.draft.fire("archive/checksum", "the header", start)
        return raw

    def _unfold(self, header: bytes) -> HeaderReader:
        """The reader of the innermost header: it may be packed like a file."""
        for _ in range(MOST_LAYERS):
            reader = HeaderReader(header, MOST_THINGS)
            kind = reader.kind()
            if kind == HEADER:
                return reader
            if kind != ENCODED:
                raise BrokenFormatError(f"a header begins with property {kind}")
            streams = reader.streams()
            if len(streams.folders) != 1 or streams.folders[0].size > self.meter.limits.header:
                raise BrokenFormatError("the packed header is not one folder of a fair size")
            header = bytes(self._unpack(next(self._placed(streams))[0], streams.folders[0]))
        raise BrokenFormatError(f"the header is packed more than {MOST_LAYERS} times")

    def _contents(self, reader: HeaderReader) -> tuple[Streams, list[File]]:
        streams, files = Streams(), []
        while (kind := reader.kind()) != END:
            if kind == STREAMS:
                streams = reader.streams()
            elif kind == FILES:
                files = reader.files()
            elif kind == ADDITIONAL:
                reader.streams()
                self.draft.miss("it has additional streams")
            elif kind == PROPERTIES:
                while reader.kind() != END:
                    reader.cursor.skip(reader.number())
            else:
                raise BrokenFormatError(f"property {kind} in the header", reader.cursor.at - 1)
        if reader.cursor.left:
            self.draft.fire("archive/malformed", f"{reader.cursor.left} bytes follow the end of the header")
        return streams, files

    def _placed(self, streams: Streams) -> Iterator[tuple[list[Buffer], Folder]]:
        """Each folder with its packed streams."""
        at = START.size + streams.start
        index = 0
        for folder in streams.folders:
            parts: list[Buffer] = []
            for size in streams.packed[index : index + len(folder.packed)]:
                if at + size > len(self.data):
                    raise BrokenFormatError(f"a packed stream of {size} bytes at offset {at} leads past the end")
                self.claimed.append((at, at + size))
                parts.append(window(self.data, at, at + size))
                at += size
            if len(parts) != len(folder.packed):
                raise BrokenFormatError("a folder has no packed stream")
            index += len(parts)
            yield parts, folder
        if index != len(streams.packed):
            raise BrokenFormatError("packed streams belong to no folder")

    def _examine_all(self, streams: Streams, files: list[File]) -> None:
        self.meter.members -= len(files)
        if self.meter.members < 0:
            self.draft.miss(f"more than {self.meter.limits.members} members", rule="file/limit")
            return
        self.draft.facts["members"] = len(files)
        names = Names(self.draft)
        for file in files:
            names.take(file.name, is_folder=file.is_folder or stat.S_ISLNK(file.mode))
            if file.is_anti:
                self.draft.fire("archive/traversal", f"unpacking removes the file {file.name[:120]!r}")
        with_content = iter([file for file in files if file.has_content])
        for (parts, folder), substreams in zip(self._placed(streams), streams.substreams, strict=True):
            inside = [(next(with_content, None), each) for each in substreams]
            self._examine_folder(parts, folder, inside, names)
        if next(with_content, None) is not None:
            raise BrokenFormatError("a file has no content")

    def _examine_folder(
        self, parts: list[Buffer], folder: Folder, inside: list[tuple[File | None, Substream]], names: Names
    ) -> None:
        first = inside[0][0].name if inside and inside[0][0] else "a folder"
        try:
            content = self._unpack(parts, folder)
        except UnsupportedError as unsupported:
            self.draft.miss(f"{first[:80]!r} and {max(len(inside) - 1, 0)} more were not unpacked: {unsupported}")
            return
        except BombError as bomb:
            self.draft.fire("archive/bomb", f"{first[:80]!r}: {bomb}")
            self.draft.miss(f"{first[:80]!r} exceeds the bounds")
            return
        at = 0
        for file, substream in inside:
            self._examine_file(file, substream, window(content, at, at + substream.size), names)
            at += substream.size

    def _examine_file(self, file: File | None, substream: Substream, content: Buffer, names: Names) -> None:
        name = file.name if file else "<file without a name>"
        if file is None:
            self.draft.fire("archive/malformed", "content belongs to no file")
        elif stat.S_ISLNK(file.mode):
            names.take_link(name, bytes(content[:4096]).decode("utf-8", "replace"))
            return
        elif file.mode & (stat.S_ISUID | stat.S_ISGID):
            self.draft.fire("archive/privileges", f"mode {file.mode:o} of {name[:120]!r}")
        if len(content) == substream.size and substream.checksum not in {None, _checksum(content)}:
            self.draft.fire("archive/checksum", repr(name[:120]))
        self.draft.members.append(self.examine(self.source.child(name, content)))

    def _unpack(self, parts: list[Buffer], folder: Folder) -> Buffer:
        """What a folder unpacks to, as much of it as can be had.

        Raises:
            UnsupportedError: a coder is not known.
            BombError: it is more than the scan may spend.
        """
        content = parts[0]
        chain = _chain(folder)
        for coder, size in chain:
            content = self._decode(coder, content, size)
        if folder.checksum is not None and _checksum(content) != folder.checksum:
            self.draft.fire("archive/checksum", "a folder of the archive")
        return content

    def _decode(self, coder: Coder, content: Buffer, size: int) -> Buffer:
        if coder.method == COPY:
            return window(content, 0, size)
        if coder.method in BRANCHES or coder.method == DELTA:
            return self._filter(coder, content, size)
        kind, make = _maker(coder, size)
        unpacked = unpack(content, kind, self.meter, several=kind == "zstandard", make=make)
        if unpacked.used + (MARK if coder.method == LZMA else 0) < len(content) and not unpacked.failure:
            self.draft.fire("archive/corrupt", "bytes follow the packed content of a folder of the archive")
        if unpacked.failure or unpacked.obstacle or unpacked.spool.size != size:
            why = unpacked.failure or unpacked.obstacle or f"{unpacked.spool.size} of {size} bytes"
            self.draft.fire("archive/corrupt", f"a folder of the archive: {why}")
            self.draft.miss("a folder of the archive was not unpacked to its end")
        return unpacked.spool.finish()

    def _filter(self, coder: Coder, content: Buffer, size: int) -> Buffer:
        """Undo a filter. The decoder wants LZMA behind it, so the bytes are wrapped as LZMA2 stores them."""
        filters: list[dict[str, int]] = [{"id": BRANCHES.get(coder.method, lzma.FILTER_DELTA)}, _STORED]
        if coder.method == DELTA:
            filters[0]["dist"] = (coder.properties or b"\0")[0] + 1
        elif len(coder.properties) == 4:  # noqa: PLR2004 -- an offset to begin with
            filters[0]["start_offset"] = int.from_bytes(coder.properties, "little")
        self.meter.expanded -= len(content)
        if self.meter.expanded < 0:
            raise BombError(f"more than {self.meter.limits.expanded} bytes unpacked in all")
        spool = Spool(self.meter.limits.in_memory)
        try:
            machine = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
            for part in _as_lzma2(content):
                spool.write(machine.decompress(part))
        except (lzma.LZMAError, ValueError, EOFError) as error:
            spool.discard()
            raise BrokenFormatError(f"a filter of a folder: {error}") from error
        if spool.size != size:
            self.draft.fire("archive/corrupt", f"a folder of the archive: {spool.size} of {size} bytes")
        return spool.finish()

    def _account(self) -> None:
        """Report what lies between and behind the parts of the archive."""
        at = 0
        for start, end in sorted(self.claimed):
            if start > at:
                report_leftover(self.draft, self.examine, at, start, "belong to no file")
            elif start < at and end > start:
                self.draft.fire("archive/malformed", "parts of the archive overlap", start)
            at = max(at, end)
        if at < len(self.data):
            report_leftover(self.draft, self.examine, at, len(self.data), "follow the archive")


_STORED: dict[str, int] = {"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}
_LONGEST_STORED = 1 << 16


def _as_lzma2(content: Buffer) -> Iterator[bytes]:
    """The bytes as LZMA2 stores what it cannot compress: pieces behind a control byte and their size."""
    control = b"\x01"
    for start in range(0, len(content), _LONGEST_STORED):
        part = bytes(content[start : start + _LONGEST_STORED])
        yield control + struct.pack(">H", len(part) - 1) + part
        control = b"\x02"
    yield b"\0"


def _chain(folder: Folder) -> list[tuple[Coder, int]]:
    """The coders in the order in which they unpack, each with the size of what comes out.

    Raises:
        UnsupportedError: they are not a simple chain.
        BrokenFormatError: they do not fit together.
    """
    for coder in folder.coders:
        if coder.method in NAMES_OF_OTHERS:
            encrypted = "it is encrypted with " if coder.method == AES else "the coder is "
            raise UnsupportedError(encrypted + NAMES_OF_OTHERS[coder.method])
        if (coder.inputs, coder.outputs) != (1, 1):
            raise UnsupportedError(f"the coder {coder.method.hex()} joins several streams")
    following = {output: taken for taken, output in folder.bonds}
    chain: list[tuple[Coder, int]] = []
    at = folder.packed[0] if len(folder.packed) == 1 else -1
    while 0 <= at < len(folder.coders) and len(chain) < len(folder.coders):
        chain.append((folder.coders[at], folder.sizes[at]))
        at = following.get(at, -1)
    if len(chain) != len(folder.coders) or at != -1:
        raise BrokenFormatError("the coders of a folder are no chain")
    return chain


def _maker(coder: Coder, size: int) -> tuple[str, Callable[[], Decompressor] | None]:
    """The kind of a coder, and what makes its decompressor."""
    if coder.method == LZMA2 and len(coder.properties) == 1:
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": _lzma2_dictionary(coder.properties[0])}]
        return "raw", lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
    if coder.method == LZMA and len(coder.properties) == 5:  # noqa: PLR2004 -- one byte of bits and a size
        return "raw", lambda: RawLzma(coder.properties, size)
    if coder.method == DEFLATE:
        return "deflate", lambda: Inflater(-15)
    if coder.method == BZIP2:
        return "bzip2", bz2.BZ2Decompressor
    if coder.method == ZSTD:
        return "zstandard", None
    raise UnsupportedError(f"the coder {coder.method.hex() or 'without a number'} is not known")


def _lzma2_dictionary(described: int) -> int:
    if described > 40:  # noqa: PLR2004 -- 4 GiB
        raise BrokenFormatError("LZMA2 has no such dictionary")
    size = 0xFFFFFFFF if described == 40 else (2 | described & 1) << (described // 2 + 11)  # noqa: PLR2004
    return within_memory(size)


def _checksum(content: Buffer) -> int:
    value = 0
    for part in chunks(content, 0, len(content)):
        value = zlib.crc32(part, value)
    return value


def examine_sevenzip(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine an archive and all its files."""
    return SevenZipExaminer(source, meter, examine).run()
