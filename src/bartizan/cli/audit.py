"""``bartizan audit``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from bartizan.cli.files import read_small
from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, day, say, show, show_json, table, workspace
from bartizan.core.durations import DURATION_ALLOWED
from bartizan.core.errors import EvidenceError, InputError
from bartizan.lifecycle.deploy.gateway.audit.bundle import MAX_BUNDLE_BYTES
from bartizan.lifecycle.deploy.gateway.audit.entries import CLASSES
from bartizan.lifecycle.deploy.gateway.audit.searching import MAX_FOUND, Query
from bartizan.lifecycle.deploy.gateway.audit.settings import nanoseconds
from bartizan.wiring import audit_cases as cases
from bartizan.wiring import auditing
from bartizan.wiring.dataset_access import note_access

FILE = click.Path(path_type=Path, dir_okay=False)
why = click.option("--reason", required=True, help="Why you look; it is recorded.")


def moment(text: str) -> int:
    """Nanoseconds since the epoch of 2026-11-21, 2026-11-21T16:00 (UTC), or of a span ago: 24h, 7d.

    Raises:
        InputError: it is neither.
    """
    if not text:
        return 0
    try:
        at = datetime.fromisoformat(text)
        at = at.replace(tzinfo=at.tzinfo or UTC)
        return int(at.timestamp() * 1_000_000) * 1000
    except (ValueError, OverflowError):
        now = int(datetime.now(UTC).timestamp() * 1_000_000) * 1000
    try:
        return now - nanoseconds(text)
    except InputError as error:
        raise InputError(
            f"not a time: {text[:80]!r}", remedy=f"write 2026-11-21, 2026-11-21T16:00, or {DURATION_ALLOWED} ago."
        ) from error


def selecting(command: Any) -> Any:
    """The options by which records are chosen."""
    options = (
        click.option("--id", "name", default="", help="Id of a request: the header bartizan-request of its answer."),
        click.option("--caller", default="", help="Id of a caller, such as key:k7f3a1."),
        click.option("--model", default="", help="Name of a model."),
        click.option("--digest", default="", help="Digest of a model."),
        click.option("--decision", default="", help="answered, coarsened, held, throttled, refused or failed."),
        click.option("--operation", default="", help="infer, explain, admin.key.add, audit.search ..."),
        click.option("--guard", default="", help="A guard that said something."),
        click.option("--class", "kind", default="", help=f"One of {', '.join(CLASSES)}."),
        click.option("--from", "since", default="", metavar="TIME", help="2026-11-21, 2026-11-21T16:00, or 24h ago."),
        click.option("--to", "until", default="", metavar="TIME", help="Not included; as --from."),
        click.option(
            "--limit", type=click.IntRange(1, MAX_FOUND), default=100, show_default=True, help="Records at most."
        ),
        click.option("--before", type=click.IntRange(0), default=0, help="Go on: only records with a lower number."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def query(given: dict[str, Any]) -> Query:
    """The query that the options of ``selecting`` ask for."""
    return Query(
        id=given["name"],
        caller=given["caller"],
        model=given["model"],
        digest=given["digest"].removeprefix("sha256:"),
        decision=given["decision"],
        operation=given["operation"],
        guard=given["guard"],
        kind=given["kind"],
        since=moment(given["since"]),
        until=moment(given["until"]),
        limit=given["limit"],
        before=given["before"],
    )


@click.group()
def audit() -> None:
    """The gateway's audit log: every request, in a Merkle log that cannot be quietly changed."""


@audit.command()
@selecting
@click.option("--answer", type=FILE, help="File with the body of an answer: find the request that it answered.")
@why
@as_json
@click.pass_context
def search(ctx: click.Context, /, *, answer: Path | None, reason: str, as_json: bool, **given: Any) -> int:
    """Find records, newest first. Exit code 1: nothing was found.

    \b
    Example: bartizan audit search --caller key:k7f3a1 --decision refused --from 24h --reason "ticket 17"
             bartizan audit search --answer answer.json --reason "complaint of a user"
    """
    body = read_small(answer) if answer else None
    hits = cases.search(workspace(ctx), query(given), reason=reason, answer=body)
    if as_json:
        show_json(hits)
    else:
        table(
            ("NUMBER", "AT", "ID", "CALLER", "ROLE", "OPERATION", "MODEL", "DECISION", "CLASS", "REVIEW BY"),
            [
                (
                    hit.seq,
                    day(hit.at),
                    hit.record.id,
                    hit.record.caller,
                    hit.record.role,
                    hit.record.operation,
                    f"{hit.record.model} {hit.record.model_digest[:12]}".strip(),
                    hit.record.decision,
                    hit.kind,
                    day(hit.review_due),
                )
                for hit in hits.found
            ],
        )
        if not hits.complete:
            say(f"there may be more: go on with --before {hits.go_on}")
    return OK if hits.found else FOUND


@audit.command("show")
@click.argument("name")
@why
@click.option("--content", is_flag=True, help="Print the sealed input instead, when it is kept.")
@click.pass_context
def show_record(ctx: click.Context, *, name: str, reason: str, content: bool) -> int:
    """Print everything that is recorded of one request, by its id. Exit code 1: it is not in the log.

    \b
    Example: bartizan audit show 18ea3c9be1a0c400-5b1e09c2aa-1f --reason "ticket 17"
    """
    space = workspace(ctx)
    hits = cases.search(space, Query(id=name, limit=1), reason=reason)
    if not hits.found:
        say(f"no record is called {name[:80]}")
        return FOUND
    hit = hits.found[0]
    if content:
        if not hit.record.content:
            say("no content is kept of this request")
            return FOUND
        click.echo(cases.content(space, hit.record.content, reason=reason), nl=False)
    else:
        show_json(hit)
    return OK


@audit.command()
@selecting
@click.option("--case", "ids", multiple=True, metavar="ID", help="Exactly these requests; may be given again.")
@click.option("-o", "--output", type=FILE, required=True, help="File to write.")
@why
@click.pass_context
def export(ctx: click.Context, /, *, ids: tuple[str, ...], output: Path, reason: str, **given: Any) -> None:
    """Write a case to a file: records, proofs, checkpoint and keys. It verifies without the log, anywhere.

    \b
    Example: bartizan audit export --caller key:k7f3a1 --from 7d -o case.json --reason "incident 4"
    Then:    bartizan audit verify --file case.json --key service.pub.pem
    """
    made = cases.export(workspace(ctx), query(given), ids, reason=reason)
    output.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1))
    say(f"wrote {len(made.records)} records to {output}")


@audit.command()
@click.argument("name")
@click.option("-o", "--output", type=FILE, help="Write it to a file.")
@click.pass_context
def prove(ctx: click.Context, *, name: str, output: Path | None) -> None:
    """Print a proof that a record (id of a request, or number) is in the log, and in what witnesses saw of it.

    \b
    Example: bartizan audit prove 18ea3c9be1a0c400-5b1e09c2aa-1f -o proof.json
    """
    data = msgspec.json.format(msgspec.json.encode(cases.prove(workspace(ctx), name)), indent=1)
    if output is None:
        show(data.decode())
    else:
        output.write_bytes(data)
        say(f"wrote {output}")


@audit.command()
@click.option("--file", "path", type=FILE, help="A proof or an exported case, instead of the log itself.")
@click.option("--key", type=FILE, help="With --file: the public key of the log, from somebody you trust.")
@click.option("--against", type=FILE, multiple=True, help="Checkpoints that were kept elsewhere; may be given again.")
@as_json
@click.pass_context
def verify(ctx: click.Context, *, path: Path | None, key: Path | None, against: tuple[Path, ...], as_json: bool) -> int:
    """Verify the whole log against its checkpoints, its witnesses and the ledger, and name the first bad record.

    With --file nothing else is needed than the file and the public key: no log, no ledger, no network.
    Exit code 1: something is not as it was written.

    \b
    Example: bartizan audit verify
             bartizan audit verify --against /media/usb/audit.witness
             bartizan audit verify --file case.json --key service.pub.pem
    """
    if path is not None:
        return _verify_file(path, key, as_json=as_json)
    from bartizan.stores.audit.witnessed import FileWitness  # noqa: PLC0415 - only here

    report = cases.verify(workspace(ctx), [FileWitness(file) for file in against])
    if as_json:
        show_json({**msgspec.to_builtins(report), "sound": report.sound})
    else:
        for problem in report.problems:
            show(f"record {problem.seq}: {problem.what}")
        state = "sound" if report.sound else "NOT SOUND"
        say(
            f"{report.records} records ({report.dropped} without their bodies, {report.unsigned} not signed yet), "
            f"{report.checkpoints} checkpoints, {report.witnessed} of witnesses: {state}"
        )
        say(f"root {report.root}")
    return OK if report.sound else FOUND


def _verify_file(path: Path, key: Path | None, *, as_json: bool) -> int:
    if key is None:
        raise InputError("--file needs --key", remedy="give the public key of the log, from somebody you trust.")
    pem = read_small(key).decode("utf-8", "replace")
    try:
        checked = cases.check_file(read_small(path, MAX_BUNDLE_BYTES), pem)
    except EvidenceError as error:
        if as_json:
            show_json({"sound": False, "problem": error.message})
        else:
            show(error.message)
        return FOUND
    if as_json:
        show_json(
            {
                "sound": True,
                "origin": checked.checkpoint.origin,
                "size": checked.checkpoint.size,
                "records": [msgspec.to_builtins(record) for record in checked.records],
                "dropped": checked.dropped,
                "witnesses": checked.witnesses,
            }
        )
    else:
        for record in checked.records:
            show(f"{record.id}  {record.caller}  {record.operation}  {record.decision}  {record.model_digest[:12]}")
        say(
            f"{len(checked.records) + checked.dropped} records were in {checked.checkpoint.origin} when it held "
            f"{checked.checkpoint.size}; compared with {len(checked.witnesses)} witnesses"
        )
    return OK


@audit.command()
@as_json
@click.pass_context
def witness(ctx: click.Context, *, as_json: bool) -> None:
    """Sign a checkpoint, show it to every witness of [audit], and state it in the ledger, now.

    \b
    Example: bartizan audit witness
    """
    shown = auditing.show_now(workspace(ctx))
    if as_json:
        show_json(shown)
        return
    table(("WITNESS", "COSIGNATURE"), [(place, lines.strip() or "(kept)") for place, lines in shown.items()])


@audit.command("serve-witness")
@click.option("--name", required=True, help="Name in cosignatures, such as witness.example.org/w1.")
@click.option("--log", "logs", multiple=True, required=True, metavar="ORIGIN=FILE", help="A log and its public key.")
@click.option("--key", default="witness", show_default=True, help="Name of an Ed25519 key of this project.")
@click.option("--book", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to remember in.")
@click.option("--port", type=click.IntRange(0, 65535), default=8091, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.pass_context
def serve_witness(  # noqa: PLR0917 - its options
    ctx: click.Context, name: str, logs: tuple[str, ...], key: str, book: Path, port: int, host: str
) -> None:
    """Be a witness of the audit logs of others (C2SP tlog-witness): cosign every checkpoint that extends the last one.

    Put a proxy with TLS in front. The logs name its address in witness = [...] of their table [audit].

    \b
    Example: bartizan keys new witness --algorithm ed25519
             bartizan audit serve-witness --name w.example.org --log shop.example/audit=shop.pub.pem --book seen
    """
    from bartizan.wiring.witnessing import Stand, stand  # noqa: PLC0415 - the server is an extra

    keys = {}
    for log in logs:
        origin, mark, file = log.rpartition("=")
        if not mark or not origin:
            raise InputError(f"not ORIGIN=FILE: {log[:80]!r}", remedy="write shop.example/audit=shop.pub.pem.")
        keys[origin] = read_small(Path(file)).decode("utf-8", "replace")
    wanted = Stand(name=name, key=key, logs=keys, host=host, port=port, book=book)
    stand(workspace(ctx), wanted, lambda address, number: say(f"witnessing on http://{address}:{number}"))


@audit.command()
@as_json
@click.pass_context
def retain(ctx: click.Context, *, as_json: bool) -> None:
    """Drop what was kept long enough (see [audit.keep]) and destroy its keys. The log goes on verifying.

    \b
    Example: bartizan audit retain
    """
    done = auditing.cut_back(workspace(ctx))
    if as_json:
        show_json(done)
        return
    table(("CLASS", "DROPPED"), list(done.bodies.items()))
    say(f"{done.contents} sealed contents erased, {len(done.keys)} keys destroyed")


@audit.command()
@click.option("--dataset", required=True, help="Name of a declared dataset.")
@click.option("--rows", type=click.IntRange(0), required=True, help="How many rows are read.")
@click.option("--purpose", required=True, help="What for; it is recorded.")
@click.option("--who", default="", help="Who reads, without a name. Default: the number of your account.")
@as_json
@click.pass_context
def access(ctx: click.Context, *, dataset: str, rows: int, purpose: str, who: str, as_json: bool) -> int:
    """Record that a dataset is read. An unusual read raises a signed alert, and exit code 1.

    Unusual is a reader who never read it, more rows than usual, or an hour at which this reader never reads.

    \b
    Example: bartizan audit access --dataset training --rows 455 --purpose "error analysis"
    """
    noted = note_access(workspace(ctx), dataset, rows, purpose=purpose, who=who)
    if as_json:
        show_json(noted)
    else:
        for alert in noted.alerts:
            show(f"unusual: {alert}")
        say(f"recorded: {noted.rows} rows of {noted.dataset}")
    return FOUND if noted.alerts else OK
