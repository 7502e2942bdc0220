"""Guards by name: those that ship, and those that other packages register under ``bartizan.guards``."""

from __future__ import annotations

from functools import cache

import msgspec

from bartizan.core.errors import InputError
from bartizan.core.plugins import entry_points
from bartizan.lifecycle.deploy.gateway.configuration import GuardUse
from bartizan.lifecycle.deploy.gateway.guard import Guard, GuardMaker, Material

GROUP = "bartizan.guards"


@cache
def names() -> tuple[str, ...]:
    """Every guard that is installed."""
    return tuple(sorted({point.name for point in entry_points(GROUP)}))


def maker(name: str) -> GuardMaker:
    """What makes the guard of a name.

    Raises:
        InputError: there is none.
    """
    for point in entry_points(GROUP):
        if point.name == name:
            made: GuardMaker = point.load()
            return made
    raise InputError(f"no guard is called {name!r}", remedy=f"installed are: {', '.join(names())}.")


def make(use: GuardUse, material: Material) -> Guard:
    """The guard that the configuration asks for.

    Raises:
        InputError: there is none of this name, or its settings are wrong.
        ArtefactError: something that it needs was not fitted.
    """
    made = maker(use.use)
    try:
        settings = msgspec.convert(use.settings, made.Settings)
    except msgspec.ValidationError as error:
        known = ", ".join(made.Settings.__struct_fields__)
        raise InputError(f"gateway.toml, guard {use.use}: {error}", remedy=f"its settings are: {known}.") from error
    return made(settings, material)


__all__ = ["GROUP", "make", "maker", "names"]
