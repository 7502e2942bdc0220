"""``bartizan gate``."""

from __future__ import annotations

import click

from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, say, show, show_json, workspace
from bartizan.core.gate import GateResult, RuleResult
from bartizan.wiring.assure import decide, gate_of, judge, situation

name_argument = click.argument("name", default="release")
_MARKS = {"met": "met    ", "warned": "warned ", "unmet": "NOT MET"}


@click.group()
def gate() -> None:
    """Gates: which statements must stand before something may happen."""


@gate.command()
@name_argument
@as_json
@click.pass_context
def explain(ctx: click.Context, name: str, as_json: bool) -> int:
    """Print each rule with the statement it relies on, or what is missing and how to supply it.

    Records nothing. Exit code 1 when the gate would refuse.

    \b
    Example: bartizan gate explain
             bartizan gate explain deploy --json
    """
    space = workspace(ctx)
    system = space.system()
    policy = gate_of(system, name)
    result = judge(situation(space, system), name, policy)
    if as_json:
        show_json(result)
    else:
        print_result(result)
    return OK if result.passed else FOUND


@gate.command()
@name_argument
@as_json
@click.pass_context
def evaluate(ctx: click.Context, name: str, as_json: bool) -> int:
    """Evaluate the gate and record its verdict (a SLSA verification summary). Runs no check.

    \b
    Example: bartizan gate evaluate release && deploy-it
    """
    space = workspace(ctx)
    system = space.system()
    policy = gate_of(system, name)
    _, result, digest = decide(space, situation(space, system), name, policy)
    if as_json:
        show_json({"passed": result.passed, "verdict": digest, "gate": name})
    else:
        say(f"gate {name}: {'passed' if result.passed else 'refused'}; verdict {digest}")
    return OK if result.passed else FOUND


def print_result(result: GateResult) -> None:
    """Each rule on its own lines: state, reason, and what to do."""
    show(f"gate {result.gate}: {'passed' if result.passed else 'refused'}")
    for item in sorted(result.results, key=lambda item: (item.state == "met", item.rule.id)):
        _print_rule(item)


def _print_rule(item: RuleResult) -> None:
    show(f"  {_MARKS[item.state]}  {item.rule.id} ({item.artefact}): {item.reason}")
    if item.relied_on:
        show(f"             statements {', '.join(digest[:12] for digest in item.relied_on)}")
    if item.rule.why and item.state != "met":
        show(f"             why: {item.rule.why}")
    if item.remedy:
        show(f"             next: {item.remedy}")
