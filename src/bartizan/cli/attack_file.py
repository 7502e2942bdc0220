"""``bartizan attack file``: a model file that nobody has declared."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, load, say, show, show_json
from bartizan.core.errors import InputError

if TYPE_CHECKING:
    from bartizan.wiring.attacking import Trial

FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
SETTINGS = {"samples": "samples", "change": "max_change", "norm": "norm", "seed": "seed"}
"""Option to the field of ``[redteam]`` that it stands for."""

EXAMPLES = {"--shape": "1,28,28", "--values": "0,1"}


@click.command(name="file")
@click.argument("model", type=FILE)
@click.option("--train", type=FILE, required=True, help="Table that the model was trained on: CSV or npz.")
@click.option("--test", type=FILE, required=True, help="Table that the model has never seen.")
@click.option("--target", default="", metavar="COLUMN", help="The label. Default: guessed from a CSV's header.")
@click.option("--framework", default="", metavar="NAME", help="Default: guessed from the ending of MODEL.")
@click.option(
    "--output",
    type=click.Choice(["scores", "label"]),
    default="scores",
    show_default=True,
    help="What users of the model are answered.",
)
@click.option("--only", multiple=True, metavar="NAME", help="Run just this attack; may be repeated.")
@click.option("--list", "listing", is_flag=True, help="Say which attacks apply, and what access the others lack.")
@click.option("--samples", type=click.IntRange(1), help="Rows to attack.")
@click.option("--budget", type=click.IntRange(1), help="Queries for a row, or for a copy of the model.")
@click.option("--change", type=float, help="Largest change that counts: deviations, or units of a pixel.")
@click.option("--norm", metavar="NAME", help="linf, l2, l1 or l0.")
@click.option("--seed", type=int, help="Of everything that is drawn.")
@click.option("--shape", default="", metavar="C,H,W", help="Rows are images of so many channels, rows and columns.")
@click.option("--values", default="", metavar="LOW,HIGH", help="Least and largest value of a pixel; with --shape.")
@as_json
def attack_file(*, model: Path, only: tuple[str, ...], listing: bool, as_json: bool, **how: Any) -> int:
    """Attack a model file that nobody has declared. It is scanned first; nothing is recorded.

    What only a declaration says (purpose, people, thresholds) is not asked for, so what comes of it is no evidence.
    Without --only, the usual attacks that apply are run. Exit code 1: findings; 2: the file is not clean, or an attack
    could not be run.

    \b
    Example: bartizan attack file model.joblib --train train.csv --test test.csv
             bartizan attack file model.joblib --train train.csv --test test.csv --list
             bartizan attack file net.onnx --train train.npz --test test.npz --target label --shape 1,28,28 \\
                 --values 0,1 --only evasion.autoattack --change 0.1
    """
    wanted = _wanted(model, how)
    if listing:
        lines = load("bartizan.wiring.undeclared:applying")(wanted)
        load("bartizan.cli.attack:print_lines")(lines, as_json=as_json)
        return OK
    say("a trial: recorded nowhere, and no evidence")
    tried: list[Trial] = []
    with load("bartizan.cli.progress:Watch")(quiet=as_json) as watch:
        for each in load("bartizan.wiring.undeclared:trials")(wanted, watch, only):
            tried.append(each)
            if not as_json:
                load("bartizan.cli.attack:print_trial")(each)
                for finding in each.findings:
                    show(f"  {finding.severity.upper()} {finding.title}")
                    show(f"    next: {finding.remedy}")
    if as_json:
        show_json(tried)
    return FOUND if any(each.findings for each in tried) else OK


def _wanted(model: Path, how: dict[str, Any]) -> Any:
    settings = {field: how[option] for option, field in SETTINGS.items() if how[option] is not None}
    if how["budget"] is not None:
        settings |= {"query_budget": how["budget"], "extraction_budget": how["budget"]}
    if how["change"] is not None and not 0 < how["change"] < math.inf:
        raise InputError(
            f"--change {how['change']:g}", remedy="give a number above 0; without a change nothing is tried."
        )
    if how["shape"] and not how["values"]:
        raise InputError("--shape without --values", remedy="say what a pixel may be, such as --values 0,1.")
    return load("bartizan.wiring.undeclared:Wanted")(
        model=str(model),
        train=str(how["train"]),
        test=str(how["test"]),
        target=how["target"],
        framework=how["framework"],
        output=how["output"],
        settings=settings,
        shape=tuple(_numbers(how["shape"], int, "--shape", 3)),
        value_range=tuple(_numbers(how["values"], float, "--values", 2)) or None,
    )


def _numbers(text: str, kind: type[int | float], option: str, count: int) -> list[Any]:
    if not text:
        return []
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        found = []
    sound = len(found) == count and all(map(math.isfinite, found))
    if not sound or (kind is int and min(found) < 1) or (kind is float and found != sorted(set(found))):
        raise InputError(
            f"{option} {text!r}", remedy=f"give {count} numbers with commas between them, such as {EXAMPLES[option]}."
        )
    return found
