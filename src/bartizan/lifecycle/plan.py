"""What has to be done: jobs, the digests they rest on, and which of them the ledger already answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from bartizan.core import predicates
from bartizan.core.check import Check
from bartizan.core.digest import Digest, digest_bytes, short
from bartizan.core.durations import parse_duration
from bartizan.core.errors import WorkError
from bartizan.core.evidence import Evidence, Standing
from bartizan.core.system import Artefact, Gate, System

RESULTS = frozenset(
    {
        predicates.TEST_RESULT,
        predicates.ASSESSMENT,
        predicates.REFERENCE,
        predicates.CARD,
        predicates.BOM,
        predicates.VULNERABILITIES,
    }
)
"""What checks say. A decision that names a check is still only a decision."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One check on one artefact."""

    check: Check
    subject: Artefact
    inputs: dict[str, Digest]
    """Everything its result rests on, the check's own version included."""

    @property
    def key(self) -> str:
        """Unique name: ``scan model:tumour``."""
        return f"{self.check.name} {self.subject.id}"


def plan(system: System, checks: Iterable[Check]) -> list[Job]:
    """Every job of every check that applies, each after those it waits for.

    Raises:
        WorkError: checks wait for one another in a circle.
    """
    ordered = _in_order({check.name: check for check in checks})
    return [
        Job(check=check, subject=subject, inputs=_inputs(check, system, subject))
        for check in ordered
        for subject in check.subjects(system)
    ]


def _inputs(check: Check, system: System, subject: Artefact) -> dict[str, Digest]:
    version = digest_bytes(f"{check.name}@{check.version}".encode())
    return {**check.inputs(system, subject), f"check:{check.name}": version}


def _in_order(checks: Mapping[str, Check]) -> list[Check]:
    ordered: dict[str, Check] = {}
    waiting = dict(sorted(checks.items()))
    while waiting:
        ready = [name for name, check in waiting.items() if not any(other in waiting for other in check.after)]
        if not ready:
            raise WorkError(f"checks wait for one another: {', '.join(waiting)}", remedy="mend their `after`.")
        for name in ready:
            ordered[name] = waiting.pop(name)
    return list(ordered.values())


def current_digests(system: System, jobs: Iterable[Job]) -> dict[str, Digest]:
    """Every digest in play, by name: what a statement must agree with to be current.

    Raises:
        WorkError: two jobs mean different things by one name, so one of them could never be current.
    """
    current = {artefact.id: artefact.digest for artefact in system.artefacts}
    for job in jobs:
        for name, digest in job.inputs.items():
            if current.setdefault(name, digest) != digest:
                raise WorkError(f"{job.key}: the input {name} means something else elsewhere", remedy="name it apart.")
    return current


def documents(evidence: Iterable[Evidence]) -> dict[str, Digest]:
    """Documents that stand, as ``document:CHECK``: decisions name them and go stale with them."""
    return {
        f"document:{item.check}": item.report
        for item in evidence
        if item.holds and item.report and item.statement and item.statement.predicate_type == predicates.REFERENCE
    }


def answer(job: Job, evidence: Iterable[Evidence]) -> Evidence | None:
    """The standing statement that already says what the job would find out, or None."""
    for item in evidence:
        said = item.statement
        if not item.holds or said is None or item.check != job.check.name or said.predicate_type not in RESULTS:
            continue
        if job.subject.digest in said.about() and said.inputs() == job.inputs:
            return item
    return None


def why_due(job: Job, evidence: Sequence[Evidence], gates: Mapping[str, Gate], now: datetime) -> str:
    """Why the job must run now, in a few words; empty when the ledger already answers it."""
    found = answer(job, evidence)
    if found is not None:
        ages = [
            rule.max_age
            for gate in gates.values()
            for rule in gate.rule
            if rule.check == job.check.name and rule.max_age
        ]
        over = [age for age in ages if found.received_at + parse_duration(age) <= now]
        return f"older than {over[0]}" if over else ""
    earlier = [item for item in evidence if item.check == job.check.name and job.subject.digest in _about(item)]
    if earlier and earlier[-1].standing is Standing.REVOKED and _same_inputs(job, earlier[-1]):
        return ""  # what it rests on was withdrawn: doing it again would be withdrawn too
    if earlier:
        return earlier[-1].reason or "its inputs are others now"
    for item in reversed(evidence):
        old = item.statement.inputs().get(job.subject.id) if item.statement else None
        if old is not None and old != job.subject.digest:
            return f"{job.subject.id} changed from {short(old)} to {short(job.subject.digest)}"
    return "never done"


def _same_inputs(job: Job, item: Evidence) -> bool:
    return item.statement is not None and item.statement.inputs() == job.inputs


def _about(item: Evidence) -> tuple[Digest, ...]:
    return item.statement.about() if item.statement else ()
