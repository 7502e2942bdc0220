"""Weighed statements as lines for people: what each says, about what, since when, signed by whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from bartizan.assurance.model import EvidenceLine
from bartizan.assurance.text import moment, span, words
from bartizan.core import predicates
from bartizan.core.evidence import Evidence

_KINDS = {
    "signature": "Signature over the bytes",
    "provenance": "Provenance",
    "test-result": "Test result",
    "reference": "Document",
    "verdict": "Gate verdict",
    "bom": "Bill of materials",
    "vulns": "Known vulnerabilities",
    "vex": "Status of vulnerabilities",
    "trust": "Trust document",
    "card": "Card",
    "assessment": "Assessment",
    "decision": "Decision",
    "deployment": "Deployment",
    "observation": "Observation",
    "incident": "Incident",
    "retirement": "Retirement",
    "revocation": "Revocation",
}
_OUTCOME_FIELDS = {
    predicates.TEST_RESULT: "result",
    predicates.ASSESSMENT: "result",
    predicates.DECISION: "outcome",
    predicates.VERDICT: "verificationResult",
    predicates.DEPLOYMENT: "action",
    predicates.INCIDENT: "state",
    predicates.RETIREMENT: "action",
}


class CheckFacts(msgspec.Struct, frozen=True):
    """What a report needs to know of a registered check."""

    title: str
    controls: tuple[str, ...]
    """Catalogue control ids to which its result is evidence."""
    applies: bool = True
    """Whether it has anything to examine in this system."""
    command: str = ""
    """That runs it, where ``bartizan assure`` does not."""


def exhibits(
    evidence: Sequence[Evidence], checks: Mapping[str, CheckFacts], names: Mapping[str, str], now: datetime
) -> tuple[EvidenceLine, ...]:
    """All statements as lines, newest first."""
    newest_first = sorted(evidence, key=lambda item: (-item.seq, item.digest))
    return tuple(exhibit(item, checks, names, now) for item in newest_first)


def exhibit(item: Evidence, checks: Mapping[str, CheckFacts], names: Mapping[str, str], now: datetime) -> EvidenceLine:
    """One statement as a line. ``names`` maps principal ids to the names to show for them."""
    predicate = item.statement.predicate if item.statement else {}
    predicate_type = item.statement.predicate_type if item.statement else ""
    outcome = _text(predicate.get(_OUTCOME_FIELDS.get(predicate_type, ""))).lower()
    if predicate_type == predicates.CARD and not predicate.get("complete", True):
        outcome = "incomplete"
    return EvidenceLine(
        digest=item.digest,
        seq=item.seq,
        type=predicates.short_name(predicate_type) if predicate_type else "unreadable",
        title=_title(item, checks),
        check=item.check,
        about=tuple(subject.name for subject in item.statement.subject) if item.statement else (),
        says=_text(predicate.get("summary")) or _text(predicate.get("reason")),
        outcome=outcome,
        against=_against(predicate_type, predicate, outcome),
        signers=tuple(names.get(signer, signer) for signer in item.signers),
        roles=item.roles,
        received=moment(item.received_at),
        age=span(item.received_at, now),
        standing=item.standing,
        reason=item.reason,
        ends=moment(item.ends_at) if item.ends_at else "",
        ends_in=span(now, item.ends_at) if item.ends_at and item.ends_at > now else "",
        concerns=_strings(predicate.get("concerns")),
    )


def _title(item: Evidence, checks: Mapping[str, CheckFacts]) -> str:
    if item.check in checks:
        return checks[item.check].title
    if item.statement is None:
        return "Unreadable statement"
    short = predicates.short_name(item.statement.predicate_type)
    title = _KINDS.get(short, f"Statement of type {short}")
    kind = item.kind or _text(item.statement.predicate.get("gate"))
    return f"{title}: {words(kind)}" if kind else title


def _against(predicate_type: str, predicate: Mapping[str, Any], outcome: str) -> bool:
    """A failed test, a refused gate, a rejection; a statement that judges nothing is never against."""
    if predicate_type == predicates.DECISION:
        return (outcome == "no") != (predicate.get("kind") == "rejection")
    return predicate_type in {predicates.TEST_RESULT, predicates.ASSESSMENT, predicates.VERDICT} and outcome == "failed"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _strings(value: object) -> tuple[str, ...]:
    return tuple(entry for entry in value if isinstance(entry, str)) if isinstance(value, list | tuple) else ()
