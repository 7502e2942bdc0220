"""``bartizan register``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.cli.digests import cached_files, digest_options, tell_contradictions
from bartizan.cli.output import as_json, say, show_json, workspace
from bartizan.wiring.registering import register_artefacts


@click.command()
@click.argument("artefacts", nargs=-1)
@click.option("--key", default="service", show_default=True, help="Name of the key that signs.")
@digest_options
@as_json
@click.pass_context
def register(
    ctx: click.Context, *, artefacts: tuple[str, ...], key: str, cache: Path | None, full: bool, as_json: bool
) -> int:
    """Sign declared models, datasets and documents (default: all) into the ledger.

    Each gets an OpenSSF Model Signing v1.0 statement; one that stands is not made again. Files that did not
    change since they were last digested are not read again; --full reads them all.

    \b
    Example: bartizan register
             bartizan register model:tumour dataset:train
    """
    space = workspace(ctx)
    with cached_files(cache, full=full) as files:
        space.files = files
        done = register_artefacts(space, artefacts, key)
    if as_json:
        show_json(done)
        return tell_contradictions(files)
    for item in done:
        what = "signed" if item.new else "was signed already"
        say(f"{item.artefact}  {item.digest[:12]}  {what}")
    return tell_contradictions(files)
