"""Attacks and families that are installed: ours and those of other packages, by entry point.

Group ``bartizan.attacks``: name of the attack = ``module:Class``. Group ``bartizan.families``: beginning of the names
of attacks = ``module:Class`` of the family that builds their task and measures them; the longest one counts. Every
attack with a family is at once a check, ``redteam.<name>``. An attack called ``<name>-labels`` is the variant of
``<name>`` for targets that answer labels only, and stands in for it there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from importlib.metadata import EntryPoint
from typing import Any

from bartizan.core.errors import InputError, WorkError
from bartizan.core.plugins import entry_points
from bartizan.redteam.attack import Attack
from bartizan.redteam.check import CHECK_PREFIX, AttackCheck
from bartizan.redteam.family import Family

ATTACKS, FAMILIES = "bartizan.attacks", "bartizan.families"
VARIANT = "-labels"
"""Ending of the name of a variant for targets that answer labels only."""
FACTS = ("name", "title", "family", "technique", "atlas", "needs", "position", "references")
"""What every attack says of itself."""
CONTROLS = ("1.4-e", "A-MLSG-ATTACKS")
FAMILY_CONTROLS = {"evasion": ("1.1-b", "A-MLSG-004-C001", *CONTROLS)}
"""Catalogue controls to which results of a family are evidence, where they are more than the usual ones."""


def names() -> tuple[str, ...]:
    """Names of all installed attacks; loads none."""
    return tuple(sorted(_points(ATTACKS)))


def check_names() -> tuple[str, ...]:
    """Names of the checks that they are, as far as they can be run on declared systems; loads none."""
    return tuple(f"{CHECK_PREFIX}{name}" for name in names() if has_family(name))


def attack(name: str) -> Attack:
    """The installed attack of a name.

    Raises:
        InputError: there is none.
        WorkError: it cannot be loaded, or is no attack of that name.
    """
    points = _points(ATTACKS)
    if name not in points:
        raise InputError(f"no attack is called {name!r}", remedy=f"choose from: {', '.join(sorted(points))}.")
    made: Attack = _made(points[name])
    missing = [fact for fact in (*FACTS, "search") if not hasattr(made, fact)]
    if missing or made.name != name:
        lacks = f"it does not say its {', '.join(missing)}" if missing else f"it calls itself {made.name!r}"
        raise WorkError(f"attack {name} ({points[name].value}) is no attack of that name: {lacks}", remedy=_MEND)
    return made


def attacks(only: Collection[str] = ()) -> list[Attack]:
    """One of each installed attack, by name; with ``only`` just those. See ``attack``."""
    return [attack(name) for name in (sorted(set(only)) if only else names())]


def family(name: str) -> Family:
    """The family that builds the task of an attack and measures it.

    Raises:
        WorkError: there is none, or it cannot be loaded.
    """
    points = _points(FAMILIES)
    prefix = _family_prefix(name)
    if not prefix:
        raise WorkError(f"attack {name} has no family", remedy=f"name one in the entry-point group {FAMILIES}.")
    made: Family = _made(points[prefix])
    return made


def has_family(name: str) -> bool:
    """Whether an attack can be run on declared systems; the others are played by hand."""
    return bool(_family_prefix(name))


def _family_prefix(name: str) -> str:
    fitting = [each for each in _points(FAMILIES) if name == each or name.startswith((f"{each}.", f"{each}-"))]
    return max(fitting, key=len, default="")


def variants(name: str) -> list[Attack]:
    """An attack and, after it, its variant for targets that answer labels only, where there is one."""
    return [attack(other) for other in (name, name + VARIANT) if other in _points(ATTACKS)]


def check(name: str) -> AttackCheck:
    """The check that an attack is. Raises as ``attack`` and ``family`` do."""
    found = variants(name) or [attack(name)]
    controls, judge = FAMILY_CONTROLS.get(found[0].family, CONTROLS), family(name)
    # A family may need more than one target, or other inputs: then it names the kind of its check.
    kind: type[AttackCheck] = getattr(judge, "check", AttackCheck)
    return kind(judge, *found, controls=controls)


def checks() -> list[AttackCheck]:
    """One check for each installed attack whose family can be run on declared systems, by name."""
    return [check(found.name) for found in attacks() if has_family(found.name)]


_MEND = "reinstall or remove the package that brings it."


@cache
def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group)}


def _made(point: EntryPoint) -> Any:
    try:
        return point.load()()
    except Exception as error:
        raise WorkError(
            f"{point.name} ({point.value}) cannot be loaded: {type(error).__name__}: {error}", remedy=_MEND
        ) from error


def by_technique(found: Sequence[Attack]) -> dict[str, list[Attack]]:
    """Attacks by the catalogue technique that they are."""
    grouped: dict[str, list[Attack]] = {}
    for each in found:
        grouped.setdefault(each.technique, []).append(each)
    return grouped
