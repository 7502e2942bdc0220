"""``bartizan assure``: the main job."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.cli.gate import print_result
from bartizan.cli.main import FAILED, FOUND, OK
from bartizan.cli.output import as_json, say, show_json, workspace
from bartizan.cli.progress import Watch
from bartizan.core.errors import InputError
from bartizan.lifecycle.runner import Failure, Skipped
from bartizan.wiring.assure import Assured
from bartizan.wiring.assure import assure as run_assure
from bartizan.wiring.reporting import report_model, write_reports


@click.command()
@click.argument("declaration", type=click.Path(path_type=Path), required=False)
@click.option("--gate", default="release", show_default=True, help="Gate to decide.")
@click.option(
    "--only", multiple=True, metavar="CHECK", help="Run just this check and what it waits for; may be repeated."
)
@click.option("--fresh", is_flag=True, help="Run every check, also those that the ledger answers.")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder of the report.")
@as_json
@click.pass_context
def assure(
    ctx: click.Context,
    *,
    declaration: Path | None,
    gate: str,
    only: tuple[str, ...],
    fresh: bool,
    output: Path | None,
    as_json: bool,
) -> int:
    """Run every check that is due, decide the gate, write the report.

    Only what changed is done again. Each result is recorded as soon as it is there, so a run that is
    stopped goes on from there. Exit code 0: the gate passed; 1: it refused; 2: work could not be done.

    \b
    Example: bartizan assure
             bartizan assure path/to/bartizan.toml --gate deploy
             bartizan assure --only scan --fresh --json
    """
    if declaration is not None:
        ctx.obj = _folder(declaration)
    space = workspace(ctx)
    with Watch(quiet=as_json) as watch:
        done = run_assure(space, watch, gate=gate, only=only, fresh=fresh)
    files = write_reports(report_model(space, done.situation, done.result), output or space.settings.path("report"))
    if as_json:
        show_json(_plain(done, files))
    else:
        _summarise(done, files)
    if done.failed:
        return FAILED
    return OK if done.result.passed else FOUND


def _folder(declaration: Path) -> Path:
    """The folder of a declaration that was named, whether by folder or by file."""
    if declaration.is_dir():
        return declaration
    if declaration.name != "bartizan.toml":
        raise InputError(f"{declaration} is not called bartizan.toml", remedy="give that file, or its folder.")
    return declaration.parent


def _plain(done: Assured, files: list[Path]) -> dict[str, object]:
    return {
        "passed": done.result.passed,
        "gate": done.result.gate,
        "verdict": done.verdict,
        "ran": [{"check": job.check.name, "about": job.subject.id, "why": why} for job, why in done.due],
        "endings": {key: type(ending).__name__.lower() for key, ending in done.endings.items()},
        "failures": {
            key: {"message": ending.message, "remedy": ending.remedy}
            for key, ending in done.endings.items()
            if isinstance(ending, Failure)
        },
        "rules": done.result.results,
        "report": [str(path) for path in files],
    }


def _summarise(done: Assured, files: list[Path]) -> None:
    if not done.due:
        say("nothing changed; nothing was run")
    for key, ending in done.endings.items():
        if isinstance(ending, Failure):
            say(f"could not do {key}: {ending.message}")
            if ending.remedy:
                say(f"  next: {ending.remedy}")
        elif isinstance(ending, Skipped):
            say(f"skipped {key}: {ending.reason}")
    print_result(done.result)
    say(f"verdict {done.verdict[:12]} recorded")
    say(f"report: {files[0]}")
