"""``bartizan compare``."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import click

from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, day, say, show_json, table, workspace
from bartizan.core.errors import InputError
from bartizan.lifecycle.develop.choose.candidate import Interpretability
from bartizan.lifecycle.develop.choose.comparison import COLUMNS, Entry
from bartizan.lifecycle.develop.choose.recommend import Demands
from bartizan.wiring import choosing

_FILE = click.Path(path_type=Path, dir_okay=False)


class Default(click.Group):
    """A group that does ``run`` when no command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``run`` before anything that is no command and no wish for help."""
        if not args or (args[0] not in self.commands and args[0] not in {"-h", "--help"}):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Default)
def compare() -> None:
    """Compare model families on the declared data, simple ones first, and choose one with a reason.

    \b
    Example: bartizan compare
             bartizan compare --quick --only tree --only forest
             bartizan compare --require-interpretability glass-box --at-least robust_accuracy=0.6
             bartizan compare choose logistic --role ml
    """


@compare.command("run")
@click.argument("declaration", required=False, type=click.Path(path_type=Path))
@click.option("--model", default="", help="Declared model whose data are used, where there are several.")
@click.option("--only", multiple=True, help="Candidate to measure; may be repeated. Floor and logistic always are.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    type=click.Choice([column.name for column in COLUMNS]),
    help="What to measure; may be repeated. Quality and cost always are.",
)
@click.option("--candidate", "files", multiple=True, metavar="NAME=FILE", help="A further model file to compare.")
@click.option(
    "--require-interpretability",
    "required",
    type=click.Choice([each.value for each in Interpretability]),
    help="Least open class that is accepted.",
)
@click.option("--at-least", multiple=True, metavar="METRIC=VALUE", help="Least value of a metric.")
@click.option("--at-most", multiple=True, metavar="METRIC=VALUE", help="Largest value of a metric.")
@click.option("--quick", is_flag=True, help="Small budgets: to see the shape of things, not to decide by.")
@click.option("--fresh", is_flag=True, help="Measure anew what was measured before.")
@click.option("-o", "--page", type=_FILE, help="Page to write. Default: model-choice.html beside the reports.")
@as_json
@click.pass_context
def run_(
    ctx: click.Context,
    *,
    declaration: Path | None,
    model: str,
    only: tuple[str, ...],
    columns: tuple[str, ...],
    files: tuple[str, ...],
    required: str | None,
    at_least: tuple[str, ...],
    at_most: tuple[str, ...],
    quick: bool,
    fresh: bool,
    page: Path | None,
    as_json: bool,
) -> int:
    """Train every family on the declared training data and measure all of them in the same way.

    Measured on the evaluation data: accuracy, recall, calibration, robustness, what training gives
    away, the price of a copy, size, time, behaviour on rows from outside, capacity against data. What
    was measured is kept: a run that was stopped goes on where it was. Exit code 1: no candidate is adequate.
    """
    if declaration is not None:
        ctx.obj = declaration if declaration.is_dir() else declaration.parent
    wanted = choosing.Wanted(
        model=model,
        only=only,
        columns=columns,
        files=files,
        quick=quick,
        fresh=fresh,
        demands=Demands(
            interpretability=Interpretability(required) if required else None,
            at_least=bounds(at_least),
            at_most=bounds(at_most),
        ),
    )
    done = choosing.run(workspace(ctx), wanted, Teller(), page)
    compared = done.compared
    if as_json:
        show_json({"envelope": done.envelope, "page": done.page, **_plain(compared)})
    else:
        table(_HEAD, [_row(entry) for entry in compared.comparison.entries])
        say()
        for standing in compared.recommendation.standings:
            word = "adequate" if standing.adequate else "not adequate"
            say(f"  {standing.name}: {word}; {'; '.join(standing.reasons)}")
        for line in compared.recommendation.trade:
            say(f"  {line}")
        say()
        say(compared.recommendation.words)
        say(f"recorded in {done.envelope[:12]}; page: {done.page}")
    return OK if compared.recommendation.recommended else FOUND


@compare.command("choose")
@click.argument("name")
@click.option("--model", default="", help="Declared model, where there are several.")
@click.option("--role", required=True, help="Role in which you decide.")
@click.option("--reason", default="", help="Why; needed for anything but the simplest adequate candidate.")
@click.option("--expires", default="365d", show_default=True, help="Duration or date; every decision ends.")
@click.option("--key", default="", help="Name of the key that signs. Default: that of whoever holds the role.")
@as_json
@click.pass_context
def choose(
    ctx: click.Context, *, name: str, model: str, role: str, reason: str, expires: str, key: str, as_json: bool
) -> None:
    """Record which candidate is taken: a signed decision with the alternatives that were weighed.

    More capacity than that of the simplest adequate candidate needs a reason.
    """
    asked = choosing.Asked(name=name, model=model, role=role, reason=reason, expires=expires, key=key)
    chosen = choosing.choose(workspace(ctx), asked)
    if as_json:
        show_json(chosen)
    else:
        say(f"{chosen.name} is chosen; recorded as {chosen.envelope[:12]}, until {day(chosen.expires)}")


_HEAD = ("CANDIDATE", "INTERPRETABILITY", "ACCURACY", "ROBUST", "MEMBERS AT 1% FPR", "GAP", "ECE", "NUMBERS", "SUPPLY")


def _row(entry: Entry) -> tuple[str, ...]:
    return (
        entry.name,
        entry.interpretability.value,
        _share(entry, "accuracy"),
        _share(entry, "robust_accuracy"),
        _share(entry, "membership_tpr_at_1_percent_fpr"),
        _share(entry, "generalisation_gap"),
        _share(entry, "calibration_error"),
        "?" if (count := entry.value("parameters")) is None else f"{count:,.0f}",
        entry.supply.kind,
    )


def _share(entry: Entry, name: str) -> str:
    metric = entry.metrics.get(name)
    return "-" if metric is None else f"{metric.value:.1%} [{metric.low:.1%}, {metric.high:.1%}]"


def _plain(compared: choosing.Compared) -> dict[str, object]:
    return {"comparison": compared.comparison, "recommendation": compared.recommendation}


def bounds(texts: tuple[str, ...]) -> dict[str, float]:
    """``METRIC=VALUE`` as numbers.

    Raises:
        InputError: it is written otherwise.
    """
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not name or not math.isfinite(found[name]):
            raise InputError(f"{text!r} is no bound", remedy="write METRIC=VALUE, such as accuracy=0.9.")
    return found


class Teller:
    """Says on standard error what is being measured. See ``Listener``."""

    def tell(self, candidate: str, what: str, done: int, total: int, note: str) -> None:
        """See ``Listener.tell``."""
        if sys.stderr.isatty():
            click.echo(f"\r\033[K  {candidate}: {what} {done}/{total or '?'} {note}"[:100], nl=False, err=True)

    def finished(self, candidate: str, what: str, *, kept: bool) -> None:
        """See ``Listener.finished``."""
        if sys.stderr.isatty():
            click.echo("\r\033[K", nl=False, err=True)
        say(f"  {candidate}: {what}" + (" (kept from before)" if kept else ""))
