"""``bartizan init``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bartizan.cli.output import ask_passphrase, say, workspace
from bartizan.core.errors import InputError
from bartizan.lifecycle.design import initialise
from bartizan.wiring import setup
from bartizan.wiring.workspace import Workspace


@click.command()
@click.option("--yes", is_flag=True, help="Ask nothing; take what the folder shows and sensible defaults.")
@click.option("--unencrypted", is_flag=True, help="Write private keys without a passphrase (mode 0600).")
@click.option(
    "--person",
    "people",
    multiple=True,
    metavar="NAME=ROLE[,ROLE]",
    help="A person who signs decisions; a key is made. Default: one for risk-owner, one for security. May be repeated.",
)
@click.pass_context
def init(ctx: click.Context, yes: bool, unencrypted: bool, people: tuple[str, ...]) -> None:
    """Declare the system in the project folder and begin its ledger.

    Writes bartizan.toml (unless there is one) from what lies in the folder and a few questions,
    makes keys, and begins a ledger whose trust document says who may sign what.

    \b
    Example: bartizan -C my-model init
             bartizan init --yes --unencrypted --person ana=risk-owner --person sam=security
    """
    space = workspace(ctx)
    if not space.folder.is_dir():
        raise InputError(f"{space.folder} is no folder", remedy="make it, and put model and data into it.")
    passphrase = None
    if space.read_pin() is None and not unencrypted:
        passphrase = space.passphrase() or ask_passphrase("root, service, people")
        if not passphrase:
            raise InputError("keys need a passphrase", remedy="set BARTIZAN_PASSPHRASE, or ask for --unencrypted keys.")
    if space.declaration.exists():
        say(f"{space.declaration} is there; it is left as it is")
    else:
        _declare(space, yes)
    if space.read_pin() is not None:
        say("the ledger is there; it is left as it is")
        return
    _begin(space, passphrase, _people(people))


def _declare(space: Workspace, yes: bool) -> None:
    survey = initialise.survey(space.folder)
    ask = not yes and sys.stdin.isatty()
    answers = {question.key: _ask(question) if ask else question.default for question in initialise.questions(survey)}
    try:
        space.declaration.write_text(initialise.render(survey, answers), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{space.declaration} cannot be written: {error}", remedy="give write access.") from error
    say(f"wrote {space.declaration}; fill in the lines marked FILL IN, which only you can know")


def _ask(question: initialise.Question) -> str:
    kind = click.Choice(question.choices) if question.choices else None
    answer: str = click.prompt(question.text, default=question.default, type=kind, err=True, show_default=True)
    return answer


def _people(pairs: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    people = {}
    for pair in pairs or ("risk-owner=risk-owner", "security=security"):
        name, separator, roles = pair.partition("=")
        if not separator or not name or not roles or name in {setup.ROOT, setup.SERVICE}:
            raise InputError(
                f"--person {pair!r} is not NAME=ROLE[,ROLE]", remedy="for example ana=risk-owner,security."
            )
        people[name] = tuple(roles.split(","))
    return people


def _begin(space: Workspace, passphrase: str | None, people: dict[str, tuple[str, ...]]) -> None:
    for name in (setup.ROOT, setup.SERVICE, *people):
        if not Path(space.key_path(name)).exists():
            made = setup.make_key(space, name, passphrase=passphrase, unencrypted=passphrase is None)
            say(f"made key {made.private}")
    signed = setup.begin(space, people)
    say(f"began the ledger {space.settings.origin}; its first trust document is {signed.digest}")
    say("keep that digest, and the root key, somewhere else")
    say("next: fill in bartizan.toml if lines are marked FILL IN, then bartizan register, then bartizan assure")
