"""``bartizan gateway roles``."""

from __future__ import annotations

import click

from bartizan.cli.output import as_json, say, show_json, table, workspace
from bartizan.lifecycle.deploy.gateway.disclosure import HEAD, Disclosure, Told
from bartizan.lifecycle.deploy.gateway.disclosure import table as lines
from bartizan.wiring.gateroles import matrix


@click.command()
@click.option("--model", default="", metavar="NAME", help="Which declared model; needed when there are several.")
@click.option("--routes", is_flag=True, help="Every route too: whether it is granted, and what its answers hold.")
@as_json
@click.pass_context
def roles(ctx: click.Context, *, model: str, routes: bool, as_json: bool) -> None:
    """Print what each role of the gateway is told: detail, bits of an answer, explanations, metadata, time.

    Bits are what one answer tells at most, its label included. Epsilon is that of the noise in one answer.

    \b
    Example: bartizan gateway roles
             bartizan gateway roles --routes --model tumour
    """
    found = matrix(workspace(ctx), model)
    if as_json:
        show_json(found)
        return
    if not found.roles:
        say("no role is configured: nobody is answered")
        return
    table(HEAD, lines(found.roles))
    if routes:
        say()
        table(("ROLE", "ROUTE", "GRANTED", "TOLD"), [*_routes(found.roles), *map(_line, found.everybody)])


def _routes(found: tuple[Disclosure, ...]) -> list[tuple[str, str, str, str]]:
    return [_line(told) for each in found for told in each.routes]


def _line(told: Told) -> tuple[str, str, str, str]:
    return told.role, f"{told.method} {told.route}", "yes" if told.granted else "no", ", ".join(told.told) or "-"
