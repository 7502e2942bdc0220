"""Labs: lessons of less than a minute, each of which runs a real attack."""

from __future__ import annotations

from collections.abc import Mapping

from bartizan.core.errors import InputError
from bartizan.lifecycle.design.guidance.labs.availability import AvailabilityLab
from bartizan.lifecycle.design.guidance.labs.backdoor import BackdoorLab
from bartizan.lifecycle.design.guidance.labs.evasion import EvasionLab
from bartizan.lifecycle.design.guidance.labs.extraction import ExtractionLab
from bartizan.lifecycle.design.guidance.labs.inversion import InversionLab
from bartizan.lifecycle.design.guidance.labs.membership import MembershipLab
from bartizan.lifecycle.design.guidance.labs.poisoning import PoisoningLab
from bartizan.lifecycle.design.guidance.labs.properties import PropertyLab
from bartizan.lifecycle.design.guidance.labs.shape import Lab, TextLab
from bartizan.lifecycle.design.guidance.labs.texts import TextLab as MessagesLab

_OF_ROWS: tuple[Lab, ...] = (
    EvasionLab(),
    BackdoorLab(),
    PoisoningLab(),
    MembershipLab(),
    ExtractionLab(),
    InversionLab(),
    PropertyLab(),
)
_OF_TEXTS: tuple[TextLab, ...] = (MessagesLab(), AvailabilityLab())
LABS: Mapping[str, Lab] = {lab.name: lab for lab in _OF_ROWS}
"""Lessons about rows of numbers, by name."""
TEXT_LABS: Mapping[str, TextLab] = {lab.name: lab for lab in _OF_TEXTS}
"""Lessons about texts, by name."""


def lab_called(name: str) -> Lab | TextLab:
    """The lesson of that name. Raises InputError when there is none."""
    every: dict[str, Lab | TextLab] = {**LABS, **TEXT_LABS}
    if name not in every:
        raise InputError(f"no lesson is called {name[:80]!r}", remedy=f"choose from: {', '.join(every)}.")
    return every[name]


__all__ = ["LABS", "TEXT_LABS", "Lab", "TextLab", "lab_called"]
