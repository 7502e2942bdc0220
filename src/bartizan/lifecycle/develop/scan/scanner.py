"""Scans files and folders: ``scan_path`` and ``scan_bytes``.

Nothing that is scanned is loaded, imported, unpacked to a named place or executed. Formats are told
by content; a format that is not known is reported as not examined. Symbolic links are followed only
where the caller asks for it, and then only as ``links`` says.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

from msgspec.structs import replace

from bartizan.core.digest import ManifestEntry, digest_bytes, manifest_root
from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.develop.scan import detect, registry
from bartizan.lifecycle.develop.scan.containers.directory import CENTRAL, EOCD_MAGIC, find_end
from bartizan.lifecycle.develop.scan.containers.tar_header import is_header
from bartizan.lifecycle.develop.scan.limits import MIB, LimitError, Limits, Meter
from bartizan.lifecycle.develop.scan.links import Links
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.pickle.examine import examine_maybe_pickle
from bartizan.lifecycle.develop.scan.pickle.opcodes import VALID
from bartizan.lifecycle.develop.scan.source import Draft, Folder, Source, has_changed, printable, read_file, window
from bartizan.lifecycle.develop.scan.verdict import Coverage, Report, Verdict

VERSION = "1"
"""Raised whenever the same bytes may get another verdict; the digest of the allow-lists comes on top."""
DEFAULT_LIMITS = Limits()
NOT_KNOWN = "the format is not known"
"""Why a file is not examined that is whole and readable and in no format that is known."""
PARALLEL_BYTES = 256 * MIB
PARALLEL_FILES = 500
"""Folders with less than both are scanned sooner by one process than others are started."""


R = TypeVar("R")
Progress = Callable[[int, int, str], None]
"""Called with bytes done, bytes in all and the name of a file."""


class Job(NamedTuple):
    """One file of a folder."""

    path: str
    name: str
    where: str
    size: int


class Scan:
    """One scan and what it may spend. With ``jobs`` above 1 the files of large folders go to that many processes."""

    def __init__(
        self, limits: Limits, *, jobs: int = 1, progress: Progress | None = None, follow: bool = False
    ) -> None:
        self.limits = limits
        self.meter = Meter(limits)
        self.jobs = jobs
        self.follow = follow
        self.progress = progress or _silent

    def examine(self, source: Source) -> Report:
        """Examine bytes whatever they are."""
        if source.depth > self.limits.nesting:
            return self._unexamined(
                source, "unknown", f"containers are nested more than {self.limits.nesting} deep", "file/limit"
            )
        kind = detect.detect(source.data)
        report = _honour_claims_of_members(self._examine_as(kind, source))
        others = self._other_readings(kind, source, report)
        if not others:
            return report
        draft = Draft(source, report.format, self.limits.findings)
        draft.members = [report, *others]
        return draft.close()

    def _other_readings(self, kind: str, source: Source, report: Report) -> list[Report]:
        """The same bytes as other loaders read them: ``torch.load`` asks for zip, then tar, then pickle."""
        readings = []
        is_archive = kind in {"tar", "7z"}
        if kind not in {"zip", "tflite"} and report.format != "zip" and _has_directory(source, in_archive=is_archive):
            archive = _archive(source) if report.total_coverage is Coverage.EXAMINED else source.data
            readings.append(self._examine_as("zip", source.child("<archive at the end>", archive)))
        if kind != "tar" and is_header(source.data):
            readings.append(self._examine_as("tar", source.child("<tar archive from the front>", source.data)))
        front = detect.front(source.data) if kind == "tar" else "unknown"
        if registry.examiner(front):
            readings.append(self._examine_as(front, source.child(f"<{front} from the front>", source.data)))
        return readings

    def _examine_as(self, kind: str, source: Source) -> Report:
        if kind == "empty":
            return Draft(source, "empty", self.limits.findings).close()
        if examine := registry.examiner(kind):
            examined = self._guarded(examine, kind, source)
            # A zip archive begins with the opcode of a persistent id, at which every plain unpickler stops.
            may_run = source.data[0] in VALID and kind not in {"pickle", "zip"}
            return self._examine_opcodes(source, examined) if may_run else examined
        if source.data[0] in VALID:
            report = self._guarded(examine_maybe_pickle, "pickle", source)
            if report is not None:
                return report
        if kind in registry.FORMATS:
            return self._unexamined(source, kind, f"{kind} files are not examined")
        kind = detect.recognise(source)
        if examine := registry.examiner(kind):
            return self._guarded(examine, kind, source)
        return self._unexamined(source, "unknown", NOT_KNOWN)

    def _guarded(self, examine: Callable[..., R], kind: str, source: Source) -> R | Report:
        """What an examiner says; bytes that it was not made for are suspicious and not examined, and others go on."""
        try:
            return examine(source, self.meter, self.examine)
        except LimitError as limit:
            return self._unexamined(source, kind, str(limit), "file/limit")
        except Exception as error:  # noqa: BLE001 - one file must neither end the scan of others nor pass for clean
            draft = Draft(source, kind, self.limits.findings)
            draft.fire("file/unforeseen", f"{type(error).__name__}: {error}"[:200])
            draft.miss(f"reading it as {kind} failed", Coverage.NOT_EXAMINED)
            return draft.close()

    def _examine_opcodes(self, source: Source, report: Report) -> Report:
        """A file of another format whose bytes also do harm when they are read as a pickle is examined as both."""
        beside = source.child("<read as a pickle>", source.data)
        hidden = self._guarded(examine_maybe_pickle, "pickle", beside)
        if hidden is None or hidden.verdict is not Verdict.DANGEROUS:
            return report
        return replace(report, members=(*report.members, hidden))

    def _unexamined(self, source: Source, kind: str, reason: str, rule: str = "file/not-examined") -> Report:
        draft = Draft(source, kind, self.limits.findings)
        draft.miss(reason, Coverage.NOT_EXAMINED, rule=rule)
        return draft.close()

    def file(self, path: Path, name: str, where: str) -> Report:
        """Examine one file; what cannot be opened is not examined."""
        empty = Source(b"", name, where)
        try:
            opened = read_file(path, self.meter)
        except ArtefactError as error:
            return self._unexamined(empty, "unknown", error.message)
        report = self.named(Source(opened.data, name, where))
        if has_changed(path, opened):
            return self._unexamined(empty, "unknown", "it changed while it was scanned")
        return replace(report, digest=opened.digest)

    def named(self, source: Source) -> Report:
        """Examine a source and compare its content with what its name promises."""
        report = self.examine(source)
        if not detect.promises_other(source.name, report.format) or report.coverage is Coverage.NOT_EXAMINED:
            return report
        draft = Draft(source, report.format, self.limits.findings)
        draft.fire("file/misnamed", f"{source.name!r} holds {report.format}")
        return _merge(report, draft.close())

    def folder(self, path: Path) -> Report:
        """Examine all files below a folder, in the order of their names."""
        name = _name(path)
        source = Source(b"", name, name)
        draft = Draft(source, "folder", self.limits.findings)
        found = self._walk(path, draft)
        reports = self._files(source.name, found)
        _honour_claims(reports)
        for examiner in registry.FOLDER_EXAMINERS:
            registry.load(examiner)(Folder(path, reports, dict(found)), draft)
        draft.members += reports.values()
        entries = [ManifestEntry(name, report.digest) for name, report in reports.items() if report.digest is not None]
        digest = manifest_root(entries) if entries else None
        return replace(draft.close(digest), size=sum(report.size for report in reports.values()))

    def _files(self, folder: str, found: list[tuple[str, str]]) -> dict[str, Report]:
        """Reports on files by name, in the order of ``found``: names and paths."""
        jobs = [Job(path, name, f"{folder}/{name}", _size(path)) for name, path in found]
        total = sum(job.size for job in jobs)
        if self.jobs > 1 and (total > PARALLEL_BYTES or len(jobs) > PARALLEL_FILES):
            in_parallel = registry.load("parallel:scan_in_parallel")
            return cast("dict[str, Report]", in_parallel(jobs, self.limits, self.jobs, self.progress))
        reports = {}
        done = 0
        for job in jobs:
            self.progress(done, total, job.name)
            reports[job.name] = self.file(Path(job.path), job.name, job.where)
            done += job.size
        return reports

    def _walk(self, root: Path, draft: Draft) -> list[tuple[str, str]]:
        """Names, relative to ``root``, and paths of the files below; links and unreadable folders are noted."""
        links = Links(root) if self.follow else None
        found: list[tuple[str, str]] = []
        todo: list[tuple[str, str, int]] = [(str(root), "", 0)]
        while todo:
            folder, prefix, depth = todo.pop()
            for entry in _list(folder, draft):
                name = prefix + printable(entry.name)
                target = links.target(entry.path) if links and entry.is_symlink() else None
                if entry.is_symlink() and target is None:
                    draft.miss(f"{name} is a symbolic link and is not followed")
                elif entry.is_dir(follow_symlinks=False):
                    if depth >= self.limits.folder_depth:
                        draft.miss(f"{name} lies more than {self.limits.folder_depth} folders deep", rule="file/limit")
                    else:
                        todo.append((entry.path, f"{name}/", depth + 1))
                elif self.meter.members <= 0:
                    draft.miss(f"more than {self.limits.members} files", rule="file/limit")
                    return found
                else:
                    self.meter.members -= 1
                    found.append((name, target or entry.path))
        return sorted(links.without_repeats(found) if links else found, key=lambda item: item[0])


def _honour_claims(reports: dict[str, Report]) -> None:
    """Files of unknown content that a file beside them reads as raw numbers are numbers."""
    for name, report in list(reports.items()):
        for part in report.walk():
            for claimed, least in part.claims.items():
                beside = os.path.normpath(os.path.join(os.path.dirname(name), claimed))  # noqa: PTH118, PTH120
                known = reports.get(beside)
                if known and known.reason == NOT_KNOWN and known.size >= least:
                    reports[beside] = Report(
                        name=known.name,
                        format="tensor",
                        size=known.size,
                        digest=known.digest,
                        coverage=Coverage.EXAMINED,
                    )


def _honour_claims_of_members(report: Report) -> Report:
    """The same for the members of an archive; of two with one name it is not told which is read."""
    if not any(part.claims for member in report.members for part in member.walk()):
        return report
    counts = Counter(member.name for member in report.members)
    reports = {member.name: member for member in report.members if counts[member.name] == 1}
    _honour_claims(reports)
    return replace(report, members=tuple(reports.get(member.name, member) for member in report.members))


def _list(folder: str, draft: Draft) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        draft.miss(f"folder {folder} cannot be listed: {error.strerror}")
        return []


def _has_directory(source: Source, *, in_archive: bool) -> bool:
    """Whether an archive's directory, with at least one member, ends these bytes.

    In another archive it has to end them exactly, or count from their beginning: zip files may lie in it as they are.
    """
    if EOCD_MAGIC not in bytes(source.data[-0x10000 - 22 :]):
        return False
    end = find_end(source.data)
    if end is None or end.directory_size < CENTRAL.size:
        return False
    if in_archive and end.prefix and end.end < len(source.data):
        return False
    return bytes(source.data[end.directory : end.directory + 4]) == b"PK\x01\x02"


def _archive(source: Source) -> Buffer:
    """The bytes of the archive alone: what is around it belongs to the other reading."""
    end = find_end(source.data)
    return window(source.data, end.prefix, end.end) if end else source.data


def _merge(report: Report, extra: Report) -> Report:
    """The report with the findings of another on the same bytes."""
    verdict = max(report.own_verdict, extra.own_verdict, key=lambda each: each.rank)
    return replace(report, own_findings=report.own_findings + extra.own_findings, own_verdict=verdict)


def _silent(done: int, total: int, name: str) -> None:
    """Tell nobody."""


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _name(path: Path) -> str:
    """What a file or folder is called, also when its path ends in no name, as ``.`` does."""
    name = path.name if path.name not in {"", ".."} else path.resolve().name
    return printable(name or str(path))


def scan_path(
    path: Path,
    limits: Limits = DEFAULT_LIMITS,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
    follow: bool = False,
) -> Report:
    """Scan a file, or all files below a folder.

    ``jobs`` above 1 starts processes for large folders; they import the calling program anew, so it
    must guard its own work with ``if __name__ == "__main__"``. With ``follow`` a symbolic link at
    ``path`` is followed, and links below it as far as ``links.Links`` allows.

    Raises:
        ArtefactError: there is nothing at ``path``, or it is a symbolic link.
    """
    if path.is_symlink() and not follow:
        raise ArtefactError(f"{path} is a symbolic link", remedy="scan the file or folder that it points to.")
    if not path.exists():
        raise ArtefactError(f"there is nothing at {path}", remedy="check the path.")
    scan = Scan(limits, jobs=jobs, progress=progress, follow=follow)
    if path.is_dir():
        return scan.folder(path)
    return scan.file(path.resolve() if follow else path, _name(path), _name(path))


def scan_bytes(data: bytes, name: str, limits: Limits = DEFAULT_LIMITS) -> Report:
    """Scan bytes as if they were a file called ``name``."""
    return replace(Scan(limits).named(Source(data, name, name)), digest=digest_bytes(data))
