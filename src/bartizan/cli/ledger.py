"""``bartizan ledger``."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from bartizan.cli.files import read_small
from bartizan.cli.output import as_json, day, say, show, show_json, workspace
from bartizan.core.digest import parse_digest
from bartizan.core.errors import LedgerError
from bartizan.core.view import Inclusion, verify_inclusion
from bartizan.wiring import upkeep


@click.group()
def ledger() -> None:
    """The append-only ledger that every statement lies in."""


@ledger.command()
@click.option(
    "--against",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A checkpoint note that was kept elsewhere; the ledger must extend it.",
)
@as_json
@click.pass_context
def verify(ctx: click.Context, against: Path | None, as_json: bool) -> None:
    """Check every entry, the tree, the index, every checkpoint and every report; name the first bad one.

    \b
    Example: bartizan ledger verify
             bartizan ledger verify --against /media/usb/checkpoint.txt
    """
    space = workspace(ctx)
    note = _text(against) if against else ""
    done = upkeep.verify(space, note)
    if as_json:
        show_json(done)
        return
    say(f"{done.entries} entries, {done.checkpoints} checkpoints and {done.reports} reports are sound")
    say(f"root {done.root} signed at {day(done.received_at)}")


@ledger.command()
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it to a file.")
@click.pass_context
def checkpoint(ctx: click.Context, output: Path | None) -> None:
    """Print the newest signed checkpoint (a C2SP note). Keep it elsewhere, and verify against it later."""
    with workspace(ctx).view() as view:
        if output is None:
            show(view.note.rstrip("\n"))
        else:
            output.write_text(view.note, encoding="utf-8")
            say(f"wrote {output}")


@ledger.command()
@click.argument("digest")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it to a file.")
@click.pass_context
def prove(ctx: click.Context, digest: str, output: Path | None) -> None:
    """Print a proof that the envelope DIGEST is in the ledger; it can be checked without the ledger."""
    with workspace(ctx).view() as view:
        proof = msgspec.json.format(msgspec.json.encode(view.prove(parse_digest(digest))), indent=2)
    if output is None:
        show(proof.decode())
    else:
        output.write_bytes(proof)
        say(f"wrote {output}")


@ledger.command("check-proof")
@click.argument("proof", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("envelope", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--key", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The ledger's public key.")
def check_proof(proof: Path, envelope: Path, key: Path) -> None:
    """Check a proof and the envelope that it speaks about against the ledger's public key. Needs no ledger."""
    from bartizan.core.keys import keyid_of, load_public  # noqa: PLC0415

    pem = _text(key)
    try:
        read = msgspec.json.decode(read_small(proof), type=Inclusion)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LedgerError(f"{proof} is no proof: {error}", remedy="make one with `bartizan ledger prove`.") from error
    checkpoint = verify_inclusion(read, read_small(envelope), {keyid_of(load_public(pem)): pem})
    say(f"entry {read.seq} of {checkpoint.size} in {checkpoint.origin}")


@ledger.command()
@click.pass_context
def reindex(ctx: click.Context) -> None:
    """Compute every derived row again from the envelopes. What is signed must agree, or nothing is changed."""
    say(f"{upkeep.reindex(workspace(ctx))} entries reindexed")


@ledger.command()
@click.argument("digest")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it to a file.")
@click.pass_context
def export(ctx: click.Context, digest: str, output: Path | None) -> None:
    """Print one DSSE envelope, byte for byte."""
    with workspace(ctx).view() as view:
        entry = view.look_up(digest)
        if entry is None:
            raise LedgerError(f"envelope {digest[:70]!r} is not in the ledger", remedy="see `bartizan evidence list`.")
    if output is None:
        click.echo(entry.body, nl=False)
    else:
        output.write_bytes(entry.body)
        say(f"wrote {output}")


def _text(path: Path) -> str:
    try:
        return read_small(path).decode()
    except UnicodeDecodeError as error:
        raise LedgerError(f"{path} is not text: {error}", remedy="give the file as it was written.") from error
