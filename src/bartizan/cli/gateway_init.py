"""``bartizan gateway init``."""

from __future__ import annotations

import click

from bartizan.cli.main import OK
from bartizan.cli.output import show, workspace
from bartizan.wiring.gateway_init import begin


@click.command(name="init")
@click.option(
    "--witness",
    default=".bartizan/audit-witness.txt",
    show_default=True,
    metavar="PLACE",
    help="Who sees the checkpoints of the audit log: a file, better on another disk, or the address of a witness.",
)
@click.pass_context
def init(ctx: click.Context, *, witness: str) -> int:
    """Write a configuration that is closed but for API keys, and declare it.

    \b
    Example: bartizan gateway init
             bartizan register && bartizan assure --only gateway.configuration --gate gateway
             bartizan gateway key add --role user
    """
    path = begin(workspace(ctx), witness=witness)
    show(f"wrote {path.name}, and declared it as document:gateway with the gate 'gateway'")
    show("next: bartizan register && bartizan assure --gate gateway && bartizan serve --gate gateway")
    show("A gate of your own judges it too when it has the rule that now stands at the end of bartizan.toml.")
    return OK
