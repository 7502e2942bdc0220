"""One question to an environment, and its answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from bartizan.core.finding import Finding, Severity, worst_first

State = Literal["passed", "warned", "failed", "unknown"]
MOST_FINDINGS = 50
"""Findings of one test that are listed; of the rest only the number is told."""


class Tested(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One test with its answer."""

    name: str
    """``files/permissions``."""
    state: State
    note: str = ""
    """What was looked at, in a few words; for ``unknown`` why it could not be."""
    findings: tuple[Finding, ...] = ()


def answer(name: str, findings: Iterable[Finding], note: str = "", *, unknown: str = "") -> Tested:
    """The answer that findings make: failed from high severity on, warned below.

    ``unknown`` says what could not be looked at. It never hides a finding, and never leaves a pass.
    """
    found = worst_first(list(findings))
    kept = _capped(name, found)
    if any(finding.severity.rank <= Severity.HIGH.rank for finding in found):
        state: State = "failed"
    elif any(finding.severity is not Severity.NOTE for finding in found):
        state = "warned"
    else:
        state = "unknown" if unknown else "passed"
    return Tested(name=name, state=state, note="; ".join(part for part in (note, unknown) if part), findings=kept)


def _capped(name: str, found: list[Finding]) -> tuple[Finding, ...]:
    if len(found) <= MOST_FINDINGS:
        return tuple(found)
    left = len(found) - MOST_FINDINGS
    more = Finding(
        rule=f"{name}-more",
        severity=found[MOST_FINDINGS].severity,
        title=f"{left} more findings of this kind",
        where="",
        remedy="mend those that are listed, then look again.",
    )
    return (*found[:MOST_FINDINGS], more)
