"""External attackers: where they are installed, and the check that lets one loose on the declared models."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from bartizan.core.errors import InputError
from bartizan.redteam.bridge import FILE, External, Place, parse
from bartizan.redteam.check import AttackCheck, offered
from bartizan.redteam.evasion import Evasion
from bartizan.targets.protocol import Access
from bartizan.wiring.workspace import Workspace

VARIABLE = "BARTIZAN_EXTERNAL_{}"
"""Names the interpreter of a tool's environment, such as BARTIZAN_EXTERNAL_ART."""


def external(
    workspace: Workspace, name: str, *, python: str = "", paths: Sequence[str] = (), options: Sequence[str] = ()
) -> list[AttackCheck]:
    """The check of one external attacker.

    Args:
        name: ``art:HopSkipJump``, ``foolbox:BoundaryAttack``, ``file:PATH``.
        python: interpreter of its environment; empty takes what the environment says for the tool.
        paths: folders with further packages.
        options: ``NAME=VALUE``, the value as JSON, or as text where it is none.

    Raises:
        InputError: something of it cannot be used, or the attacker does not apply to the system.
    """
    system = workspace.system()
    tool, _ = parse(name)
    place = Place(
        python=_interpreter(workspace, tool, python),
        guest=Path(str(resources.files("bartizan.adapters.bridge") / "guest.py")),
        paths=tuple(Path(path).resolve() for path in paths),
    )
    gives_scores = Access.SCORES in offered(system.declaration.exposure)
    attack = External(name, place, options=dict(map(_option, options)), scores=gives_scores)
    check = AttackCheck(Evasion(), attack)
    if reason := check.why_not(system):
        raise InputError(reason, remedy="see `bartizan attack --list` for what applies.")
    return [check]


def _interpreter(workspace: Workspace, tool: str, python: str) -> Path:
    variable = VARIABLE.format(tool.upper())
    named = python or workspace.environment.get(variable, "")
    if not named and tool == FILE:
        return Path(sys.executable)
    if not named:
        raise InputError(
            f"nobody said where {tool} is installed", remedy=f"give --python, or set {variable} to its interpreter."
        )
    found = shutil.which(named)
    if found is None:
        raise InputError(f"{named!r} is no program that can be started", remedy="give an interpreter of Python.")
    # Not resolved: the interpreter of a virtual environment is a link, and known by where the link lies.
    return Path(found).absolute()


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise InputError(f"{text[:80]!r} is no setting", remedy="write NAME=VALUE, such as max_iter=20.")
    try:
        return name, msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return name, value
