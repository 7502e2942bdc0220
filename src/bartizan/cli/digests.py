"""What commands that sign have in common: remembered digests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import say
from bartizan.wiring.digesting import CachedFiles, cached_files

F = TypeVar("F", bound=Callable[..., Any])

CACHE = click.option(
    "--cache",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of digests of unchanged files; in your cache folder by default.",
)
FULL = click.option("--full", is_flag=True, help="Read every file, and tell which remembered digests were wrong.")


def digest_options(command: F) -> F:
    """``--cache`` and ``--full``."""
    return CACHE(FULL(command))


def tell_contradictions(files: CachedFiles) -> int:
    """Name every file that changed unnoticed; exit code 1 when there is one."""
    for path in files.contradicted:
        say(f"{path} changed although neither its size nor its times did; what was signed before was another file")
    return FOUND if files.contradicted else OK


__all__ = ["CachedFiles", "cached_files", "digest_options", "tell_contradictions"]
