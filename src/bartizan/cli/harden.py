"""``bartizan harden``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.cli.compare import Default, Teller
from bartizan.cli.output import as_json, say, show_json, table, workspace
from bartizan.lifecycle.develop.choose.comparison import Entry
from bartizan.wiring import hardening

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Default)
def harden() -> None:
    """Apply defences, each followed by the same measurements as the model without it.

    \b
    Example: bartizan harden --base forest --only prune --only features
             bartizan harden --only anonymise --identifying age --identifying postcode
             bartizan harden --base torch --only dp-sgd --epsilon 1 --epsilon 8
             bartizan harden sites --by hospital --base logistic
    """


@harden.command("run")
@click.argument("declaration", required=False, type=click.Path(path_type=Path))
@click.option("--model", default="", help="Declared model whose data are used, where there are several.")
@click.option(
    "--base", default="declared", show_default=True, help="What is hardened: declared, a model family, or torch."
)
@click.option("--only", multiple=True, help="Defence to apply; may be repeated. Default: all that apply.")
@click.option(
    "--column", "columns", multiple=True, type=click.Choice(hardening.SUITE), help="What to measure; may be repeated."
)
@click.option(
    "--epsilon",
    "epsilons",
    type=float,
    multiple=True,
    default=(1.0,),
    show_default=True,
    help="Privacy budget of the private models; may be repeated.",
)
@click.option("--identifying", multiple=True, help="Column by which a person could be recognised; may be repeated.")
@click.option("--quick", is_flag=True, help="Small budgets: to see the shape of things, not to decide by.")
@click.option("--fresh", is_flag=True, help="Measure anew what was measured before.")
@click.option("-o", "--page", type=_FILE, help="Page to write. Default: hardening.html beside the reports.")
@as_json
@click.pass_context
def run_(
    ctx: click.Context,
    *,
    declaration: Path | None,
    model: str,
    base: str,
    only: tuple[str, ...],
    columns: tuple[str, ...],
    epsilons: tuple[float, ...],
    identifying: tuple[str, ...],
    quick: bool,
    fresh: bool,
    page: Path | None,
    as_json: bool,
) -> None:
    """Measure a model before and after each defence: accuracy, robustness, leakage, size and time.

    What was measured is kept: a run that was stopped goes on where it was. Each defence becomes a
    signed statement.
    """
    if declaration is not None:
        ctx.obj = declaration if declaration.is_dir() else declaration.parent
    wanted = hardening.Wanted(
        model=model,
        base=base,
        only=only,
        columns=columns,
        epsilon=epsilons,
        identifying=identifying,
        quick=quick,
        fresh=fresh,
    )
    done = hardening.run(workspace(ctx), wanted, Teller(), page)
    if as_json:
        show_json(done)
        return
    table(_HEAD, [_row(entry) for entry in done.hardening.comparison.entries])
    say()
    for row in done.hardening.rows:
        say(f"  {row.words}")
    for name, reason in done.hardening.not_applied.items():
        say(f"  {name} is not applied: {reason}")
    say(f"{len(done.envelopes)} statements recorded; page: {done.page}")


@harden.command("sites")
@click.option("--by", "column", required=True, help="Column of both datasets that tells the sites apart.")
@click.option("--model", default="", help="Declared model whose data are used, where there are several.")
@click.option("--base", default="logistic", show_default=True, help="Model family.")
@click.option("--quick", is_flag=True, help="Small budgets.")
@as_json
@click.pass_context
def sites(ctx: click.Context, *, column: str, model: str, base: str, quick: bool, as_json: bool) -> None:
    """Compare one shared model with one for each site: does what fools one site fool the others?

    \b
    Example: bartizan harden sites --by hospital --base forest
    """
    wanted = hardening.Wanted(model=model, base=base, quick=quick)
    found = hardening.sites(workspace(ctx), wanted, column, Teller())
    if as_json:
        show_json(found)
        return
    table(
        ("SITE", "RECORDS", "SHARED MODEL", "OWN MODEL"),
        [
            (site.name, site.records, f"{site.shared_accuracy.value:.1%}", f"{site.own_accuracy.value:.1%}")
            for site in found.sites.sites
        ],
    )
    shared, own = found.sites.shared_transfer, found.sites.own_transfer
    say(f"transfer between sites: shared model {shared.value:.0%} [{shared.low:.0%}, {shared.high:.0%}], ")
    say(f"own models {own.value:.0%} [{own.low:.0%}, {own.high:.0%}]; recorded in {found.envelope[:12]}")


_HEAD = ("MODEL", "ACCURACY", "ROBUST", "MEMBERS AT 1% FPR", "EPSILON SEEN", "NUMBERS", "BYTES", "US/ANSWER")


def _row(entry: Entry) -> tuple[str, ...]:
    return (
        entry.name,
        *(_share(entry, name) for name in ("accuracy", "robust_accuracy", "membership_tpr_at_1_percent_fpr")),
        _epsilon(entry),
        *(_count(entry, name) for name in ("parameters", "size_bytes", "microseconds_in_batch")),
    )


def _share(entry: Entry, name: str) -> str:
    metric = entry.metrics.get(name)
    return "-" if metric is None else f"{metric.value:.1%} [{metric.low:.1%}, {metric.high:.1%}]"


def _epsilon(entry: Entry) -> str:
    """What the audit saw, and what was promised."""
    part = entry.parts.get("audit")
    if part is None or part.missing:
        return "-"
    promised = part.details.get("promised")
    seen = f">= {part.metrics['epsilon_lower_bound'].value:.2f}"
    return f"{seen} (promised {promised['epsilon']:g})" if promised else seen


def _count(entry: Entry, name: str) -> str:
    value = entry.value(name)
    return "?" if value is None else f"{value:,.3g}" if name.startswith("micro") else f"{value:,.0f}"
