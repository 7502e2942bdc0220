"""``bartizan keys``."""

from __future__ import annotations

import click

from bartizan.cli.output import as_json, ask_passphrase, say, show, show_json, table, workspace
from bartizan.core.keys import keyid_of, load_public
from bartizan.stores.keys import read_public
from bartizan.wiring import serving, setup


@click.group()
def keys() -> None:
    """Key files, one pair per person or service."""


@keys.command()
@click.argument("name")
@click.option(
    "--algorithm",
    type=click.Choice(["ecdsa-p256", "ed25519"]),
    default="ecdsa-p256",
    show_default=True,
    help="Kind of key.",
)
@click.option("--unencrypted", is_flag=True, help="Write the private key without a passphrase (mode 0600).")
@as_json
@click.pass_context
def new(ctx: click.Context, name: str, algorithm: str, unencrypted: bool, as_json: bool) -> None:
    """Make a key pair called NAME.

    \b
    Example: bartizan keys new security
    Then:    bartizan trust grant security --role security
    """
    space = workspace(ctx)
    passphrase = None if unencrypted else (space.passphrase() or ask_passphrase(name))
    made = setup.make_key(space, name, algorithm=algorithm, passphrase=passphrase, unencrypted=unencrypted)  # type: ignore[arg-type]  # click.Choice admits just these
    if as_json:
        show_json({"name": made.name, "keyid": made.keyid, "private": str(made.private), "public": str(made.public)})
    else:
        say(f"made {made.private} and {made.public.name}; key id {made.keyid[:12]}")


@keys.command("list")
@as_json
@click.pass_context
def list_keys(ctx: click.Context, as_json: bool) -> None:
    """List the public keys that lie in the key folder."""
    folder = workspace(ctx).settings.path("keys")
    rows = [
        {"name": path.name.removesuffix(".pub.pem"), "keyid": keyid_of(load_public(read_public(path)))}
        for path in sorted(folder.glob("*.pub.pem"))
    ]
    if as_json:
        show_json(rows)
    else:
        table(("NAME", "KEY ID"), [(row["name"], row["keyid"]) for row in rows])


@keys.command("pass")
@click.option("--role", required=True, help="Role in which you ask.")
@click.option("--model", default="", metavar="NAME", help="Which declared model; needed when there are several.")
@click.option("--for", "lasts", default="1h", show_default=True, metavar="TIME", help="How long: 10min, 1h; 24h most.")
@click.option("--key", default="", help="Name of the key that signs. Default: that of whoever holds the role.")
@click.pass_context
def pass_(ctx: click.Context, *, role: str, model: str, lasts: str, key: str) -> None:
    """Sign a pass: a bearer token that shows a gateway in which role you ask. It counts for one model only.

    \b
    Example: bartizan keys pass --role analyst --for 10min
    """
    wanted = serving.PassWanted(role=role, model=model, lasts=lasts, key=key)
    show(serving.make_pass(workspace(ctx), wanted))
