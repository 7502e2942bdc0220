"""Check ``design.threats``: the threat model of a declared system, as evidence and as findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from bartizan.catalogue.load import CATALOGUE_ID, Catalogue
from bartizan.catalogue.load import catalogue as shipped_catalogue
from bartizan.core import predicates
from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest, digest_json
from bartizan.core.finding import Finding, Severity, worst_first
from bartizan.core.system import Artefact, Declaration, System, settings_digest
from bartizan.lifecycle.design.attackmap import AttackMapCheck
from bartizan.lifecycle.design.flaws import flaws
from bartizan.lifecycle.design.mapping import attack_map, holding_components
from bartizan.lifecycle.design.positions import positions_of
from bartizan.lifecycle.design.threatmodel import ThreatModel, downstream, threat_model

__all__ = ["AttackMapCheck", "ThreatModel", "ThreatModelCheck", "threat_model"]

_IMPACTS = ("confidentiality", "integrity", "availability")
_USUAL_ADVERSARIES = ("outsider", "user", "contributor", "supplier", "neighbour", "finder")
"""Whom a declaration considers unless it says otherwise; insiders are a choice of their own."""
_SOCIETAL = ("users", "organisation", "society")


class ThreatModelCheck:
    """Models the threats to the declared system; see ``core.check.Check``."""

    name = "design.threats"
    version = "2"
    title = "Threat model of the whole system"
    controls = (
        "1.1-g", "1.2-a", "1.2-b", "1.2-G2", "1.2-G4", "1.4-G2", "A-MLSG-001-C002", "GL-1.4", "INTRO-5", "ROKE-7",
    )  # fmt: skip
    after: tuple[str, ...] = ()

    def __init__(self, catalogue: Catalogue | None = None) -> None:
        self._catalogue = catalogue

    @property
    def catalogue(self) -> Catalogue:
        """The knowledge in use."""
        return self._catalogue or shipped_catalogue()

    def subjects(self, system: System) -> Sequence[Artefact]:
        """The system itself."""
        return system.of_kind("system")

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """What the model rests on: the catalogue, lessons, and those parts of the declaration that it reads."""
        del subject
        return {
            CATALOGUE_ID: self.catalogue.digest,
            f"settings:{self.name}": _settings(system.declaration),
            "lessons": digest_json(system.lessons),
        }

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        del subject
        context.progress(0, 1, "modelling threats")
        mapped = attack_map(system, self.catalogue)
        model = threat_model(system.declaration, mapped, system.lessons)
        blob = Blob(model.encode())
        findings = worst_first(
            [
                *_findings(system.declaration, self.catalogue),
                *_crossing_findings(model),
                *flaws(system.declaration, mapped),
            ]
        )
        context.progress(1, 1)
        return Outcome(
            predicate_type=predicates.REFERENCE,
            predicate=predicates.Reference(
                attester={"id": "urn:bartizan:design.threats"},
                references=(
                    predicates.Resource(
                        name="threat-model.json", digest={"sha256": blob.digest}, media_type=blob.media_type
                    ),
                ),
                kind="threat-model",
                summary=_summary(model),
                facts=_facts(model, findings),
            ),
            findings=tuple(findings),
            report=blob,
        )


def _settings(declaration: Declaration) -> Digest:
    """Digest of the parts of a declaration that the model reads."""
    return settings_digest(
        declaration.name,
        declaration.purpose,
        declaration.exposure,
        declaration.component,
        declaration.flow,
        declaration.impact,
        declaration.expected.failure_plan,
        declaration.mitigations,
        [(model.name, model.base_model, model.trained_on) for model in declaration.model],
        [
            (dataset.name, dataset.trust, dataset.sensitivity, dataset.personal_data, dataset.provenance)
            for dataset in declaration.dataset
        ],
    )


def _summary(model: ThreatModel) -> str:
    """One sentence that a risk owner understands."""
    stakes = ", ".join(f"{len(techniques)} threaten {stake}" for stake, techniques in model.at_stake.items())
    return (
        f"{len(model.assets)} assets, {len(model.components)} components, {len(model.crossings)} crossings of a trust "
        f"boundary; of {len(model.techniques)} techniques within reach {stakes}."
    )


def _facts(model: ThreatModel, findings: Iterable[Finding]) -> dict[str, object]:
    """What gates and reports look at without opening the document."""
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.severity.value] = counts.get(finding.severity.value, 0) + 1
    return {
        "catalogue": model.catalogue.version,
        "atlas": model.catalogue.atlas,
        "reachable": [technique.id for technique in model.techniques],
        "assumptions": [assumption.id for assumption in model.assumptions],
        "lessons": [lesson.id for lesson in model.lessons],
        "findings": counts,
    }


def _findings(declaration: Declaration, catalogue: Catalogue) -> Iterator[Finding]:
    """What the declaration leaves out or contradicts."""
    where = f"system:{declaration.name}"
    yield from _missing_impacts(declaration)
    left_out = [position for position in _USUAL_ADVERSARIES if position not in declaration.exposure.consider]
    if left_out:
        yield Finding(
            rule="design/adversary-left-out",
            severity=Severity.MEDIUM,
            title=f"Attacks by these positions are not considered: {', '.join(left_out)}",
            where=f"{where}!/exposure.consider",
            detail="What nobody considers is neither on the map nor tried by the red team.",
            remedy="consider them, or have the risk owner sign a decision of kind 'scope' that says why not.",
        )
    for field in _SOCIETAL:
        if not getattr(declaration.impact, field).strip():
            yield Finding(
                rule="design/societal-impact-missing",
                severity=Severity.MEDIUM,
                title=f"Nothing is said about what failure means for {field}",
                where=f"{where}!/impact.{field}",
                remedy=f"say it under [impact], field {field}.",
                controls=("1.2-G4", "GL-1.4"),
            )
    if declaration.exposure.reinforcement_learning:
        yield Finding(
            rule="design/reinforcement-learning",
            severity=Severity.MEDIUM,
            title="Reinforcement learning is outside the principles that this assurance rests on",
            where=f"{where}!/exposure.reinforcement_learning",
            detail="Attacks on rewards, policies and exploration are neither modelled nor tried here.",
            remedy="have the risk owner sign a decision of kind 'scope' that concerns INTRO-5.",
            controls=("INTRO-5",),
        )
    for part in positions_of(declaration, catalogue).contradictions:
        yield Finding(
            rule="design/contradiction",
            severity=Severity.LOW,
            title=f"Position {part.position} is given {', '.join(part.removed)} although {part.because}",
            where=f"{where}!/exposure.positions.{part.position}",
            detail="What is named outright counts, so the map takes the wider reading.",
            remedy="strike the right, or change what it contradicts.",
        )


def _missing_impacts(declaration: Declaration) -> Iterator[Finding]:
    """Components whose failure has not been thought through, and models without a component."""
    where = f"system:{declaration.name}"
    for name, models in downstream(declaration).items():
        impact = next(part.impact for part in declaration.component if part.name == name)
        missing = [field for field in _IMPACTS if impact is None or not getattr(impact, field).strip()]
        if models and missing:
            yield Finding(
                rule="design/impact-missing",
                severity=Severity.MEDIUM,
                title=f"{name} depends on {', '.join(models)}, but no impact is given for {', '.join(missing)}",
                where=f"{where}!/component.{name}",
                detail="An attack on a model is an attack on everything that acts on its answers.",
                remedy="give the component an impact with confidentiality, integrity and availability.",
                controls=("1.2-G2",),
            )
    for model in declaration.model:
        if not holding_components(declaration, f"model:{model.name}"):
            yield Finding(
                rule="design/model-without-component",
                severity=Severity.LOW,
                title=f"No component holds model {model.name}, so nothing is known to depend on it",
                where=f"{where}!/model.{model.name}",
                remedy="declare the component that runs it (asset = the model) and the flows from it.",
                controls=("1.2-G2",),
            )


def _crossing_findings(model: ThreatModel) -> Iterator[Finding]:
    """Trust boundaries that nothing guards, and data that leaves the site."""
    for crossing in model.crossings:
        where = f"system:{model.system}!/flow {crossing.source} -> {crossing.target}"
        if not crossing.protected_by:
            yield Finding(
                rule="design/unprotected-crossing",
                severity=Severity.MEDIUM,
                title=f"{crossing.carries} goes unprotected from {crossing.from_zone!r} to {crossing.to_zone!r}",
                where=where,
                remedy="protect the flow and name what protects it in protected_by.",
                controls=("1.2-a",),
            )
        if crossing.leaves_site:
            yield Finding(
                rule="design/data-leaves-site",
                severity=Severity.NOTE,
                title=f"{crossing.carries} leaves the site; the local alternative is {crossing.alternative}",
                where=where,
                detail="Whoever receives it can read it without any attack (T44).",
                remedy="process it near where it arises, or settle with the receiver what may be done with it (M49).",
                techniques=("T44",),
                controls=("A-MLSG-001-C002",),
            )
