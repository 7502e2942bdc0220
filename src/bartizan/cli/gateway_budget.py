"""``bartizan gateway budget``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, load, say, show, show_json, table, workspace

if TYPE_CHECKING:
    from bartizan.lifecycle.deploy.gateway.budgets.derive import Derived
    from bartizan.wiring.gateway_budgets import Proposal


@click.group()
def budget() -> None:
    """Budgets: what is spent of them, filling them up, and deriving them from attacks."""


@budget.command(name="show")
@click.argument("name", required=False, default="")
@as_json
@click.pass_context
def show_budget(ctx: click.Context, *, name: str, as_json: bool) -> None:
    """Print what is spent of every budget, or of NAME, out of the counts that requests are held to.

    What a replica holds leased counts as spent.

    \b
    Example: bartizan gateway budget show
             bartizan gateway budget show daily --json
    """
    found = load("bartizan.wiring.gateway_budgets:spent")(workspace(ctx), name)
    if as_json:
        show_json(found)
        return
    if not found:
        say("nothing is spent")
        return
    table(
        ("BUDGET", "WHO", "SPENT", "LIMIT", "UNIT", "WINDOW", "MORE IN"),
        [
            (each.budget, each.subject, str(each.spent), str(each.limit), each.unit, each.window, f"{each.resets:g} s")
            for each in found
        ],
    )


@budget.command()
@click.argument("name")
@click.option("--subject", default="", help="Whose count: as `budget show` prints it.")
@click.option("--all", "everybody", is_flag=True, help="The counts of all.")
@click.pass_context
def reset(ctx: click.Context, *, name: str, subject: str, everybody: bool) -> None:
    """Fill the budget NAME up, for one subject or for all. Replicas notice within a second.

    \b
    Example: bartizan gateway budget reset daily --subject key:k7f3a1
             bartizan gateway budget reset daily --all
    """
    if bool(subject) == everybody:
        raise click.UsageError("give either --subject or --all")
    filled = load("bartizan.wiring.gateway_budgets:fill_up")(workspace(ctx), name, subject)
    say(f"filled up: {filled} count{'' if filled == 1 else 's'} of {name}")


@budget.command()
@click.option("--model", default="", metavar="NAME", help="Which declared model; needed when there are several.")
@click.option(
    "--fidelity",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.8,
    show_default=True,
    help="Share of records on which no copy may agree with the model.",
)
@click.option("--queries", type=click.IntRange(min=10), help="Most answers to try; default: the declared budget.")
@click.option("--labels-only", is_flag=True, help="Only what labels alone give away.")
@as_json
@click.pass_context
def derive(
    ctx: click.Context, *, model: str, fidelity: float, queries: int | None, labels_only: bool, as_json: bool
) -> int:
    """Run extraction attacks at every detail of output, and print the budgets below which no copy is good enough.

    Exit code 1: at some detail no budget helps. Recorded nowhere; `bartizan assure --only gateway.extraction-budget`
    signs the same measurement at 80 %.

    \b
    Example: bartizan gateway budget derive --fidelity 0.8
             bartizan gateway budget derive --fidelity 0.9 --queries 400 --json
    """
    with load("bartizan.cli.progress:Watch")(quiet=as_json) as watch:
        found: Proposal = load("bartizan.wiring.gateway_budgets:derive")(
            workspace(ctx), watch, model=model, fidelity=fidelity, queries=queries, labels_only=labels_only
        )
    if as_json:
        show_json(found)
    else:
        for each in found.derived:
            _print(each)
        show(found.toml)
    return OK if all(each.limit for each in found.derived) else FOUND


def _print(each: Derived) -> None:
    show(f"{each.detail}: at most {each.bits:g} bits an answer; compared on {each.rows} records")
    table(
        ("ANSWERS", "AGREES", "AT MOST", "BEST ATTACK"),
        [(str(mark.queries), f"{mark.fidelity:.1%}", f"{mark.bound:.1%}", mark.attack) for mark in each.curve],
    )
    show()


__all__ = ["budget"]
