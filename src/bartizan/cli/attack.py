"""``bartizan attack``: the red team."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bartizan.cli.attack_file import attack_file
from bartizan.cli.main import FAILED, FOUND, OK
from bartizan.cli.output import as_json, day, load, say, show, show_json, table, workspace
from bartizan.core.errors import InputError

if TYPE_CHECKING:
    from bartizan.assurance.model import ChangeLine
    from bartizan.wiring.attacking import Campaign, Line, Served, Trial
    from bartizan.wiring.coverage import Standing
    from bartizan.wiring.workspace import Workspace

RUN = "run"
MAX_IMPORT_BYTES = 16 * 1024 * 1024
EXPECTED = (0.05, 0.1, 0.15, 0.2, 0.3)
"""How much more than what is to be shown is expected, in the table of sample sizes."""


class _Runs(click.Group):
    """A group whose first command is meant when none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [RUN, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Runs)
def attack() -> None:
    """The red team: what applies, what is planned, campaigns, and results of other tools.

    Without a command it runs the attacks that the declaration selects: `bartizan attack` is
    `bartizan attack run`.
    """


@attack.command(name=RUN)
@click.argument("declaration", type=click.Path(path_type=Path), required=False)
@click.option("--list", "listing", is_flag=True, help="Say which attacks apply, and what access the others lack.")
@click.option("--plan", "planning", is_flag=True, help="Plan a run for each technique within reach; say what is open.")
@click.option("--only", multiple=True, metavar="NAME", help="Run just this attack; may be repeated.")
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    metavar="N",
    help="Try with N queries, or gradients, instead; recorded nowhere.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Try with S seconds for each search instead; recorded nowhere.",
)
@click.option("--url", default="", help="Try on a served model instead of the file; recorded nowhere.")
@click.option(
    "--speaks",
    type=click.Choice(["oip", "json", "mlflow"]),
    default="oip",
    show_default=True,
    help="What the server speaks.",
)
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Sent with each request to --url.")
@click.option("--allow-remote", is_flag=True, help="Ask another machine, whose owner agreed to be attacked.")
@click.option("--external", default="", metavar="NAME", help="Try art:NAME, foolbox:NAME or file:PATH instead.")
@click.option("--python", default="", metavar="FILE", help="Interpreter of the external attacker's environment.")
@click.option("--python-path", "paths", multiple=True, metavar="FOLDER", help="Further packages for it.")
@click.option("--with", "options", multiple=True, metavar="NAME=VALUE", help="Setting of the external attacker.")
@click.option("--fresh", is_flag=True, help="Run also what the ledger answers.")
@click.option("--resume/--anew", default=True, help="Go on where a killed run was (default), or begin it anew.")
@click.option("--samples-for", type=float, metavar="SHARE", help="How many samples show that SHARE withstand; ends.")
@click.option("--expected", type=float, metavar="SHARE", help="With --samples-for: the share that is expected.")
@click.option("--power", type=float, default=0.8, show_default=True, help="With --samples-for: chance of showing it.")
@as_json
@click.pass_context
def run(
    ctx: click.Context, /, *, declaration: Path | None, listing: bool, planning: bool, as_json: bool, **how: Any
) -> int:
    """Attack the declared models, record what comes of it, and say it.

    A campaign that is killed goes on where it was when it is started again. Exit code 1: findings, or with
    --plan an item that is neither run nor waived nor accepted; 2: an attack could not be run.

    \b
    Example: bartizan attack --list
             bartizan attack --plan
             bartizan attack --only evasion.hopskipjump
             bartizan attack --only evasion.square --budget 5000 --seconds 600
             bartizan attack --url http://127.0.0.1:8080/v2/models/tumour --only evasion.hopskipjump
             bartizan attack --external art:HopSkipJump --python /opt/art/bin/python --with max_iter=20
             bartizan attack --samples-for 0.6 --expected 0.7
    """
    _refuse_odd(ctx)
    if declaration is not None:
        ctx.obj = declaration if declaration.is_dir() else _folder(declaration)
    if how["samples_for"] is not None:
        return _samples(how["samples_for"], how["expected"], how["power"], as_json=as_json)
    space = workspace(ctx)
    if listing:
        return _list(space, as_json=as_json)
    if planning:
        return _plan(space, as_json=as_json)
    if how["budget"] or how["seconds"] or how["url"] or how["external"]:
        return _try(space, how, as_json=as_json)
    return _campaign(space, how, as_json=as_json)


_TRIAL = ("budget", "seconds")
_AT_SERVER = ("speaks", "headers", "allow_remote")
_GO_WITH: dict[str, tuple[str, ...]] = {
    "listing": (),
    "planning": (),
    "samples_for": ("expected", "power"),
    "external": (*_TRIAL, "url", *_AT_SERVER, "python", "paths", "options"),
    "url": (*_TRIAL, *_AT_SERVER, "only"),
    "budget": (*_TRIAL, "only"),
    "seconds": (*_TRIAL, "only"),
    "": ("only", "fresh", "resume"),
}
"""Option that says what is done to the options that mean something then; the first that is given says it."""


def _refuse_odd(ctx: click.Context) -> None:
    """Refuse options that would have no effect beside the others. Raises InputError."""
    written = {each.name: _written(ctx, each) for each in ctx.command.params if isinstance(each, click.Option)}
    given = [name for name in written if name and _is_given(ctx, name) and name != "as_json"]
    done = next((name for name in _GO_WITH if name in given), "")
    odd = next((name for name in given if name != done and name not in _GO_WITH[done]), None)
    if odd is None:
        return
    needed = [written[name] for name, others in _GO_WITH.items() if name and odd in others]
    if done:
        raise InputError(f"{written[odd]} has no effect beside {written[done]}", remedy="leave out one of the two.")
    raise InputError(
        f"{written[odd]} has no effect by itself", remedy=f"give {' or '.join(needed)} as well, or leave it out."
    )


def _written(ctx: click.Context, option: click.Option) -> str:
    """An option as it is written; of a pair such as --resume/--anew the one that was meant."""
    meant = (
        option.secondary_opts if option.secondary_opts and ctx.params.get(option.name or "") is False else option.opts
    )
    return meant[0]


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) not in {None, click.core.ParameterSource.DEFAULT}


def _folder(declaration: Path) -> Path:
    if declaration.name != "bartizan.toml":
        raise InputError(
            f"{declaration} is neither a bartizan.toml nor a folder",
            remedy="give that file or its folder; an attack is named with --only NAME.",
        )
    return declaration.parent


attack.add_command(attack_file)


# ---- what applies


def _list(space: Workspace, *, as_json: bool) -> int:
    declared = space.system() if space.declaration.exists() else None
    if declared is None and not as_json:
        say("no bartizan.toml here: this is what each attack needs")
    print_lines(load("bartizan.wiring.attacking:listing")(declared), as_json=as_json)
    return OK


def print_lines(lines: Sequence[Line], *, as_json: bool) -> None:
    """Which attacks apply, and why the others do not."""
    if as_json:
        show_json(lines)
        return
    applying = [line for line in lines if line.applies]
    table(
        ("ATTACK", "TECHNIQUE", "NEEDS", "RUN", "COST", "PAPER"),
        [
            (line.name, line.technique, "+".join(line.needs), _when(line), line.cost, _paper(line.references))
            for line in applying
        ],
    )
    if len(applying) < len(lines):
        show()
        show("do not apply:")
        for line in lines:
            if not line.applies:
                show(f"  {line.name} ({line.technique}): {line.why_not}")


def _when(line: Line) -> str:
    if line.selected:
        return "by assure"
    return "when named, upper bound" if line.upper_bound else "when named"


def _paper(references: Sequence[str]) -> str:
    return references[0] if references else ""


# ---- the plan


_MARKS = {"run": "run     ", "waived": "waived  ", "accepted": "accepted", "open": "OPEN    "}


def _plan(space: Workspace, *, as_json: bool) -> int:
    with load("bartizan.cli.progress:Watch")(quiet=True) as watch:
        standing, _ = load("bartizan.wiring.attacking:planned")(space, watch)
    still = [each for each in standing.settled if each.state == "open"]
    if as_json:
        show_json({"plan": standing.plan, "document": standing.document, "standing": standing.settled})
    else:
        _print_plan(standing)
        counts = {state: sum(each.state == state for each in standing.settled) for state in _MARKS}
        say(", ".join(f"{count} {state}" for state, count in counts.items()))
    return FOUND if still else OK


def _print_plan(standing: Standing) -> None:
    items = {item.technique: item for item in standing.plan.items}
    for each in standing.settled:
        item = items[each.technique]
        who = ", ".join(item.positions) or "several together"
        show(f"{_MARKS[each.state]}  {each.technique} {item.name} ({each.model}) by {who}, {item.knowledge}")
        if item.check:
            bound = ", an upper bound" if item.upper_bound else ""
            budget = ", ".join(f"{name} {value}" for name, value in item.budget.items())
            given = f" with {'+'.join(item.access)}{bound}" if item.access else ""
            show(f"            planned: {item.check}{given}{f'; {budget}' if budget else ''}")
        until = f", until {day(each.until)}" if each.until else ""
        signed = f" (signed by {', '.join(each.signers)} as {', '.join(each.roles)}{until})" if each.signers else ""
        show(f"            {each.why}{signed}")
        if each.state == "open":
            show(f"            next: {_next(item.technique, item.check, each.model)}")


def _next(technique: str, check: str, model: str) -> str:
    decided = f'bartizan decide risk --about {model} --role risk-owner --concerns {technique} --reason "..."'
    if check.startswith("redteam."):
        return f"bartizan attack --only {check.removeprefix('redteam.')}  # or {decided}"
    return f"bartizan assure --only {check}  # or {decided}" if check else decided


# ---- campaigns and trials


def _campaign(space: Workspace, how: dict[str, Any], *, as_json: bool) -> int:
    with load("bartizan.cli.progress:Watch")(quiet=as_json) as watch:
        done: Campaign = load("bartizan.wiring.attacking:campaign")(
            space, watch, how["only"], fresh=how["fresh"], anew=not how["resume"]
        )
    if as_json:
        show_json(_plain(done))
    else:
        _print_campaign(done)
    if done.failed:
        return FAILED
    return FOUND if done.findings else OK


def _plain(done: Campaign) -> dict[str, Any]:
    return {
        "ran": [{"check": job.check.name, "about": job.subject.id, "why": why} for job, why in done.due],
        "answered": done.answered,
        "endings": {
            key: {
                "ending": type(ending).__name__.lower(),
                "message": getattr(ending, "message", getattr(ending, "reason", "")),
                "assessment": ending.outcome.predicate if hasattr(ending, "outcome") else None,
            }
            for key, ending in done.endings.items()
        },
    }


def _print_campaign(done: Campaign) -> None:
    for key, digest in done.answered.items():
        say(f"  {key}: nothing changed; statement {digest[:12]} answers it")
    for key, ending in done.endings.items():
        message = getattr(ending, "message", getattr(ending, "reason", ""))
        if message:
            say(f"  {key}: {message}")
        if getattr(ending, "remedy", ""):
            say(f"    next: {ending.remedy}")  # type: ignore[union-attr]  # it has one
        if hasattr(ending, "outcome"):
            _print_metrics(key, ending.outcome.predicate)


def _print_metrics(title: str, assessment: Any) -> None:
    show(f"{title}: {assessment.summary}")
    for name, metric in sorted(getattr(assessment, "metrics", {}).items()):  # a scan that had to come first has none
        unit = f" {metric.unit}" if metric.unit else ""
        show(f"  {name:<32} {metric.value:.4g}{unit}  [{metric.low:.4g}, {metric.high:.4g}]  n={metric.n}")


def _try(space: Workspace, how: dict[str, Any], *, as_json: bool) -> int:
    served: Served | None = None
    if how["url"]:
        served = load("bartizan.wiring.attacking:Served")(
            url=how["url"], speaks=how["speaks"], headers=how["headers"], allow_remote=how["allow_remote"]
        )
    checks: Sequence[Any] = ()
    if how["external"]:
        checks = load("bartizan.wiring.bridging:external")(
            space, how["external"], python=how["python"], paths=how["paths"], options=how["options"]
        )
    say("a trial: recorded nowhere, and no evidence")
    tried: list[Trial] = []
    with load("bartizan.cli.progress:Watch")(quiet=as_json) as watch:
        for each in load("bartizan.wiring.attacking:trial")(
            space, watch, how["only"], budget=how["budget"], seconds=how["seconds"], served=served, checks=checks
        ):
            tried.append(each)
            if not as_json:
                print_trial(each)
    if as_json:
        show_json(tried)
    return FOUND if any(each.findings for each in tried) else OK


def print_trial(each: Trial) -> None:
    """What came of one attack that is recorded nowhere."""
    _print_metrics(f"{each.attack} {each.model}", each.assessment)
    if each.sent:
        show(f"  rows sent {each.sent}, of them again {each.resent}")


# ---- sample sizes


def _samples(at_least: float, expected: float | None, power: float, *, as_json: bool) -> int:
    samples_for = load("bartizan.redteam.planning:samples_for")
    least = load("bartizan.redteam.planning:fewest")(at_least)
    shares = [expected] if expected is not None else [at_least + more for more in EXPECTED if at_least + more < 1]
    found = {share: samples_for(at_least, share, power=power) for share in shares}
    if as_json:
        rows = [{"expected": share, "samples": count} for share, count in found.items()]
        show_json({"at_least": at_least, "power": power, "confidence": 0.95, "fewest": least, "needed": rows})
        return OK
    show(
        f"to show with 95 % confidence that at least {at_least:.0%} withstand takes {least} samples at the very least,"
    )
    for share, count in found.items():
        show(f"and {count} samples when {share:.0%} do (shown with a chance of {power:.0%})")
    return OK


# ---- two versions

_CHANGES = ("ATTACK", "METRIC", "BEFORE", "NOW", "DIFFERENCE", "VERDICT")


@attack.command(name="compare")
@click.argument("version", default="previous")
@as_json
@click.pass_context
def compare_versions(ctx: click.Context, version: str, as_json: bool) -> int:
    """Compare what was measured on the present model with an earlier version: more robust, by how much, how surely.

    VERSION is `previous`, or the digest of an earlier model or its beginning. Records that were attacked in both
    versions are paired; all tests are corrected together. Runs nothing and records nothing. Exit code 1: a number is
    shown to have become worse under equal conditions.

    \b
    Example: bartizan attack compare
             bartizan attack compare 3f9a2c41 --json
    """
    space = workspace(ctx)
    now = load("bartizan.wiring.assure:situation")(space, space.system())
    compared = load("bartizan.wiring.versions:against")(space, now, version)
    if as_json:
        show_json(compared)
    else:
        for each in compared:
            show(f"{each.about} {each.new[:12]} against {each.old[:12]}: {each.summary}")
            table(_CHANGES, [_change(line) for line in each.changes])
    lines = [line for each in compared for line in each.changes]
    return FOUND if any(line.verdict == "worse" and not line.caveat for line in lines) else OK


def _change(line: ChangeLine) -> tuple[str, ...]:
    caveat = f"; not equal: {line.caveat}" if line.caveat else ""
    return (
        line.check.removeprefix("redteam."),
        line.metric,
        f"{line.old.value:.3g}",
        f"{line.new.value:.3g}",
        f"{line.difference:+.3g} [{line.low:+.3g}, {line.high:+.3g}]",
        f"{line.verdict} (p = {line.corrected:.2g}){caveat}",
    )


# ---- other tools


@attack.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--about", default="", metavar="MODEL", help="Which model; needed when several are declared.")
@click.option("--technique", "techniques", multiple=True, metavar="ID", help="Catalogue technique that was tried.")
@click.option("--key", default="", help="Name of the key that signs. Default: that of whoever holds the role security.")
@as_json
@click.pass_context
def import_result(
    ctx: click.Context, *, file: Path, about: str, techniques: tuple[str, ...], key: str, as_json: bool
) -> None:
    """Record what another tool says about a model: SACRO-ML, garak, PyRIT, or the neutral JSON format.

    It becomes an assessment that says which tool claims it, and that it was not measured here. It settles an
    item of the plan once another person than the one who signed it has reviewed it.

    \b
    Example: bartizan attack import report.json --technique T35
    """
    space = workspace(ctx)
    made = load("bartizan.wiring.importing:import_result")(
        space,
        load("bartizan.cli.files:read_small")(file, MAX_IMPORT_BYTES),
        about=about,
        techniques=techniques,
        key=key,
    )
    if as_json:
        show_json(made)
        return
    for each in made:
        say(f"{each.summary}")
        say(f"  recorded as {each.envelope[:12]} about {each.about}, signed by {each.signer}")
