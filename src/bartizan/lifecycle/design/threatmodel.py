"""The threat model of a declared system as a document: what is at stake, where, from whom, and what then.

It covers the whole system, not the model alone: components and the flows between them, trust
boundaries, the confidentiality, integrity and availability of everything downstream of a model, the
techniques within reach with their countermeasures, the wider consequences, and the assumptions
under which all this holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bartizan.catalogue.attackmap import AttackMap, CatalogueRef, Part, TechniqueOnMap
from bartizan.core.digest import canonical_json
from bartizan.core.system import Component, DatasetPart, Declaration, Impact, Lesson, ModelPart, Societal
from bartizan.lifecycle.design.mapping import holding_components

FORMAT = "bartizan-threat-model/1"
THREATENS: dict[str, tuple[str, ...]] = {
    "knowledge": (),
    "foothold": ("confidentiality", "integrity", "availability"),
    "integrity": ("integrity",),
    "availability": ("availability",),
    "privacy": ("confidentiality",),
    "confidentiality": ("confidentiality",),
    "misuse": ("confidentiality", "integrity"),
}
"""Goal of a technique to what is lost when it succeeds; knowledge only prepares others."""


class Asset(Part, frozen=True, kw_only=True):
    """Something worth attacking, and where it can be reached."""

    id: str
    sensitivity: str = ""
    """Of a dataset; a model takes over that of the data it was trained on."""
    personal_data: bool = False
    access_points: tuple[str, ...]
    placed_by: str
    opens: tuple[str, ...]
    """Techniques open to somebody with every right there, chains included."""


class ComponentAtRisk(Part, frozen=True, kw_only=True):
    """One component, and what follows when it fails."""

    name: str
    kind: str
    zone: str
    access_points: tuple[str, ...]
    asset: str
    downstream_of: tuple[str, ...]
    """Components with a model whose answers reach this one."""
    impact: Impact | None
    """What happens when its confidentiality, integrity or availability is lost, as declared."""


class Crossing(Part, frozen=True, kw_only=True):
    """A flow over a trust boundary."""

    source: str
    target: str
    from_zone: str
    to_zone: str
    carries: str
    protected_by: tuple[str, ...]
    leaves_site: bool
    alternative: str
    """Mitigation that would keep the data local; only for flows that leave the site."""


class Adversary(Part, frozen=True, kw_only=True):
    """One position that an adversary may take."""

    id: str
    title: str
    considered: bool
    rights: tuple[str, ...]


class ReachableTechnique(Part, frozen=True, kw_only=True):
    """A technique within reach, with its countermeasures."""

    id: str
    name: str
    goal: str
    threatens: tuple[str, ...]
    positions: tuple[str, ...]
    """Positions that reach it alone; empty: only several together."""
    access_points: tuple[str, ...]
    chain: tuple[str, ...]
    """Techniques that come before it."""
    preventable: bool
    preventing: tuple[str, ...]
    """Controls that together prevent it; empty when nothing does."""
    weakening: tuple[str, ...]
    detecting: tuple[str, ...]
    atlas: tuple[str, ...]
    ncsc: tuple[str, ...]
    amlsg: tuple[str, ...]


class Assumption(Part, frozen=True, kw_only=True):
    """Something the model takes for granted; to be looked at again when the system ends."""

    id: str
    statement: str


class LessonOnModel(Part, frozen=True, kw_only=True):
    """A lesson learnt about techniques of the model."""

    id: str
    title: str
    text: str
    techniques: tuple[str, ...]
    reachable: tuple[str, ...]
    """Those of them that are within reach."""


class ThreatModel(Part, frozen=True, kw_only=True):
    """The whole document."""

    format: str = FORMAT
    system: str
    purpose: str
    catalogue: CatalogueRef
    assets: tuple[Asset, ...]
    components: tuple[ComponentAtRisk, ...]
    crossings: tuple[Crossing, ...]
    adversaries: tuple[Adversary, ...]
    techniques: tuple[ReachableTechnique, ...]
    at_stake: dict[str, tuple[str, ...]]
    """``confidentiality``, ``integrity``, ``availability`` to the techniques within reach that threaten it."""
    impact: Societal
    """Consequences for users, organisation and society."""
    failure_plan: str
    assumptions: tuple[Assumption, ...]
    lessons: tuple[LessonOnModel, ...] = ()
    """What was learnt since the system was first modelled."""

    def encode(self) -> bytes:
        """Canonical JSON: equal models have equal bytes."""
        return canonical_json(self)


def threat_model(declaration: Declaration, document: AttackMap, lessons: Iterable[Lesson] = ()) -> ThreatModel:
    """The threat model of ``declaration``, over its attack map, with the lessons learnt so far."""
    techniques = tuple(_technique(entry) for entry in document.techniques if entry.reachable)
    return ThreatModel(
        system=declaration.name,
        purpose=declaration.purpose,
        catalogue=document.catalogue,
        assets=tuple(_assets(declaration, document)),
        components=tuple(_components(declaration)),
        crossings=tuple(_crossings(declaration, document)),
        adversaries=tuple(
            Adversary(id=each.id, title=each.title, considered=each.considered, rights=each.rights)
            for each in document.positions
        ),
        techniques=techniques,
        at_stake={
            stake: tuple(technique.id for technique in techniques if stake in technique.threatens)
            for stake in ("confidentiality", "integrity", "availability")
        },
        impact=declaration.impact,
        failure_plan=declaration.expected.failure_plan,
        assumptions=tuple(_assumptions(declaration, document)),
        lessons=tuple(_lesson(lesson, document) for lesson in lessons),
    )


def _lesson(lesson: Lesson, document: AttackMap) -> LessonOnModel:
    within_reach = {entry.id for entry in document.techniques if entry.reachable}
    return LessonOnModel(
        id=lesson.id,
        title=lesson.title,
        text=lesson.text,
        techniques=lesson.techniques,
        reachable=tuple(entry for entry in lesson.techniques if entry in within_reach),
    )


def downstream(declaration: Declaration) -> dict[str, tuple[str, ...]]:
    """Component to the components with a model whose answers reach it, over any number of flows."""
    onward: dict[str, list[str]] = {}
    for flow in declaration.flow:
        onward.setdefault(flow.source, []).append(flow.target)
    sources: dict[str, list[str]] = {part.name: [] for part in declaration.component}
    for model in model_components(declaration):
        seen: set[str] = set()
        waiting = list(onward.get(model.name, ()))
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += onward.get(name, ())
        for name in seen & sources.keys():
            sources[name].append(model.name)
    return {name: tuple(models) for name, models in sources.items()}


def model_components(declaration: Declaration) -> list[Component]:
    """Components that are a model or hold one."""
    holders = {
        part.name for model in declaration.model for part in holding_components(declaration, f"model:{model.name}")
    }
    return [part for part in declaration.component if part.kind == "model" or part.name in holders]


def _assets(declaration: Declaration, document: AttackMap) -> Iterator[Asset]:
    """Everything on the map with its sensitivity."""
    parts: dict[str, DatasetPart | ModelPart] = {f"dataset:{part.name}": part for part in declaration.dataset}
    parts |= {f"model:{part.name}": part for part in declaration.model}
    for asset in document.assets:
        part = parts.get(asset.id)
        data = parts.get(f"dataset:{part.trained_on}") if isinstance(part, ModelPart) else part
        yield Asset(
            id=asset.id,
            sensitivity=data.sensitivity if isinstance(data, DatasetPart) else "",
            personal_data=data.personal_data if isinstance(data, DatasetPart) else False,
            access_points=asset.access_points,
            placed_by=asset.placed_by,
            opens=asset.opens,
        )


def _components(declaration: Declaration) -> Iterator[ComponentAtRisk]:
    """Every component with what it depends on."""
    reached = downstream(declaration)
    for part in declaration.component:
        yield ComponentAtRisk(
            name=part.name,
            kind=part.kind,
            zone=part.zone,
            access_points=part.access_points,
            asset=part.asset,
            downstream_of=reached[part.name],
            impact=part.impact,
        )


def _crossings(declaration: Declaration, document: AttackMap) -> Iterator[Crossing]:
    """Flows between zones, and flows that leave the site."""
    zones = {part.name: part.zone for part in declaration.component}
    local = {(flow.source, flow.target, flow.carries): flow.alternative for flow in document.leaving}
    for flow in declaration.flow:
        before, after = zones.get(flow.source, ""), zones.get(flow.target, "")
        if before != after or flow.leaves_site:
            yield Crossing(
                source=flow.source,
                target=flow.target,
                from_zone=before,
                to_zone=after,
                carries=flow.carries,
                protected_by=flow.protected_by,
                leaves_site=flow.leaves_site,
                alternative=local.get((flow.source, flow.target, flow.carries), ""),
            )


def _technique(entry: TechniqueOnMap) -> ReachableTechnique:
    """A technique of the map, for this document."""
    return ReachableTechnique(
        id=entry.id,
        name=entry.name,
        goal=entry.goal,
        threatens=THREATENS.get(entry.goal, ()),
        positions=entry.positions,
        access_points=entry.points,
        chain=entry.route.chain if entry.route else (),
        preventable=entry.preventable,
        preventing=entry.preventing,
        weakening=entry.weakening,
        detecting=entry.detecting,
        atlas=entry.atlas,
        ncsc=entry.ncsc,
        amlsg=entry.amlsg,
    )


def _assumptions(declaration: Declaration, document: AttackMap) -> Iterator[Assumption]:
    """What the document takes for granted."""
    exposure = declaration.exposure
    trusted = [position.id for position in document.positions if not position.considered]
    if trusted:
        yield Assumption(
            id="trusted-positions", statement=f"Nobody in these positions attacks the system: {', '.join(trusted)}."
        )
    if exposure.interface in {"internal", "offline"}:
        yield Assumption(
            id="users-are-staff",
            statement=f"The interface is {exposure.interface}: whoever can query is staff and counts as insider.",
        )
    data = [part.name for part in declaration.dataset if part.trust == "trusted"]
    if data:
        yield Assumption(id="trusted-data", statement=f"The sources of these datasets are honest: {', '.join(data)}.")
    if not exposure.continual_learning:
        yield Assumption(id="no-learning-in-operation", statement="The model does not change in operation.")
    if not any(model.base_model.strip() for model in declaration.model):
        yield Assumption(id="no-base-model", statement="No model builds on a model of somebody else.")
    if exposure.reinforcement_learning:
        yield Assumption(
            id="reinforcement-learning",
            statement="Attacks on rewards and policies are left out, as the principles leave them out.",
        )
    if "generative" not in document.kinds:
        yield Assumption(id="no-generative-model", statement="Nothing in the system writes text or acts as an agent.")
    yield Assumption(
        id="positions-act-together",
        statement=f"The positions {', '.join(document.holding())} may act together.",
    )
