"""What a scan says about a file: how much was examined, what was found, and what lies inside.

The two axes never mix. *Coverage* tells whether every byte is accounted for by a part that was
understood; the *verdict* tells what those parts would do. A file that nobody could read is not
clean: without full coverage the best verdict is ``unknown``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator

import msgspec

from bartizan.core.digest import Digest, canonical_json
from bartizan.core.finding import Finding, worst_first


class Coverage(enum.StrEnum):
    """How much of a file a scan understood."""

    EXAMINED = "examined"
    """Every byte belongs to a part that was parsed to its end."""
    PARTLY = "partly"
    """Something inside could not be read, or a limit was reached."""
    NOT_EXAMINED = "not-examined"
    """The format is unknown, or the file could not be opened."""


class Verdict(enum.StrEnum):
    """What loading would do, as far as the scan can tell; worst last."""

    CLEAN = "clean"
    UNKNOWN = "unknown"
    """Nothing bad was seen, but not everything was examined."""
    SUSPICIOUS = "suspicious"
    MALFORMED = "malformed"
    """It breaks its own format, so loaders may disagree about what it holds."""
    DANGEROUS = "dangerous"
    """Loading runs code, reads or writes other files, or exhausts the machine."""

    @property
    def rank(self) -> int:
        """0 for clean; the verdict of a whole is that of its worst part."""
        return list(Verdict).index(self)


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Result for one file, folder or member of an archive."""

    name: str
    """Path as given, or the member's name inside its container."""
    format: str
    """``pickle``, ``zip``, ``safetensors``, ``folder`` ... or ``unknown``."""
    size: int = 0
    """Bytes; for a folder those of all files that were opened."""
    digest: Digest | None = None
    """SHA-256 of the bytes that were examined; of a folder, the root of its signing manifest."""
    coverage: Coverage
    reason: str = ""
    """Why not everything was examined."""
    own_verdict: Verdict = Verdict.CLEAN
    """Worst of this part's own findings; ``verdict`` also counts its members."""
    own_findings: tuple[Finding, ...] = ()
    facts: dict[str, int | str] = {}
    """What was counted on the way: ``opcodes``, ``arrays``, ``expanded_bytes``."""
    members: tuple[Report, ...] = ()
    claims: dict[str, int] = {}
    """Files beside it that its format reads as raw numbers, by relative path, with the least size in bytes."""

    def walk(self) -> Iterator[Report]:
        """This report and all below it, parents first."""
        todo = [self]
        while todo:
            report = todo.pop()
            yield report
            todo.extend(reversed(report.members))

    @property
    def verdict(self) -> Verdict:
        """Worst verdict of this part and everything inside it; ``clean`` only when all was examined."""
        worst = max((report.own_verdict for report in self.walk()), key=lambda verdict: verdict.rank)
        if worst is Verdict.CLEAN and self.total_coverage is not Coverage.EXAMINED:
            return Verdict.UNKNOWN
        return worst

    @property
    def total_coverage(self) -> Coverage:
        """Coverage of this part together with its members."""
        return merge_coverage(report.coverage for report in self.walk())

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings here and below, worst first."""
        return tuple(worst_first([finding for report in self.walk() for finding in report.own_findings]))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why parts were not examined, each with the name of the part."""
        return tuple(f"{report.name}: {report.reason}" for report in self.walk() if report.reason)

    @property
    def exit_code(self) -> int:
        """0 all examined and clean, 1 something found, 2 nothing found but not everything examined."""
        verdict = self.verdict
        if verdict is Verdict.CLEAN:
            return 0
        return 2 if verdict is Verdict.UNKNOWN else 1

    def to_json(self) -> bytes:
        """The report as canonical JSON, with the totals beside the tree."""
        totals = {"verdict": self.verdict, "coverage": self.total_coverage, "exit_code": self.exit_code}
        return canonical_json({"format": "bartizan-scan/1", **totals, "report": self})


def merge_coverage(parts: Iterable[Coverage]) -> Coverage:
    """Coverage of a whole: full or none only when every part agrees."""
    seen = set(parts)
    if len(seen) == 1:
        return seen.pop()
    return Coverage.PARTLY if seen else Coverage.EXAMINED


__all__ = ["Coverage", "Report", "Verdict", "merge_coverage"]
