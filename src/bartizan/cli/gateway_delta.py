"""``bartizan gateway delta``."""

from __future__ import annotations

from typing import Any

import click

from bartizan.cli.main import OK
from bartizan.cli.output import as_json, say, show, show_json, table, workspace
from bartizan.wiring.defence import Wanted, defend, plain, summary


@click.command()
@click.option("--model", default="", metavar="NAME", help="Which declared model; needed when there are several.")
@click.option("--role", default="", metavar="NAME", help="Role of the attackers; the one that is told least otherwise.")
@click.option("--samples", default=20, show_default=True, type=click.IntRange(2, 1000), help="Rows under attack.")
@click.option("--queries", default=300, show_default=True, type=click.IntRange(10, 100_000), help="For each row.")
@click.option("--seed", default=20261121, show_default=True, help="Of everything that is left to chance.")
@click.option("--parts/--no-parts", default=True, show_default=True, help="Measure each guard alone as well.")
@as_json
@click.pass_context
def delta(ctx: click.Context, /, *, as_json: bool, **fields: Any) -> int:
    """Measure what each protection is worth: attacks without the gateway, with each guard alone, with everything.

    The declared model is attacked through the declared configuration: plainly, with noise, from a new account for
    each question, and with an hour between two of them; and by rows that fool networks of the attacker's own. What
    came of it is signed as an assessment, so that a gate can ask for it: metrics.robust_worst.low.

    \b
    Example: bartizan gateway delta
             bartizan gateway delta --samples 50 --queries 1000 --json
             bartizan gateway delta --no-parts
    """
    space = workspace(ctx)
    found = defend(space, Wanted(**fields), lambda done, total, note: say(f"{done}/{total} {note}") if note else None)
    if as_json:
        told = {"statement": found.statement, "model": found.model, "role": found.role, "queries": found.queries}
        show_json(plain(found.table) | told | {"seed": fields["seed"], "summary": summary(found.table)})
        return OK
    heads = ("served with", "attack", "manner", "rows that stood", "median queries", "answered")
    rows = [
        (
            cell.variant,
            cell.attack.rpartition(".")[2],
            cell.manner,
            f"{cell.of - cell.lost}/{cell.of} ({cell.robust.interval.low:.0%}-{cell.robust.interval.high:.0%})",
            f"{cell.queries:.0f}" if cell.queries < float("inf") else "-",
            "needs scores" if cell.answered != cell.answered else f"{cell.answered:.0%}",
        )
        for cell in found.table.cells
    ]
    table(heads, rows)
    show()
    honest = [
        (price.variant, f"{price.stopped}/{price.of}", f"{price.coarsened}/{price.of}", f"{price.right}/{price.of}")
        for price in found.table.prices
    ]
    table(("served with", "honest questions stopped", "told less", "answered rightly"), honest)
    show()
    show(summary(found.table))
    show(f"statement {found.statement[:12]} recorded")
    return OK
