"""``bartizan convert``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, say, show_json, workspace
from bartizan.lifecycle.develop.convert import FORMATS, format_of
from bartizan.wiring.convert import Wanted, summary
from bartizan.wiring.convert import convert as convert_file

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("source", type=FILE)
@click.argument("target", type=FILE)
@click.option("--to", type=click.Choice(FORMATS), help="Format; by the target's name otherwise.")
@click.option("--part", default="", help="Key under which a saved dictionary holds the tensors, such as state_dict.")
@click.option("--samples", type=FILE, help="Samples for an estimator (.csv, .npy); made up when there are none.")
@click.option("--accept", default="", metavar="RULE", help="Load although this rule fires: pickle/unlisted-class.")
@click.option("--reason", default="", help="With --accept: why; it is part of the statement.")
@click.option("--statement", type=FILE, help="Where the statement goes. Default: TARGET.provenance.json.")
@click.option("--sign", "key", default="", metavar="KEY", help="Sign the statement; in a project it enters the ledger.")
@click.option("--overwrite", is_flag=True, help="Replace the target and the statement if they exist.")
@as_json
@click.pass_context
def convert(
    ctx: click.Context,
    *,
    source: Path,
    target: Path,
    to: str | None,
    part: str,
    samples: Path | None,
    accept: str,
    reason: str,
    statement: Path | None,
    key: str,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Rewrite SOURCE as TARGET in a format that holds no code, and show that both are the same model.

    Tensors (torch weights, numpy, joblib) become safetensors or npz and are compared byte by byte;
    scikit-learn estimators become skops or onnx and are compared by their answers. SOURCE is scanned
    first and loaded in a confined process; TARGET is scanned too. Exit code 1: not clean, or not the same;
    then nothing is written.

    \b
    Example: bartizan convert weights.pt weights.safetensors
             bartizan convert model.joblib model.skops --samples holdout.csv --sign service
    """
    done = convert_file(
        workspace(ctx),
        Wanted(
            source=source,
            target=target,
            to=format_of(target.name, to or ""),
            part=part,
            accept=accept,
            reason=reason,
            samples=samples,
            statement=statement or target.with_name(f"{target.name}.provenance.json"),
            key=key,
            overwrite=overwrite,
        ),
    )
    if as_json:
        show_json(done)
    for line in summary(done):
        say(line)
    if done.refused:
        say(f"refused: {done.refused}")
        return FOUND
    recorded = f", recorded in {done.envelope[:12]}" if done.envelope else ""
    say(f"wrote {target} and {done.statement}{recorded}")
    return OK
