"""What every command shares: its workspace, JSON on wish, tables, times."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from bartizan.cli.main import printable

if TYPE_CHECKING:
    from bartizan.wiring.workspace import Workspace

F = TypeVar("F", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON to standard output.")


def workspace(ctx: click.Context) -> Workspace:
    """The workspace of the project folder, closed when the command is over."""
    opened: Workspace = load("bartizan.wiring.workspace:Workspace")(ctx.obj or Path())
    ctx.call_on_close(opened.close)
    return opened


def load(name: str) -> Any:
    """An object by ``module:name``, imported only now: commands that do without it start sooner."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def say(text: str = "") -> None:
    """Talk to the person: standard error."""
    click.echo(printable(text), err=True)


def show(text: str = "") -> None:
    """Data: standard output."""
    click.echo(printable(text))


def show_json(value: Any) -> None:
    """A value as JSON on standard output."""
    data = msgspec.json.encode(value, order="deterministic", enc_hook=str)
    click.echo(msgspec.json.format(data, indent=2).decode())


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A plain table on standard output, the last column as wide as it needs to be."""
    lines = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(head), *lines]) for column in range(len(head) - 1)]
    for line in [list(head), *lines]:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        click.echo("  ".join([*cells, line[-1]]).rstrip())


def day(moment: datetime | None) -> str:
    """A time as people read it."""
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def ask_passphrase(name: str) -> str:
    """Ask at the terminal; empty when there is none to ask at."""
    if not sys.stdin.isatty():
        return ""
    answer: str = click.prompt(f"Passphrase for the key {name!r}", hide_input=True, err=True, default="")
    return answer
