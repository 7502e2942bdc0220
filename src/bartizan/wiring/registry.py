"""Checks that are installed: ours by name, other packages' by entry point."""

from __future__ import annotations

from bartizan.core.check import Check
from bartizan.core.errors import InputError, WorkError
from bartizan.core.plugins import entry_points
from bartizan.core.system import System
from bartizan.redteam import registry as redteam
from bartizan.redteam.plan import COVERAGE, PLAN

GROUP = "bartizan.checks"
SAID = {COVERAGE: (PLAN,)}
"""What is said under the name of a check without one being run, since it is read from the ledger: on what it rests."""


def installed() -> tuple[str, ...]:
    """Names of all installed checks, of which every attack is one; loads none."""
    return tuple(sorted({*(point.name for point in entry_points(GROUP)), *redteam.check_names(), *SAID}))


def checks(only: tuple[str, ...] = ()) -> list[Check]:
    """One of each installed check, by name. With ``only``, those and all that they wait for.

    Raises:
        WorkError: an entry point cannot be loaded or gives no check.
        InputError: ``only`` names a check that is not installed.
    """
    found: dict[str, Check] = {}
    for point in sorted(entry_points(GROUP), key=lambda point: point.name):
        try:
            check = point.load()()
        except Exception as error:
            raise WorkError(
                f"check {point.name} ({point.value}) cannot be loaded: {error}",
                remedy="reinstall or remove the package that brings it.",
            ) from error
        if not isinstance(check, Check) or check.name != point.name:
            raise WorkError(f"check {point.name} ({point.value}) is no check of that name", remedy="mend its package.")
        found[check.name] = check
    found |= {check.name: check for check in redteam.checks()}
    return _wanted(found, only) if only else [found[name] for name in sorted(found)]


def selected(check: Check, system: System) -> bool:
    """Whether a system wants a check that applies run; all but attacks always are."""
    chosen = getattr(check, "selected", None)
    return chosen is None or bool(chosen(system))


def _wanted(found: dict[str, Check], only: tuple[str, ...]) -> list[Check]:
    wanted: dict[str, Check] = {}
    pending = list(only)
    while pending:
        name = pending.pop()
        if name in SAID:
            pending += SAID[name]
            continue
        if name not in found:
            raise InputError(f"no check is called {name!r}", remedy=f"choose from: {', '.join(found)}.")
        if name not in wanted:
            wanted[name] = found[name]
            pending += found[name].after
    return sorted(wanted.values(), key=lambda check: check.name)
