"""``bartizan gateway key``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from bartizan.cli.output import as_json, day, say, show, show_json, table, workspace
from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.identity.keys import (
    DAY,
    LASTS_DAYS,
    MOST_DAYS,
    OVERLAP_SECONDS,
    ApiKey,
    KeyWanted,
)
from bartizan.wiring import gatekeys

F = TypeVar("F", bound=Callable[..., Any])
_DAYS = click.option(
    "--days", type=click.IntRange(1, MOST_DAYS), default=LASTS_DAYS, show_default=True, help="How long it counts."
)


@click.group()
def key() -> None:
    """API keys: who may ask the gateway, in which role, for how long. Only their digests are kept."""


@key.command()
@click.option("--role", required=True, help="Role of the gateway's configuration in which it asks.")
@click.option("--label", default="", help="What it is for; no names of persons.")
@click.option("--group", multiple=True, help="Group that it belongs to; budgets may count groups together.")
@click.option("--attribute", multiple=True, metavar="NAME=VALUE", help="Attribute for policies, such as purpose=audit.")
@click.option("--model", multiple=True, help="Only this model, by name or digest. Default: those of the role.")
@click.option("--operation", multiple=True, help="Only this operation, such as infer. Default: those of the role.")
@click.option("--network", multiple=True, help="Only from this network, such as 10.1.2.0/24. Default: from everywhere.")
@_DAYS
@as_json
@click.pass_context
def add(ctx: click.Context, /, *, attribute: tuple[str, ...], as_json: bool, **fields: Any) -> None:
    """Make a key and print it, once: it cannot be shown again.

    \b
    Example: bartizan gateway key add --role analyst --label "nightly report"
             bartizan gateway key add --role sensor --network 10.1.2.0/24 --attribute site=north --days 30
    """
    wanted = KeyWanted(
        role=fields["role"],
        label=fields["label"],
        groups=fields["group"],
        attributes=_pairs(attribute),
        models=fields["model"],
        operations=fields["operation"],
        networks=fields["network"],
        days=fields["days"],
    )
    _tell(gatekeys.add(workspace(ctx), wanted), as_json=as_json)


@key.command()
@click.argument("key_id", metavar="ID")
@_DAYS
@click.option(
    "--overlap",
    type=click.IntRange(0, MOST_DAYS),
    default=OVERLAP_SECONDS // DAY,
    show_default=True,
    help="Days for which the old key still counts.",
)
@as_json
@click.pass_context
def rotate(ctx: click.Context, *, key_id: str, days: int, overlap: int, as_json: bool) -> None:
    """Print a new key with the rights of ID, which ends after --overlap days. Budgets go on through it.

    \b
    Example: bartizan gateway key rotate abcdefgh2345 --overlap 2
    """
    _tell(gatekeys.rotate(workspace(ctx), key_id, days=days, overlap=overlap * DAY), as_json=as_json)


@key.command()
@click.argument("key_id", metavar="ID")
@click.pass_context
def revoke(ctx: click.Context, key_id: str) -> None:
    """End the key ID now. Every replica refuses it within the seconds of identity.keys.poll (5).

    \b
    Example: bartizan gateway key revoke abcdefgh2345
    """
    say(f"revoked {gatekeys.revoke(workspace(ctx), key_id).id}")


@key.command("list")
@click.option("--all", "ended", is_flag=True, help="Also keys that were revoked or have expired.")
@as_json
@click.pass_context
def list_keys(ctx: click.Context, *, ended: bool, as_json: bool) -> None:
    """List the keys that count. Of their use only the day is known.

    \b
    Example: bartizan gateway key list --all --json
    """
    space = workspace(ctx)
    now = space.clock().timestamp()
    keys = gatekeys.listed(space, ended=ended)
    if as_json:
        show_json([_plain(each, now) for each in keys])
        return
    rows = [
        (
            each.id,
            each.role,
            _state(each, now),
            _date(each.expires_at),
            _day(each),
            "yes" if each.otp else "",
            each.label,
        )
        for each in keys
    ]
    table(("ID", "ROLE", "STATE", "UNTIL", "LAST USED", "CODES", "LABEL"), rows)


@key.command()
@click.argument("key_id", metavar="ID")
@click.pass_context
def otp(ctx: click.Context, key_id: str) -> None:
    """Enrol one-time codes (RFC 6238) for the key ID, in place of those that it had; print them for an authenticator.

    Operations that need a second factor are then sent with the header `bartizan-otp: CODE`. Each code counts once.

    \b
    Example: bartizan gateway key otp abcdefgh2345
    """
    show(gatekeys.enrol(workspace(ctx), key_id))
    say("this is shown once; put it into an authenticator, and nowhere else")


def _tell(made: gatekeys.Made, *, as_json: bool) -> None:
    if as_json:
        show_json({"key": made.secret, "id": made.key.id, "role": made.key.role, "until": _moment(made.key.expires_at)})
        return
    show(made.secret)
    say(f"key {made.key.id} for role {made.key.role} counts until {_date(made.key.expires_at)}; it is shown once")


def _plain(found: ApiKey, now: float) -> dict[str, Any]:
    """What may be told of a key: neither its digest nor what its codes are made of."""
    names = ("id", "caller", "role", "label", "groups", "attributes", "models", "operations", "networks")
    return {name: getattr(found, name) for name in names} | {
        "state": _state(found, now),
        "created_at": _moment(found.created_at),
        "expires_at": _moment(found.expires_at),
        "last_used": _day(found),
        "codes": bool(found.otp),
    }


def _state(found: ApiKey, now: float) -> str:
    if found.revoked_at:
        return "revoked"
    return "counts" if gatekeys.counts(found, now) else "expired"


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for name, equals, _ in pairs:
        if not equals:
            raise InputError(f"{name[:80]!r} is no attribute", remedy="write NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _date(seconds: int) -> str:
    return day(_moment(seconds))


def _day(found: ApiKey) -> str:
    return f"{_moment(found.used_day * DAY):%Y-%m-%d}" if found.used_day else ""
