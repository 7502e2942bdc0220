"""Attacks under the names of the public taxonomies: our catalogue, MITRE ATLAS, NIST AI 100-2."""

from __future__ import annotations

from collections.abc import Sequence

from bartizan.assurance.model import Named
from bartizan.catalogue.load import Catalogue

OURS, ATLAS, NIST = "catalogue", "MITRE ATLAS", "NIST AI 100-2"


def named(techniques: Sequence[str], catalogue: Catalogue) -> tuple[Named, ...]:
    """The ids of a measurement with their names, and the NIST ids that the catalogue gives to its techniques."""
    ours = [catalogue.techniques[entry] for entry in techniques if entry in catalogue.techniques]
    nist = list(dict.fromkeys(entry for technique in ours for entry in technique.nist))
    return (*(_named(entry, catalogue) for entry in techniques), *(_of_nist(entry, catalogue) for entry in nist))


def _named(entry: str, catalogue: Catalogue) -> Named:
    if entry.startswith("NISTAML."):
        return _of_nist(entry, catalogue)
    if entry in catalogue.techniques or not entry.startswith("AML."):
        known = catalogue.techniques.get(entry)
        return Named(id=entry, name=known.name if known else "", taxonomy=OURS)
    return Named(id=entry, name=catalogue.entries.atlas.name(entry), taxonomy=ATLAS)


def _of_nist(entry: str, catalogue: Catalogue) -> Named:
    names = catalogue.entries.meta.nist
    return Named(id=entry, name=names.attacks.get(entry) or names.objectives.get(entry, ""), taxonomy=NIST)
