"""``bartizan environment``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.assurance.sarif import findings_to_sarif
from bartizan.cli.files import read_small
from bartizan.cli.output import as_json, say, show_json, table, workspace
from bartizan.core.finding import Severity
from bartizan.lifecycle.develop.environment.check import summary
from bartizan.lifecycle.develop.environment.look import Compared
from bartizan.wiring.surveying import sign_survey, survey

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--baseline", type=_FILE, help="Earlier result that is accepted: only what differs from it counts.")
@click.option(
    "--fail-on",
    type=click.Choice([severity.value for severity in Severity]),
    default=Severity.LOW.value,
    show_default=True,
    help="Least severity that counts as found.",
)
@click.option("--sarif", type=_FILE, help="Also write the findings that count as SARIF here.")
@click.option("--sign", "key", default="", help="Append the result to the ledger, signed with this key.")
@as_json
@click.pass_context
def environment(
    ctx: click.Context, *, baseline: Path | None, fail_on: str, sarif: Path | None, key: str, as_json: bool
) -> int:
    """Check the place where models are made: files, keys, secrets, ports, packages, repository, claims.

    Looks at this machine from inside, and sends and changes nothing. Exit code 0: nothing counts; 1:
    something counts; 2: nothing counts, but not every question could be answered.

    \b
    Example: bartizan environment
             bartizan environment --json > baseline.json
             bartizan environment --baseline baseline.json --sign service
    """
    space = workspace(ctx)
    compared = survey(space, read_small(baseline) if baseline else None)
    if sarif:
        sarif.write_text(findings_to_sarif(compared.open, "environment"))
    if as_json:
        show_json({"result": compared.result, **_plain(compared)})
    else:
        _show(compared)
    if key:
        say(f"signed as {sign_survey(space, compared, key)[:12]}")
    return compared.exit_code(Severity(fail_on))


def _plain(compared: Compared) -> dict[str, object]:
    return {name: getattr(compared, name) for name in ("seen", "open", "known", "gone", "unknown")}


def _show(compared: Compared) -> None:
    table(("TEST", "STATE", "LOOKED AT"), [(test.name, test.state, test.note) for test in compared.seen.tests])
    if compared.open:
        say()
        table(
            ("SEVERITY", "RULE", "WHERE", "WHAT"),
            [(found.severity.value, found.rule, found.where, found.title) for found in compared.open],
        )
    for found in compared.gone:
        say(f"mended since the baseline: {found.rule} {found.where}")
    for name in compared.unknown:
        say(f"without an answer: {name}")
    say(summary(compared))
