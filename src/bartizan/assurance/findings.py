"""Findings of the checks, read from the full reports of statements that count now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bartizan.assurance.measured import read_report
from bartizan.assurance.model import FindingLine, UnshownFindings
from bartizan.core.evidence import Evidence
from bartizan.core.finding import Finding

MAX_FINDINGS = 5000
"""Findings of one statement that a report reads; the rest are counted."""


def findings(
    evidence: Sequence[Evidence], reports: Mapping[str, bytes]
) -> tuple[tuple[FindingLine, ...], tuple[UnshownFindings, ...]]:
    """All findings worst first, and how many are counted by a statement but cannot be shown."""
    lines: list[FindingLine] = []
    missing: list[UnshownFindings] = []
    for item in evidence:
        if not item.holds or item.statement is None:
            continue
        about = ", ".join(subject.name for subject in item.statement.subject)
        found = _read(read_report(item, reports).get("findings"))
        lines += [FindingLine(finding=entry, check=item.check, about=about, digest=item.digest) for entry in found]
        counted = _counted(item.statement.predicate.get("findings"))
        if counted > len(found):
            reason = "its full report was not at hand or does not list them"
            missing.append(
                UnshownFindings(check=item.check, digest=item.digest, count=counted - len(found), reason=reason)
            )
    return tuple(sorted(lines, key=_worst_first)), tuple(sorted(missing, key=lambda entry: (entry.check, entry.digest)))


def _worst_first(line: FindingLine) -> tuple[int, str, str, str]:
    return (line.finding.severity.rank, line.finding.rule, line.finding.where, line.digest)


def _read(value: Any) -> list[Finding]:
    found = []
    for entry in value[:MAX_FINDINGS] if isinstance(value, list) else ():
        try:
            found.append(msgspec.convert(entry, Finding))
        except msgspec.ValidationError:
            continue
    return found


def _counted(value: Any) -> int:
    counts = value.values() if isinstance(value, dict) else ()
    return sum(count for count in counts if isinstance(count, int) and not isinstance(count, bool) and count > 0)
