"""The first page: what a risk owner has to know and decide, cut to one sheet of paper."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from bartizan.assurance.model import (
    AttackLine,
    Chapter,
    EvidenceLine,
    FindingLine,
    MapTechnique,
    ReportModel,
    RuleLine,
)
from bartizan.core.evidence import Standing

T = TypeVar("T")

MOST_RULES, MOST_ATTACKS, MOST_FINDINGS, MOST_DECISIONS, MOST_ENDED = 4, 4, 3, 2, 2


class Listed(msgspec.Struct, Generic[T], frozen=True):
    """The first entries of something longer, and how many are left out."""

    shown: tuple[T, ...]
    more: int


class Front(msgspec.Struct, frozen=True, kw_only=True):
    """What stands on the first page."""

    verdict: str
    """``passed``, ``refused`` or ``not decided``."""
    in_the_way: Listed[RuleLine]
    """Rules that are not met, refusing ones first."""
    attacks: Listed[AttackLine]
    """Red-team measurements that count now."""
    findings: Listed[FindingLine]
    """The worst findings."""
    residual: tuple[MapTechnique, ...]
    """Techniques within reach that nothing prevents, weakens or accepts."""
    decisions: Listed[EvidenceLine]
    """Decisions that count, those that end soonest first."""
    ended: Listed[EvidenceLine]
    """Statements that no longer count and that nothing newer replaces."""
    bare: tuple[Chapter, ...]
    """Principles without any evidence that counts, and not put out of scope."""


def front(model: ReportModel) -> Front:
    """The first page of a report."""
    return Front(
        verdict=_verdict(model),
        in_the_way=_first(_unmet(model), MOST_RULES),
        attacks=_first(_standing_attacks(model), MOST_ATTACKS),
        findings=_first(list(model.findings), MOST_FINDINGS),
        residual=_residual(model),
        decisions=_first(_decisions(model), MOST_DECISIONS),
        ended=_first(_ended(model), MOST_ENDED),
        bare=tuple(
            chapter
            for chapter in model.principles
            if not any(line.holds or line.scoped_out for line in chapter.controls)
        ),
    )


def _verdict(model: ReportModel) -> str:
    if model.gate is None:
        return "not decided"
    return "passed" if model.gate.passed else "refused"


def _unmet(model: ReportModel) -> list[RuleLine]:
    rules = [rule for rule in (model.gate.rules if model.gate else ()) if rule.state != "met"]
    return sorted(rules, key=lambda rule: rule.state != "unmet")


def _standing_attacks(model: ReportModel) -> list[AttackLine]:
    """One measurement of each family first, then the rest: breadth matters more than detail here."""
    standing = [line for line in model.red_team if line.standing is Standing.HOLDS]
    leading = {line.family: line for line in reversed(standing)}
    return [
        *(line for line in standing if leading[line.family] is line),
        *(line for line in standing if leading[line.family] is not line),
    ]


def _residual(model: ReportModel) -> tuple[MapTechnique, ...]:
    techniques = model.attack_map.techniques if model.attack_map else ()
    left = [entry for entry in techniques if entry.state in {"residual", "detected"} and not entry.accepted_until]
    return tuple(sorted(left, key=lambda entry: (entry.measured is None, entry.id)))


def _decisions(model: ReportModel) -> list[EvidenceLine]:
    standing = [line for line in model.evidence if line.type == "decision" and line.standing is Standing.HOLDS]
    return sorted(standing, key=lambda line: (line.ends, line.digest))


def _ended(model: ReportModel) -> list[EvidenceLine]:
    gone = {Standing.STALE, Standing.EXPIRED, Standing.REVOKED, Standing.UNTRUSTED, Standing.INVALID}
    return [line for line in model.evidence if line.standing in gone]


def _first(entries: list[T], most: int) -> Listed[T]:
    return Listed(tuple(entries[:most]), max(0, len(entries) - most))
