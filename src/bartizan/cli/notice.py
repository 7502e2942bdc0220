"""``bartizan notice``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.cli.output import as_json, say, show, show_json, workspace
from bartizan.wiring.notice import give

FOLDER = "notices"


@click.command()
@click.option("--model", default="", metavar="NAME", help="Which declared model; needed when there are several.")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder of the files.")
@as_json
@click.pass_context
def notice(ctx: click.Context, *, model: str, output: Path | None, as_json: bool) -> None:
    """Write what users of a model are told, and state its digest.

    It is made from the card that stands and from the table [notice]: how to use the model and how sure it is, what
    happens to data, and what users answer for. `bartizan serve` shows it at /notice.

    \b
    Example: bartizan notice
             bartizan notice --model tumour -o public
    """
    space = workspace(ctx)
    given = give(space, model, output or space.settings.path("report") / FOLDER)
    if as_json:
        show_json(given)
        return
    said = f"stated as {given.envelope[:12]}" if given.new else f"unchanged since {given.envelope[:12]}"
    say(f"notice for users of {given.model}: sha256:{given.digest[:12]}, {said}")
    for path in given.files:
        show(path)
