"""The report as values: everything its renderers show, and nothing that they would have to work out.

All values are plain JSON after ``msgspec.to_builtins``; times are text in UTC. No field holds a
grade or a share of anything done, on purpose: the NCSC principles are not a checklist.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from bartizan.core.evidence import Standing
from bartizan.core.finding import Finding
from bartizan.core.gate import RuleState
from bartizan.core.predicates import Metric


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the parts of a report."""


class EvidenceLine(_Part, frozen=True, kw_only=True):
    """One statement: what it says, who signed it, how old it is and whether it counts now."""

    digest: str
    """Of the envelope."""
    seq: int
    type: str
    """Short predicate type, or the whole one when it is not ours."""
    title: str
    """What it is, for people: the check's title, or the kind of statement."""
    check: str = ""
    about: tuple[str, ...] = ()
    """Names of its subjects."""
    says: str = ""
    """Its own one-sentence summary."""
    outcome: str = ""
    """``passed``, ``failed``, ``measured``, ``yes``, ``no`` ...; empty for statements that judge nothing."""
    against: bool = False
    """Whether it speaks against the system: a failed test, a rejection, a refused gate."""
    signers: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    received: str
    age: str
    standing: Standing
    reason: str = ""
    """Why it does not count."""
    ends: str = ""
    """When it stops counting by its own words."""
    ends_in: str = ""
    concerns: tuple[str, ...] = ()
    """Catalogue ids that a decision names."""


Basis = Literal["check", "rule", "decision", "kind"]
"""Why a statement is shown with a control: its check is declared evidence for the control; a gate
rule of the control relied on it; the person who decided named the control; or the control asks for
statements of just this kind."""


class Link(_Part, frozen=True, kw_only=True):
    """A statement that bears on a control."""

    digest: str
    basis: Basis


class Gap(_Part, frozen=True, kw_only=True):
    """Something that a control asks for and that is not there."""

    what: str
    command: str = ""
    """What would supply it; empty when ``what`` says that nothing can yet."""


class ControlLine(_Part, frozen=True, kw_only=True):
    """One control with its evidence and its gaps."""

    id: str
    item: str
    asks_for: str
    """The catalogue's words for the evidence that would show it."""
    goal: bool = False
    human: bool = False
    """A person must act; software only prompts and records."""
    holds: tuple[Link, ...] = ()
    ended: tuple[Link, ...] = ()
    """Evidence that no longer counts; each line says why."""
    gaps: tuple[Gap, ...] = ()
    scoped_out: str = ""
    """Digest of the decision that puts it out of scope."""
    here: str = ""
    """How this report itself answers it; empty for almost all."""


class TechniqueLine(_Part, frozen=True, kw_only=True):
    """An attack technique that exploits a principle's gap."""

    id: str
    name: str
    state: str = ""
    """Its state in this system's attack map; empty without a map."""
    tried: tuple[str, ...] = ()
    """Digests of the assessments that exercised it."""
    accepted: str = ""
    """Digest of the decision that accepts its risk."""


class Chapter(_Part, frozen=True, kw_only=True):
    """A principle, or another source of controls."""

    id: str
    title: str
    stage: str = ""
    controls: tuple[ControlLine, ...]
    techniques: tuple[TechniqueLine, ...] = ()


class RuleLine(_Part, frozen=True, kw_only=True):
    """How one gate rule came out for one artefact."""

    id: str
    about: str
    why: str
    asks_for: str
    severity: str
    state: RuleState
    reason: str
    relied_on: tuple[str, ...] = ()
    remedy: str = ""
    controls: tuple[str, ...] = ()


class GateLine(_Part, frozen=True, kw_only=True):
    """What the gate decided."""

    name: str
    passed: bool
    rules: tuple[RuleLine, ...]


class ArtefactLine(_Part, frozen=True, kw_only=True):
    """One model, dataset or the system, with the digest it has now."""

    id: str
    digest: str
    path: str = ""
    """Relative to the declaration."""
    facts: tuple[tuple[str, str], ...] = ()
    """What the declaration says about it: (field, value)."""


class ComponentBox(_Part, frozen=True, kw_only=True):
    """One component of the data-flow picture."""

    name: str
    kind: str
    zone: str
    asset: str = ""


class FlowArrow(_Part, frozen=True, kw_only=True):
    """One flow of the data-flow picture; ``number`` ties arrow and list together."""

    number: int
    source: str
    target: str
    carries: str
    protected_by: tuple[str, ...] = ()
    leaves_site: bool = False
    crosses: bool = False
    """Whether it crosses from one trust zone into another."""


class Glance(_Part, frozen=True, kw_only=True):
    """The declared system at a glance."""

    name: str
    purpose: str
    description: str
    owner: str
    contact: str
    people: tuple[tuple[str, str], ...]
    jurisdiction: str
    declaration_digest: str
    artefacts: tuple[ArtefactLine, ...]
    exposure: tuple[tuple[str, str], ...]
    impact: tuple[tuple[str, str], ...]
    expected: tuple[tuple[str, str], ...]
    components: tuple[ComponentBox, ...]
    flows: tuple[FlowArrow, ...]


class Point(_Part, frozen=True, kw_only=True):
    """One point of a curve; ``low`` and ``high`` bound its interval when there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


class Series(_Part, frozen=True, kw_only=True):
    """One named curve."""

    name: str
    points: tuple[Point, ...]


FigureKind = Literal["change", "queries", "corruption", "poison", "recall", "backdoor", "roc", "exposure", "fidelity"]


class Curves(_Part, frozen=True, kw_only=True):
    """One figure's curves, read from red-team reports."""

    kind: FigureKind
    series: tuple[Series, ...]
    sources: tuple[str, ...]
    """Digests of the statements whose reports they come from."""
    unit: str = ""
    """Of the horizontal axis, where that depends on the data; empty where measurements differ in it."""


class Absence(_Part, frozen=True, kw_only=True):
    """A figure that cannot be drawn, and why."""

    kind: FigureKind
    reason: str


class Confusion(_Part, frozen=True, kw_only=True):
    """Counts of true class against predicted class under attack."""

    title: str
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    """``(true, predicted)``."""


class Named(_Part, frozen=True, kw_only=True):
    """An id of an attack taxonomy with its name there."""

    id: str
    name: str = ""
    """Empty when the catalogue does not know the id."""
    taxonomy: str
    """``catalogue``, ``MITRE ATLAS`` or ``NIST AI 100-2``."""


class Headline(_Part, frozen=True, kw_only=True):
    """The one number of a measurement that an overview shows."""

    name: str
    metric: Metric
    carried: bool = True
    """Whether the observations carry a claim: an interval that covers most of what is possible says nothing."""


class PartLine(_Part, frozen=True, kw_only=True):
    """Robust accuracy of one class or segment of the attacked samples."""

    name: str
    samples: int
    right: int
    """Samples that are answered rightly as long as nobody attacks."""
    value: float
    low: float
    high: float


class WorstCase(_Part, frozen=True, kw_only=True):
    """A sample that fell to the smallest change."""

    record: int
    """Its place in the evaluation data, from 0."""
    true: str
    answered: str
    """What it is answered under attack."""
    change: float
    queries: int | None = None
    moved: tuple[tuple[str, float], ...] = ()
    """The features that were changed most, with their change."""


class Pair(_Part, frozen=True, kw_only=True):
    """An image before and after the attack."""

    record: int
    label: str
    answer_clean: str
    answer_attacked: str
    change: float | None = None
    clean: tuple[int, ...]
    """``channels x height x width`` values from 0 to 255, by channel, row, column."""
    attacked: tuple[int, ...]


class Pictures(_Part, frozen=True, kw_only=True):
    """Images before and after an attack."""

    shape: tuple[int, int, int]
    """Channels (1 or 3), height and width as shown."""
    thinned: int = 1
    """Every so many-th pixel of the original is shown."""
    pairs: tuple[Pair, ...]


class AttackLine(_Part, frozen=True, kw_only=True):
    """One red-team measurement."""

    digest: str
    title: str
    family: str
    method: str
    about: tuple[str, ...]
    says: str
    standing: Standing
    position: str = ""
    access: tuple[str, ...] = ()
    knowledge: str = ""
    techniques: tuple[str, ...] = ()
    metrics: tuple[tuple[str, Metric], ...] = ()
    budget: tuple[tuple[str, float], ...] = ()
    seed: int | None = None
    confusion: tuple[Confusion, ...] = ()
    again: str = ""
    """The command that measures again; empty for what other tools claim."""
    note: str = ""
    """How the run ended, when it ended before its last sample."""
    claim: str = ""
    """What may be said of it: ``says``, unless the observations do not carry that."""
    headline: Headline | None = None
    named: tuple[Named, ...] = ()
    """``techniques`` and the NIST AI 100-2 ids of the same attack, with names."""
    received: str = ""
    age: str = ""
    classes: tuple[PartLine, ...] = ()
    segments: tuple[PartLine, ...] = ()
    worst: tuple[WorstCase, ...] = ()
    """Smallest change first."""
    unit: str = ""
    """Of the changes of ``worst``."""
    pictures: Pictures | None = None


class ChangeLine(_Part, frozen=True, kw_only=True):
    """One metric of one attack on two versions of a model; differences are new minus old."""

    check: str
    title: str
    metric: str
    old: Metric
    new: Metric
    difference: float
    low: float
    high: float
    p_value: float
    corrected: float
    """The p-value after correction for all lines of the comparison."""
    verdict: Literal["better", "worse", "no difference shown"]
    better: int
    """1 where more is better, -1 where less is."""
    method: str
    paired: int = 0
    """Records that were attacked in both versions; 0 where that is not known."""
    caveat: str = ""
    """What was not equal; empty when the comparison is fair."""
    old_digest: str = ""
    new_digest: str = ""


class Versions(_Part, frozen=True, kw_only=True):
    """Two versions of a model under the same attacks."""

    about: str
    old: str
    """Digest of the earlier version."""
    new: str
    old_measured: str
    """When the earlier version was last measured."""
    summary: str
    changes: tuple[ChangeLine, ...]
    again: str
    """The command that compares again."""


class FindingLine(_Part, frozen=True, kw_only=True):
    """A finding and the statement that reports it."""

    finding: Finding
    check: str
    about: str
    digest: str


class UnshownFindings(_Part, frozen=True, kw_only=True):
    """Findings that a statement counts and whose details could not be read."""

    check: str
    digest: str
    count: int
    reason: str


TechniqueState = Literal["residual", "detected", "weakened", "prevented"]
"""How a reachable technique stands under the controls that have live evidence."""


class Mark(_Part, frozen=True, kw_only=True):
    """A technique that can pass an access point when nothing is in place."""

    technique: str
    state: TechniqueState
    passes: bool
    """Whether it still can with the controls that have live evidence."""


class MapPoint(_Part, frozen=True, kw_only=True):
    """One access point of the attack map."""

    id: str
    stage: str
    asset: str
    marks: tuple[Mark, ...]
    opens: int
    """Techniques within reach of somebody who holds every right here and nothing else, chains included."""
    controls: tuple[str, ...]
    """Controls with live evidence that cut here."""

    @property
    def before(self) -> int:
        """Techniques that pass with nothing in place."""
        return len(self.marks)

    @property
    def after(self) -> int:
        """Techniques that still pass."""
        return sum(mark.passes for mark in self.marks)

    @property
    def weakened(self) -> int:
        """Techniques among those that are made harder."""
        return sum(mark.passes and mark.state == "weakened" for mark in self.marks)


class MapControl(_Part, frozen=True, kw_only=True):
    """A mitigation that is claimed, in place, or advised."""

    id: str
    name: str
    cost: float
    """From 1 (hours) to 5 (a programme)."""
    claimed: bool
    live: bool
    """Whether live evidence stands behind it; a claim without any does not count."""
    advised: tuple[str, ...] = ()
    """Techniques that only come back without it, in the cheapest set that prevents the rest."""


class MapTechnique(_Part, frozen=True, kw_only=True):
    """A technique within reach."""

    id: str
    name: str
    state: TechniqueState
    points: tuple[str, ...]
    positions: tuple[str, ...]
    """Positions that reach it alone; empty when only several together do."""
    by: tuple[str, ...] = ()
    """Live controls that prevent or weaken it."""
    detected_by: tuple[str, ...] = ()
    measured: Metric | None = None
    """Success rate against this system, when it was measured."""
    accepted_until: str = ""
    """Last day of the signed acceptance of its risk; empty when there is none."""
    contradicted: bool = False
    """Whether it should be prevented and was measured to work all the same."""


class MapAsset(_Part, frozen=True, kw_only=True):
    """A declared asset and what access to it opens."""

    id: str
    points: tuple[str, ...]
    opens: int


class DrawnMap(_Part, frozen=True, kw_only=True):
    """The attack map over the life cycle, ready to be drawn."""

    points: tuple[MapPoint, ...]
    techniques: tuple[MapTechnique, ...]
    controls: tuple[MapControl, ...]
    assets: tuple[MapAsset, ...]
    leaving: tuple[str, ...]
    """Data that leaves the site, with the local alternative, one sentence each."""
    digest: str = ""
    """Of the statement it comes from."""


class ReportModel(_Part, frozen=True, kw_only=True):
    """A whole assurance report."""

    made: str
    made_by: str
    system: Glance
    gate: GateLine | None
    attack_map: DrawnMap | None
    red_team: tuple[AttackLine, ...]
    curves: tuple[Curves, ...]
    absent: tuple[Absence, ...]
    findings: tuple[FindingLine, ...]
    unshown: tuple[UnshownFindings, ...]
    principles: tuple[Chapter, ...]
    sources: tuple[Chapter, ...]
    """The other sources of controls: introduction, A-MLSG, Guidelines, announcements."""
    evidence: tuple[EvidenceLine, ...]
    """Every statement, newest first."""
    versions: tuple[Versions, ...] = ()
    """Comparisons with earlier versions, when they were asked for."""

    def line(self, digest: str) -> EvidenceLine | None:
        """The statement with this envelope digest, when it is part of the report."""
        return next((line for line in self.evidence if line.digest == digest), None)
