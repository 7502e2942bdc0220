"""The guard ``sanitise``: cleans rows before the model, and the guards that come later, see them.

Which chain of transforms is used depends on the kind of rows and on who sent them: by the source that signed the
input, else by the role of the caller, else the chain for all others. What each transform is worth, also against
an adversary who knows of it, is measured by the check ``gateway.sanitise``: alone it stops nobody.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked, Column, Material, Verdict
from bartizan.lifecycle.deploy.gateway.guards.sanitise.chains import Chain, chain_of
from bartizan.lifecycle.deploy.gateway.guards.sanitise.frame import Frame

MEASURE = "moved"
"""Largest change of one value, as a part of its range."""
EVERY_SOURCE = "*"
IMAGES = ("clip", "jpeg:75")
TABLES = ("clip",)

Names = Annotated[tuple[Annotated[str, msgspec.Meta(max_length=40)], ...], msgspec.Meta(max_length=8)]


class SanitiseSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the configuration may say of the guard ``sanitise``."""

    chain: Names | None = None
    """For whoever is not named below; by default one that fits the kind of rows."""
    roles: dict[str, Names] = {}
    """Role to its chain."""
    sources: dict[str, Names] = {}
    """Source that signed the input to its chain; ``*`` for every one whose signature counts."""


class SanitiseGuard:
    """See ``Guard``."""

    Settings: ClassVar[type[msgspec.Struct]] = SanitiseSettings
    name = "sanitise"
    cost = 10.0
    for_requests = True

    def __init__(self, settings: SanitiseSettings, material: Material) -> None:
        """Raises InputError when a chain does not fit the model's rows."""
        frame = frame_of(material)
        self._span = frame.span
        self._usual = chain_of(usual_chain(settings, frame), frame)
        self._roles = {role: chain_of(names, frame) for role, names in settings.roles.items()}
        self._sources = {source: chain_of(names, frame) for source, names in settings.sources.items()}

    def on_request(self, asked: Asked) -> Verdict | None:
        """The rows as they are after the chain; None when that changes nothing."""
        chain = self.chain_for(asked.verified, asked.caller.role)
        if not chain.steps:
            return None
        rows = chain(asked.rows)
        moved = np.abs(rows - asked.rows)
        moved /= self._span
        most = float(moved.max(initial=0.0))
        if most == 0.0:
            return None
        return Verdict(action=Action.ALLOW, measures={MEASURE: most}, rows=rows)

    def on_response(self, asked: Asked, answer: Answer) -> Verdict | None:
        """Nothing."""

    def chain_for(self, source: str, role: str) -> Chain:
        """The chain for an input that a source signed (empty: none did), by a caller in a role."""
        if source:
            chain = self._sources.get(source) or self._sources.get(EVERY_SOURCE)
            if chain is not None:
                return chain
        return self._roles.get(role, self._usual)


def usual_chain(settings: SanitiseSettings, frame: Frame) -> tuple[str, ...]:
    """Names of the transforms for whoever is not named."""
    if settings.chain is not None:
        return settings.chain
    if frame.is_image:
        return IMAGES
    return TABLES if np.isfinite([frame.low, frame.high]).any() else ()


def frame_of(material: Material) -> Frame:
    """What transforms have to know of the model's rows.

    Raises:
        InputError: they are images, and nobody says which values a pixel takes.
    """
    return frame_from(material.columns, material.shape, material.value_range)


def frame_from(columns: tuple[Column, ...], shape: tuple[int, ...], value_range: tuple[float, float] | None) -> Frame:
    """See ``frame_of``."""
    low = [_or(column.low, -np.inf) for column in columns]
    high = [_or(column.high, np.inf) for column in columns]
    if shape:
        least, most = value_range or (min(low, default=-np.inf), max(high, default=np.inf))
        if not np.isfinite([least, most]).all():
            raise InputError("guard sanitise: images need a value_range", remedy="declare it with the dataset.")
        low, high = [least] * len(columns), [most] * len(columns)
    names = np.array([bool(column.categories) for column in columns])
    return Frame(
        low=np.array(low),
        high=np.array(high),
        shape=shape,
        whole=_some(np.array([column.whole for column in columns])),
        names=_some(names),
    )


def _or(bound: float | None, otherwise: float) -> float:
    return otherwise if bound is None else bound


def _some(mask: Any) -> Any:
    return mask if mask.any() else None


__all__ = ["IMAGES", "MEASURE", "TABLES", "SanitiseGuard", "SanitiseSettings", "frame_from", "frame_of", "usual_chain"]
