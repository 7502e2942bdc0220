"""Check ``design.briefings``: does everybody with a role know what there is to know now?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest, canonical_json, digest_json
from bartizan.core.finding import Finding, Severity
from bartizan.core.predicates import TEST_RESULT, TestResult
from bartizan.core.system import Artefact, System

NAME = "design.briefings"
VALID = "valid"


def needs_register(system: System) -> bool:
    """Whether somebody asks for the check: the declaration wants briefings, or a gate has a rule about them."""
    declaration = system.declaration
    rules = (rule for gate in declaration.gate.values() for rule in gate.rule)
    return declaration.guidance.briefings_required or any(rule.check == NAME for rule in rules)


class BriefingCheck:
    """Holds the register of briefings against the declared roles; see ``core.check.Check``."""

    name = NAME
    version = "1"
    title = "Briefings of every declared role"
    controls = ("1.1-G2", "1.1-a", "1.1-h", "5.2-e", "GL-1.1")
    after: tuple[str, ...] = ()

    def subjects(self, system: System) -> Sequence[Artefact]:
        """The system itself, where somebody asks."""
        return system.of_kind("system") if needs_register(system) else ()

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """The text that each role has to read, and whether it was: a change of either makes the result stale."""
        del subject
        return {f"register:{self.name}": digest_json([(item.role, item.state, item.text) for item in system.briefed])}

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        del subject
        context.progress(0, 1, "reading the register")
        behind = [item for item in system.briefed if item.state != VALID]
        findings = tuple(_findings(system))
        context.progress(1, 1)
        return Outcome(
            predicate_type=TEST_RESULT,
            predicate=TestResult(
                result="FAILED" if behind or not system.briefed else "PASSED",
                passed_tests=tuple(item.role for item in system.briefed if item.state == VALID),
                failed_tests=tuple(item.role for item in behind),
                summary=f"{len(system.briefed) - len(behind)} of {len(system.briefed)} roles are briefed.",
                coverage="examined",
                findings={"medium": len(findings)} if findings else {},
            ),
            findings=findings,
            report=Blob(canonical_json({"roles": system.briefed})),
        )


def _findings(system: System) -> Iterator[Finding]:
    for item in system.briefed:
        if item.state != VALID:
            yield Finding(
                rule="design/role-not-briefed",
                severity=Severity.MEDIUM,
                title=f"the briefing of {item.role} is {item.state}",
                where=f"system:{system.declaration.name}",
                detail=f"{item.reason[:1].upper()}{item.reason[1:]}.",
                remedy=f'run `bartizan briefing "{item.role}"`; whoever has read it confirms it.',
                controls=("1.1-G2", "5.2-e"),
            )
