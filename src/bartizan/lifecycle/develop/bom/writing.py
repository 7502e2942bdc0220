"""Writes the bill of materials of a declared system as CycloneDX 1.7.

Everything comes from the declaration, the digests, the installed packages and, where they are given,
measured metrics. The same inputs give the same bytes: the serial number is derived from the content,
and there is no time in it unless the caller sets one. Source: https://cyclonedx.org/docs/1.7/json/.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from packageurl import PackageURL
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

import bartizan
from bartizan.core.digest import Digest, canonical_json, digest_json
from bartizan.core.predicates import Metric
from bartizan.core.system import Artefact, DatasetPart, ModelPart, Owner, System
from bartizan.core.system import Component as Part
from bartizan.lifecycle.develop.bom.installed import Package, closure

SPEC_VERSION = "1.7"
SCHEMA = "http://cyclonedx.org/schema/bom-1.7.schema.json"
FRAMEWORK_PACKAGES = {
    "scikit-learn": ("scikit-learn", "joblib"),
    "onnx": ("onnxruntime",),
    "torch": ("torch",),
    "xgboost": ("xgboost", "xgboost-cpu"),
    "lightgbm": ("lightgbm",),
}
"""Packages that a model of a framework needs to be loaded, as far as they are installed: some have two names."""
_SOFTWARE = frozenset({"pipeline", "data-store"})
_NAMESPACE = uuid.UUID("5c2f6a1e-5f0b-5e39-9d3a-6f1c7a0b7f21")


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one model."""

    metrics: Mapping[str, Metric] = {}
    """By name, such as ``hopskipjump.robust_accuracy``."""


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """What a bill is written from."""

    system: System
    packages: Mapping[str, Package]
    """Installed packages by canonical name."""
    files: Mapping[str, Sequence[tuple[str, Digest]]] = {}
    """Artefact id to the names and digests of its files, where it is a folder."""
    measured: Mapping[str, Measured] = {}
    """By artefact id."""
    hashes: Mapping[str, Sequence[str]] = {}
    """Canonical package name to the SHA-256 digests that a lock file allows."""
    whole_environment: bool = False
    """Whether packages that no model needs are listed too."""
    timestamp: str = ""
    """RFC 3339; left out when empty."""


def write_bill(material: Material) -> dict[str, Any]:
    """The bill of materials as a JSON value."""
    system = material.system
    models = [_model(artefact, material) for artefact in system.of_kind("model")]
    bases = [_base(part) for part in system.declaration.model if part.base_model]
    datasets = [_dataset(artefact, material) for artefact in system.of_kind("dataset")]
    packages, needed = _packages(material)
    code = [_software(component) for component in system.declaration.component if component.kind in _SOFTWARE]
    services = [_service(component) for component in _externals(system)]
    body = {
        "metadata": _metadata(system, material.timestamp),
        "components": [*models, *bases, *datasets, *code, *packages],
        "services": services,
        "dependencies": _dependencies(material, needed),
    }
    kept = {key: value for key, value in body.items() if value}
    serial = uuid.uuid5(_NAMESPACE, digest_json(kept))
    head = {"$schema": SCHEMA, "bomFormat": "CycloneDX", "specVersion": SPEC_VERSION, "version": 1}
    return {**head, "serialNumber": f"urn:uuid:{serial}", **kept}


def encode(bill: Mapping[str, Any]) -> bytes:
    """The one spelling of a bill in bytes, indented for people."""
    return msgspec.json.format(canonical_json(bill), indent=2) + b"\n"


def _metadata(system: System, timestamp: str) -> dict[str, Any]:
    declared = system.declaration
    tool = {"type": "application", "name": "Bartizan", "version": bartizan.__version__}
    about = {
        "type": "application",
        "bom-ref": _system_ref(system),
        "name": declared.name,
        "description": declared.purpose,
        "hashes": [_hash(system.declaration_digest)],
        "manufacturer": _organisation(declared.owner),
    }
    metadata = {"tools": {"components": [tool]}, "component": about, "lifecycles": [{"phase": "build"}]}
    return {"timestamp": timestamp, **metadata} if timestamp else metadata


def _system_ref(system: System) -> str:
    return f"system:{system.declaration.name}"


def _organisation(owner: Owner) -> dict[str, Any]:
    """An owner by role and role address."""
    return {"name": owner.role, "contact": [{"name": owner.role, "email": owner.contact}]}


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest}


def _properties(**values: str | Iterable[str]) -> list[dict[str, str]]:
    """Properties under our own prefix; empty ones are left out."""
    return [
        {"name": f"bartizan:{name.replace('_', '-')}", "value": text.strip()}
        for name, value in values.items()
        for text in ([value] if isinstance(value, str) else value)
        if text.strip()
    ]


def _model(artefact: Artefact, material: Material) -> dict[str, Any]:
    system = material.system
    part = system.model_part(artefact.name)
    component = {
        "type": "machine-learning-model",
        "bom-ref": artefact.id,
        "name": artefact.name,
        "version": artefact.digest[:12],
        "description": f"{part.task} with {part.framework}, for: {', '.join(part.uses)}",
        "supplier": _organisation(part.owner or system.declaration.owner),
        "hashes": [_hash(artefact.digest)],
        "modelCard": _card(artefact, part, material),
        "properties": _properties(
            digest_kind="root of the OpenSSF Model Signing manifest",
            lifespan=part.lifespan,
            retention=part.retention,
            destruction=part.destruction,
        ),
    }
    if part.base_model:
        component["pedigree"] = {"ancestors": [_base(part, inside=True)]}
    files = [
        {"type": "file", "bom-ref": f"{artefact.id}!/{name}", "name": name, "hashes": [_hash(digest)]}
        for name, digest in material.files.get(artefact.id, ())
    ]
    return {**component, "components": files} if files else component


def _base(part: ModelPart, *, inside: bool = False) -> dict[str, Any]:
    """The public parent of a model; its package URL names the hub that it comes from, where that can be told."""
    owner, slash, name = part.base_model.partition("/")
    component: dict[str, Any] = {"type": "machine-learning-model", "name": part.base_model}
    if slash and name and "/" not in name and ":" not in owner:
        component["purl"] = PackageURL("huggingface", namespace=owner, name=name).to_string()
    return component if inside else {**component, "bom-ref": f"base:{part.name}"}


def _card(artefact: Artefact, part: ModelPart, material: Material) -> dict[str, Any]:
    system = material.system
    declared = system.declaration
    train = system.dataset_part(part.trained_on)
    card: dict[str, Any] = {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": part.task,
            "architectureFamily": part.framework,
            "datasets": [{"ref": f"dataset:{name}"} for name in dict.fromkeys((part.trained_on, part.evaluated_on))],
            "inputs": [{"format": "table row"}],
            "outputs": [{"format": f"class, one of: {', '.join(part.classes)}"}],
        },
        "considerations": {
            "users": sorted(f"{role}: {address}" for role, address in declared.people.items()),
            "useCases": list(part.uses),
            "technicalLimitations": [part.limits.strip(), *(f"not for: {use}" for use in part.prohibited_uses)],
            "performanceTradeoffs": [
                f"{name} of at least {value:g} is expected" for name, value in sorted(declared.expected.metrics.items())
            ],
            "ethicalConsiderations": [
                {"name": f"failure, to {who}: {text.strip()}", "mitigationStrategy": declared.expected.failure_plan}
                for who, text in (
                    ("users", declared.impact.users),
                    ("the organisation", declared.impact.organisation),
                    ("society", declared.impact.society),
                )
                if text.strip()
            ],
        },
        "properties": _properties(
            immutable_columns=train.immutable, categorical_columns=train.categorical, integer_columns=train.integer
        ),
    }
    card["considerations"] = {key: value for key, value in card["considerations"].items() if value}
    measured = material.measured.get(artefact.id)
    if measured and measured.metrics:
        card["quantitativeAnalysis"] = {
            "performanceMetrics": [_metric(name, metric) for name, metric in sorted(measured.metrics.items())]
        }
    return card


def _metric(name: str, metric: Metric) -> dict[str, Any]:
    bounds = {"lowerBound": f"{metric.low:g}", "upperBound": f"{metric.high:g}"}
    return {"type": name, "value": f"{metric.value:g}", "slice": f"n = {metric.n}", "confidenceInterval": bounds}


def _dataset(artefact: Artefact, material: Material) -> dict[str, Any]:
    system = material.system
    part = system.dataset_part(artefact.name)
    origin = part.provenance
    component: dict[str, Any] = {
        "type": "data",
        "bom-ref": artefact.id,
        "name": artefact.name,
        "version": artefact.digest[:12],
        "description": f"{part.split} data, for: {', '.join(part.uses)}",
        "supplier": {"name": origin.host},
        "hashes": [_hash(artefact.digest)],
        "data": [_contents(artefact, part, system)],
        "properties": _properties(
            contributors=origin.contributors,
            independent_sources=str(origin.independent_sources),
            collected=origin.collected,
            retention=part.retention,
            destruction=part.destruction,
            trust=part.trust,
            lawful_basis=part.lawful_basis,
        ),
    }
    if origin.licence.strip():
        component["licenses"] = [_licence(origin.licence.strip())]
    if origin.url.strip():
        component["externalReferences"] = [{"type": "distribution", "url": origin.url.strip()}]
    return component


def _contents(artefact: Artefact, part: DatasetPart, system: System) -> dict[str, Any]:
    owner = part.owner or system.declaration.owner
    contents = {
        "type": "dataset",
        "name": artefact.name,
        "classification": part.sensitivity,
        "description": part.limits.strip() or f"{part.split} data",
        "governance": {"owners": [{"organization": _organisation(owner)}]},
    }
    return {**contents, "sensitiveData": ["personal data"]} if part.personal_data else contents


def _licence(text: str) -> dict[str, Any]:
    """A licence as SPDX where it is, by name where it is not."""
    try:
        return {"expression": canonicalize_license_expression(text)}
    except (InvalidLicenseExpression, ValueError):
        return {"license": {"name": text}}


def _packages(material: Material) -> tuple[list[dict[str, Any]], set[str]]:
    """Components of the packages, and the names of those that the models need."""
    roots = [name for part in material.system.declaration.model for name in FRAMEWORK_PACKAGES.get(part.framework, ())]
    needed = closure(roots, material.packages)
    listed = [
        package for name, package in sorted(material.packages.items()) if material.whole_environment or name in needed
    ]
    return [_package(package, package.name in needed, roots, material) for package in listed], needed


def _package(package: Package, is_needed: bool, roots: Sequence[str], material: Material) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "framework" if package.name in roots else "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        "scope": "required" if is_needed else "optional",
        "properties": _properties(
            record_sha256=package.record,
            locked_sha256=sorted(material.hashes.get(package.name, ())),
            used_for=("training", "serving") if is_needed else (),
        ),
    }
    if package.summary.strip():
        component["description"] = package.summary.strip()
    if package.supplier.strip():
        component["supplier"] = {"name": package.supplier.strip()}
    if package.licence:
        spdx = {"expression": package.licence} if package.is_spdx else {"license": {"name": package.licence}}
        component["licenses"] = [spdx]
    return {key: value for key, value in component.items() if value}


def _software(component: Part) -> dict[str, Any]:
    """Our own software around the model: pipelines and stores."""
    return {
        "type": "application",
        "bom-ref": f"component:{component.name}",
        "name": component.name,
        "description": f"{component.kind} in the zone {component.zone}",
        "properties": _properties(zone=component.zone, access_points=component.access_points, asset=component.asset),
    }


def _externals(system: System) -> list[Part]:
    """Services and interfaces of others that the system talks to."""
    return [component for component in system.declaration.component if component.kind in {"external", "service"}]


def _service(component: Part) -> dict[str, Any]:
    name = component.name
    return {"bom-ref": f"service:{name}", "name": name, "trustZone": component.zone, "x-trust-boundary": True}


def _dependencies(material: Material, needed: set[str]) -> list[dict[str, Any]]:
    system = material.system
    models = system.of_kind("model")
    graph: dict[str, list[str]] = {
        _system_ref(system): [
            *(model.id for model in models),
            *(f"component:{part.name}" for part in system.declaration.component if part.kind in _SOFTWARE),
            *(f"service:{part.name}" for part in _externals(system)),
        ]
    }
    for model in models:
        part = system.model_part(model.name)
        roots = FRAMEWORK_PACKAGES.get(part.framework, ())
        base = [f"base:{part.name}"] if part.base_model else []
        graph[model.id] = [
            f"dataset:{part.trained_on}",
            *base,
            *(material.packages[name].purl for name in roots if name in material.packages),
        ]
    for name, package in material.packages.items():
        if name in needed or material.whole_environment:
            graph[package.purl] = [
                material.packages[other].purl
                for other in package.requires
                if other in material.packages and (other in needed or material.whole_environment)
            ]
    return [
        {"ref": ref, "dependsOn": sorted(set(others))} if others else {"ref": ref}
        for ref, others in sorted(graph.items())
    ]
