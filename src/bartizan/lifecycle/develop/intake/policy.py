"""What intake demands: rules that always hold, those that a declared gate ``intake`` adds, and exceptions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal

from msgspec.structs import replace

from bartizan.core import predicates
from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.evidence import Evidence, Standing
from bartizan.core.gate import GateResult, RuleResult, evaluate
from bartizan.core.system import Artefact, Condition, Gate, Rule

Kind = Literal["model", "dataset"]
EXCEPTION = "exception"
WAIVABLE = frozenset({"origin", "provenance", "own-samples"})
"""Rules that a signed exception may stand in for; a scan is excused by a signed scan policy only."""
SCAN, ORIGIN, CARD, SAMPLES = "scan", "intake.origin", "intake.card", "intake.samples"


def supplier_artefact(name: str) -> Artefact:
    """The supplier as something that decisions can be about."""
    return Artefact(kind="document", name=f"supplier:{name}", digest=digest_bytes(f"bartizan:supplier:{name}".encode()))


def intake_gate(kind: Kind, name: str, supplier: str, declared: Gate | None) -> Gate:
    """The rules for one case."""
    rules = [
        _rule("scan", kind, "test-result", "every byte is examined, and nothing in it is open", check=SCAN),
        _rule("origin", kind, "test-result", "it is exactly what the supplier is allowed to deliver", check=ORIGIN),
        _rule("provenance", kind, "card", "where it comes from is answered", check=CARD),
        Rule(
            id="supplier",
            about=supplier_artefact(supplier).id,
            type="decision",
            kind="supplier",
            why="the supplier has a record with expectations, posture and an end",
            controls=("2.1-b", "GL-1.7", "GL-2.2"),
        ),
    ]
    if kind == "model":
        rules.append(_rule("own-samples", kind, "assessment", "it does on our samples what is claimed", check=SAMPLES))
    rules.append(
        Rule(id="approval", about=kind, type="decision", kind="approval", why="somebody answers for letting it in")
    )
    extra = [rule for rule in (declared.rule if declared else ()) if rule.about in {kind, f"{kind}:{name}"}]
    replaced = any(_is_approval(rule) for rule in extra)
    kept = [rule for rule in rules if rule.id != "approval" or not replaced]
    return Gate(valid_for=declared.valid_for if declared else "365d", rule=(*kept, *extra))


def _is_approval(rule: Rule) -> bool:
    """Whether a declared rule asks for an approval at least as much as ours."""
    decision = rule.type in {"decision", predicates.DECISION} and rule.kind == "approval"
    return rule.id == "approval" and decision and rule.severity != "warn"


def _rule(rule_id: str, kind: Kind, said: str, why: str, *, check: str) -> Rule:
    passed = {"test-result": "PASSED", "assessment": "passed"}.get(said)
    where = (Condition(field="result", equals=passed),) if passed else ()
    return Rule(id=rule_id, about=kind, type=said, check=check, where=where, why=why, controls=("2.1-a", "2.1-G1"))


def record_of(supplier: Artefact, evidence: Iterable[Evidence]) -> Evidence | None:
    """A supplier's record that counts: the newest of anybody; once that one is over, no older one comes back."""
    spoken = [
        item
        for item in evidence
        if item.kind == "supplier" and item.statement and supplier.digest in item.statement.about()
    ]
    newest = max(
        (item for item in spoken if item.standing in {Standing.HOLDS, Standing.EXPIRED}),
        key=lambda item: item.seq,
        default=None,
    )
    return newest if newest is not None and newest.holds else None


def _counting(evidence: Iterable[Evidence], artefacts: Sequence[Artefact]) -> list[Evidence]:
    """Evidence without the records of a supplier that a newer one replaced."""
    evidence = list(evidence)
    records = {item.digest for each in artefacts if (item := record_of(each, evidence)) is not None}
    return [item for item in evidence if item.kind != "supplier" or not item.holds or item.digest in records]


def judge(
    gate: Gate, artefacts: Sequence[Artefact], evidence: Iterable[Evidence], now: datetime
) -> tuple[GateResult, dict[str, Digest]]:
    """Evaluate a case; unmet rules that a standing exception covers warn instead. Returns the exceptions used."""
    evidence = _counting(evidence, artefacts)
    result = evaluate("intake", gate, artefacts, evidence, now)
    excused = exceptions(evidence)
    used: dict[str, Digest] = {}
    results: list[RuleResult] = []
    words = {item.digest: _words(item) for item in evidence}
    for told in result.results:
        said = next((words[digest] for digest in reversed(told.relied_on) if words.get(digest)), "")
        each = replace(told, reason=f"{said} ({told.reason})") if said else told
        envelope = excused.get(each.rule.id)
        if each.state != "unmet" or envelope is None or each.rule.id not in WAIVABLE:
            results.append(each)
            continue
        used[each.rule.id] = envelope
        reason = f"accepted by a signed exception: {each.reason}"
        results.append(replace(each, state="warned", reason=reason, relied_on=(*each.relied_on, envelope), remedy=""))
    passed = all(each.state != "unmet" for each in results)
    return replace(result, passed=passed, results=tuple(results)), used


def _words(item: Evidence) -> str:
    """What a check says in its own words."""
    said = str(item.statement.predicate.get("summary", "")) if item.statement else ""
    return said.rstrip(".")


def exceptions(evidence: Iterable[Evidence]) -> Mapping[str, Digest]:
    """Rules for which a standing decision of kind ``exception`` says yes, with its envelope."""
    found: dict[str, Digest] = {}
    for item in evidence:
        if not item.holds or item.statement is None or item.kind != EXCEPTION:
            continue
        said = item.statement.read()
        if isinstance(said, predicates.Decision) and said.outcome == "yes":
            found |= dict.fromkeys((str(rule) for rule in said.details.get("rules", ())), item.digest)
    return found
