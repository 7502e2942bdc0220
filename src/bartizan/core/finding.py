"""One weakness, said so that somebody can mend it."""

from __future__ import annotations

import enum

import msgspec


class Severity(enum.StrEnum):
    """How much a finding matters if it is left alone."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NOTE = "note"

    @property
    def rank(self) -> int:
        """0 for the worst; sorts findings worst first."""
        return list(Severity).index(self)


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One weakness that a check saw. Exports to SARIF without loss."""

    rule: str
    """Stable id of the rule that fired, such as ``pickle/unlisted-callable``."""
    severity: Severity
    title: str
    """What is wrong, in one line."""
    where: str
    """Artefact name, then the place inside it: ``model.joblib!/pickle@142``, ``train.csv:17``."""
    detail: str = ""
    """What would happen, and what was seen."""
    remedy: str = ""
    """What to do next."""
    cwe: tuple[str, ...] = ()
    """CWE ids, such as ``CWE-502``."""
    techniques: tuple[str, ...] = ()
    """ATLAS or catalogue technique ids, such as ``AML.T0011.000`` or ``T29``."""
    controls: tuple[str, ...] = ()
    """Catalogue control ids, such as ``2.1-n``."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake in a file that a person wrote."""

    line: int
    """1-based; 0 when the fault is not tied to one line."""
    path: str
    """Where in the document: ``dataset[0].sensitivity``."""
    message: str
    """What is wrong and what came."""
    allowed: str = ""
    """What would be right."""
    suggestion: str = ""
    """The nearest right value, when there is one."""

    def __str__(self) -> str:
        parts = [f"{self.line}: {self.path}: {self.message}"]
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.suggestion:
            parts.append(f"did you mean {self.suggestion!r}?")
        return "; ".join(parts)


def worst_first(findings: tuple[Finding, ...] | list[Finding]) -> list[Finding]:
    """Findings by severity, then rule, then place: the same order every time."""
    return sorted(findings, key=lambda finding: (finding.severity.rank, finding.rule, finding.where))
