"""``bartizan lesson``."""

from __future__ import annotations

import click

from bartizan.cli.output import as_json, say, show_json, table, workspace
from bartizan.wiring import guided


@click.group()
def lesson() -> None:
    """Lessons learnt: each is linked to techniques, and reaches the threat model and the briefings they concern."""


@lesson.command("add")
@click.option("--technique", "techniques", multiple=True, required=True, help="Such as T08; may be repeated.")
@click.option("--title", required=True, help="What was learnt, in a few words.")
@click.option("--text", required=True, help="What happened, why, what is done now. No personal data.")
@as_json
@click.pass_context
def add(ctx: click.Context, *, techniques: tuple[str, ...], title: str, text: str, as_json: bool) -> None:
    """State a lesson. Briefings that name one of its techniques become stale, and so does the threat model.

    \b
    Example: bartizan lesson add --technique T17 --title "Labels of one clinic were swapped" --text "..."
    """
    made, envelope = guided.add_lesson(workspace(ctx), title, text, techniques)
    if as_json:
        show_json({"lesson": made, "envelope": envelope})
    else:
        say(f"lesson {made.id} ({', '.join(made.techniques)}) recorded as {envelope[:12]}")
        say("see `bartizan briefing --list` for whom to brief anew; the next `bartizan assure` models threats with it")


@lesson.command("list")
@as_json
@click.pass_context
def list_lessons(ctx: click.Context, as_json: bool) -> None:
    """List the lessons that stand, oldest first. `bartizan revoke envelope` withdraws one."""
    found = guided.lessons(workspace(ctx))
    if as_json:
        show_json(found)
    else:
        table(("ID", "TECHNIQUES", "TITLE"), [(item.id, ", ".join(item.techniques), item.title) for item in found])
