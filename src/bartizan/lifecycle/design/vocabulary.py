"""The ids that a declaration may use: what the catalogue names, and which checks are installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from bartizan.catalogue.load import Catalogue

INTRUDER = "intruder"
"""Whoever acts with rights that another attack yielded; nobody holds this position by design."""


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """Known ids, in the order in which people should read them."""

    access_points: Mapping[str, tuple[str, ...]]
    """Access point to the rights that can be held at it: ``serving-input`` to ``query``, ``tamper``."""
    positions: tuple[str, ...]
    mitigations: tuple[str, ...]
    profiles: tuple[str, ...]
    knowledge: tuple[str, ...] = ()
    """Tokens for what an adversary may know by design: ``know.architecture``."""
    controls: tuple[str, ...] = ()
    """Ids of controls that a gate rule may name; when empty, they are taken as they come."""
    checks: tuple[str, ...] = ()
    """Names of the installed checks; when empty, names of checks are taken as they come."""

    @property
    def rights(self) -> tuple[str, ...]:
        """Every token that a position may hold: ``serving-input.query`` ..., then knowledge."""
        held = [f"{point}.{right}" for point, rights in self.access_points.items() for right in rights]
        return (*held, *self.knowledge)

    @property
    def attacks(self) -> tuple[str, ...]:
        """What ``redteam.attacks`` may name: ``all``, and the red team's checks ``redteam.FAMILY.NAME``, shortened."""
        names = (name.removeprefix("redteam.") for name in self.checks if name.startswith("redteam."))
        return ("all", *(name for name in names if "." in name))

    @classmethod
    def of(cls, catalogue: Catalogue, checks: Iterable[str] = ()) -> Vocabulary:
        """The ids of a catalogue, and the names of the checks that are installed."""
        return cls(
            access_points={point.id: point.rights for point in catalogue.access_points.values()},
            positions=tuple(name for name in catalogue.entries.meta.positions if name != INTRUDER),
            mitigations=tuple(catalogue.mitigations),
            profiles=tuple(catalogue.profiles),
            knowledge=tuple(catalogue.entries.meta.knowledge),
            controls=tuple(catalogue.controls),
            checks=tuple(sorted(checks)),
        )
