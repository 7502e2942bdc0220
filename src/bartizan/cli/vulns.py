"""``bartizan vulns``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from bartizan.assurance.sarif import findings_to_sarif
from bartizan.cli.files import read_small
from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, say, show, show_json, table, workspace
from bartizan.core.finding import Severity
from bartizan.lifecycle.develop.bom.installed import here, read_installed
from bartizan.lifecycle.develop.bom.reading import read_bill
from bartizan.lifecycle.develop.vulnerabilities.check import Looked, look_up, summary
from bartizan.lifecycle.develop.vulnerabilities.inventories import Inventory, join, of_bill, of_installed, of_lock
from bartizan.lifecycle.develop.vulnerabilities.vex import Said, read_vex
from bartizan.lifecycle.develop.vulnerabilities.vex import write_vex as vex_document
from bartizan.wiring import advisories

_FILE = click.Path(path_type=Path, dir_okay=False)
MOST_SHOWN = 10
_AUTHOR = "urn:bartizan:vulns"

osv_db = click.option(
    "--osv-db", type=click.Path(path_type=Path), help="OSV export: all.zip, or a folder of zips or JSON files."
)
vex = click.option("--vex", multiple=True, type=_FILE, help="OpenVEX document: what does not matter here, and why.")


@click.group(invoke_without_command=True)
@osv_db
@click.option("--lock", multiple=True, type=_FILE, help="Lock file: requirements.txt, poetry, uv, pdm, Pipenv, conda.")
@click.option("--bom", multiple=True, type=_FILE, help="Bill of materials: CycloneDX or SPDX JSON.")
@click.option("--environment", multiple=True, help="Folder of installed packages (site-packages).")
@vex
@click.option("--max-age", default="", help="Refuse a database whose newest advisory is older, such as 14d.")
@click.option(
    "--fail-on",
    type=click.Choice([severity.value for severity in Severity]),
    default=Severity.LOW.value,
    show_default=True,
    help="Least severity that counts as found.",
)
@click.option("--write-vex", type=_FILE, help="Also write an OpenVEX document about everything that was found.")
@click.option("--sarif", type=_FILE, help="Also write the findings as SARIF here.")
@click.option("--sign", "key", default="", help="Append the result to the ledger, signed with this key.")
@as_json
@click.pass_context
def vulns(
    ctx: click.Context,
    *,
    osv_db: Path | None,
    lock: tuple[Path, ...],
    bom: tuple[Path, ...],
    environment: tuple[str, ...],
    vex: tuple[Path, ...],
    max_age: str,
    fail_on: str,
    write_vex: Path | None,
    sarif: Path | None,
    key: str,
    as_json: bool,
) -> int:
    """Look up packages in a local copy of the OSV advisories. Nothing is sent or fetched.

    Without --lock, --bom or --environment the packages installed beside this program are looked up.
    Exit code 0: nothing known; 1: something known counts; 2: no database, or not everything could be
    looked up.

    \b
    Example: bartizan vulns --osv-db pypi-all.zip --lock requirements.txt
             bartizan vulns --osv-db osv/ --bom supplier-bom.json --vex vex.json --json
             bartizan vulns watch --osv-db osv/
    """
    if ctx.invoked_subcommand is not None:
        return OK
    space = workspace(ctx)
    index = advisories.database_of(space, osv_db)
    said = _said(vex)
    now = datetime.now(UTC)
    inventory = _inventory(lock, bom, environment)
    looked = look_up(inventory, index, said, now=now, max_age=max_age, refuse_from=Severity(fail_on))
    if write_vex:
        write_vex.write_bytes(vex_document(looked.matched.found, said, author=_AUTHOR, now=now))
    if sarif:
        sarif.write_text(findings_to_sarif([each.finding(now) for each in looked.counting], "vulns"))
    if as_json:
        show(advisories.as_json(looked).decode())
    else:
        _show(looked)
    if key:
        say(f"signed as {advisories.sign_result(space, looked, key)[:12]}")
    return looked.exit_code


def _said(paths: tuple[Path, ...]) -> list[Said]:
    return [each for path in paths for each in read_vex(read_small(path), path.name)]


def _inventory(lock: tuple[Path, ...], bom: tuple[Path, ...], environment: tuple[str, ...]) -> Inventory:
    parts = [of_lock(read_small(path), path.name) for path in lock]
    parts += [of_bill(read_bill(read_small(path)), path.name) for path in bom]
    parts += [of_installed(read_installed([folder])) for folder in environment]
    return join(parts or [of_installed(here())])


def _show(looked: Looked) -> None:
    rows = []
    for each in looked.counting:
        days = each.days_known(looked.at)
        known = f"{days} d" if days is not None else "?"
        rows.append((each.severity.value, each.item.key, each.id, known, each.fixed[0] if each.fixed else "none known"))
    if rows:
        table(("SEVERITY", "PACKAGE", "ADVISORY", "KNOWN FOR", "FIXED IN"), rows)
    for settled, said in looked.settled:
        say(f"{said.status}: {settled.item.key} {settled.id}: {said.why or 'no reason given'}")
    for problem in looked.matched.unclear[:MOST_SHOWN]:
        say(f"not looked up: {problem}")
    if len(looked.matched.unclear) > MOST_SHOWN:
        say(f"and {len(looked.matched.unclear) - MOST_SHOWN} more; --json lists them all")
    say(summary(looked))


@vulns.command("watch")
@osv_db
@vex
@click.option("--key", default="security", show_default=True, help="Name of the key that opens records.")
@as_json
@click.pass_context
def watch(ctx: click.Context, *, osv_db: Path | None, vex: tuple[Path, ...], key: str, as_json: bool) -> int:
    """Look up the newest signed bill of materials again, and open a record for what has become known.

    Each vulnerability of a package is recorded once, as an incident statement of kind vulnerability.
    Exit code 1 when a record was opened. Run it whenever a newer database arrives.

    \b
    Example: bartizan vulns watch --osv-db pypi-all.zip
    """
    space = workspace(ctx)
    index = advisories.database_of(space, osv_db)
    records = advisories.watch(space, index, _said(vex), now=datetime.now(UTC), key=key)
    if as_json:
        show_json({"opened": records})
    elif records:
        rows = [(each.severity.value, each.package, each.id, each.envelope[:12]) for each in records]
        table(("SEVERITY", "PACKAGE", "ADVISORY", "RECORD"), rows)
    else:
        say("nothing new is known about the packages of the newest bill")
    return FOUND if records else OK
