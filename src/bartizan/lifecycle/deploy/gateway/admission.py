"""Admission: whether these very bytes may be served, from statements alone.

Asked before a model is opened, before every switch to another one, and again and again while it is
served. Four conditions, and all must be met (what is served without integrity checks is CWE-353 and CWE-494):

1. signature: a trusted signature that stands covers exactly the bytes of the model and of each document.
2. scan: these bytes of the model have a clean scan that stands.
3. configuration: the declaration and its documents are those that the newest verdict was reached on.
4. verdict: the gate's newest verdict about exactly this passed and stands, and would be reached again today.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from bartizan.core import predicates
from bartizan.core.digest import HEX, Digest, ManifestEntry, manifest_root, short
from bartizan.core.errors import BartizanError
from bartizan.core.evidence import Evidence, Standing
from bartizan.core.gate import evaluate, policy_digest
from bartizan.core.statement import Statement
from bartizan.core.system import Artefact, Gate, System
from bartizan.lifecycle.deploy.gateway.configuration import CLOSED, Configuration
from bartizan.lifecycle.deploy.gateway.passes import Grants

Condition = Literal["signature", "scan", "configuration", "verdict", "verification", "opening"]
"""The last two are for what could not be found out or done at all."""
UNHEARD = frozenset({Standing.INVALID, Standing.UNTRUSTED, Standing.REPEATED})
"""Statements that count for nothing, not even as the newest word."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is judged, as it is now."""

    system: System
    model: Artefact
    gate: str
    policy: Gate
    evidence: tuple[Evidence, ...]
    """Everything that was said about the system's artefacts, judged against them."""
    now: datetime


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """How one condition came out."""

    condition: Condition
    artefact: str
    """``kind:name``."""
    met: bool
    reason: str
    remedy: str = ""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What users of the model are told, in the forms in which it is given out."""

    digest: Digest
    """SHA-256 of the Markdown, as it is stated in the ledger."""
    markdown: str
    html: str
    plain: dict[str, Any]
    """The same as JSON."""
    beside: dict[str, str]
    """What stands beside every answer: ``uncertainty`` and ``note``, in plain words."""


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the model may be served, and everything that this was concluded from."""

    model: str
    """``model:NAME``."""
    inputs: dict[str, Digest]
    """Every artefact of the system as it was found, by id."""
    findings: tuple[Finding, ...]
    verdict: Digest | None = None
    """Envelope of the verdict that it rests on."""
    at: datetime
    told: Told | None = None
    """The user notice; None when none is declared, or the card that it is made from does not stand."""
    grants: Grants = Grants()
    """Whose passes count."""
    withdrawn: str = ""
    """Why somebody took it out of service, by the newest word of the ledger; empty: nobody has, or it was put back."""
    configuration: Configuration = CLOSED
    """What the gateway is told, from the document that was verified with everything else."""

    @property
    def admitted(self) -> bool:
        """Whether every condition is met; nothing examined is nothing admitted."""
        return bool(self.findings) and all(finding.met for finding in self.findings)

    @property
    def digest(self) -> Digest | None:
        """Digest of the model's bytes as they were found."""
        return self.inputs.get(self.model)

    @property
    def failed(self) -> tuple[Finding, ...]:
        """Conditions that are not met."""
        return tuple(finding for finding in self.findings if not finding.met)

    @property
    def reason(self) -> str:
        """Why it is not admitted, in a line; empty when it is."""
        return "; ".join(f"{item.condition} ({item.artefact}): {item.reason}" for item in self.failed)


def admit(case: Case) -> Admission:
    """Judge all conditions."""
    verdict = newest_verdict(case)
    findings = [
        *(_signature(artefact, case) for artefact in (case.model, *case.system.of_kind("document"))),
        _scan(case),
        *_configuration(verdict, case),
        _verdict(verdict, case),
    ]
    return Admission(
        model=case.model.id,
        inputs=_inputs(case.system),
        findings=tuple(findings),
        verdict=verdict.digest if verdict else None,
        at=case.now,
    )


def refusal(
    model: str, inputs: Mapping[str, Digest], error: Exception, at: datetime, condition: Condition = "verification"
) -> Admission:
    """What could not be verified, opened or recorded is not admitted."""
    finding = Finding(
        condition=condition,
        artefact=model,
        met=False,
        reason=error.message.splitlines()[0] if isinstance(error, BartizanError) else type(error).__name__,
        remedy=error.remedy if isinstance(error, BartizanError) else "see the log of the server.",
    )
    return Admission(model=model, inputs=dict(inputs), findings=(finding,), at=at)


def newest_verdict(case: Case) -> Evidence | None:
    """The newest verdict of the gate about exactly the system as it is; failing that, about anything of it.

    A withdrawn one stays the newest: what it replaced does not come back.
    """
    heard = [item for item in case.evidence if item.standing not in UNHEARD and _of_gate(item, case.gate)]
    exact = [item for item in heard if item.statement and item.statement.inputs() == _inputs(case.system)]
    return max(exact or heard, key=lambda item: item.seq, default=None)


def covers(said: Statement, artefact: Artefact) -> bool:
    """Whether a signature statement is about exactly the bytes of an artefact: one subject, made of what it lists."""
    if said.predicate_type != predicates.MODEL_SIGNATURE or len(said.subject) != 1:
        return False
    listed = said.predicate.get("resources")
    try:
        entries = [ManifestEntry(str(item["name"]), Digest(item["digest"])) for item in listed or ()]
        if not entries or any(not HEX.match(entry.digest) for entry in entries):
            return False
    except (KeyError, TypeError, ValueError):
        return False
    return manifest_root(entries) == said.subject[0].digest.get("sha256") and artefact.digest in said.about()


def _inputs(system: System) -> dict[str, Digest]:
    return {artefact.id: artefact.digest for artefact in system.artefacts}


def _of_gate(item: Evidence, gate: str) -> bool:
    said = item.statement
    return said is not None and said.predicate_type == predicates.VERDICT and said.predicate.get("gate") == gate


def _nearest(candidates: Sequence[Evidence]) -> str:
    """What is wrong with the newest of statements that do not count."""
    newest = max(candidates, key=lambda item: item.seq)
    return f"statement {short(newest.digest)} does not count: {newest.standing.value}, {newest.reason}"


def _signature(artefact: Artefact, case: Case) -> Finding:
    said = [item for item in case.evidence if item.statement and covers(item.statement, artefact)]
    standing = [item for item in said if item.holds]
    if standing:
        by = ", ".join(dict.fromkeys(signer for item in standing for signer in item.signers))
        reason = f"{short(artefact.digest)} is signed by {by}"
    elif said:
        reason = _nearest(said)
    else:
        reason = f"nobody who is trusted has signed these bytes ({short(artefact.digest)})"
    return Finding(
        condition="signature",
        artefact=artefact.id,
        met=bool(standing),
        reason=reason,
        remedy="" if standing else _put_back(f"bartizan register {artefact.id}", case.gate),
    )


def _put_back(first: str, gate: str) -> str:
    return f"put the signed bytes back; a wanted change needs `{first}` and `bartizan assure --gate {gate}`."


def _scan(case: Case) -> Finding:
    said = [item for item in case.evidence if item.check == "scan" and _about(item, case.model)]
    clean = [item for item in said if item.holds and _passed(item)]
    standing = [item for item in said if item.holds]
    if clean:
        reason = f"statement {short(clean[-1].digest)} says that it is clean"
    elif standing:
        reason = f"statement {short(standing[-1].digest)} says that it is not clean"
    else:
        reason = _nearest(said) if said else f"these bytes ({short(case.model.digest)}) were never scanned"
    return Finding(
        condition="scan",
        artefact=case.model.id,
        met=bool(clean),
        reason=reason,
        remedy="" if clean else "run `bartizan assure --only scan` and mend what it finds.",
    )


def _about(item: Evidence, artefact: Artefact) -> bool:
    return item.statement is not None and artefact.digest in item.statement.about()


def _passed(item: Evidence) -> bool:
    said = item.statement.read() if item.statement else None
    return isinstance(said, predicates.TestResult) and said.result == "PASSED"


def _configuration(verdict: Evidence | None, case: Case) -> Iterator[Finding]:
    """The declaration and every document, each against what the verdict was reached on."""
    judged = verdict.statement.inputs() if verdict and verdict.statement else {}
    for artefact in case.system.artefacts:
        if artefact.kind not in {"system", "document"}:
            continue
        before = judged.get(artefact.id)
        met = before == artefact.digest
        if met:
            reason = f"{short(artefact.digest)} is what the verdict was reached on"
        elif before is None:
            reason = f"no verdict of gate {case.gate} was reached on it"
        else:
            reason = f"it changed from {short(before)} to {short(artefact.digest)} after the verdict was reached"
        remedy = "" if met else _put_back("bartizan register", case.gate)
        yield Finding(condition="configuration", artefact=artefact.id, met=met, reason=reason, remedy=remedy)


def _verdict(verdict: Evidence | None, case: Case) -> Finding:
    problem = _wrong_with(verdict, case)
    return Finding(
        condition="verdict",
        artefact=case.model.id,
        met=not problem,
        reason=problem or f"gate {case.gate} passed, statement {short(verdict.digest) if verdict else ''}",
        remedy=f"run `bartizan assure --gate {case.gate}`; `bartizan gate explain {case.gate}` says what is missing."
        if problem
        else "",
    )


def _wrong_with(verdict: Evidence | None, case: Case) -> str:
    """Why the verdict does not admit; empty when it does."""
    if verdict is None or verdict.statement is None:
        return f"gate {case.gate} has reached no verdict about this system"
    changed = _changed(verdict.statement, case.system)
    said: predicates.Verdict = verdict.statement.read()
    if changed:
        return f"it was reached on something else: {changed}"
    if not verdict.holds:
        return _nearest([verdict])
    if said.verification_result != "PASSED":
        return f"gate {case.gate} refused, statement {short(verdict.digest)}"
    if said.policy.digest != {"sha256": policy_digest(case.policy)}:
        return "it was reached under other rules than are declared now"
    return _no_longer(case)


def _changed(said: Statement, system: System) -> str:
    before, now = said.inputs(), _inputs(system)
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    shown = [f"{name} was {short(before.get(name, 'absent'))}, is {short(now.get(name, 'absent'))}" for name in names]
    return "; ".join(shown[:5])


def _no_longer(case: Case) -> str:
    """Why the gate would refuse today, after what was said since; empty when it would not."""
    result = evaluate(case.gate, case.policy, case.system.artefacts, case.evidence, case.now)
    unmet = next((item for item in result.results if item.state == "unmet"), None)
    if unmet is not None:
        return f"gate {case.gate} would refuse by now: {unmet.rule.id} ({unmet.artefact}): {unmet.reason}"
    return "" if result.passed else f"gate {case.gate} has no rules"


__all__ = ["Admission", "Case", "Finding", "Told", "admit", "covers", "newest_verdict", "refusal"]
