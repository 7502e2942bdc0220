"""Tar archives: every member by content, every block accounted for.

Formats and sources: see ``tar_header``; pax records and sparse files as in the manuals of POSIX
``pax`` and GNU tar. Readers differ in whose size counts when two are given (CVE-2025-62518), in what
they make of blocks behind the end, and in whether links are followed (CVE-2007-4559, CVE-2025-4517).
"""

from __future__ import annotations

from bartizan.lifecycle.develop.scan.containers import tar_sparse
from bartizan.lifecycle.develop.scan.containers.leftover import report_leftover, zeros_end
from bartizan.lifecycle.develop.scan.containers.names import Names
from bartizan.lifecycle.develop.scan.containers.tar_header import BLOCK, Header, is_header, read_header, text
from bartizan.lifecycle.develop.scan.containers.tar_pax import Records, read_records
from bartizan.lifecycle.develop.scan.containers.torch_tar import TorchTar
from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError
from bartizan.lifecycle.develop.scan.limits import MIB, Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source, window
from bartizan.lifecycle.develop.scan.verdict import Report

FILES = frozenset("07\0")
SPARSE = "S"
HARD, SOFT, FOLDER = "1", "2", "5"
SPECIAL = {"3": "a character device", "4": "a block device", "6": "a pipe"}
LONG_NAME, LONG_TARGET = "L", "K"
PAX, PAX_GLOBAL, PAX_SOLARIS = "x", "g", "X"
WITHOUT_CONTENT = frozenset({HARD, SOFT, FOLDER, *SPECIAL})
LONGEST_HEADER = 1 * MIB
"""Bytes of names and records in front of one member."""
SET_ID = 0o6000
MOST_IN_FIELD = 8**11
"""From this size on the field of a header is too narrow."""


class TarExaminer:
    """Examines one archive, or several in a row."""

    def __init__(self, source: Source, meter: Meter, examine: Examine) -> None:
        self.source = source
        self.data = source.data
        self.meter = meter
        self.examine = examine
        self.draft = Draft(source, "tar", meter.limits.findings)
        self.names = Names(self.draft)
        self.global_records: Records = {}
        self.records: Records = {}
        self.long_name = ""
        self.long_target = ""
        self.members: list[tuple[str, Buffer]] = []
        """Names and contents of the files."""

    def run(self) -> Report:
        """Read header after header, then examine the files."""
        at = 0
        while at >= 0:
            at = self._step(at)
        self._examine_all()
        self.draft.facts["members"] = len(self.members)
        return self.draft.close()

    def _examine_all(self) -> None:
        torch = TorchTar.of((name for name, _ in self.members), self.meter, self.examine)
        if torch is None:
            self.draft.members += [self.examine(self.source.child(*member)) for member in self.members]
            return
        self.draft.kind = "torch"
        order = ("storages", "tensors", "pickle")
        first = sorted((each for each in self.members if each[0] in order), key=lambda each: order.index(each[0]))
        rest = [each for each in self.members if each[0] not in order]
        self.draft.members += [torch.report(self.source.child(*member)) for member in (*first, *rest)]

    def _step(self, at: int) -> int:
        """Take what begins at an offset; returns where to go on, -1 at the end."""
        if at >= len(self.data):
            self.draft.fire("archive/malformed", "the blocks that end the archive are missing", at)
            return -1
        block = bytes(self.data[at : at + BLOCK])
        if not any(block):
            return self._finish(at)
        if not is_header(block):
            self.draft.fire("archive/malformed", "a block is no header of a member", at)
            report_leftover(self.draft, self.examine, at, len(self.data), "follow the last member")
            return -1
        if self.meter.members <= 0:
            self.draft.miss(f"more than {self.meter.limits.members} members", rule="file/limit")
            return -1
        self.meter.members -= 1
        return self._take(at, read_header(block))

    def _finish(self, at: int) -> int:
        """The end: zeros, which may fill a whole record. Another archive behind them is examined too."""
        rest = zeros_end(self.draft, at, len(self.data))
        if rest == len(self.data):
            return -1
        again = at + (rest - at) // BLOCK * BLOCK
        if is_header(self.data[again : again + BLOCK]):
            self.draft.gap(again, len(self.data), "are another archive behind the end of the first")
            return again
        report_leftover(self.draft, self.examine, rest, len(self.data), "follow the end of the archive")
        return -1

    def _take(self, at: int, header: Header) -> int:
        for problem in header.problems:
            self.draft.fire("archive/malformed", f"{problem}: {header.name[:80]!r}", at)
        start = at + BLOCK
        if header.kind in {LONG_NAME, LONG_TARGET, PAX, PAX_GLOBAL, PAX_SOLARIS}:
            self._take_words(start, header)
            return self._behind(start, header.size, header)
        return self._take_member(at, header)

    def _take_words(self, start: int, header: Header) -> None:
        """A name that is too long for its field, or records about the next member."""
        raw = bytes(self.data[start : start + min(header.size, LONGEST_HEADER)])
        if header.size > LONGEST_HEADER:
            self.draft.fire("archive/malformed", f"{header.size} bytes describe one member", start)
        if header.kind == LONG_NAME:
            self.long_name = text(raw)
        elif header.kind == LONG_TARGET:
            self.long_target = text(raw)
        else:
            kept = self.global_records if header.kind == PAX_GLOBAL else self.records
            for problem in read_records(raw, kept):
                self.draft.fire("archive/malformed", problem, start)

    def _take_member(self, at: int, header: Header) -> int:
        records = self.global_records | self.records
        name, target = self._names_of(header, records)
        size = self._size_of(at, header, records)
        self.records, self.long_name, self.long_target = {}, "", ""
        start = at + BLOCK
        if header.kind not in WITHOUT_CONTENT and not (name.endswith("/") and not size):
            start = self._take_file(at, header._replace(size=size), name, records)
            return self._behind(start, size, header)
        self._take_other(at, header, name, target)
        if size:
            self.draft.fire("archive/header-mismatch", f"{name[:80]!r} is no file and has {size} bytes", at)
            self._hold(name, start, start + size)
        return self._behind(start, size, header)

    def _names_of(self, header: Header, records: Records) -> tuple[str, str]:
        """Name and link target as the last of their descriptions has them; all of them are judged."""
        sparse = records.get("GNU.sparse.name", "")
        names = [header.short_name, header.name, self.long_name, records.get("path", ""), sparse]
        name = _last(names)
        for each in sorted({*names} - {"", name}):
            self.names.take(each, is_folder=True)
        return name, _last([header.target, self.long_target, records.get("linkpath", "")])

    def _size_of(self, at: int, header: Header, records: Records) -> int:
        """Size of the content: a pax record goes before the field, which may be too narrow for it."""
        if "size" not in records:
            return header.size
        given = records["size"]
        if not given.isascii() or not given.isdigit() or len(given) > 20:  # noqa: PLR2004 -- 64 bits
            self.draft.fire("archive/malformed", f"the size record {given[:40]!r} is no number", at)
            return header.size
        size = int(given)
        if size != header.size and size < MOST_IN_FIELD:
            self.draft.fire("archive/header-mismatch", f"sizes of {header.name[:80]!r}: {header.size} and {size}", at)
            self._examine_other_size(at, header)
        return size

    def _examine_other_size(self, at: int, header: Header) -> None:
        """What readers see next that go by the other size is hidden from those that go by this one."""
        following = at + BLOCK + _padded(header.size)
        if is_header(self.data[following : following + BLOCK]):
            self.draft.members.append(
                self.examine(
                    self.source.child(f"<archive at {following}>", window(self.data, following, len(self.data)))
                )
            )

    def _take_other(self, at: int, header: Header, name: str, target: str) -> None:
        if header.kind in SPECIAL:
            self.draft.fire("archive/special-file", f"{name[:120]!r} is {SPECIAL[header.kind]}", at)
            self.names.take(name, at)
        elif header.kind in {HARD, SOFT}:
            self.names.take_link(name, target, at, is_hard=header.kind == HARD)
        else:
            self.names.take(name, at, is_folder=True)

    def _take_file(self, at: int, header: Header, name: str, records: Records) -> int:
        """A file, whole or sparse; returns where its packed content begins."""
        self.names.take(name, at)
        if header.mode & SET_ID:
            self.draft.fire("archive/privileges", f"mode {header.mode:o} of {name[:120]!r}", at)
        if header.kind not in FILES and header.kind != SPARSE:
            self.draft.fire("archive/malformed", f"{name[:80]!r} is of the unknown type {header.kind!r}", at)
        start = at + BLOCK
        try:
            layout = tar_sparse.layout_of(self.data, at, header, records)
        except BrokenFormatError as broken:
            self.draft.fire("archive/malformed", f"the map of {name[:80]!r}: {broken}", at)
            layout = None
        if layout is None:
            self._hold(name, start, start + header.size)
            return start
        content = tar_sparse.expand(self.data, layout, self.meter)
        if content is None:
            self.draft.fire("archive/bomb", f"{name[:80]!r} unpacks to {layout.size} bytes", at)
            self.draft.miss(f"{name[:80]!r} was not unpacked")
        else:
            self.members.append((name, content))
        return layout.start

    def _hold(self, name: str, start: int, end: int) -> None:
        self.members.append((name, window(self.data, start, min(end, len(self.data)))))

    def _behind(self, start: int, size: int, header: Header) -> int:
        """Offset behind a member and the zeros that fill its last block."""
        end = start + size
        if end > len(self.data):
            self.draft.fire("archive/malformed", f"{header.name[:80]!r} leads past the end", start)
            return -1
        after = min(start + _padded(size), len(self.data))
        if zeros_end(self.draft, end, after) < after:
            report_leftover(self.draft, self.examine, end, after, "fill the last block of a member")
        return after


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _last(values: list[str]) -> str:
    return next((value for value in reversed(values) if value), "")


def examine_tar(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine an archive and all its members."""
    return TarExaminer(source, meter, examine).run()
