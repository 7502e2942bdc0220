"""``bartizan scan``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.cli.main import FAILED, FOUND
from bartizan.cli.output import as_json, say, show
from bartizan.core.finding import worst_first
from bartizan.lifecycle.develop.scan.scanner import scan_path
from bartizan.lifecycle.develop.scan.verdict import Report


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@as_json
def scan(paths: tuple[Path, ...], as_json: bool) -> int:
    """Examine model files and folders without loading anything. Needs no project.

    Exit code 0: all clean; 1: something dangerous, suspicious or malformed; 2: not everything could
    be examined (what was not examined is never clean).

    \b
    Example: bartizan scan model.joblib
             bartizan scan downloads/ --json
    """
    reports = [scan_path(path) for path in paths]
    if as_json:
        show("[" + ",\n".join(report.to_json().decode() for report in reports) + "]")
    else:
        for report in reports:
            _print(report)
    codes = {report.exit_code for report in reports}
    return FOUND if FOUND in codes else max(codes, default=FAILED)


def _print(report: Report) -> None:
    show(f"{report.name}: {report.verdict.value} ({report.format}, {report.total_coverage.value})")
    for finding in worst_first(report.findings):
        show(f"  {finding.severity.value:<8} {finding.rule}  {finding.where}")
        show(f"           {finding.title}")
        if finding.detail:
            show(f"           {finding.detail}")
        if finding.remedy:
            show(f"           next: {finding.remedy}")
    for reason in report.reasons:
        say(f"  not examined: {reason}")
