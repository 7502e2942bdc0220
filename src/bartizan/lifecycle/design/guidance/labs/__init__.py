"""Labs: lessons of less than a minute, each of which runs a real attack."""

from __future__ import annotations

from collections.abc import Mapping

from bartizan.core.errors import InputError
from bartizan.lifecycle.design.guidance.labs.backdoor import BackdoorLab
from bartizan.lifecycle.design.guidance.labs.evasion import EvasionLab
from bartizan.lifecycle.design.guidance.labs.extraction import ExtractionLab
from bartizan.lifecycle.design.guidance.labs.membership import MembershipLab
from bartizan.lifecycle.design.guidance.labs.poisoning import PoisoningLab
from bartizan.lifecycle.design.guidance.labs.shape import Lab

LABS: Mapping[str, Lab] = {
    lab.name: lab for lab in (EvasionLab(), BackdoorLab(), PoisoningLab(), MembershipLab(), ExtractionLab())
}
"""Lessons by name."""


def lab_called(name: str) -> Lab:
    """The lesson of that name. Raises InputError when there is none."""
    if name not in LABS:
        raise InputError(f"no lesson is called {name[:80]!r}", remedy=f"choose from: {', '.join(LABS)}.")
    return LABS[name]


__all__ = ["LABS", "Lab", "lab_called"]
