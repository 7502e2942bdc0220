"""``bartizan trace``."""

from __future__ import annotations

import click

from bartizan.cli.output import as_json, day, say, show_json, table, workspace
from bartizan.wiring.tracing import Step
from bartizan.wiring.tracing import trace as follow_back


@click.command()
@click.argument("what")
@as_json
@click.pass_context
def trace(ctx: click.Context, what: str, as_json: bool) -> None:
    """Follow WHAT (an artefact id, a path or a digest) back to everything it was made of.

    Shows the runs with their commands and signers, and for every batch of data who signed it, who hosts it and
    who contributed to it.

    \b
    Example: bartizan trace model:tumour
             bartizan trace deploy/current --json
    """
    found = follow_back(workspace(ctx), what)
    if as_json:
        show_json(found)
        return
    table(
        ("DEPTH", "WHAT", "DIGEST", "VIA", "MADE BY", "AT", "SIGNED BY", "HOST", "CONTRIBUTORS", "NOTES"),
        [_row(step) for step in found.steps],
    )
    if not found.complete:
        say(f"cut after {len(found.steps)} steps; begin again from one of the last")


def _row(step: Step) -> tuple[object, ...]:
    return (
        step.depth,
        step.name,
        step.digest[:12],
        step.via,
        ",".join(step.made_by),
        day(step.made_at),
        ",".join(step.signed_by),
        step.host,
        step.contributors,
        "; ".join(step.notes),
    )
