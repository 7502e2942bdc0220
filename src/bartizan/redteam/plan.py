"""The red team's plan: what is to become of each technique within reach, and what has become of it.

The plan comes from the attack map. Each technique that the considered adversaries reach gets a planned run with
the adversary's position, knowledge and budget. It ends as run, waived or accepted: a measurement of every model
that counts now, a signed exception, or a signed acceptance of the risk; both of these end some day. Whatever has
none of the three is open. The plan is a document; what became of it is never stored but read from the evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from bartizan.catalogue.attackmap import AttackMap, TechniqueOnMap, read_attack_map
from bartizan.catalogue.load import CATALOGUE_ID
from bartizan.catalogue.load import catalogue as shipped_catalogue
from bartizan.core import predicates
from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest, canonical_json, digest_json
from bartizan.core.errors import InputError, StatementError
from bartizan.core.evidence import Evidence
from bartizan.core.system import Artefact, Declaration, System, settings_digest
from bartizan.redteam import registry
from bartizan.redteam.check import NO_CLAIM, AttackCheck

State = Literal["run", "waived", "accepted", "open"]

FORMAT = "bartizan-red-team-plan/1"
MAP, PLAN, COVERAGE = "design.attackmap", "redteam.plan", "redteam.coverage"
"""Check that computes the map, check that makes the plan, and the name under which is said what became of it."""
STANDING = "standing:redteam"
"""Input under which a statement of coverage names what had become of the plan."""
OTHER_CHECKS = {"scan.corpus": "scan"}
"""What the catalogue calls a trial that is no attack, to the check that makes it."""
MACHINES = frozenset({"assurer", "ledger"})
"""Roles of services; whoever signs in others is a person."""
INDEPENDENCE = "1.4-d"
"""Control that asks for a second person where one alone vouches for a result."""
ACCEPTANCES: dict[str, State] = {"exception": "waived", "risk": "accepted"}
"""Kind of decision to how an item ends by it."""


class Planned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One technique within reach, and the run that is planned for it."""

    technique: str
    name: str
    atlas: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()
    """Considered positions that reach it alone; empty: only together."""
    knowledge: str = ""
    """What the adversary knows of the model, in the catalogue's words."""
    checks: tuple[str, ...] = ()
    """Checks that try it and apply here, the planned one first; empty: nothing installed does."""
    access: tuple[str, ...] = ()
    """What the planned attack is given."""
    upper_bound: bool = False
    """It is given more than the interface gives away."""
    budget: dict[str, Any] = {}
    """Settings of the declaration that bound the planned run."""
    lacking: tuple[str, ...] = ()
    """Why each installed attack of this technique that does not apply does not, in one sentence each."""

    @property
    def check(self) -> str:
        """The planned check; empty when there is none."""
        return self.checks[0] if self.checks else ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of every technique within reach of a system."""

    format: str
    system: str
    map: Digest
    """Digest of the attack map that it comes from."""
    items: tuple[Planned, ...]

    def encode(self) -> bytes:
        """The document: canonical JSON."""
        return canonical_json(msgspec.to_builtins(self))


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of one item for one model."""

    technique: str
    model: str
    """``model:NAME``."""
    state: State
    by: tuple[Digest, ...] = ()
    """Statements that make it so."""
    signers: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    """Roles of those who signed them."""
    until: datetime | None = None
    """When the first of them stops counting by its own words."""
    why: str = ""


def plan_of(system: System, document: AttackMap, digest: Digest) -> Plan:
    """The plan for what the map says is within reach; equal inputs give equal bytes."""
    grouped: dict[str, list[AttackCheck]] = {}
    for check in registry.checks():
        grouped.setdefault(check.variants[0].technique, []).append(check)
    items = [_planned(system, technique, grouped) for technique in document.techniques if technique.reachable]
    return Plan(format=FORMAT, system=document.system, map=digest, items=tuple(items))


def _planned(system: System, technique: TechniqueOnMap, grouped: Mapping[str, Sequence[AttackCheck]]) -> Planned:
    declaration = system.declaration
    trying = sorted(grouped.get(technique.id, ()), key=lambda check: _rank(check, system))
    reasons = [check.why_not(system) for check in trying]
    applying = [check for check, reason in zip(trying, reasons, strict=True) if not reason]
    other = OTHER_CHECKS.get(technique.redteam, "")
    first = applying[0] if applying else None
    return Planned(
        technique=technique.id,
        name=technique.name,
        atlas=technique.atlas,
        positions=technique.positions,
        knowledge=technique.knowledge,
        checks=(*(check.name for check in applying), *((other,) if other else ())),
        access=tuple(sorted(first.attack(system).needs)) if first else (),
        upper_bound=first is not None and first.is_upper_bound(declaration),
        budget=_budget(first, declaration) if first else {},
        lacking=tuple(reason for reason in reasons if reason),
    )


def _rank(check: AttackCheck, system: System) -> tuple[bool, bool, str]:
    """What the declaration wants run comes first, then what needs no more than the interface."""
    return not check.selected(system), check.is_upper_bound(system.declaration), check.name


def _budget(check: AttackCheck, declaration: Declaration) -> dict[str, Any]:
    found = {name: getattr(declaration.redteam, name) for name in check.family.settings}
    plain: dict[str, Any] = msgspec.to_builtins(found)
    return plain


def read_plan(data: bytes) -> Plan:
    """Read a document made by ``Plan.encode``.

    Raises:
        InputError: it is none.
    """
    try:
        found = msgspec.json.decode(data, type=Plan)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"this is no plan of a red team: {error}", remedy="run bartizan attack --plan.") from error
    if found.format != FORMAT:
        raise InputError(f"this plan has the format {found.format!r}", remedy=f"this version reads {FORMAT}.")
    return found


# ---- what has become of it


def standing(plan: Plan, system: System, evidence: Iterable[Evidence]) -> tuple[Settled, ...]:
    """What has become of each item, for each declared model, by the evidence that counts now."""
    holding = [item for item in evidence if item.holds and item.statement is not None]
    return tuple(_settled(item, model, system, holding) for item in plan.items for model in system.of_kind("model"))


def _settled(item: Planned, model: Artefact, system: System, holding: Sequence[Evidence]) -> Settled:
    speaking = [found for found in holding if _about(found, model, system)]
    runs = [found for found in speaking if _tries(found, item)]
    vouched = {found.digest: _vouchers(found, item, speaking) for found in runs}
    if sound := [found for found in runs if vouched[found.digest] is not None]:
        reviews = [review for found in sound for review in vouched[found.digest] or ()]
        return _by("run", item, model, sound, reviews)
    for kind, state in ACCEPTANCES.items():
        if decisions := [found for found in speaking if _decides(found, {kind}, {item.technique})]:
            return _by(state, item, model, decisions, decisions)
    return Settled(technique=item.technique, model=model.id, state="open", why=_why_open(item, runs))


def _why_open(item: Planned, runs: Sequence[Evidence]) -> str:
    if runs:
        authors = ", ".join(dict.fromkeys(signer for found in runs for signer in found.signers))
        return f"the only result is signed by its author alone ({authors}); another person has to review it"
    if item.check:
        return f"{item.check} has no result that counts now"
    return " ".join(item.lacking) or "nothing that is installed tries it"


def _by(state: State, item: Planned, model: Artefact, found: Sequence[Evidence], ending: Sequence[Evidence]) -> Settled:
    every = {each.digest: each for each in (*found, *ending)}
    ends = [each.ends_at for each in ending if each.ends_at is not None]
    return Settled(
        technique=item.technique,
        model=model.id,
        state=state,
        by=tuple(every),
        signers=tuple(dict.fromkeys(signer for each in every.values() for signer in each.signers)),
        roles=tuple(dict.fromkeys(role for each in every.values() for role in each.roles)),
        until=min(ends, default=None),
        why=_words(state, found),
    )


def _words(state: str, found: Sequence[Evidence]) -> str:
    last = found[-1]
    predicate = last.statement.predicate if last.statement else {}
    said = predicate.get("summary") if state == "run" else predicate.get("reason")
    tool = _tool(predicate)
    return f"claimed by {tool}, not measured here: {said}" if tool else str(said or last.check)


def _tool(predicate: Mapping[str, Any]) -> str:
    settings = predicate.get("settings")
    return str(settings.get("tool", "")) if isinstance(settings, Mapping) else ""


def _tries(found: Evidence, item: Planned) -> bool:
    """Whether a statement is the result of trying a technique."""
    assert found.statement is not None  # noqa: S101 - the caller has looked
    if found.statement.predicate_type == predicates.ASSESSMENT:
        techniques, settings = (found.statement.predicate.get(name) for name in ("techniques", "settings"))
        if isinstance(settings, Mapping) and settings.get(NO_CLAIM):
            return False
        return item.technique in techniques if isinstance(techniques, list | tuple) else False
    return found.check in item.checks and found.statement.predicate_type == predicates.TEST_RESULT


def _vouchers(found: Evidence, item: Planned, speaking: Sequence[Evidence]) -> list[Evidence] | None:
    """Who vouches for a result beside its author; None when nobody does. What was measured here needs nobody."""
    claim = found.statement is not None and bool(_tool(found.statement.predicate))
    if set(found.roles) <= MACHINES and not claim:
        return []
    authors = set(found.signers)
    concerns = {item.technique, INDEPENDENCE}
    reviews = [
        other
        for other in speaking
        if _decides(other, {"review", "approval"}, concerns) and authors.isdisjoint(other.signers)
    ]
    return reviews or None


def _decides(found: Evidence, kinds: set[str], concerns: set[str]) -> bool:
    """Whether a statement is a decision of one of these kinds, in favour, about one of these matters."""
    if found.statement is None or found.statement.predicate_type != predicates.DECISION or found.kind not in kinds:
        return False
    try:
        decision: predicates.Decision = found.statement.read()
    except StatementError:
        return False
    return decision.outcome == "yes" and not concerns.isdisjoint(decision.concerns)


def _about(found: Evidence, model: Artefact, system: System) -> bool:
    """Whether a statement is about the model, or about the whole system."""
    digests = {model.digest, *(whole.digest for whole in system.of_kind("system"))}
    return found.statement is not None and not digests.isdisjoint(found.statement.about())


def standing_digest(settled: Sequence[Settled]) -> Digest:
    """What a statement of coverage rests on: it goes stale as soon as anything becomes of an item."""
    return digest_json([[each.technique, each.model, each.state, each.by, each.until] for each in settled])


def open_items(settled: Sequence[Settled]) -> tuple[Settled, ...]:
    """Items that have not ended."""
    return tuple(each for each in settled if each.state == "open")


def coverage(settled: Sequence[Settled], plan: Digest) -> predicates.TestResult:
    """The standing of a plan as a test result: passed when no item is open."""
    still = open_items(settled)
    named = [(f"{each.technique} {each.model}", each.state) for each in settled]
    counts = {state: sum(each.state == state for each in settled) for state in ("run", "waived", "accepted", "open")}
    return predicates.TestResult(
        result="FAILED" if still else "PASSED",
        check=predicates.CheckRef(name=COVERAGE, version="1"),
        inputs=(
            predicates.Input.of(f"document:{PLAN}", plan),
            predicates.Input.of(STANDING, standing_digest(settled)),
        ),
        passed_tests=tuple(f"{name}: {state}" for name, state in named if state == "run"),
        warned_tests=tuple(f"{name}: {state}" for name, state in named if state in {"waived", "accepted"}),
        failed_tests=tuple(f"{name}: {state}" for name, state in named if state == "open"),
        summary="Of the techniques within reach, " + ", ".join(f"{n} {state}" for state, n in counts.items()) + ".",
        coverage="partly" if still else "examined",
        valid_until=min((each.until for each in settled if each.until is not None), default=None),
    )


# ---- the check


class PlanCheck:
    """Plans the red team's work on a declared system; see ``core.check.Check``."""

    name = PLAN
    version = "1"
    title = "Red-team plan from the attack map"
    controls = ("1.4-a", "1.4-G1")
    after: tuple[str, ...] = (MAP,)

    def subjects(self, system: System) -> Sequence[Artefact]:
        """The system itself."""
        return system.of_kind("system")

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """What the plan rests on: the catalogue, the declaration without its gates, and the installed attacks."""
        del subject
        declaration = msgspec.structs.replace(system.declaration, gate={})
        chosen = sorted(check.name for check in registry.checks() if check.selected(system))
        said = settings_digest(declaration, chosen, registry.names())
        return {CATALOGUE_ID: shipped_catalogue().digest, f"settings:{self.name}": said}

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        data = context.report_of(MAP, subject.id)
        document = read_attack_map(data)
        plan = plan_of(system, document, Blob(data).digest)
        blob = Blob(plan.encode())
        return Outcome(
            predicate_type=predicates.REFERENCE,
            predicate=predicates.Reference(
                attester={"id": f"urn:bartizan:{self.name}"},
                references=(
                    predicates.Resource(
                        name="red-team-plan.json", digest={"sha256": blob.digest}, media_type=blob.media_type
                    ),
                ),
                kind="red-team-plan",
                summary=_summary(plan),
                facts=_facts(plan),
            ),
            report=blob,
        )


def _summary(plan: Plan) -> str:
    planned = [item for item in plan.items if item.check]
    return (
        f"{len(plan.items)} techniques are within reach; a run is planned for {len(planned)} of them, "
        f"the other {len(plan.items) - len(planned)} have to be waived or accepted by a signed decision."
    )


def _facts(plan: Plan) -> dict[str, Any]:
    return {
        "planned": [item.technique for item in plan.items if item.check],
        "unplanned": [item.technique for item in plan.items if not item.check],
        "checks": sorted(_planned_checks(plan)),
    }


def _planned_checks(plan: Plan) -> Iterator[str]:
    yield from dict.fromkeys(item.check for item in plan.items if item.check)


__all__ = [
    "COVERAGE",
    "PLAN",
    "STANDING",
    "Plan",
    "PlanCheck",
    "Planned",
    "Settled",
    "coverage",
    "open_items",
    "plan_of",
    "read_plan",
    "standing",
    "standing_digest",
]
