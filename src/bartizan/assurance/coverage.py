"""Which evidence bears on which control, and what a control asks for that is not there.

A statement is shown with a control for one of four reasons and no other (see ``model.Basis``):

1. its check is registered as evidence for the control;
2. the person who decided named the control;
3. a gate rule of the control relied on the statement;
4. the control's own words ask for just this kind of statement, and nothing in them narrows it.

Nothing is inferred from a capability being installed. What nobody supplies yet is said to be so.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from bartizan.assurance import commands
from bartizan.assurance.exhibits import CheckFacts
from bartizan.assurance.model import Basis, Chapter, ControlLine, EvidenceLine, Gap, Link, MapTechnique, TechniqueLine
from bartizan.catalogue.entries import Control, Principle, Technique
from bartizan.catalogue.load import Catalogue
from bartizan.core.evidence import Evidence, Standing
from bartizan.core.gate import GateResult

SOURCE_TITLES = {
    "introduction": "Introduction to the principles",
    "a-mlsg": "Guideline for AI security, A-MLSG",
    "guidelines": "Guidelines for secure AI system development",
    "blog": "Announcement of the revised principles",
    "roke": "Research behind the principles",
}
DECISION_KINDS = ("approval", "exception", "disclosure", "supplier", "risk", "scope", "briefing", "review")
_DECISION = re.compile(r"\bdecision\b(?:\[kind=([a-z]+))?")
_TERM = re.compile(
    r"(?:^|[+|>])\s*(oms|prov|vsa|deployment|incident|retirement|revocation)(?:\[([a-z=-]+)\])?\s*(?=[+|]|$)"
)
"""Terms of a control's evidence that are not made by checks and that nothing else narrows."""
THIS_REPORT = {
    "INTRO-1": "This report lists evidence, its age and its gaps, and has no grade.",
    "1.1-G1": "This report goes through all principles, stage by stage, and names every gap.",
    "BLOG-3": "The first page of this report is for the risk owner.",
    "ROKE-3": "The attack map of this report.",
    "ROKE-5": "Each principle of this report lists the attacks that use its gap.",
}
"""Controls that a report answers by being there."""
_TYPES = {
    "oms": "signature",
    "prov": "provenance",
    "vsa": "verdict",
    "deployment": "deployment",
    "incident": "incident",
    "retirement": "retirement",
    "revocation": "revocation",
}


class Coverage:
    """Evidence sorted by the controls on which it bears; ``about`` is the id of the system."""

    def __init__(
        self,
        lines: Sequence[EvidenceLine],
        evidence: Sequence[Evidence],
        gate: GateResult | None,
        checks: Mapping[str, CheckFacts],
        about: str,
    ) -> None:
        self._about = about
        self._lines = {line.digest: line for line in lines}
        self._statements: dict[str, Evidence] = {item.digest: item for item in evidence}
        self._checks: dict[str, list[str]] = defaultdict(list)
        for name, facts in sorted(checks.items()):
            for control in facts.controls:
                self._checks[control].append(name)
        self._facts = checks
        self._by_check: dict[str, list[str]] = defaultdict(list)
        self._by_concern: dict[str, list[str]] = defaultdict(list)
        self._by_rule: dict[str, list[str]] = defaultdict(list)
        for line in lines:
            self._by_check[line.check].append(line.digest)
            for concern in line.concerns:
                self._by_concern[concern].append(line.digest)
        for result in gate.results if gate else ():
            for control in result.rule.controls:
                self._by_rule[control].extend(result.relied_on)

    def control(self, control: Control) -> ControlLine:
        """One control with the evidence that bears on it and the gaps that are left."""
        links = self._links(control)
        holds = tuple(link for link in links if self._lines[link.digest].standing is Standing.HOLDS)
        ended = tuple(link for link in links if self._counted_once(link))
        scoped_out = self._scoped_out(control.id, control.principle)
        return ControlLine(
            id=control.id,
            item=control.item,
            asks_for=control.evidence,
            goal=control.goal,
            human=control.human,
            holds=holds,
            ended=ended,
            gaps=() if scoped_out else tuple(self._gaps(control, holds)),
            scoped_out=scoped_out,
            here=THIS_REPORT.get(control.id, ""),
        )

    def tried(self, technique: str) -> tuple[str, ...]:
        """Assessments that exercised a technique and count now."""
        return tuple(
            digest
            for digest, item in self._statements.items()
            if item.holds and item.statement and technique in _names(item.statement.predicate.get("techniques"))
        )

    def accepted(self, technique: str) -> str:
        """Digest of a risk decision that accepts a technique and counts now, or empty."""
        return next((digest for digest in self._by_concern[technique] if self._says_yes(digest, "risk")), "")

    def _links(self, control: Control) -> list[Link]:
        found: dict[str, Basis] = {}
        ways: tuple[tuple[Basis, Iterable[str]], ...] = (
            ("check", (digest for name in self._checks[control.id] for digest in self._by_check[name])),
            ("decision", self._by_concern[control.id]),
            ("rule", self._by_rule[control.id]),
            ("kind", self._of_kind(control.evidence)),
        )
        for basis, digests in ways:
            for digest in digests:
                if digest in self._lines:
                    found.setdefault(digest, basis)
        newest_first = sorted(found, key=lambda digest: (-self._lines[digest].seq, digest))
        return [Link(digest=digest, basis=found[digest]) for digest in newest_first]

    def _counted_once(self, link: Link) -> bool:
        """Ended evidence is shown unless something newer of the same origin stands in its place."""
        return self._lines[link.digest].standing not in {Standing.HOLDS, Standing.SUPERSEDED}

    def _of_kind(self, asks_for: str) -> list[str]:
        wanted = [(_TYPES[term], condition) for term, condition in _TERM.findall(asks_for)]
        return [digest for digest, line in self._lines.items() if any(self._is(line, *want) for want in wanted)]

    def _is(self, line: EvidenceLine, short_type: str, condition: str) -> bool:
        item = self._statements[line.digest]
        if line.type != short_type or item.statement is None:
            return False
        if not condition:
            return short_type != "verdict"  # a verdict of whichever gate says nothing about one control
        field, _, value = condition.rpartition("=")
        named = {"policy": "gate", "kind": "kind", "": "action" if short_type == "deployment" else ""}.get(field, "")
        return bool(named) and item.statement.predicate.get(named) == value

    def _scoped_out(self, *concerns: str) -> str:
        named = (digest for concern in concerns if concern for digest in self._by_concern[concern])
        return next((digest for digest in named if self._says_yes(digest, "scope")), "")

    def _says_yes(self, digest: str, kind: str) -> bool:
        item, line = self._statements[digest], self._lines[digest]
        return item.holds and item.kind == kind and line.type == "decision" and line.outcome == "yes"

    def _gaps(self, control: Control, holds: Sequence[Link]) -> Iterable[Gap]:
        if control.id in THIS_REPORT or ("|" in control.evidence and holds):
            return
        yield from self._check_gaps(control)
        yield from self._decision_gap(control, holds)
        if self._checks[control.id] or _asks_for_decision(control) or any(link.basis != "kind" for link in holds):
            return
        what = "No command supplies this yet: do it, and record by hand what was done."
        if holds:
            what = (
                "Statements of the kind asked for stand: read whether they show this, and record by hand that they do."
            )
        yield Gap(what=what, command=commands.decide("review", self._about, control.id))

    def _check_gaps(self, control: Control) -> Iterable[Gap]:
        never, ended, elsewhere = list[str](), list[str](), list[str]()
        ordered = any(self._facts[name].command and self._holds(name) for name in self._checks[control.id])
        for name in self._checks[control.id]:
            standings = [self._lines[digest].standing for digest in self._by_check[name]]
            # Of what is ordered, one will do: they are alternatives.
            if self._holds(name) or (ordered and self._facts[name].command):
                continue
            if standings:
                ended.append(name)
            elif self._facts[name].applies:
                never.append(name)
            else:
                elsewhere.append(name)
        if never:
            yield Gap(what=f"No result yet of {_listed(never)}.", command=self._command(never))
        if ended:
            yield Gap(what=f"No result that still counts of {_listed(ended)}.", command=self._command(ended))
        if elsewhere and len(elsewhere) == len(self._checks[control.id]):
            yield Gap(
                what=f"Nothing here for {_listed(elsewhere)} to examine: say so, or record by hand what was done.",
                command=commands.decide("scope", self._about, control.id),
            )

    def _holds(self, check: str) -> bool:
        """Whether a result of this check counts now."""
        return any(self._lines[digest].standing is Standing.HOLDS for digest in self._by_check[check])

    def _command(self, names: Sequence[str]) -> str:
        """What supplies the results of these checks: their own commands one by one, or ``assure``."""
        own = sorted({self._facts[name].command for name in names} - {""})
        return own[0] if own else commands.assure(names)

    def _decision_gap(self, control: Control, holds: Sequence[Link]) -> Iterable[Gap]:
        if not _asks_for_decision(control):
            return
        if any(self._lines[link.digest].type == "decision" for link in holds):
            return
        named = _DECISION.search(control.evidence)
        kind = named.group(1) if named and named.group(1) in DECISION_KINDS else "review"
        yield Gap(
            what="A person must act: no signed decision that counts names this item.",
            command=commands.decide(kind, self._about, control.id),
        )


def principle_chapters(
    coverage: Coverage, catalogue: Catalogue, states: Mapping[str, MapTechnique] | None
) -> tuple[Chapter, ...]:
    """The fifteen NCSC principles. ``states`` are the techniques within reach; None without a map."""
    return tuple(_principle(principle, coverage, catalogue, states) for principle in catalogue.principles.values())


def source_chapters(coverage: Coverage, catalogue: Catalogue) -> tuple[Chapter, ...]:
    """The controls of all other sources, one chapter each."""
    sources: dict[str, list[Control]] = {}
    for control in catalogue.controls.values():
        if not control.principle:
            sources.setdefault(control.source, []).append(control)
    return tuple(
        Chapter(
            id=source,
            title=SOURCE_TITLES.get(source, source),
            controls=tuple(coverage.control(control) for control in controls),
        )
        for source, controls in sorted(sources.items(), key=lambda pair: _source_rank(pair[0]))
    )


def _principle(
    principle: Principle, coverage: Coverage, catalogue: Catalogue, states: Mapping[str, MapTechnique] | None
) -> Chapter:
    return Chapter(
        id=principle.id,
        title=principle.title,
        stage=principle.stage,
        controls=tuple(coverage.control(control) for control in catalogue.controls_of(principle.id)),
        techniques=tuple(_technique(entry, coverage, states) for entry in catalogue.techniques_of(principle.id)),
    )


def _technique(entry: Technique, coverage: Coverage, states: Mapping[str, MapTechnique] | None) -> TechniqueLine:
    state = ""
    if states is not None:
        state = states[entry.id].state if entry.id in states else "out of reach"
    return TechniqueLine(
        id=entry.id,
        name=entry.name,
        state=state,
        tried=coverage.tried(entry.id),
        accepted=coverage.accepted(entry.id),
    )


def _source_rank(source: str) -> tuple[int, str]:
    known = list(SOURCE_TITLES)
    return (known.index(source) if source in known else len(known), source)


def _asks_for_decision(control: Control) -> bool:
    return control.human or "decision" in control.evidence


def _names(value: object) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list | tuple) else ()


def _listed(names: Sequence[str]) -> str:
    """``check a``, ``checks a and b``, ``checks a, b and 3 more``."""
    if len(names) == 1:
        return f"check {names[0]}"
    if len(names) <= 4:  # noqa: PLR2004 - more would bury the sentence
        return f"checks {', '.join(names[:-1])} and {names[-1]}"
    return f"checks {', '.join(names[:3])} and {len(names) - 3} more"
