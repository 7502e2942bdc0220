"""``bartizan briefing``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, day, say, show, show_json, table, workspace
from bartizan.core.errors import InputError
from bartizan.lifecycle.design.guidance.document import to_markdown
from bartizan.wiring import briefing as briefings
from bartizan.wiring.workspace import Workspace

FOLDER = "briefings"


@click.command()
@click.argument("role", required=False)
@click.option("--list", "listing", is_flag=True, help="Every role: who was briefed, on which text, until when.")
@click.option("--all", "everybody", is_flag=True, help="Write the briefings of all roles.")
@click.option("--dry-run", is_flag=True, help="Print the briefing; write and state nothing.")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder of the files.")
@as_json
@click.pass_context
def briefing(
    ctx: click.Context,
    *,
    role: str | None,
    listing: bool,
    everybody: bool,
    dry_run: bool,
    output: Path | None,
    as_json: bool,
) -> int:
    """Write what ROLE has to know, do and look out for in this system, and state its digest.

    Only techniques that reach the declared system and concern the role are named, with the declared components where
    they pass and the lessons learnt about them. Who has read it confirms it with `bartizan decide briefing`; a text
    that has changed since has to be confirmed anew. Exit code 1 of --list: some role holds no valid briefing.

    \b
    Example: bartizan briefing security
             bartizan briefing --all -o briefings
             bartizan briefing --list
    """
    space = workspace(ctx)
    if listing:
        return _register(space, as_json)
    if dry_run and role:
        show(to_markdown(briefings.draft(space, role)))
        return OK
    issued = [briefings.issue(space, each, output or _folder(space)) for each in _wanted(space, role, everybody)]
    if as_json:
        show_json(issued)
        return OK
    for item in issued:
        said = f"stated as {item.envelope[:12]}" if item.new else f"unchanged since {item.envelope[:12]}"
        say(f"briefing for {item.role}: sha256:{item.digest[:12]}, {said}")
        for path in item.files:
            show(path)
    return OK


def _wanted(space: Workspace, role: str | None, everybody: bool) -> list[str]:
    if everybody:
        return [row.role for row in briefings.listed(space)]
    if role is None:
        raise InputError("no role is given", remedy="give one, or --all, or --list.")
    return [role]


def _folder(space: Workspace) -> Path:
    return space.settings.path("report") / FOLDER


def _register(space: Workspace, as_json: bool) -> int:
    rows = briefings.listed(space)
    if as_json:
        show_json(rows)
    else:
        head = ("ROLE", "STATE", "UNTIL", "BY", "TEXT", "DRILLS", "WHY")
        table(
            head,
            [
                (
                    row.role,
                    row.state,
                    day(row.until),
                    ", ".join(row.by),
                    row.current[:12],
                    "; ".join(row.drills),
                    row.reason,
                )
                for row in rows
            ],
        )
    return OK if all(row.state == "valid" for row in rows) else FOUND
