"""Zip archives: torch files, npz, keras, skops and plain ones. Every member is examined by its content."""

from __future__ import annotations

import stat
import zlib
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.containers import directory as zd
from bartizan.lifecycle.develop.scan.containers.coders import LZMA_HEADER, MARK, UnsupportedError, zip_lzma
from bartizan.lifecycle.develop.scan.containers.compressed import BombError, Unpacked, unpack
from bartizan.lifecycle.develop.scan.containers.names import leads_out
from bartizan.lifecycle.develop.scan.containers.torch import TorchArchive
from bartizan.lifecycle.develop.scan.containers.torch_export import ExportArchive
from bartizan.lifecycle.develop.scan.detect import detect
from bartizan.lifecycle.develop.scan.formats.embedded import Embedded
from bartizan.lifecycle.develop.scan.formats.keras import KerasArchive
from bartizan.lifecycle.develop.scan.formats.skops import SCHEMA, SkopsArchive
from bartizan.lifecycle.develop.scan.limits import MIB, Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source, chunks, window
from bartizan.lifecycle.develop.scan.verdict import Report

METHODS = {8: "deflate", 12: "bzip2", 14: "lzma", 20: "zstandard", 93: "zstandard", 95: "xz"}
STORED = 0
LZMA = 14
CHECKED_RAW = 1 * MIB
"""Tensors above this are not read for their checksum: the digest of the file covers them."""
SHORTEST_NOTE = 16
"""Bytes of an extra field or comment that are looked at."""


class Member(NamedTuple):
    """One member and where its bytes lie."""

    entry: zd.Entry
    start: int
    end: int
    """Behind the packed content."""


class ZipExaminer:
    """Examines one archive."""

    def __init__(self, source: Source, meter: Meter, examine: Examine) -> None:
        self.source = source
        self.meter = meter
        self.examine = examine
        self.draft = Draft(source, "zip", meter.limits.findings)
        self.claimed: list[tuple[int, int]] = []
        """Spans that belong to some part of the archive."""

    def run(self) -> Report:
        """Read the directory, then every member; report what no part claims."""
        end = zd.find_end(self.source.data)
        if end is None:
            self.draft.fire("zip/malformed", "the end of the directory is missing")
            self.draft.miss("its members cannot be listed")
            return self.draft.close()
        for problem in end.problems:
            self.draft.fire("zip/malformed", problem, end.end_records)
        try:
            entries = zd.read_entries(self.source.data, end, min(self.meter.members, self.meter.limits.members))
        except zd.BrokenZipError as broken:
            self.draft.fire("zip/malformed", str(broken), end.directory)
            self.draft.miss("its members cannot be listed")
            return self.draft.close()
        self.meter.members -= len(entries)
        self.draft.facts["members"] = len(entries)
        self._examine_all(entries)
        self._judge_notes(end, entries)
        self.claimed += [(end.directory, end.directory + end.directory_size), (end.end_records, end.end)]
        self._account(end.prefix)
        return self.draft.close()

    def _judge_notes(self, end: zd.End, entries: list[zd.Entry]) -> None:
        """Extra fields and comments, which nobody reads, are long enough for a program or a pickle."""
        embedded = Embedded(self.draft, self.examine)
        data, seen = self.source.data, set[bytes]()
        spans = [zd.local_extra(data, entry) for entry in entries if 0 <= entry.offset <= len(data) - zd.LOCAL.size]
        for start, stop in (*spans, *zd.notes(data, end)):
            raw = bytes(data[start:stop]) if stop - start >= SHORTEST_NOTE else b""
            if raw and raw not in seen:
                seen.add(raw)
                embedded.judge_text("an extra field or a comment", raw, start)

    def _examine_all(self, entries: list[zd.Entry]) -> None:
        self._judge_names(entries)
        members = self._separate([member for entry in entries if (member := self._locate(entry))])
        names = [member.entry.name for member in members]
        torch = TorchArchive.of(names) or ExportArchive.of(names)
        if torch is None:
            self._examine_plain(members)
            return
        self.draft.kind = "torch"
        pickles = [member for member in members if torch.is_pickle(member.entry.name)]
        rest = [member for member in members if not torch.is_pickle(member.entry.name)]
        for member in pickles:
            report = self._examine_member(member, torch)
            self.draft.members += [report] if report else []
        self.draft.members += [report for member in rest if (report := self._examine_member(member, torch))]
        for key in torch.missing():
            self.draft.fire("torch/storage", f"storage {key!r} is not in the archive")

    def _examine_plain(self, members: list[Member]) -> None:
        """Examine the members of an archive that is none of torch's; in one of skops the schema comes first."""
        skops = SkopsArchive.of([member.entry.name for member in members])
        if skops:
            members = sorted(members, key=lambda member: member.entry.name != SCHEMA)
            self.examine = skops.examiner(self.examine, self.meter.limits)
        elif keras := KerasArchive.of([member.entry.name for member in members]):
            self.draft.kind = "keras"
            self.examine = keras.examiner(self.examine, self.meter)
        self.draft.members += [report for member in members if (report := self._examine_member(member))]
        if skops:
            skops.finish(self.draft)

    def _separate(self, members: list[Member]) -> list[Member]:
        """The members whose bytes are their own: overlapping ones let a small archive unpack to anything."""
        kept = []
        at = 0
        for member in sorted(members, key=lambda each: each.entry.offset):
            if member.entry.offset < at:
                shown = repr(member.entry.name[:80])
                self.draft.fire("archive/bomb", f"member {shown} shares its bytes with another", member.entry.offset)
                self.draft.miss(f"member {shown} was not unpacked")
                continue
            at = max(at, member.end)
            kept.append(member)
        return kept

    def _judge_names(self, entries: list[zd.Entry]) -> None:
        seen: set[str] = set()
        for entry in entries:
            shown = repr(entry.name[:120])
            if entry.name in seen:
                self.draft.fire("zip/duplicate-name", shown, entry.offset)
            seen.add(entry.name)
            if leads_out(entry.name) or (entry.other_name and leads_out(entry.other_name)):
                self.draft.fire("zip/traversal", shown, entry.offset)
            if entry.other_name and (entry.name.isascii() or entry.flags & zd.UTF8):
                self.draft.fire("zip/header-mismatch", f"names {shown} and {entry.other_name[:120]!r}", entry.offset)
            for problem in entry.problems:
                self.draft.fire("zip/malformed", f"{shown}: {problem}", entry.offset)
            if entry.name.endswith("/") and entry.size:
                self.draft.fire("zip/malformed", f"the folder {shown} has content", entry.offset)
            if stat.S_ISLNK(entry.mode):
                self.draft.fire("zip/link", shown, entry.offset)

    def _locate(self, entry: zd.Entry) -> Member | None:
        """Where the content of an entry lies, having compared its two headers."""
        data = self.source.data
        try:
            local = zd.read_local(data, entry)
        except zd.BrokenZipError as broken:
            self.draft.fire("zip/malformed", str(broken))
            self.draft.miss(f"member {entry.name[:80]!r} was not found")
            return None
        self._compare(entry, local)
        end = local.data + entry.packed
        if end > len(data):
            self.draft.fire("zip/malformed", f"member {entry.name[:80]!r} leads past the end", entry.offset)
            end = len(data)
        after = zd.descriptor_end(data, entry, end) if entry.flags & zd.STREAMED else end
        self.claimed.append((entry.offset, after))
        return Member(entry, local.data, end)

    def _compare(self, entry: zd.Entry, local: zd.Local) -> None:
        fields = [
            ("name", entry.name, local.name),
            ("method", entry.method, local.method),
            ("flags", entry.flags, local.flags),
        ]
        sizes = [
            ("checksum", entry.checksum, local.checksum),
            ("packed size", entry.packed, local.packed),
            ("size", entry.size, local.size),
        ]
        streamed = bool(local.flags & zd.STREAMED)
        fields += [each for each in sizes if not (streamed and each[2] in {0, zd.BIG32})]
        for what, central, here in fields:
            if central != here:
                self.draft.fire(
                    "zip/header-mismatch", f"{what} of {entry.name[:80]!r}: {central!r} and {here!r}", entry.offset
                )

    def _examine_member(self, member: Member, torch: TorchArchive | None = None) -> Report | None:
        """Report on one member; None for a folder."""
        entry = member.entry
        if entry.name.endswith("/") and not entry.size and member.start == member.end:
            return None
        source = self.source.child(entry.name, window(self.source.data, member.start, member.end), storages=torch)
        content = self._content(member, source)
        if isinstance(content, Report):
            return content
        source = source._replace(data=content)
        report = torch.examine(source, self.examine, self.meter.limits) if torch else self.examine(source)
        is_raw = report.format == "tensor" and len(content) > CHECKED_RAW
        if not is_raw and _checksum(content) != entry.checksum:
            self.draft.fire("zip/checksum", repr(entry.name[:120]), entry.offset)
        return report

    def _content(self, member: Member, source: Source) -> Buffer | Report:
        """The unpacked bytes of a member, or a report why there are none."""
        entry = member.entry
        if entry.flags & zd.ENCRYPTED:
            if not self._is_plain(member, source.data):
                return self._unread(source, "it is encrypted")
            self.draft.fire("zip/malformed", f"{entry.name[:80]!r} is marked as encrypted and is not", entry.offset)
        if entry.method == STORED:
            if entry.size != entry.packed:
                self.draft.fire("zip/header-mismatch", f"sizes of the stored member {entry.name[:80]!r}", entry.offset)
            return source.data
        if entry.method not in METHODS:
            return self._unread(source, f"compression method {entry.method} is not supported")
        return self._unpack(member, source)

    def _unpack(self, member: Member, source: Source) -> Buffer | Report:
        packed = source.data
        try:
            unpacked = self._unpacked(member, packed)
        except BombError as bomb:
            self.draft.fire("archive/bomb", f"{member.entry.name[:80]!r}: {bomb}", member.entry.offset)
            return self._unread(source, "it exceeds the bounds")
        except UnsupportedError as unsupported:
            return self._unread(source, str(unsupported))
        if unpacked.obstacle:
            unpacked.spool.discard()
            return self._unread(source, unpacked.obstacle)
        for start, end in unpacked.hidden:
            self.draft.gap(member.start + start, member.start + end, "lie in a frame that readers pass over")
        if unpacked.failure or unpacked.used != len(packed):
            why = unpacked.failure or "bytes follow the compressed content"
            self.draft.fire("archive/corrupt", f"{member.entry.name[:80]!r}: {why}", member.start + unpacked.used)
        if unpacked.spool.size != member.entry.size:
            self.draft.fire(
                "zip/header-mismatch",
                f"size of {member.entry.name[:80]!r}: {member.entry.size} announced, {unpacked.spool.size} there",
                member.entry.offset,
            )
        return unpacked.spool.finish()

    def _unpacked(self, member: Member, packed: Buffer) -> Unpacked:
        """The content of a compressed member.

        Raises:
            BombError: it unpacks to more than it may.
            UnsupportedError: its decoder cannot be set up.
        """
        entry = member.entry
        if entry.method != LZMA:
            return unpack(packed, METHODS[entry.method], self.meter, several=False)
        head = bytes(packed[:LZMA_HEADER])
        zip_lzma(head, entry.size)
        make = lambda: zip_lzma(head, entry.size)  # noqa: E731 -- said twice: once to see whether it can be done
        unpacked = unpack(packed[LZMA_HEADER:], "lzma", self.meter, several=False, make=make)
        unpacked.used += LZMA_HEADER
        if 0 < len(packed) - unpacked.used < MARK and unpacked.spool.size == entry.size:
            unpacked.used = len(packed)
        return unpacked

    def _is_plain(self, member: Member, packed: Buffer) -> bool:
        """Whether a member is not encrypted whatever its flag says: torch does not look at the flag (CVE-2025-1945)."""
        entry = member.entry
        if entry.method == STORED:
            return entry.packed == entry.size
        if entry.method not in METHODS:
            return False
        try:
            unpacked = self._unpacked(member, packed)
        except (BombError, UnsupportedError):
            return False
        unpacked.spool.discard()
        return not unpacked.failure and unpacked.used == len(packed)

    def _unread(self, source: Source, why: str) -> Report:
        draft = Draft(source, "unknown", self.meter.limits.findings)
        draft.miss(why)
        return draft.close()

    def _account(self, prefix: int) -> None:
        """Report what lies before, between and behind the parts of the archive, and parts that overlap."""
        data = self.source.data
        at = 0
        for start, end in sorted(self.claimed):
            if start > at:
                self._unclaimed(at, start, is_prefix=at < prefix)
            elif start < at:
                self.draft.fire("zip/malformed", f"parts of the archive overlap by {at - start} bytes", start)
            at = max(at, end)
        if at < len(data):
            self._unclaimed(at, len(data), is_prefix=False)

    def _unclaimed(self, start: int, end: int, *, is_prefix: bool) -> None:
        """Bytes that no part claims: a finding, and examined as well when they look like something that loads."""
        self.draft.gap(start, end, "stand before the archive" if is_prefix else "")
        part = window(self.source.data, start, end)
        if detect(part) not in {"unknown", "empty", "maybe-pickle"} or (is_prefix and detect(part) == "maybe-pickle"):
            self.draft.members.append(self.examine(self.source.child(f"<bytes {start} to {end}>", part)))


def _checksum(data: Buffer) -> int:
    value = 0
    for part in chunks(data, 0, len(data)):
        value = zlib.crc32(part, value)
    return value


def examine_zip(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine an archive and all its members."""
    return ZipExaminer(source, meter, examine).run()
