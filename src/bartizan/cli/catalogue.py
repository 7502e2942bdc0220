"""``bartizan catalogue``."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from bartizan.catalogue.atlas import MAX_BYTES, outdated, read_atlas
from bartizan.catalogue.load import catalogue as load_catalogue
from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, load, say, show, show_json, table, workspace
from bartizan.core.errors import InputError
from bartizan.wiring.standards import overdue, state_release, state_standards


@click.group()
def catalogue() -> None:
    """Principles, controls, techniques, mitigations, access points."""


@catalogue.command("show")
@click.argument("entry_id", metavar="ID")
@as_json
def show_entry(entry_id: str, as_json: bool) -> None:
    """Show one entry by its id.

    \b
    Example: bartizan catalogue show T08
             bartizan catalogue show 2.1-n
             bartizan catalogue show A-MLSG-001-N002
    """
    known = load_catalogue()
    for entries in (
        known.principles,
        known.controls,
        known.techniques,
        known.mitigations,
        known.access_points,
        known.profiles,
        known.audiences,
        known.standards,
    ):
        if entry_id in entries:
            _print(entries[entry_id], as_json)
            return
    near = ", ".join(hit.id for hit in known.search(entry_id)[:5])
    raise InputError(
        f"no entry is called {entry_id!r}",
        remedy=f"near it: {near}." if near else "try `bartizan catalogue search WORDS`.",
    )


def _print(entry: object, as_json: bool) -> None:
    plain = msgspec.to_builtins(entry)
    if as_json:
        show_json(plain)
        return
    for name, value in plain.items():
        show(f"{name:>12}  {_flat(value)}")


def _flat(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(
            _flat(item) if not isinstance(item, list | tuple) else " + ".join(map(str, item)) for item in value
        )
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_flat(item)}" for name, item in value.items())
    return str(value)


@catalogue.command()
@click.argument("words", nargs=-1, required=True)
@as_json
def search(words: tuple[str, ...], as_json: bool) -> int:
    """Find entries that have all WORDS. Exit code 1 when there is none.

    \b
    Example: bartizan catalogue search membership
    """
    hits = load_catalogue().search(" ".join(words))
    if as_json:
        show_json(hits)
    else:
        table(("KIND", "ID", "TEXT"), [(hit.kind, hit.id, hit.title) for hit in hits])
        say(f"{len(hits)} found")
    return OK if hits else FOUND


@catalogue.command()
@click.option("--max-age", default="", metavar="TIME", help="Longest time since the last check: 180d, 1y.")
@click.option("--state", is_flag=True, help="Sign the list into the ledger of this project.")
@as_json
@click.pass_context
def standards(ctx: click.Context, max_age: str, state: bool, as_json: bool) -> int:
    """List the standards to watch: version and status as known here, and when that was checked.

    AS OF is the newest information that was found at the check. Exit code 1 when --max-age is given and the last
    check of some standard is older.

    \b
    Example: bartizan catalogue standards
             bartizan catalogue standards --max-age 180d --state
    """
    space = workspace(ctx)
    listed = tuple(load_catalogue().standards.values())
    late = overdue(listed, max_age, space.clock()) if max_age else ()
    if as_json:
        show_json({"standards": listed, "overdue": [entry.id for entry in late]})
    else:
        head = ("NAME", "VERSION", "STATUS", "DATED", "CHECKED", "AS OF", "ABOUT")
        rows = [
            (entry.name, entry.version, entry.status, entry.dated, entry.checked, entry.as_of, entry.title)
            for entry in listed
        ]
        table(head, rows)
    if state:
        say(f"stated as {state_standards(space, listed)[:12]}")
    for entry in late:
        say(f"{entry.name} was last checked on {entry.checked}, longer ago than {max_age}")
    return FOUND if late else OK


@catalogue.command()
@click.argument("release", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--state", is_flag=True, help="Sign what was found into the ledger of this project.")
@as_json
@click.pass_context
def atlas(ctx: click.Context, release: Path, state: bool, as_json: bool) -> int:
    """Compare the catalogue with a release of MITRE ATLAS in FILE: ids that were retired, renamed or are gone.

    Nothing is changed by it: the catalogue is part of Bartizan. Exit code 1 when there are such ids.

    \b
    Example: bartizan catalogue atlas ATLAS-2026.12.yaml
             bartizan catalogue atlas ATLAS-2026.12.yaml --state
    """
    content = read_atlas(load("bartizan.cli.files:read_small")(release, MAX_BYTES))
    known = load_catalogue()
    found = outdated(known, content)
    if as_json:
        versions = {"catalogue": known.version, "atlas": known.entries.atlas.content, "release": content.version}
        show_json({**versions, "outdated": found})
    else:
        rows = [(entry.id, entry.state, entry.name, entry.now, " ".join(entry.used_by)) for entry in found]
        table(("ID", "STATE", "NAME HERE", "NOW", "USED BY"), rows)
    if state:
        say(f"stated as {state_release(workspace(ctx), content, found)[:12]}")
    ours = f"catalogue {known.version} with ATLAS {known.entries.atlas.content}"
    say(f"{len(found)} ids of {ours} are out of date in ATLAS {content.version or 'of no version'}")
    return FOUND if found else OK
