"""``bartizan review``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, day, load, say, show, show_json, table, workspace

if TYPE_CHECKING:
    from bartizan.lifecycle.deploy.gateway.cases import Kept
    from bartizan.wiring.review_desk import Desk, Shown

F = TypeVar("F", bound=Callable[..., Any])
QUEUES = ("held", "flagged", "filtered", "sampled")
VERDICTS = ("confirm", "change", "reject")


@click.group()
def review() -> None:
    """What people have to look at: held answers, what guards flagged or filtered, and a sample of the rest.

    \b
    Example: bartizan review list
             bartizan review show 5f0c...
             bartizan review decide 5f0c... --verdict confirm --role domain --reason "as the slide shows"
             bartizan review unmask 5f0c... --role domain --reason "the patient asked which record it was"
    """


def _desk(ctx: click.Context) -> Desk:
    """The desk of this workspace, closed when the command is over."""
    desk: Desk = load("bartizan.wiring.review_desk:Desk")(workspace(ctx))
    ctx.call_on_close(desk.close)
    return desk


def signing(command: F) -> F:
    """The options of whoever signs."""
    for option in (
        click.option("--key", default="", help="Name of the key that signs. Default: that of whoever holds the role."),
        click.option("--reason", required=True, help="Why. No personal data: the ledger forgets nothing."),
        click.option("--role", required=True, help="Role in which you review; the trust document must grant it."),
    ):
        command = option(command)
    return command


@review.command("list")
@click.option("--queue", type=click.Choice(QUEUES), help="Only this queue.")
@click.option(
    "--state", type=click.Choice(["open", "decided", "all"]), default="open", show_default=True, help="State."
)
@click.option(
    "--overdue", is_flag=True, help="Only what should have been decided by now; exit code 1 when there is any."
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Most cases to list.")
@click.option("--record", is_flag=True, help="State in the ledger how the queues stand, as a signed observation.")
@as_json
@click.pass_context
def list_(
    ctx: click.Context, *, queue: str | None, state: str, overdue: bool, limit: int, record: bool, as_json: bool
) -> int:
    """List cases, the most urgent first, and how each queue stands. What is overdue is marked.

    \b
    Example: bartizan review list --overdue
             bartizan review list --queue sampled --state decided --json
    """
    desk = _desk(ctx)
    found = desk.listed(queue=queue or "", state="" if state == "all" else state, overdue=overdue, limit=limit)
    tallies = desk.tallies()
    if as_json:
        show_json({"cases": [_plain(desk, kept) for kept in found], "queues": tallies})
    else:
        _table(desk, found)
        for name, tally in tallies.items():
            say(f"{name}: {tally.open} open, {tally.overdue} overdue, {tally.decided} decided, {tally.changed} changed")
    if record:
        said = desk.record()
        say(f"recorded as {said[:12]}" if said else "nothing to record: there are no cases")
    return FOUND if overdue and any(desk.is_overdue(kept) for kept in found) else OK


@review.command()
@click.option("--queue", type=click.Choice(QUEUES), default="sampled", show_default=True, help="Queue to draw from.")
@click.option("--count", type=click.IntRange(1, 1_000), default=10, show_default=True, help="Cases to draw.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), required=True, help="The same seed draws the same cases.")
@as_json
@click.pass_context
def sample(ctx: click.Context, *, queue: str, count: int, seed: int, as_json: bool) -> None:
    """Draw open cases at random for a routine audit; say the seed, and others can check that none was picked.

    \b
    Example: bartizan review sample --count 20 --seed 202611
    """
    desk = _desk(ctx)
    drawn = desk.sampled(queue=queue, count=count, seed=seed)
    if as_json:
        show_json([_plain(desk, kept) for kept in drawn])
    else:
        _table(desk, drawn)


@review.command("show")
@click.argument("case")
@as_json
@click.pass_context
def show_(ctx: click.Context, case: str, *, as_json: bool) -> None:
    """Show a case: what was asked and answered, masked as the class of its data asks for.

    \b
    Example: bartizan review show 5f0c2c1e8a4d4f5b9c6d7e8f90a1b2c3
    """
    _show(_desk(ctx).show(case), as_json=as_json)


@review.command()
@click.argument("case")
@signing
@as_json
@click.pass_context
def unmask(ctx: click.Context, case: str, *, role: str, reason: str, key: str, as_json: bool) -> None:
    """Show a case without its mask. Who looked and why is signed into the ledger and the audit log first.

    \b
    Example: bartizan review unmask 5f0c... --role domain --reason "compare with the original record"
    """
    _show(_desk(ctx).unmask(case, reason=reason, role=role, key=key), as_json=as_json)


@review.command()
@click.argument("case")
@click.option(
    "--verdict", type=click.Choice(VERDICTS), required=True, help="The answer stands, is another, or is none."
)
@click.option("--label", multiple=True, help="Class that is right, with --verdict change; ROW=CLASS for batches.")
@click.option("--expires", default="1y", show_default=True, help="Duration or date; every decision ends.")
@signing
@as_json
@click.pass_context
def decide(
    ctx: click.Context,
    case: str,
    *,
    verdict: str,
    label: tuple[str, ...],
    expires: str,
    role: str,
    reason: str,
    key: str,
    as_json: bool,
) -> None:
    """Decide a case. The decision is signed into the ledger; a held answer goes out, changed or not, or never.

    \b
    Example: bartizan review decide 5f0c... --verdict change --label benign --role domain --reason "a cyst"
    """
    asked = load("bartizan.wiring.review_desk:Asked")(
        case=case, verdict=verdict, reason=reason, role=role, labels=label, expires=expires, key=key
    )
    made = _desk(ctx).decide(asked)
    if as_json:
        show_json(made)
    else:
        say(f"case {case}: {verdict}, recorded as {made.envelope[:12]}, until {day(made.expires)}")


@review.command()
@click.pass_context
def sweep(ctx: click.Context) -> None:
    """Erase what was asked and answered of cases that were kept for as long as the configuration says.

    \b
    Example: bartizan review sweep
    """
    say(f"content of {_desk(ctx).sweep()} cases erased")


def _moment(at: int | None) -> str:
    return day(datetime.fromtimestamp(at / 1000, UTC)) if at is not None else ""


def _plain(desk: Desk, kept: Kept) -> dict[str, Any]:
    case = kept.case
    return {
        "case": case.id,
        "queue": case.queue,
        "state": kept.state,
        "overdue": desk.is_overdue(kept),
        "opened": _moment(case.opened),
        "due": _moment(case.due),
        "model": case.model,
        "label": case.label,
        "rows": case.rows,
        "more": kept.more,
        "caller": case.caller,
        "role": case.role,
        "request": case.request,
        "reasons": case.reasons,
        "verdict": kept.verdict,
        "reviewer": kept.reviewer,
        "statement": kept.statement,
    }


def _table(desk: Desk, found: Sequence[Kept]) -> None:
    rows = []
    for kept in found:
        case = kept.case
        due = _moment(case.due) + (" OVERDUE" if desk.is_overdue(kept) else "")
        label = f"{case.label or f'{case.rows} rows'}{f' (+{kept.more})' if kept.more else ''}"
        said = f"{kept.verdict} by {kept.reviewer}" if kept.verdict else due
        rows.append((case.id, case.queue, said, case.model, label, "; ".join(case.reasons)[:80]))
    table(("case", "queue", "due, or verdict", "model", "answered", "why"), rows)


def _show(shown: Shown, *, as_json: bool) -> None:
    if as_json:
        show_json(shown)
        return
    case = shown.case
    verdict = f"{shown.verdict} by {shown.reviewer}" if shown.verdict else shown.state
    show(f"{case.queue} case {case.id}, {verdict}, due {_moment(case.due)}")
    show(f"request {case.request} of {case.caller} as {case.role}, model {case.model} ({case.model_digest[:12]})")
    for reason in case.reasons:
        show(f"  {reason}")
    if shown.erased:
        show("what was asked and answered was erased")
    for place, row in enumerate(shown.rows):
        said = shown.answered[place] if place < len(shown.answered) else "nothing"
        scores = shown.scores[place] if place < len(shown.scores) else {}
        show(f"row {place}: answered {said} {scores or ''}".rstrip())
        for name, value in row.items():
            show(f"  {name}: {value}")
    for text in shown.texts:
        show(text)
    if shown.masked:
        say(f"personal data: {shown.treatment}; `bartizan review unmask` shows it, with a reason")
