"""``bartizan register``."""

from __future__ import annotations

import click

from bartizan.cli.output import as_json, say, show_json, workspace
from bartizan.wiring.registering import register_artefacts


@click.command()
@click.argument("artefacts", nargs=-1)
@click.option("--key", default="service", show_default=True, help="Name of the key that signs.")
@as_json
@click.pass_context
def register(ctx: click.Context, artefacts: tuple[str, ...], key: str, as_json: bool) -> None:
    """Sign declared models and datasets (default: all) into the ledger.

    Each gets an OpenSSF Model Signing v1.0 statement; one that stands is not made again.

    \b
    Example: bartizan register
             bartizan register model:tumour dataset:train
    """
    done = register_artefacts(workspace(ctx), artefacts, key)
    if as_json:
        show_json(done)
        return
    for item in done:
        what = "signed" if item.new else "was signed already"
        say(f"{item.artefact}  {item.digest[:12]}  {what}")
