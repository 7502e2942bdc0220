"""The commands that supply what is missing."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

ROLES: Mapping[str, str] = {"briefing": "ml", "review": "security", "disclosure": "security", "supplier": "security"}
"""Who usually decides what; everything else is for the risk owner."""


def assure(checks: Sequence[str]) -> str:
    """The command that runs these checks; with several, the one that runs all that is missing or stale."""
    return f"bartizan assure --only {shlex.quote(checks[0])}" if len(checks) == 1 else "bartizan assure"


def decide(kind: str, about: str, concern: str) -> str:
    """The command with which a person signs a decision about an artefact that names a catalogue entry."""
    role = ROLES.get(kind, "risk-owner")
    return f'bartizan decide {kind} --about {shlex.quote(about)} --role {role} --concerns {concern} --reason "..."'
