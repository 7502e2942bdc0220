"""Check ``design.attackmap``: the attack map of a declared system, as evidence and as findings.

The front file of the map: ``attack_map`` computes it, ``with_evidence`` weighs live evidence against
it, ``difference`` compares two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bartizan.catalogue.attackmap import AttackMap, TechniqueOnMap, difference, read_attack_map
from bartizan.catalogue.load import CATALOGUE_ID, Catalogue
from bartizan.catalogue.load import catalogue as shipped_catalogue
from bartizan.catalogue.standing import with_evidence
from bartizan.core import predicates
from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest
from bartizan.core.finding import Finding, Severity, worst_first
from bartizan.core.system import Artefact, Declaration, System, settings_digest
from bartizan.lifecycle.design.mapping import attack_map

__all__ = [
    "AttackMap",
    "AttackMapCheck",
    "_settings",
    "attack_map",
    "difference",
    "read_attack_map",
    "with_evidence",
]

_ADVISED = 4
"""Controls named in the remedy of a finding."""


class AttackMapCheck:
    """Surveys the declared system; see ``core.check.Check``."""

    name = "design.attackmap"
    version = "1"
    title = "Attack map and cheapest controls"
    controls = ("1.2-i", "1.4-G1", "1.4-G2", "2.1-G4", "4.1-G2", "GL-1.5", "GL-2.5", "ROKE-1", "ROKE-4")
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
        """What the map rests on: the catalogue, and those parts of the declaration that it reads."""
        del subject
        return {CATALOGUE_ID: self.catalogue.digest, f"settings:{self.name}": _settings(system.declaration)}

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``Check.run``."""
        del subject
        context.progress(0, 1, "computing the attack map")
        document = attack_map(system, self.catalogue)
        blob = Blob(document.encode())
        context.progress(1, 1)
        return Outcome(
            predicate_type=predicates.REFERENCE,
            predicate=predicates.Reference(
                attester={"id": "urn:bartizan:design.attackmap"},
                references=(
                    predicates.Resource(
                        name="attack-map.json", digest={"sha256": blob.digest}, media_type=blob.media_type
                    ),
                ),
                kind="attack-map",
                summary=_summary(document),
                facts=_facts(document),
            ),
            findings=tuple(worst_first(list(_findings(system, document)))),
            report=blob,
        )


def _settings(declaration: Declaration) -> Digest:
    """Digest of the parts of a declaration that the map reads."""
    return settings_digest(
        declaration.name,
        declaration.exposure,
        declaration.mitigations,
        declaration.mitigation_cost,
        declaration.component,
        declaration.flow,
        [(model.name, model.base_model) for model in declaration.model],
        [(dataset.name, dataset.trust) for dataset in declaration.dataset],
    )


def _summary(document: AttackMap) -> str:
    """One sentence that a risk owner understands."""
    nothing, best = document.scenarios["nothing"], document.scenarios["all"]
    chosen = document.control_set
    return (
        f"{len(nothing.reachable)} of {len(document.techniques)} techniques are within reach of "
        f"{', '.join(document.holding())}; {len(best.prevented)} can be prevented, by no fewer than "
        f"{len(chosen.controls)} controls at cost {chosen.cost:g}; of the rest {len(best.weakened)} can be made "
        f"harder, {len(best.detected)} only seen, {len(best.residual)} neither."
    )


def _facts(document: AttackMap) -> dict[str, object]:
    """What gates and reports look at without opening the document."""
    claimed = document.scenarios["claimed"]
    return {
        "catalogue": document.catalogue.version,
        "atlas": document.catalogue.atlas,
        "reachable": list(document.scenarios["nothing"].reachable),
        "preventable": list(document.control_set.prevents),
        "controls": list(document.control_set.controls),
        "unmitigated": list(claimed.residual),
        "unmitigated_count": len(claimed.residual),
    }


def _findings(system: System, document: AttackMap) -> Iterator[Finding]:
    """Reachable techniques that no claim touches, and claims or controls that pull against each other."""
    where = f"system:{system.declaration.name}"
    for entry_id in document.scenarios["claimed"].residual:
        technique = document.technique(entry_id)
        helping = dict.fromkeys((*technique.cutting, *technique.preventing, *technique.weakening, *technique.detecting))
        advice = [f"{entry} ({document.mitigation(entry).name})" for entry in list(helping)[:_ADVISED]]
        yield Finding(
            rule="design/unmitigated",
            severity=Severity.MEDIUM,
            title=f"{technique.name} ({entry_id}) is within reach and nothing is declared against it",
            where=where,
            detail=_how(technique),
            remedy=f"put in place and declare one of: {'; '.join(advice)}; or accept the risk with a signed decision.",
            techniques=(entry_id, *technique.atlas),
            controls=("1.4-G1",),
        )
    claims = {mitigation.id for mitigation in document.mitigations if mitigation.claimed}
    for mitigation in document.mitigations:
        for other in mitigation.conflicts_with:
            if mitigation.id < other and {mitigation.id, other} <= claims:
                yield Finding(
                    rule="design/trade-off",
                    severity=Severity.NOTE,
                    title=f"{mitigation.id} and {other} are both declared and pull against each other",
                    where=where,
                    detail=f"{mitigation.name}. {document.mitigation(other).name}.",
                    remedy="say in the limits of the model which parts follow which.",
                )


def _how(technique: TechniqueOnMap) -> str:
    """The route in words."""
    route = technique.route
    if route is None:
        return technique.note
    uses = ", ".join(f"{token} (from {source})" for token, source in route.uses.items())
    before = f" after {', '.join(route.chain)}" if route.chain else ""
    return f"Reached{before} with {uses}. {technique.note}"
