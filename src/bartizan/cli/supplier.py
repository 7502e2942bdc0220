"""``bartizan supplier``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.cli.files import read_small
from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, day, say, show_json, table, workspace
from bartizan.core.evidence import Evidence
from bartizan.lifecycle.develop.intake.questions import read_supplier
from bartizan.wiring.suppliers import Suppliers

TEMPLATE = """\
service = "model"            # model, dataset, labelling, library, hosted-api
contact = "security@supplier.example"
expectations = "Signs releases, answers reports within 14 days, names training data."
posture = "ISO 27001 certificate seen in 2026; no known incident."
chosen = "pre-trained"       # of the options below

[options]
in-house = "Half a year of two people; full control of the data."
pre-trained = "Good on our samples; data of the producer only partly known."
hosted = "Patient data would leave the site."

[[access]]                   # rights to data of ours; a labelling service needs them
dataset = "train"
rights = "none"

[allow]
digests = []                 # SHA-256 of what exactly may come in
keys = []                    # public keys (PEM) whose signatures count
"""


@click.group()
def supplier() -> None:
    """Suppliers: what they are held to, what may come from them, and until when.

    \b
    Example: bartizan supplier template > acme.toml
             bartizan supplier record acme --from acme.toml --role security --expires 1y
             bartizan supplier show acme
    """


@supplier.command("template")
def template() -> None:
    """Print a record to fill in."""
    click.echo(TEMPLATE, nl=False)


@supplier.command("record")
@click.argument("name")
@click.option(
    "--from", "path", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The record, TOML."
)
@click.option("--role", required=True, help="Role in which you decide.")
@click.option("--expires", default="365d", show_default=True, help="Duration or date; then it has to be renewed.")
@click.option("--key", default="", help="Name of the key that signs. Default: that of whoever holds the role.")
@click.pass_context
def record(ctx: click.Context, name: str, *, path: Path, role: str, expires: str, key: str) -> None:
    """Sign a supplier's record. The newest one counts; an expired one lets nothing in."""
    said = read_supplier(read_small(path))
    digest = Suppliers(workspace(ctx)).record(name, said, role=role, expires=expires, key=key)
    say(f"{name} is recorded as {digest[:12]}")


@supplier.command("show")
@click.argument("name")
@as_json
@click.pass_context
def show_supplier(ctx: click.Context, name: str, as_json: bool) -> int:
    """Every record of a supplier and its standing; exit code 1 when none holds."""
    suppliers = Suppliers(workspace(ctx))
    evidence = [item for item in suppliers.evidence(name) if item.kind == "supplier"]
    if as_json:
        show_json({"supplier": name, "record": suppliers.current(name), "records": [_row(item) for item in evidence]})
    else:
        head = ("ENVELOPE", "STANDING", "UNTIL", "BY", "SAYS")
        table(head, [tuple(_row(item).values()) for item in evidence])
    return OK if any(item.holds for item in evidence) else FOUND


def _row(item: Evidence) -> dict[str, str]:
    said = str(item.statement.predicate.get("reason", "")) if item.statement else ""
    return {
        "envelope": item.digest[:12],
        "standing": item.standing.value,
        "until": day(item.ends_at),
        "by": ", ".join(item.signers),
        "says": said,
    }
