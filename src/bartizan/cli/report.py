"""``bartizan report``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.cli.output import as_json, say, show, workspace
from bartizan.wiring.assure import gate_of, judge, situation
from bartizan.wiring.reporting import FORMS, report_model, write_reports


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder to write into.")
@click.option("--gate", default="release", show_default=True, help="Gate whose rules are shown.")
@as_json
@click.pass_context
def report(ctx: click.Context, output: Path | None, gate: str, as_json: bool) -> None:
    """Write the report from the evidence that is there; runs nothing and records nothing.

    \b
    Example: bartizan report -o /tmp/report
             bartizan report --json | jq .gate
    """
    space = workspace(ctx)
    system = space.system()
    now = situation(space, system)
    model = report_model(space, now, judge(now, gate, gate_of(system, gate)))
    if as_json:
        show(FORMS["report.json"](model))
        return
    for path in write_reports(model, output or space.settings.path("report")):
        say(f"wrote {path}")
