"""The register of briefings: every declared role, who was briefed on which text, until when, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from bartizan.core import predicates
from bartizan.core.digest import Digest
from bartizan.core.evidence import Evidence, Standing
from bartizan.core.system import System
from bartizan.lifecycle.design.guidance.briefing import PREFIX, roles_of

KIND = "briefing"
NEEDS_BRIEFING = frozenset({"approval", "exception", "disclosure", "risk", "scope", "review", "supplier"})
"""Kinds of decision that only a briefed person may say yes to. Saying no needs no briefing."""
SAID = frozenset({Standing.HOLDS, Standing.STALE, Standing.EXPIRED, Standing.SUPERSEDED})
"""Standings of what somebody trusted did say, whatever became of it since."""

BriefingState = Literal["valid", "stale", "expired", "missing"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One role."""

    role: str
    state: BriefingState
    reason: str
    """Why it is not valid; empty when it is."""
    until: datetime | None = None
    by: tuple[str, ...] = ()
    """Principals whose briefing for this role holds; for another state, who signed the last one."""
    current: Digest
    """Digest of the text that has to be read now."""
    read: Digest | None = None
    """Digest of the text that was read last."""
    stated: bool = False
    """Whether the present text was written and stated, so that it can have been read."""
    drills: tuple[str, ...] = ()
    """Exercises that briefings which hold name."""


def register(system: System, evidence: Sequence[Evidence], current: Mapping[str, Digest]) -> tuple[Row, ...]:
    """One row for each declared role; ``current`` gives the digest of each role's briefing."""
    return tuple(_row(role, evidence, current[f"{PREFIX}{role}"]) for role in roles_of(system.declaration))


def briefed_roles(item: Evidence) -> frozenset[str]:
    """Roles that a statement says were briefed; none when it is no briefing."""
    said = item.statement
    if said is None or said.predicate_type != predicates.DECISION or item.kind != KIND:
        return frozenset()
    if said.predicate.get("outcome") != "yes":
        return frozenset()
    return frozenset(name.removeprefix(PREFIX) for name in said.inputs() if name.startswith(PREFIX))


def holds_for(evidence: Iterable[Evidence], keyid: str, role: str) -> bool:
    """Whether the owner of a key signed a briefing for a role that holds now."""
    return any(item.holds and keyid in item.keyids and role in briefed_roles(item) for item in evidence)


def needs_briefing(decision: predicates.Decision) -> bool:
    """Whether only a briefed person may say this."""
    return decision.kind in NEEDS_BRIEFING and decision.outcome == "yes"


def without_unbriefed(system: System, evidence: Sequence[Evidence]) -> list[Evidence]:
    """The same evidence; decisions of people who had not been briefed do not count, where the system asks for it.

    A briefing must have been received before the decision and not have run out by then. That its text
    became stale afterwards takes nothing away from what was decided while it was current.
    """
    if not system.declaration.guidance.briefings_required:
        return list(evidence)
    readings = [item for item in evidence if item.standing in SAID and briefed_roles(item)]
    return [_weighed(item, readings) for item in evidence]


def _weighed(item: Evidence, readings: Sequence[Evidence]) -> Evidence:
    said = item.statement
    if not item.holds or said is None or said.predicate_type != predicates.DECISION:
        return item
    decision: predicates.Decision = said.read()
    if not needs_briefing(decision):
        return item
    unbriefed = [
        keyid for keyid in item.keyids if not any(_covers(reading, item, keyid, decision.role) for reading in readings)
    ]
    if not unbriefed:
        return item
    reason = f"{', '.join(item.signers)} had no valid briefing as {decision.role} when it was signed"
    return msgspec.structs.replace(item, standing=Standing.UNTRUSTED, reason=reason)


def _covers(reading: Evidence, item: Evidence, keyid: str, role: str) -> bool:
    in_time = reading.seq < item.seq and (reading.ends_at is None or reading.ends_at > item.received_at)
    return in_time and keyid in reading.keyids and role in briefed_roles(reading)


def _row(role: str, evidence: Sequence[Evidence], current: Digest) -> Row:
    readings = [item for item in evidence if role in briefed_roles(item)]
    holding = [item for item in readings if item.holds]
    stated = any(
        item.holds
        and item.statement is not None
        and item.statement.predicate_type == predicates.REFERENCE
        and item.statement.inputs().get(f"{PREFIX}{role}") == current
        for item in evidence
    )
    if holding:
        return Row(
            role=role,
            state="valid",
            reason="",
            until=min((item.ends_at for item in holding if item.ends_at), default=None),
            by=tuple(dict.fromkeys(signer for item in holding for signer in item.signers)),
            current=current,
            read=current,
            stated=stated,
            drills=tuple(dict.fromkeys(drill for item in holding if (drill := _drill(item)))),
        )
    heard = [item for item in readings if item.standing in {Standing.STALE, Standing.EXPIRED}]
    if not heard:
        reason = readings[-1].reason if readings else "nobody has confirmed a briefing"
        return Row(role=role, state="missing", reason=reason, current=current, stated=stated)
    last = heard[-1]
    return Row(
        role=role,
        state="stale" if last.standing is Standing.STALE else "expired",
        reason="what has to be known has changed since" if last.standing is Standing.STALE else last.reason,
        until=last.ends_at,
        by=last.signers,
        current=current,
        read=last.statement.inputs().get(f"{PREFIX}{role}") if last.statement else None,
        stated=stated,
    )


def _drill(item: Evidence) -> str:
    details = item.statement.predicate.get("details") if item.statement else None
    return str(details.get("drill", "")) if isinstance(details, dict) else ""


__all__ = [
    "KIND",
    "BriefingState",
    "Row",
    "briefed_roles",
    "holds_for",
    "needs_briefing",
    "register",
    "without_unbriefed",
]
