"""Facts of models and datasets, from the declaration, the digests and the measured quality."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import msgspec

from bartizan.core.durations import Duration, parse_term
from bartizan.core.errors import InputError
from bartizan.core.system import Artefact, Component, DatasetPart, ModelPart, Origin, Owner, System

SENSITIVITIES = ("public", "internal", "confidential", "restricted")
"""From the least to the most sensitive."""
HANDLING = {
    "public": {"access": "anybody", "encryption": "not needed", "destruction": "deletion"},
    "internal": {"access": "staff", "encryption": "in transit", "destruction": "deletion of every copy"},
    "confidential": {
        "access": "named roles",
        "encryption": "at rest and in transit",
        "destruction": "overwriting, key destruction or physical destruction",
    },
    "restricted": {
        "access": "named persons, two at a time",
        "encryption": "at rest and in transit, own key",
        "destruction": "key destruction, purging or physical destruction",
    },
}
"""What follows from each sensitivity; destruction after the categories of NIST SP 800-88 (clear, purge, destroy)."""
DAYS_A_MONTH = 365.25 / 12


class Quality(msgspec.Struct, frozen=True):
    """What a card takes over from a report of dataset quality."""

    profile: dict[str, Any]
    measures: tuple[dict[str, Any], ...]
    digest: str


def dataset_facts(system: System, artefact: Artefact, quality: Quality | None, report: str) -> dict[str, Any]:
    """Facts of one dataset; ``report`` is the digest of the report that ``quality`` was read from."""
    part = system.dataset_part(artefact.name)
    origin = part.provenance
    return {
        "owner": owner_of(system, part.owner),
        "uses": list(part.uses),
        "prohibitedUses": list(part.prohibited_uses),
        "limits": part.limits,
        "split": part.split,
        "target": part.target,
        "labellingInstructions": instructions_of(system, part),
        "schema": schema_of(part),
        "collected": origin.collected,
        "sources": {
            "host": origin.host,
            "contributors": origin.contributors,
            "independentSources": origin.independent_sources,
            "url": origin.url,
        },
        "licence": origin.licence,
        "trust": part.trust,
        "syntheticShare": part.synthetic_share,
        "sensitivity": part.sensitivity,
        "handling": HANDLING[part.sensitivity],
        "personalData": part.personal_data,
        "lawfulBasis": part.lawful_basis,
        "jurisdiction": system.declaration.jurisdiction,
        "impactOfLoss": impact_of(system, artefact.name),
        "retention": part.retention,
        "destruction": part.destruction,
        **_measured(quality, report),
        "digest": artefact.digest,
        "location": part.path,
    }


def instructions_of(system: System, part: DatasetPart) -> dict[str, str]:
    """The document by which the labels were made, in the version that is declared now; empty when none is named."""
    found = [item for item in system.of_kind("document") if item.name == part.labelling_instructions]
    return {"document": found[0].id, "digest": found[0].digest} if found else {}


def _measured(quality: Quality | None, report: str) -> dict[str, Any]:
    """Numbers that were computed from the bytes; nothing when they were not."""
    if quality is None:
        return {}
    metrics = {name: metric for measure in quality.measures for name, metric in measure.get("metrics", {}).items()}
    return {
        "records": quality.profile["records"],
        "labels": quality.profile["labels"],
        "columns": list(quality.profile.get("columns", ())),
        "quality": {
            "check": "data.quality",
            "report": report,
            "metrics": {
                name: {bound: metric[bound] for bound in ("value", "low", "high")} for name, metric in metrics.items()
            },
        },
    }


def model_facts(system: System, artefact: Artefact) -> dict[str, Any]:
    """Facts of one model; what its data are, it is as well."""
    part = system.model_part(artefact.name)
    declaration = system.declaration
    sources = sources_of(system, part)
    sensitivity = max((source.sensitivity for source in sources), key=SENSITIVITIES.index)
    return {
        "owner": owner_of(system, part.owner),
        "purpose": declaration.purpose,
        "uses": list(part.uses),
        "prohibitedUses": list(part.prohibited_uses),
        "limits": part.limits,
        "task": part.task,
        "classes": list(part.classes),
        "positive": part.positive,
        "framework": part.framework,
        "baseModel": part.base_model,
        "trainedOn": trained_on(system, artefact, part),
        "evaluatedOn": _lineage(system, part.evaluated_on),
        "schema": schema_of(system.dataset_part(part.trained_on)),
        "sensitivity": sensitivity,
        "handling": HANDLING[sensitivity],
        "personalData": any(source.personal_data for source in sources),
        "jurisdiction": declaration.jurisdiction,
        "impactOfLoss": impact_of(system, artefact.name),
        "retention": part.retention,
        "dataRetention": strictest_retention(source.retention for source in sources),
        "destruction": part.destruction,
        "lifespan": part.lifespan,
        "expected": {"metrics": declaration.expected.metrics, "failurePlan": declaration.expected.failure_plan},
        "guardrails": list(declaration.mitigations),
        "digest": artefact.digest,
        "location": part.path,
    }


def trained_on(system: System, artefact: Artefact, part: ModelPart) -> dict[str, Any]:
    """The training data: as recorded when the model was made, or else as declared; ``from`` says which."""
    origin = system.origins.get(artefact.id)
    if origin is None:
        return {**_lineage(system, part.trained_on), "from": "declaration"}
    recorded = recorded_data(system, origin)
    declared = [item for item in recorded if item["dataset"] == part.trained_on]
    first, *others = [*declared, *(item for item in recorded if item not in declared)] or [_nothing_recorded()]
    return {**first, "from": "provenance", "statement": origin.statement, "others": others}


def recorded_data(system: System, origin: Origin) -> list[dict[str, Any]]:
    """Every input that is a dataset: by its bytes one that is declared, or by its name.

    The digest is that of the bytes that were read, whatever the declared file holds now.
    """
    declared = {artefact.digest: artefact.name for artefact in system.of_kind("dataset")}
    names = set(declared.values())
    found = []
    for name, digest in origin.inputs:
        bare = name.removeprefix("dataset:")
        if digest in declared or (name != bare and bare in names):
            found.append({**_lineage(system, declared.get(digest, bare)), "digest": digest})
        elif name != bare:
            found.append({**_nothing_recorded(), "dataset": bare, "digest": digest})
    return found


def _nothing_recorded() -> dict[str, Any]:
    """A dataset that nothing is known of; its blanks make the card incomplete."""
    return {"dataset": "", "digest": "", "host": "", "contributors": "", "independentSources": 0, "url": ""}


def _lineage(system: System, name: str) -> dict[str, Any]:
    """A dataset by its digest, with where it comes from."""
    origin = system.dataset_part(name).provenance
    return {
        "dataset": name,
        "digest": system.artefact(f"dataset:{name}").digest,
        "host": origin.host,
        "contributors": origin.contributors,
        "independentSources": origin.independent_sources,
        "url": origin.url,
    }


def sources_of(system: System, part: ModelPart) -> list[DatasetPart]:
    """Datasets that a model was made of: the training data, and validation data that helped to choose it."""
    return [
        dataset
        for dataset in system.declaration.dataset
        if dataset.name == part.trained_on or dataset.split in {"train", "validation"}
    ]


def owner_of(system: System, own: Owner | None) -> dict[str, str]:
    """Role and address of the owner; the system's owner where none is named."""
    owner = own or system.declaration.owner
    return {"role": owner.role.strip(), "contact": owner.contact.strip()}


def schema_of(part: DatasetPart) -> dict[str, Any]:
    """What values the inputs may take, as declared."""
    return {
        "ranges": {name: list(bounds) for name, bounds in part.ranges.items()},
        "integer": list(part.integer),
        "categorical": list(part.categorical),
        "immutable": list(part.immutable),
        **({"dependent": part.dependent} if part.dependent else {}),
        "group": part.group,
        **_images(part),
    }


def _images(part: DatasetPart) -> dict[str, Any]:
    """What images are, as the model is given them; nothing for tables."""
    if not part.shape:
        return {}
    return {"shape": list(part.shape), "valueRange": list(part.value_range or ())}


def impact_of(system: System, asset: str) -> list[dict[str, str]]:
    """What a loss does, by component: those that hold the asset, and those that their data flow to."""
    holders = [component.name for component in system.declaration.component if component.asset == asset]
    reached = _downstream(system, holders)
    return [_impact(component) for component in system.declaration.component if component.name in reached]


def _impact(component: Component) -> dict[str, str]:
    return {"component": component.name, **msgspec.to_builtins(component.impact)}


def _downstream(system: System, names: Sequence[str]) -> set[str]:
    """Components with a declared impact that are named or lie behind a chain of flows."""
    reached, waiting = set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [flow.target for flow in system.declaration.flow if flow.source == name]
    rated = {component.name for component in system.declaration.component if component.impact}
    return reached & rated


def strictest_retention(terms: Iterable[str]) -> str:
    """The term that ends first; a span and a date cannot be compared without a start, so then both are named."""
    spans, dates = list[tuple[float, str]](), list[str]()
    for term in terms:
        try:
            parsed = parse_term(term)
        except InputError:
            continue
        if isinstance(parsed, Duration):
            spans.append((length_in_days(parsed), term))
        else:
            dates.append(term)
    ends = [min(spans)[1]] if spans else []
    return " or ".join([*ends, min(dates)] if dates else ends)


def length_in_days(duration: Duration) -> float:
    """Average length of a span, for comparison."""
    return duration.months * DAYS_A_MONTH + duration.hours / 24


def outlasts(term: str, other: str) -> bool:
    """Whether ``term`` surely ends after ``other``: two spans or two dates; anything else cannot be said."""
    try:
        first, second = parse_term(term), parse_term(other)
    except InputError:
        return False
    if isinstance(first, Duration) and isinstance(second, Duration):
        return length_in_days(first) > length_in_days(second)
    return isinstance(first, date) and isinstance(second, date) and first > second
