"""The inventory: every asset with its value, owner, sensitivity and place, and the register of personal data."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

import msgspec

from bartizan.core.digest import Digest
from bartizan.core.system import Artefact, System
from bartizan.lifecycle.develop.cards.facts import SENSITIVITIES, impact_of, owner_of, sources_of
from bartizan.lifecycle.develop.cards.render import in_words


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """One model, dataset or system. An empty owner is an asset that nobody answers for."""

    id: str
    digest: Digest
    owner: str
    contact: str
    sensitivity: str
    location: str
    """Path of its bytes."""
    held_by: tuple[str, ...]
    """Components that hold it, each with its trust zone."""
    value: str
    """What its loss does: confidentiality, integrity and availability, by component."""
    retention: str
    personal_data: bool
    lawful_basis: str
    jurisdiction: str


def inventory(system: System) -> tuple[Asset, ...]:
    """Every declared asset, in the order of the declaration; the system itself comes last."""
    return tuple(
        _asset(system, artefact) for kind in ("model", "dataset", "system") for artefact in system.of_kind(kind)
    )


def _asset(system: System, artefact: Artefact) -> Asset:
    declaration = system.declaration
    if artefact.kind == "system":
        own, sources, term = None, list(declaration.dataset), ""
        value = in_words(msgspec.to_builtins(declaration.impact))
    else:
        part = system.model_part(artefact.name) if artefact.kind == "model" else system.dataset_part(artefact.name)
        own, term = part.owner, part.retention
        sources = (
            sources_of(system, system.model_part(artefact.name))
            if artefact.kind == "model"
            else [system.dataset_part(artefact.name)]
        )
        value = in_words(impact_of(system, artefact.name))
    owner = owner_of(system, own)
    return Asset(
        id=artefact.id,
        digest=artefact.digest,
        owner=owner["role"],
        contact=owner["contact"],
        sensitivity=max((source.sensitivity for source in sources), key=SENSITIVITIES.index),
        location=artefact.path or system.folder,
        held_by=tuple(
            f"{component.name} ({component.zone})"
            for component in declaration.component
            if component.asset == artefact.name
        ),
        value=value,
        retention=term,
        personal_data=any(source.personal_data for source in sources),
        lawful_basis="; ".join(dict.fromkeys(source.lawful_basis for source in sources if source.lawful_basis)),
        jurisdiction=declaration.jurisdiction,
    )


def inventory_csv(assets: Iterable[Asset]) -> str:
    """The inventory for a spreadsheet; no cell can be taken for a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = Asset.__struct_fields__
    writer.writerow(columns)
    for asset in assets:
        writer.writerow([_cell(in_words(getattr(asset, column))) for column in columns])
    return text.getvalue()


def _cell(text: str) -> str:
    """Text that a spreadsheet does not execute (CWE-1236)."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
