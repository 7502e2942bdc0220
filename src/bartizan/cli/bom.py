"""``bartizan bom``."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from bartizan.cli.files import read_small
from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, say, show, show_json, table, workspace
from bartizan.core.errors import InputError
from bartizan.core.evidence import Standing
from bartizan.lifecycle.develop.bom.difference import compare, undocumented
from bartizan.lifecycle.develop.bom.reading import Bill, read_bill
from bartizan.lifecycle.develop.bom.writing import encode, write_bill
from bartizan.wiring import bills
from bartizan.wiring.workspace import Workspace


@click.group(invoke_without_command=True)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File. Default: standard output.")
@click.option("--sign", "key", default="", help="Also append it to the ledger, signed with this key.")
@click.option("--lock", type=click.Path(path_type=Path, dir_okay=False), help="Requirements file with hashes.")
@click.option("--environment", multiple=True, help="Folder of installed packages (site-packages). Default: this one.")
@click.option("--all-installed", is_flag=True, help="List every installed package, not only what the models need.")
@click.pass_context
def bom(
    ctx: click.Context,
    *,
    output: Path | None,
    key: str,
    lock: Path | None,
    environment: tuple[str, ...],
    all_installed: bool,
) -> None:
    """Write the system's bill of materials as CycloneDX 1.7: models, data, code, packages, services.

    The same inputs give the same bytes; a time is only in it when SOURCE_DATE_EPOCH is set.

    \b
    Example: bartizan bom -o bom.json --lock requirements.txt
             bartizan bom --sign service
             bartizan bom diff old.json new.json
             bartizan bom find numpy
    """
    if ctx.invoked_subcommand is not None:
        return
    space = workspace(ctx)
    material = bills.material_of(space, environment=environment, lock=lock, whole=all_installed, timestamp=_epoch())
    written = encode(write_bill(material))
    if output:
        output.write_bytes(written)
        say(f"wrote {output}: {len(read_bill(written).components)} components")
    else:
        show(written.decode().rstrip())
    if key:
        say(f"signed as {bills.sign_bill(space, material, key)[:12]}")


def _epoch() -> str:
    """The time that a reproducible build sets, as RFC 3339; empty when none is set."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    try:
        return datetime.fromtimestamp(int(text), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if text else ""
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(f"SOURCE_DATE_EPOCH is {text!r}", remedy="set it to seconds since 1970.") from error


@bom.command("diff")
@click.argument("old")
@click.argument("new")
@as_json
@click.pass_context
def diff(ctx: click.Context, old: str, new: str, as_json: bool) -> int:
    """Compare two bills: files (CycloneDX or SPDX JSON), or envelopes of the ledger by digest.

    Exit code 1 when they differ.

    \b
    Example: bartizan bom diff release-1.json release-2.json
             bartizan bom diff 3f2a91c0 release-2.json --json
    """
    changes = compare(_bill(ctx, old), _bill(ctx, new))
    if as_json:
        show_json({"changes": changes})
    elif changes:
        rows = [(each.change, each.component, each.field, _arrow(each.before, each.after)) for each in changes]
        table(("CHANGE", "COMPONENT", "FIELD", "BEFORE -> AFTER"), rows)
    else:
        say("the same components in both")
    return FOUND if changes else OK


def _arrow(before: str, after: str) -> str:
    return " -> ".join(text for text in (before, after) if text)


def _bill(ctx: click.Context, wanted: str) -> Bill:
    """A bill from a file or, when there is no such file, from the ledger."""
    path = Path(wanted)
    if path.exists():
        return read_bill(read_small(path))
    space = workspace(ctx)
    if not space.declaration.is_file():
        raise InputError(f"there is no file {wanted}", remedy="give a file, or run it in a project.")
    found = [bill for item, bill in bills.stated_bills(space) if item.digest.startswith(wanted)]
    if len(found) != 1:
        raise InputError(
            f"{wanted} is neither a file nor the digest of one bill in the ledger",
            remedy="see `bartizan evidence list`, or give more of the digest.",
        )
    return found[0]


@bom.command("find")
@click.argument("component")
@click.option("--project", multiple=True, type=click.Path(path_type=Path, file_okay=False), help="More projects.")
@as_json
@click.pass_context
def find(ctx: click.Context, component: str, project: tuple[Path, ...], as_json: bool) -> int:
    """Which systems contain COMPONENT: a name, name@version or package URL.

    Looks into the newest signed bill of each system. Exit code 1 when one contains it.

    \b
    Example: bartizan bom find numpy@1.26.4
             bartizan bom find pkg:pypi/torch --project ../spam --project ../digits
    """
    spaces = [workspace(ctx), *(Workspace(path) for path in project)]
    for space in spaces[1:]:
        ctx.call_on_close(space.close)
    found = bills.holders_of(spaces, component)
    if as_json:
        show_json({"component": component, "found": found})
    elif found:
        rows = [
            (holder.system, each.purl or each.name, each.version, holder.standing.value, holder.envelope[:12])
            for holder in found
            for each in holder.components
        ]
        table(("SYSTEM", "COMPONENT", "VERSION", "BILL", "ENVELOPE"), rows)
    else:
        say(f"no signed bill lists {component}")
    stale = sum(holder.standing is not Standing.HOLDS for holder in found)
    if stale:
        say(f"{stale} of these bills no longer describe the system as it is; run `bartizan assure`")
    return FOUND if found else OK


@bom.command("check")
@click.argument("bill", type=click.Path(path_type=Path, dir_okay=False))
@as_json
def check(bill: Path, as_json: bool) -> int:
    """What a bill leaves undocumented: digests, suppliers, licences, versions.

    Exit code 1 when something is.

    \b
    Example: bartizan bom check supplier-bom.json
    """
    findings = undocumented(read_bill(read_small(bill)))
    if as_json:
        show_json({"findings": findings})
    elif findings:
        table(("SEVERITY", "WHAT"), [(finding.severity.value, finding.title) for finding in findings])
    else:
        say("every component is documented")
    return FOUND if findings else OK
