"""Gates: which statements must stand before something may happen, and what was decided.

A rule says who must have said what about which artefact, under which conditions, and how long ago
at most. No code, no query language. What a rule leaves open is read strictly: a failed test, an
incomplete card or a "no" never meets a rule that merely asks for the statement to be there; a measured
``value`` meets a bound only where the end of its interval does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from bartizan.core import predicates
from bartizan.core.digest import Digest, digest_json, short
from bartizan.core.durations import parse_duration
from bartizan.core.evidence import Evidence, Standing
from bartizan.core.statement import Statement, make
from bartizan.core.system import Artefact, Condition, Gate, Rule

RuleState = Literal["met", "warned", "unmet"]

IMPLIED: dict[str, tuple[Condition, ...]] = {
    predicates.TEST_RESULT: (Condition(field="result", one_of=("PASSED", "WARNED")),),
    predicates.VULNERABILITIES: (Condition(field="result", one_of=("PASSED", "WARNED")),),
    predicates.VERDICT: (Condition(field="verificationResult", equals="PASSED"),),
    predicates.DECISION: (Condition(field="outcome", equals="yes"),),
    predicates.CARD: (Condition(field="complete", equals=True),),
    predicates.ASSESSMENT: (Condition(field="result", one_of=("measured", "passed")),),
}
"""Conditions that hold for every rule about these types, whatever the rule says."""


class RuleResult(msgspec.Struct, frozen=True, kw_only=True):
    """How one rule came out for one artefact."""

    rule: Rule
    artefact: str
    """``kind:name``."""
    state: RuleState
    reason: str
    """What was found or is missing, in one sentence."""
    relied_on: tuple[Digest, ...] = ()
    """Envelopes that were used, for or against."""
    remedy: str = ""
    """Command that would supply what is missing."""
    until: datetime | None = None
    """When the first statement it relies on stops counting."""


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate decided."""

    gate: str
    passed: bool
    results: tuple[RuleResult, ...]
    policy: Digest
    """Digest of the gate's rules as they were."""

    @property
    def until(self) -> datetime | None:
        """When the first statement that it relies on stops counting."""
        return min((result.until for result in self.results if result.until is not None), default=None)


def evaluate(
    name: str, gate: Gate, artefacts: Sequence[Artefact], evidence: Iterable[Evidence], now: datetime
) -> GateResult:
    """Decide. A gate without rules, or a rule that concerns no artefact, does not pass."""
    evidence = list(evidence)
    results = [
        _judge(rule, artefact, [item for item in evidence if _speaks_of(item, artefact)], now)
        for rule in gate.rule
        for artefact in _concerned(rule, artefacts)
    ]
    results += [_nothing(rule) for rule in gate.rule if not _concerned(rule, artefacts)]
    passed = bool(results) and all(result.state != "unmet" for result in results)
    return GateResult(gate=name, passed=passed, results=tuple(results), policy=policy_digest(gate))


def policy_digest(gate: Gate) -> Digest:
    """Digest of a gate's rules."""
    return digest_json(gate)


def verdict(
    result: GateResult, gate: Gate, artefacts: Sequence[Artefact], *, verifier: str, version: str, now: datetime
) -> Statement:
    """The decision as a SLSA verification summary about all artefacts that were judged."""
    longest = now + parse_duration(gate.valid_for)
    relied = dict.fromkeys(digest for item in result.results for digest in item.relied_on)
    return make(
        predicates.VERDICT,
        {artefact.id: artefact.digest for artefact in artefacts},
        predicates.Verdict(
            verifier=predicates.Verifier(id=verifier, version={"bartizan": version}),
            time_verified=now,
            resource_uri=next((artefact.id for artefact in artefacts if artefact.kind == "system"), artefacts[0].id),
            policy=predicates.Policy(uri=f"bartizan.toml#gate.{result.gate}", digest={"sha256": result.policy}),
            input_attestations=tuple(predicates.Resource(digest={"sha256": digest}) for digest in relied),
            verification_result="PASSED" if result.passed else "FAILED",
            verified_levels=(f"BARTIZAN_{result.gate.upper().replace('-', '_')}",) if result.passed else (),
            gate=result.gate,
            valid_until=min(longest, result.until) if result.until else longest,
            inputs=tuple(predicates.Input.of(artefact.id, artefact.digest) for artefact in artefacts),
            rules={f"{item.rule.id}/{item.artefact}": item.state for item in result.results},
        ),
    )


def _concerned(rule: Rule, artefacts: Sequence[Artefact]) -> list[Artefact]:
    return [artefact for artefact in artefacts if rule.about in {artefact.kind, artefact.id}]


def _speaks_of(evidence: Evidence, artefact: Artefact) -> bool:
    return evidence.statement is not None and artefact.digest in evidence.statement.about()


def _nothing(rule: Rule) -> RuleResult:
    return RuleResult(rule=rule, artefact=rule.about, state=_unmet(rule), reason=f"the system declares no {rule.about}")


def _unmet(rule: Rule) -> RuleState:
    return "warned" if rule.severity == "warn" else "unmet"


def _judge(rule: Rule, artefact: Artefact, evidence: Sequence[Evidence], now: datetime) -> RuleResult:
    """One rule on one artefact: enough distinct signers whose newest word meets every condition."""
    said = [item for item in evidence if _fits(item, rule)]
    standing = [item for item in said if item.holds]
    fresh = [item for item in standing if not _too_old(item, rule, now)]
    conditions = (*IMPLIED.get(_whole(rule.type), ()), *rule.where)
    against = [(item, broken) for item in fresh if (broken := _broken(item, conditions))]
    if against:
        item, broken = against[-1]
        return _refusal(rule, artefact, broken, [item.digest for item, _ in against], _mend(item))
    signers = {signer for item in fresh for signer in item.signers}
    if fresh and len(signers) >= rule.signers:
        ends = [end for item in fresh if (end := _end(item, rule)) is not None]
        return RuleResult(
            rule=rule,
            artefact=artefact.id,
            state="met",
            reason=_met_by(fresh, conditions),
            relied_on=tuple(item.digest for item in fresh),
            until=min(ends, default=None),
        )
    return _refusal(rule, artefact, _missing(rule, said, standing, signers), [item.digest for item in fresh])


def _fits(evidence: Evidence, rule: Rule) -> bool:
    statement = evidence.statement
    if statement is None or statement.predicate_type != _whole(rule.type):
        return False
    if rule.check and evidence.check != rule.check:
        return False
    if rule.role and rule.role not in _acting_roles(evidence):
        return False
    return not rule.kind or evidence.kind == rule.kind or (rule.kind, evidence.kind) == ("approval", "rejection")


def _acting_roles(evidence: Evidence) -> tuple[str, ...]:
    """A decision acts in the one role it names; anything else in all roles of its signers."""
    statement = evidence.statement
    if statement is not None and statement.predicate_type == predicates.DECISION:
        return (str(statement.predicate.get("role", "")),)
    return evidence.roles


def _whole(type_name: str) -> str:
    return predicates.SHORT_NAMES.get(type_name, type_name)


def _too_old(evidence: Evidence, rule: Rule, now: datetime) -> bool:
    return bool(rule.max_age) and evidence.received_at + parse_duration(rule.max_age) <= now


def _end(evidence: Evidence, rule: Rule) -> datetime | None:
    ends = [evidence.ends_at] if evidence.ends_at else []
    if rule.max_age:
        ends.append(evidence.received_at + parse_duration(rule.max_age))
    return min(ends, default=None)


def _broken(evidence: Evidence, conditions: Iterable[Condition]) -> str:
    """The first condition that a statement breaks, said in a sentence; empty when it meets them all."""
    assert evidence.statement is not None  # noqa: S101 - _fits has seen it
    predicate = evidence.statement.read()
    if evidence.kind == "rejection":
        return "it is a rejection"
    for condition in conditions:
        value = look_up(predicate, condition.field)
        if not _meets(value, condition):
            shown = "is missing" if value is None else f"is {_show(value)}"
            return f"{condition.field} {shown}; {_wanted(condition)}"
        if doubt := _doubt(predicate, condition):
            return doubt
    return ""


def _doubt(predicate: Any, condition: Condition) -> str:
    """Why a number that meets a bound does not show it: its interval reaches beyond. Few samples show little."""
    metric, _, field = condition.field.rpartition(".")
    if field != "value" or (condition.at_least is None and condition.at_most is None):
        return ""
    end = look_up(predicate, f"{metric}.{'high' if condition.at_least is None else 'low'}")
    if end is None or _meets(end, condition):
        return ""
    value = _show(look_up(predicate, condition.field))
    return f"{condition.field} is {value}, but {_show(end)} fits what was seen as well; {_wanted(condition)}"


def _meets(value: Any, condition: Condition) -> bool:
    if value is None:
        return False
    if condition.equals is not None:
        return bool(type(value) is type(condition.equals) or not isinstance(value, bool)) and value == condition.equals
    if condition.one_of:
        return value in condition.one_of
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if condition.at_least is not None:
        return number and value >= condition.at_least
    if condition.at_most is not None:
        return number and value <= condition.at_most
    return False


def _wanted(condition: Condition) -> str:
    if condition.equals is not None:
        return f"it must be {_show(condition.equals)}"
    if condition.one_of:
        return f"it must be one of {', '.join(condition.one_of)}"
    if condition.at_least is not None:
        return f"it must be at least {_show(condition.at_least)}"
    return f"it must be at most {_show(condition.at_most)}"


def _mend(evidence: Evidence) -> str:
    """What to do about a statement that stands and says no: looking again would say the same."""
    if evidence.statement is not None and evidence.statement.predicate_type == predicates.PROVENANCE:
        return ""  # what was recorded cannot be mended, only made anew
    return (
        f"bartizan evidence show {short(evidence.digest)} --report  # mend what it found; the next assure looks again"
    )


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:200]


def _met_by(fresh: Sequence[Evidence], conditions: Sequence[Condition]) -> str:
    statement = fresh[-1].statement
    assert statement is not None  # noqa: S101 - _fits has seen it
    predicate = statement.read()
    values = dict.fromkeys(f"{c.field} is {_show(look_up(predicate, c.field))}" for c in conditions)
    by = ", ".join(dict.fromkeys(signer for item in fresh for signer in item.signers))
    return f"{'; '.join(values) or 'it stands'} (signed by {by})"


def _missing(rule: Rule, said: Sequence[Evidence], standing: Sequence[Evidence], signers: set[str]) -> str:
    """Why there is nothing to rely on: the nearest thing to it, and what is wrong with that."""
    if signers:
        return f"{len(signers)} of {rule.signers} distinct signers: {', '.join(sorted(signers))}"
    if standing:
        return f"the newest is of {standing[-1].received_at:%Y-%m-%d}, older than {rule.max_age}"
    if said:
        order = [Standing.EXPIRED, Standing.STALE, Standing.REVOKED, Standing.UNTRUSTED]
        nearest = max(said, key=lambda item: (item.standing in order, item.seq))
        return f"statement {short(nearest.digest)} does not count: {nearest.standing.value}, {nearest.reason}"
    return "there is no such statement"


def _refusal(rule: Rule, artefact: Artefact, reason: str, relied_on: Sequence[Digest], remedy: str = "") -> RuleResult:
    return RuleResult(
        rule=rule,
        artefact=artefact.id,
        state=_unmet(rule),
        reason=reason,
        relied_on=tuple(relied_on),
        remedy=remedy or remedy_for(rule, artefact.id),
    )


def remedy_for(rule: Rule, artefact: str) -> str:
    """The command that would supply what a rule asks for, as far as a command can."""
    kind = _whole(rule.type)
    if kind == predicates.DECISION:
        role = f" --role {rule.role}" if rule.role else ""
        return f'bartizan decide {rule.kind or "approval"} --about {artefact}{role} --reason "..."'
    if kind == predicates.MODEL_SIGNATURE:
        return f"bartizan register {artefact}"
    if kind == predicates.PROVENANCE:
        return f"bartizan record --inputs dataset:NAME --outputs {artefact} -- COMMAND"
    if rule.check:
        return f"bartizan assure --only {rule.check}"
    return f"bartizan evidence add FILE  # an envelope with predicate type {kind}"


_INDEX = re.compile(r"(0|[1-9][0-9]{0,5})\Z")


def look_up(value: Any, path: str) -> Any:
    """A field of a predicate by dotted path, or None. Names with dots in them match longest first."""
    if not path:
        return value if isinstance(value, str | int | float | bool) else None
    for name, rest in _splits(path):
        found, inner = _step(value, name)
        if found:
            return look_up(inner, rest)
    return None


def _splits(path: str) -> Iterable[tuple[str, str]]:
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        yield ".".join(parts[:count]), ".".join(parts[count:])


def _step(value: Any, name: str) -> tuple[bool, Any]:
    if isinstance(value, msgspec.Struct):
        for field, wire_name in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
            if name in {field, wire_name}:
                return True, getattr(value, field)
    elif isinstance(value, Mapping):
        return name in value, value.get(name)
    elif isinstance(value, list | tuple) and _INDEX.match(name) and int(name) < len(value):
        return True, value[int(name)]
    return False, None
