"""The declared system at a glance."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath

from bartizan.assurance.model import ArtefactLine, ComponentBox, FlowArrow, Glance
from bartizan.assurance.text import number, words
from bartizan.core.system import DatasetPart, Declaration, ModelPart, Owner, System

Facts = tuple[tuple[str, str], ...]


def glance(system: System) -> Glance:
    """What the declaration says, in the words of a report. Paths are relative to the declaration."""
    said = system.declaration
    return Glance(
        name=said.name,
        purpose=said.purpose,
        description=said.description,
        owner=said.owner.role,
        contact=said.owner.contact,
        people=tuple(sorted(said.people.items())),
        jurisdiction=said.jurisdiction,
        declaration_digest=system.declaration_digest,
        artefacts=tuple(_artefacts(system)),
        exposure=_exposure(said),
        impact=_facts(
            ("users", said.impact.users), ("organisation", said.impact.organisation), ("society", said.impact.society)
        ),
        expected=_expected(said),
        components=tuple(_components(said)),
        flows=tuple(_flows(said)),
    )


def _facts(*pairs: tuple[str, str]) -> Facts:
    return tuple((field, value) for field, value in pairs if value)


def _artefacts(system: System) -> Iterable[ArtefactLine]:
    models = {part.name: part for part in system.declaration.model}
    datasets = {part.name: part for part in system.declaration.dataset}
    for artefact in system.artefacts:
        facts: Facts = ()
        if artefact.kind == "model" and artefact.name in models:
            facts = _model(models[artefact.name])
        if artefact.kind == "dataset" and artefact.name in datasets:
            facts = _dataset(datasets[artefact.name])
        yield ArtefactLine(
            id=artefact.id, digest=artefact.digest, path=_below(artefact.path, system.folder), facts=facts
        )


def _below(path: str, folder: str) -> str:
    """``path`` seen from ``folder``; only its last part when it lies elsewhere, so that no home folder is shown."""
    whole = PurePath(path)
    return whole.relative_to(folder).as_posix() if path and whole.is_relative_to(folder) else whole.name


def _model(part: ModelPart) -> Facts:
    return _facts(
        ("task", f"{part.task}, {part.framework}"),
        ("classes", ", ".join(part.classes)),
        ("costliest miss", part.positive),
        ("trained on", part.trained_on),
        ("evaluated on", part.evaluated_on),
        ("base model", part.base_model),
        ("uses", "; ".join(part.uses)),
        ("prohibited uses", "; ".join(part.prohibited_uses)),
        ("limits", part.limits),
        ("lifespan", part.lifespan),
        ("retention", part.retention),
        ("destruction", part.destruction),
        ("owner", _owner(part.owner)),
    )


def _dataset(part: DatasetPart) -> Facts:
    source = part.provenance
    return _facts(
        ("split", part.split),
        ("sensitivity", f"{part.sensitivity}{', personal data' if part.personal_data else ''}"),
        ("lawful basis", part.lawful_basis),
        ("trust", part.trust),
        ("host", source.host),
        ("contributors", source.contributors),
        ("independent sources", str(source.independent_sources)),
        ("collected", source.collected),
        ("licence", source.licence),
        ("synthetic share", number(part.synthetic_share) if part.synthetic_share else ""),
        ("uses", "; ".join(part.uses)),
        ("prohibited uses", "; ".join(part.prohibited_uses)),
        ("limits", part.limits),
        ("retention", part.retention),
        ("destruction", part.destruction),
        ("owner", _owner(part.owner)),
    )


def _owner(owner: Owner | None) -> str:
    return f"{owner.role}, {owner.contact}" if owner else ""


def _exposure(said: Declaration) -> Facts:
    exposure = said.exposure
    held = [f"{position}: {', '.join(rights)}" for position, rights in sorted(exposure.positions.items())]
    return _facts(
        ("interface", exposure.interface),
        ("output", exposure.output),
        ("profile", exposure.profile),
        ("rights added", "; ".join(held)),
        ("adversaries considered", ", ".join(exposure.consider)),
        ("continual learning", "yes" if exposure.continual_learning else "no"),
        ("reinforcement learning", "yes" if exposure.reinforcement_learning else "no"),
        ("mitigations claimed", ", ".join(said.mitigations)),
    )


def _expected(said: Declaration) -> Facts:
    least = [f"{words(name)} at least {number(value)}" for name, value in sorted(said.expected.metrics.items())]
    return _facts(
        ("performance", "; ".join(least)),
        ("when it fails", said.expected.failure_plan),
        ("monitoring", said.expected.monitoring),
    )


def _components(said: Declaration) -> Iterable[ComponentBox]:
    for part in said.component:
        yield ComponentBox(name=part.name, kind=part.kind, zone=part.zone, asset=part.asset)


def _flows(said: Declaration) -> Iterable[FlowArrow]:
    zones = {part.name: part.zone for part in said.component}
    for index, flow in enumerate(said.flow):
        yield FlowArrow(
            number=index + 1,
            source=flow.source,
            target=flow.target,
            carries=flow.carries,
            protected_by=flow.protected_by,
            leaves_site=flow.leaves_site,
            crosses=zones.get(flow.source) != zones.get(flow.target),
        )
