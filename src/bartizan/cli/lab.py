"""``bartizan lab``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.cli.output import as_json, say, show, show_json, table, workspace
from bartizan.core.errors import InputError
from bartizan.lifecycle.design.guidance.document import Section, section_markdown
from bartizan.lifecycle.design.guidance.labs import LABS, TEXT_LABS
from bartizan.wiring.labs import teach, teach_example


@click.command()
@click.argument("name", required=False)
@click.option(
    "--system",
    "declaration",
    type=click.Path(path_type=Path),
    help="bartizan.toml of a system of your own, or its folder.",
)
@click.option("--model", default="", metavar="NAME", help="Which declared model; needed when there are several.")
@click.option("--sign", is_flag=True, help="Sign what was measured into the system's ledger.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="HTML page with the figures.")
@as_json
@click.pass_context
def lab(
    ctx: click.Context,
    *,
    name: str | None,
    declaration: Path | None,
    model: str,
    sign: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Run the lesson NAME: a real attack in less than a minute, step by step, with numbers and what helps.

    It runs on an example (handwritten digits and a small network, or messages and a filter, trained on the spot) or
    with --system on a model of your own. Without NAME, the lessons are listed.

    \b
    Example: bartizan lab
             bartizan lab backdoor -o backdoor.html
             bartizan lab membership --system bartizan.toml --sign
    """
    if name is None:
        titles = {each.name: each.title for each in LABS.values()} | {
            each.name: each.title for each in TEXT_LABS.values()
        }
        table(("NAME", "LESSON"), list(titles.items()))
        return
    if sign and declaration is None:
        raise InputError("the example has no ledger to sign into", remedy="give --system bartizan.toml.")
    tell = _silent if as_json else _tell
    if declaration is None:
        taught = teach_example(name, tell, output)
    else:
        ctx.obj = declaration if declaration.is_dir() else declaration.parent
        taught = teach(workspace(ctx), name, model, tell, output, sign=sign)
    if as_json:
        show_json(taught)
        return
    if taught.page:
        say(f"page: {taught.page}")
    if taught.envelope:
        say(f"measured and signed as {taught.envelope[:12]}")


def _tell(section: Section) -> None:
    """One step, as soon as it is done."""
    show(section_markdown(section))


def _silent(section: Section) -> None:
    del section
