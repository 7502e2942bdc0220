"""``bartizan trust``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.cli.files import read_small
from bartizan.cli.output import as_json, day, say, show_json, table, workspace
from bartizan.core.digest import parse_digest
from bartizan.stores.keys import read_public
from bartizan.wiring import setup

roots = click.option(
    "--root", "roots", multiple=True, default=("root",), show_default=True, help="Root key to sign with."
)


@click.group()
def trust() -> None:
    """Who may sign which kinds of statement, in which role, from when to when."""


@trust.command("show")
@as_json
@click.pass_context
def show_trust(ctx: click.Context, as_json: bool) -> None:
    """Show the trust document that counts now."""
    space = workspace(ctx)
    with space.view() as view:
        document = view.trust
        first = view.first_trust
    if as_json:
        show_json(document)
        return
    say(f"trust document version {document.version}, expires {day(document.expires)}")
    say(f"{document.threshold} of {len(document.roots)} root keys sign a change; first version {first}")
    table(
        ("PRINCIPAL", "KEY ID", "ROLES", "FROM", "UNTIL"),
        [
            (who.id, who.keyid[:12], ",".join(who.roles), day(who.not_before), day(who.not_after))
            for who in document.principals
        ],
    )


@trust.command()
@click.argument("name")
@click.option("--role", "roles", multiple=True, required=True, help="Role from the trust document; may be repeated.")
@click.option("--key", type=click.Path(path_type=Path), help="Public key, PEM. Default: NAME in the key folder.")
@roots
@click.pass_context
def grant(ctx: click.Context, name: str, roles: tuple[str, ...], key: Path | None, roots: tuple[str, ...]) -> None:
    """Let the principal NAME sign in these roles.

    \b
    Example: bartizan trust grant security --role security
    """
    space = workspace(ctx)
    document = setup.grant(space, name, read_public(key or space.public_path(name)), roles, roots)
    say(f"trust document version {document.version}: {name} may sign as {', '.join(roles)}")


@trust.command()
@click.argument("name")
@roots
@click.pass_context
def withdraw(ctx: click.Context, name: str, roots: tuple[str, ...]) -> None:
    """Take the principal NAME out; what it signed does not count any more."""
    document = setup.withdraw(workspace(ctx), name, roots)
    say(f"trust document version {document.version}: {name} is out")


@trust.command()
@click.argument("document", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_context
def update(ctx: click.Context, document: Path) -> None:
    """Install a signed trust document (a DSSE envelope) that was made elsewhere.

    It must follow from the current version and carry enough root signatures; an older one is refused.
    """
    accepted = setup.install_trust(workspace(ctx), read_small(document))
    say(f"trust document version {accepted.version} counts from now on")


@trust.command()
@click.argument("document", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Envelope to write."
)
@click.option(
    "--with", "other", type=click.Path(path_type=Path, dir_okay=False), help="Envelope with earlier signatures."
)
@roots
@click.pass_context
def sign(ctx: click.Context, document: Path, output: Path, other: Path | None, roots: tuple[str, ...]) -> None:
    """Sign a trust document (JSON) with root keys that are here; several holders sign in turn.

    \b
    Example: bartizan trust show --json > next.json     # edit: version + 1, previous
             bartizan trust sign next.json -o next.dsse
             bartizan trust sign next.json -o next.dsse --with next.dsse --root root2
             bartizan trust update next.dsse
    """
    space = workspace(ctx)
    sealed = setup.seal_trust(space, setup.read_trust(read_small(document)), roots)
    if other is not None:
        sealed = setup.merge_signatures(read_small(other), sealed)
    output.write_bytes(sealed)
    say(f"wrote {output}")


@trust.command()
@click.argument("digest")
@click.pass_context
def pin(ctx: click.Context, digest: str) -> None:
    """Trust this ledger from here on, after comparing DIGEST (its first trust document) with its owner."""
    setup.pin_first(workspace(ctx), parse_digest(digest))
    say("pinned")
