"""The shape of a rule, and the words that rules share."""

from __future__ import annotations

import msgspec

from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.scan.verdict import Verdict

CONTROLS = ("2.1-n", "2.4-d")

DESERIALISATION = ("CWE-502",)
RESOURCES = ("CWE-400", "CWE-770")
STRUCTURE = ("CWE-436",)
EXECUTION = ("AML.T0011.000", "AML.T0018.002", "T29")
EVASION = ("AML.T0076", "T29")

DO_NOT_LOAD = (
    "do not load this file; ask its producer for one in a format that holds numbers only, such as safetensors."
)
REBUILD = "fetch the file again and compare its digest with the producer's; save it anew if you made it."
REVIEW = "load it only if you trust the code that it names; otherwise convert it in an isolated process."


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule."""

    id: str
    title: str
    severity: Severity
    verdict: Verdict
    explanation: str
    """What would happen if the file were loaded."""
    remedy: str
    cwe: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ()

    def finding(self, where: str, detail: str) -> Finding:
        """The finding that this rule fired at a place."""
        return Finding(
            rule=self.id,
            severity=self.severity,
            title=self.title,
            where=where,
            detail=f"{detail}. {self.explanation}",
            remedy=self.remedy,
            cwe=self.cwe,
            techniques=self.techniques,
            controls=CONTROLS,
        )


def rule(
    rule_id: str,
    verdict: Verdict,
    severity: Severity,
    title: str,
    explanation: str,
    *,
    remedy: str = DO_NOT_LOAD,
    cwe: tuple[str, ...] = DESERIALISATION,
    techniques: tuple[str, ...] = EXECUTION,
) -> Rule:
    """A rule about content that would be loaded, unless it says otherwise."""
    return Rule(
        id=rule_id,
        title=title,
        severity=severity,
        verdict=verdict,
        explanation=explanation,
        remedy=remedy,
        cwe=cwe,
        techniques=techniques,
    )


CRITICAL, HIGH, MEDIUM, LOW = Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW
DANGEROUS, SUSPICIOUS, MALFORMED, UNKNOWN = (
    Verdict.DANGEROUS,
    Verdict.SUSPICIOUS,
    Verdict.MALFORMED,
    Verdict.UNKNOWN,
)
