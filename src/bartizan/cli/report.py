"""``bartizan report``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.assurance.oscal import read_mapping, to_oscal
from bartizan.catalogue.load import catalogue
from bartizan.cli.files import read_small
from bartizan.cli.output import as_json, say, show, workspace
from bartizan.wiring.assure import gate_of, judge, situation
from bartizan.wiring.reporting import FORMS, report_model, write_reports

_FORMS = "What is written: the report in every form, or OSCAL assessment results on standard output."


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder to write into.")
@click.option("--gate", default="release", show_default=True, help="Gate whose rules are shown.")
@click.option("--format", "form", type=click.Choice(["all", "oscal"]), default="all", show_default=True, help=_FORMS)
@click.option(
    "--map",
    "maps",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file that maps another control set onto ours; with --format oscal.",
)
@click.option("--against", default="", metavar="VERSION", help="Compare with this earlier version, or `previous`.")
@as_json
@click.pass_context
def report(
    ctx: click.Context,
    *,
    output: Path | None,
    gate: str,
    form: str,
    maps: tuple[Path, ...],
    against: str,
    as_json: bool,
) -> None:
    """Write the report from the evidence that is there; runs nothing and records nothing.

    \b
    Example: bartizan report -o /tmp/report
             bartizan report --json | jq .gate
             bartizan report --against previous
             bartizan report --format oscal --map iso27001.toml > evidence.oscal.json
    """
    space = workspace(ctx)
    system = space.system()
    now = situation(space, system)
    model = report_model(space, now, judge(now, gate, gate_of(system, gate)), against)
    if form == "oscal":
        show(to_oscal(model, [read_mapping(read_small(path), catalogue().controls) for path in maps]).rstrip())
        return
    if as_json:
        show(FORMS["report.json"](model))
        return
    for each in model.versions:
        say(f"{each.about}: {each.summary}")
    for path in write_reports(model, output or space.settings.path("report")):
        say(f"wrote {path}")
