"""``bartizan evidence`` and ``bartizan impact``."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from bartizan.cli.files import read_small
from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, day, say, show, show_json, table, workspace
from bartizan.core import envelope, predicates
from bartizan.core.digest import digest_bytes, parse_digest
from bartizan.core.errors import InputError
from bartizan.core.evidence import Evidence, Standing
from bartizan.wiring.assure import situation
from bartizan.wiring.lineage import affected
from bartizan.wiring.workspace import Workspace


@click.group()
def evidence() -> None:
    """Evidence: the statements about the declared system, and which of them count now."""


def _rows(items: list[Evidence]) -> list[dict[str, object]]:
    return [
        {
            "seq": item.seq,
            "envelope": item.digest,
            "type": predicates.short_name(item.statement.predicate_type) if item.statement else "",
            "what": item.check or item.kind,
            "about": [subject.name for subject in item.statement.subject] if item.statement else [],
            "standing": item.standing.value,
            "reason": item.reason,
            "signers": item.signers,
            "received_at": item.received_at,
            "ends_at": item.ends_at,
        }
        for item in items
    ]


@evidence.command("list")
@click.argument("about", required=False)
@click.option("--standing", type=click.Choice([standing.value for standing in Standing]), help="Only these.")
@as_json
@click.pass_context
def list_evidence(ctx: click.Context, about: str | None, standing: str | None, as_json: bool) -> None:
    """List every statement about the system's artefacts with its standing and the reason for it.

    ABOUT is an artefact id such as model:tumour.

    \b
    Example: bartizan evidence list model:tumour
             bartizan evidence list --standing stale
    """
    space = workspace(ctx)
    now = situation(space, space.system())
    items = list(now.evidence)
    if about:
        if about not in now.current:
            known = ", ".join(artefact.id for artefact in now.system.artefacts)
            raise InputError(f"no artefact is called {about!r}", remedy=f"choose from: {known}.")
        items = [item for item in items if item.statement and now.current[about] in item.statement.about()]
    if standing:
        items = [item for item in items if item.standing.value == standing]
    rows = _rows(items)
    if as_json:
        show_json(rows)
        return
    table(
        ("SEQ", "TYPE", "WHAT", "ABOUT", "STANDING", "SIGNED BY", "RECEIVED", "REASON"),
        [
            (
                row["seq"],
                row["type"],
                row["what"],
                _names(item),
                row["standing"],
                ",".join(item.signers),
                day(item.received_at),
                row["reason"],
            )
            for row, item in zip(rows, items, strict=True)
        ],
    )


def _names(item: Evidence) -> str:
    names = [subject.name for subject in item.statement.subject] if item.statement else []
    return names[0] if len(names) == 1 else f"{len(names)} artefacts"


@evidence.command()
@as_json
@click.pass_context
def due(ctx: click.Context, as_json: bool) -> int:
    """List the checks that would run now, and why. Exit code 1 when there are any."""
    space = workspace(ctx)
    jobs = situation(space, space.system()).due()
    if as_json:
        show_json([{"check": job.check.name, "about": job.subject.id, "why": why} for job, why in jobs])
    else:
        table(("CHECK", "ABOUT", "WHY"), [(job.check.name, job.subject.id, why) for job, why in jobs])
    return FOUND if jobs else OK


@evidence.command("show")
@click.argument("digest")
@click.option("--report", is_flag=True, help="Print the full report behind it instead.")
@click.pass_context
def show_one(ctx: click.Context, digest: str, report: bool) -> None:
    """Print one statement as JSON, by the digest (or its first characters) of its envelope or by number."""
    space = workspace(ctx)
    body = _find(space, digest)
    payload = envelope.parse(body).payload
    if not report:
        show(msgspec.json.format(payload, indent=2).decode())
        return
    named = msgspec.json.decode(payload).get("predicate", {}).get("report")
    if not named:
        raise InputError("this statement has no report", remedy="see `bartizan evidence list`.")
    show(msgspec.json.format(space.blobs.get(parse_digest(named["digest"]["sha256"])), indent=2).decode())


def _find(space: Workspace, text: str) -> bytes:
    with space.view() as view:
        entry = view.look_up(text)
    if entry is None:
        raise InputError(f"no statement is called {text[:70]!r}", remedy="see `bartizan evidence list`.")
    return entry.body


@evidence.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.pass_context
def add(ctx: click.Context, files: tuple[Path, ...]) -> None:
    """Append DSSE envelopes that were signed elsewhere. They count when the trust document says so.

    \b
    Example: bartizan evidence add provenance.dsse.json
    """
    space = workspace(ctx)
    bodies = [read_small(path) for path in files]
    batch = space.append(bodies)
    new = {entry.digest for entry in batch.entries} if batch else set()
    for path, body in zip(files, bodies, strict=True):
        digest = digest_bytes(body)
        say(f"{path}: {'appended' if digest in new else 'was there already'} as {digest[:12]}")


@click.command()
@click.argument("what")
@click.option("--back", is_flag=True, help="What it rests on, instead of what rests on it.")
@as_json
@click.pass_context
def impact(ctx: click.Context, what: str, back: bool, as_json: bool) -> None:
    """Follow lineage from WHAT (an artefact id or a digest) to everything that rests on it.

    \b
    Example: bartizan impact dataset:train
             bartizan impact model:tumour --back
    """
    space = workspace(ctx)
    reached = affected(space, what, forward=not back)
    if as_json:
        show_json(reached)
        return
    table(("DEPTH", "WHAT", "DIGEST", "BY"), [(item.depth, item.what, item.digest[:12], item.by) for item in reached])
    say(f"{len(reached)} reached")
