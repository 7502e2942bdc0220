"""The defence delta of every example: ``make defence``, or ``python examples/defence.py``.

For each model: write the example into ``build/defence/NAME``, declare the configuration of ``bartizan gateway init``,
register it, fit its guards, attack everything with ``bartizan gateway delta``, and keep what it answers in
``build/defence/NAME.json``. What was measured with the same settings is not measured again, so that it can be stopped
and started at any time; ``--again`` begins anew. Then the tables of ``docs/gateway/defence.md`` are printed, from the
files alone.

About three minutes of processor time for each model with the settings below.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bartizan.redteam.statistics import proportion

HERE = Path(__file__).parent
FOLDER = HERE.parent / "build" / "defence"
SAMPLES, QUERIES, SEED = 20, 300, 20261121
CHECKS = ("scan", "gateway.configuration", "gateway.sequence", "gateway.outliers")
PEOPLE = ("--person", "risk-owner=risk-owner", "--person", "security=security")
ATTACKS = {
    "evasion.hopskipjump": "HopSkipJump",
    "evasion.square": "Square",
    "evasion.simba": "SimBA",
    "evasion.transfer": "transfer",
}
TRANSFER = "evasion.transfer"
"""Needs no search."""
MANNERS = {
    "noise": "with noise",
    "drip": "an hour between questions",
    "accounts": "a new account each time",
}
"""Of those who know of the gateway."""


@dataclass(frozen=True)
class Model:
    """One that is attacked."""

    name: str
    example: str
    title: str
    change: float | None = None
    """What the digits are trained against instead of what ``prepare.py`` says."""


MODELS = (
    Model("tumour", "tumour", "Tumours: a table of 30 columns, logistic regression"),
    Model("digits", "digits", "Digits: a network that was trained against small changes"),
    Model("slices", "slices", "Slices: drawn scans of 20 x 20 pixels, a network of 64 units"),
    Model("digits-plain", "digits", "Digits again: the same network, trained without that", change=0.0),
)


def main() -> int:
    """Measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=SAMPLES, help="rows under attack")
    parser.add_argument("--queries", type=int, default=QUERIES, help="for each row")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", nargs="*", default=[], choices=[model.name for model in MODELS])
    parser.add_argument("--again", action="store_true", help="measure also what is there already")
    wanted = parser.parse_args()
    settings = {"samples": wanted.samples, "queries": wanted.queries, "seed": wanted.seed}
    models = [model for model in MODELS if not wanted.only or model.name in wanted.only]
    found = []
    for number, model in enumerate(models, start=1):
        path = FOLDER / f"{model.name}.json"
        if wanted.again or not path.exists() or json.loads(path.read_text())["settings"] != settings:
            say(f"[{number}/{len(models)}] {model.name}")
            measured(model, path, settings)
        else:
            say(f"[{number}/{len(models)}] {model.name}: measured already, {path.name}")
        found.append((model, json.loads(path.read_text())))
    print("\n".join(overview(found)))
    for model, result in found:
        print("\n".join(("", f"### {model.title}", "", *table(result))))
    return 0


def say(text: str) -> None:
    """Tell how far it is; the tables alone go to the standard output."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def measured(model: Model, path: Path, settings: dict[str, int]) -> None:
    """Attack one model, and write what came of it. A project is made anew when it was not finished."""
    project, done = FOLDER / model.name, FOLDER / model.name / "ready"
    if not done.exists():
        shutil.rmtree(project, ignore_errors=True)
        project.mkdir(parents=True)
        prepare(model, project)
        for arguments in (("init", "--yes", "--unencrypted", *PEOPLE), ("gateway", "init"), ("register",)):
            bartizan(project, *arguments)
        say("  fitting the guards")
        only = [argument for check in CHECKS for argument in ("--only", check)]
        bartizan(project, "assure", *only, "--gate", "gateway")
        done.touch()
    say("  attacking")
    options = [argument for name, value in settings.items() for argument in (f"--{name}", str(value))]
    began, spent = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(bartizan(project, "gateway", "delta", "--json", *options))
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = now.ru_utime + now.ru_stime - spent.ru_utime - spent.ru_stime
    result |= {"settings": settings, "processor_seconds": round(processor)}
    path.write_text(json.dumps(result, indent=1) + "\n")
    say(f"  {time.monotonic() - began:.0f} s, {processor:.0f} s of processor time: {result['summary']}")


def prepare(model: Model, project: Path) -> None:
    """Write data, model and declaration."""
    example = HERE / model.example
    shutil.copy(example / "bartizan.toml", project)
    spec = importlib.util.spec_from_file_location(f"prepare_{model.example}", example / "prepare.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{example / 'prepare.py'} is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if model.change is not None:
        module.CHANGE = model.change  # type: ignore[attr-defined]
    with contextlib.redirect_stdout(sys.stderr):
        module.main(project)


def bartizan(project: Path, *arguments: str) -> str:
    """Run the command as people do; progress goes where this one's goes.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, "-m", "bartizan", *arguments]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    quiet = None if arguments[:2] == ("gateway", "delta") else subprocess.PIPE
    done = subprocess.run(  # noqa: S603 - this very package
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=quiet, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"bartizan {' '.join(arguments)}: {done.stdout}{done.stderr or ''}")
    return done.stdout


def overview(found: list[tuple[Model, dict[str, Any]]]) -> list[str]:
    """One line for each model: the best search, and the attack that needs none, without the gateway and with it."""
    heads = ("model", "best search, without", "with it, plainly", "by who knows it", "transfer, without", "with it")
    rows = [f"| {' | '.join(heads)} | honest questions stopped | right |", "| --- |" + " --- |" * (len(heads) + 1)]
    for model, result in found:
        cells, searches = result["attacks"], tuple(attack for attack in ATTACKS if attack != TRANSFER)
        every = ("plain", *MANNERS)
        told = [
            named(least(cells, "no gateway", ("plain",), searches)),
            named(least(cells, "everything", ("plain",), searches)),
            named(least(cells, "everything", every, searches)),
            stood(least(cells, "no gateway", ("plain",), (TRANSFER,))),
            stood(least(cells, "everything", every, (TRANSFER,))),
        ]
        before, after = (price(result, variant) for variant in ("no gateway", "everything"))
        most = 100 * proportion(after["stopped"], after["of"]).interval.high
        told.append(f"{after['stopped']} of {after['of']} (at most {most:.1f} %)")
        rows.append(f"| {model.name} | {' | '.join(told)} | {before['right']}, then {after['right']} |")
    return rows


def least(
    cells: list[dict[str, Any]], variant: str, manners: tuple[str, ...], attacks: tuple[str, ...]
) -> dict[str, Any]:
    """The attack, and the manner, that left the fewest rows standing."""
    asked = [
        cell for cell in cells if cell["variant"] == variant and cell["manner"] in manners and cell["attack"] in attacks
    ]
    return min(asked, key=lambda cell: int(cell["stood"]))


def named(cell: dict[str, Any]) -> str:
    """With the attack that took the most, where one took any."""
    return stood(cell) if cell["stood"] == cell["of"] else f"{stood(cell)}, {ATTACKS[cell['attack']]}"


def price(result: dict[str, Any], variant: str) -> dict[str, Any]:
    """What honest callers pay."""
    return next(each for each in result["honest"] if each["variant"] == variant)


def table(result: dict[str, Any]) -> list[str]:
    """One line for each way of serving; two where it matters how somebody asks who knows it; all ways at the end."""
    cells = result["attacks"]
    rows = [f"| served with | {' | '.join(ATTACKS.values())} | honest: stopped, told less, right |"]
    rows.append(f"| --- |{' --- |' * len(ATTACKS)} --- |")
    for variant in dict.fromkeys(cell["variant"] for cell in cells):
        paid = price(result, variant)
        honest = f"{paid['stopped']}, {paid['coarsened']}, {paid['right']} of {paid['of']}"
        known = tuple(manner for manner in MANNERS if any(is_of(cell, variant, manner) for cell in cells))
        plainly = told(cells, variant, ("plain",))
        knowing = told(cells, variant, known) if known else []
        if variant == "everything":
            rows.append(line(f"{variant}, plainly", plainly, honest))
            rows += [line(f"{variant}, {MANNERS[manner]}", told(cells, variant, (manner,))) for manner in known]
        elif not known:
            rows.append(line(variant, plainly, honest))
        elif knowing == plainly:
            rows.append(line(f"{variant}, plainly or not", plainly, honest))
        else:
            rows += [line(f"{variant}, plainly", plainly, honest), line(f"{variant}, by who knows it", knowing)]
    return rows


def is_of(cell: dict[str, Any], variant: str, manner: str) -> bool:
    """Whether it is about this way of serving, and this manner."""
    return bool(cell["variant"] == variant and cell["manner"] == manner)


def told(cells: list[dict[str, Any]], variant: str, manners: tuple[str, ...]) -> list[str]:
    """What each attack did, in the manner that left the fewest rows."""
    return [stood(least(cells, variant, manners, (attack,))) for attack in ATTACKS]


def line(title: str, cells: list[str], honest: str = "") -> str:
    """One of the table."""
    return f"| {title} | {' | '.join(cells)} | {honest} |"


def stood(cell: dict[str, Any]) -> str:
    """Rows that stood, with the interval, and the median of what the others took where most of them fell."""
    if cell["answered"] is None:
        return "cannot begin"
    median = cell["median_queries"]
    after = "" if median is None else f", after {median:.0f}"
    return f"{cell['stood']} of {cell['of']} ({100 * cell['low']:.0f}-{100 * cell['high']:.0f} %){after}"


if __name__ == "__main__":
    sys.exit(main())
