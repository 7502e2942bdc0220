"""``bartizan secrets``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.assurance.sarif import findings_to_sarif
from bartizan.cli.output import as_json, say, show_json, table, workspace
from bartizan.lifecycle.develop.secrets.finding import ALLOW_MARK
from bartizan.lifecycle.develop.secrets.search import Searched, search
from bartizan.wiring.hiding import salt_of

MOST_SHOWN = 20


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True)
@click.option("--skip", multiple=True, help="Name of folders that are not searched, such as .venv.")
@click.option(
    "--allow-marked", is_flag=True, help=f"Pass over lines with the comment `{ALLOW_MARK.decode()}`. Off by default."
)
@click.option("--sarif", type=click.Path(path_type=Path, dir_okay=False), help="Also write the findings as SARIF here.")
@as_json
@click.pass_context
def secrets(
    ctx: click.Context,
    *,
    path: tuple[Path, ...],
    skip: tuple[str, ...],
    allow_marked: bool,
    sarif: Path | None,
    as_json: bool,
) -> int:
    """Find keys, tokens and passwords in model folders, notebooks, configuration and archives.

    A secret is never printed: only its first characters (at most four, and at most a quarter of it), its
    length, and a mark that is the same wherever the same secret lies. Exit code 0: none found; 1: some
    found; 2: none found, but not everything could be searched.

    \b
    Example: bartizan secrets model/ notebooks/
             bartizan secrets . --skip .venv --sarif secrets.sarif
    """
    salt = salt_of(workspace(ctx))
    results = [(each, search(each, salt=salt, skip=frozenset(skip), allow_marked=allow_marked)) for each in path]
    if sarif:
        sarif.write_text(findings_to_sarif([found for _, each in results for found in each.findings], "secrets"))
    if as_json:
        show_json([{"path": str(each), **_plain(result)} for each, result in results])
    else:
        for each, result in results:
            _show(each, result)
    codes = {result.exit_code for _, result in results}
    return 1 if 1 in codes else max(codes)


def _plain(result: Searched) -> dict[str, object]:
    return {
        "found": [{"severity": secret.severity, **_fields(secret)} for secret in result.found],
        "files": result.files,
        "bytes": result.bytes,
        "unread": result.unread,
    }


def _fields(secret: object) -> dict[str, object]:
    return {name: getattr(secret, name) for name in ("rule", "where", "begins", "length", "mark")}


def _show(path: Path, result: Searched) -> None:
    if result.found:
        rows = [
            (found.severity.value, found.rule, f"{found.begins}...", found.length, found.mark, found.where)
            for found in sorted(result.found, key=lambda each: (each.severity.rank, each.rule, each.where))
        ]
        table(("SEVERITY", "RULE", "BEGINS", "BYTES", "MARK", "WHERE"), rows)
    for missed in result.unread[:MOST_SHOWN]:
        say(f"not searched: {missed}")
    if len(result.unread) > MOST_SHOWN:
        say(f"and {len(result.unread) - MOST_SHOWN} more; --json lists them all")
    say(f"{path}: {len(result.found)} secrets in {result.files} files ({result.bytes >> 10} KiB)")
