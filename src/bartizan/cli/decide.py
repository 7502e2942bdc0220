"""``bartizan decide`` and ``bartizan revoke``."""

from __future__ import annotations

import click

from bartizan.cli.output import as_json, day, say, show_json, workspace
from bartizan.wiring import deciding

_KINDS = ("approval", "rejection", "exception", "disclosure", "risk", "scope", "briefing", "review", "supplier")


@click.command()
@click.argument("kind", type=click.Choice(_KINDS))
@click.option("--about", required=True, help="Artefact id, such as model:tumour or system:NAME.")
@click.option("--role", required=True, help="Role in which you decide; the trust document must grant it.")
@click.option("--reason", required=True, help="Why. No personal data: the ledger forgets nothing.")
@click.option("--expires", default="90d", show_default=True, help="Duration or date; every decision ends.")
@click.option("--concerns", multiple=True, help="Catalogue id decided upon, such as T08 or 4.1; may be repeated.")
@click.option("--no", "refuse", is_flag=True, help="Decide no.")
@click.option("--key", default="", help="Name of the key that signs. Default: that of whoever holds the role.")
@click.option("--drill", default="", help="For a briefing: the exercise that you took part in.")
@as_json
@click.pass_context
def decide(
    ctx: click.Context,
    *,
    kind: str,
    about: str,
    role: str,
    reason: str,
    expires: str,
    concerns: tuple[str, ...],
    refuse: bool,
    key: str,
    drill: str,
    as_json: bool,
) -> None:
    """Record a person's signed decision about an artefact, with what was in front of them.

    The decision names the artefact's digest and the threat model and attack map as they stand; when
    one of these changes, it no longer counts.

    A briefing is about a role: it confirms that the text which `bartizan briefing ROLE` wrote was read.

    \b
    Example: bartizan decide approval --about model:tumour --role risk-owner --reason "fits the pilot"
             bartizan decide risk --about model:tumour --role risk-owner --concerns T08 --reason "..."
             bartizan decide briefing --about briefing:security --role security --reason "read"
    """
    asked = deciding.Asked(
        kind=kind,
        about=about,
        role=role,
        reason=reason,
        expires=expires,
        concerns=concerns,
        outcome="no" if refuse or kind == "rejection" else "yes",
        key=key,
        drill=drill,
    )
    made = deciding.decide(workspace(ctx), asked)
    if as_json:
        show_json(made)
    else:
        say(f"{kind} ({asked.outcome}) about {about} recorded as {made.envelope[:12]}, until {day(made.expires)}")


@click.command()
@click.argument("target", type=click.Choice(["envelope", "key", "artefact"]))
@click.argument("what")
@click.option("--reason", required=True, help="Why. No personal data: the ledger forgets nothing.")
@click.option("--from", "effective_from", default="", help="Date from which it counts (2026-11-21). Default: now.")
@click.option("--key", default="", help="Name of the key that signs. Default: that of whoever holds the role security.")
@click.pass_context
def revoke(ctx: click.Context, *, target: str, what: str, reason: str, effective_from: str, key: str) -> None:
    """Withdraw a statement (by envelope digest), a key (by key id) or an artefact (by id or digest).

    \b
    Example: bartizan revoke artefact dataset:train --reason "labels were swapped at the source"
    """
    digest = deciding.revoke(workspace(ctx), target, what, reason=reason, effective_from=effective_from, key=key)
    say(f"{target} {what} withdrawn by {digest[:12]}; see `bartizan impact {what}` for what rests on it")
