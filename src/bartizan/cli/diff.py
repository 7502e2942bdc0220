"""``bartizan diff``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, say, show_json, table
from bartizan.core.errors import InputError
from bartizan.lifecycle.develop.scan.difference import Difference, compare
from bartizan.lifecycle.develop.scan.inventory import take_inventory

LONGEST = 60


@click.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@as_json
def diff(old: Path, new: Path, as_json: bool) -> int:
    """Compare two versions of a model file or folder, without loading either.

    Tells globals (what a pickle imports), settings, tensors and other parts that were added, removed
    or changed; for a tensor also how far it moved and how many of its numbers. Exit code 1 when they
    differ.

    \b
    Example: bartizan diff model-1.pt model-2.pt
             bartizan diff models/1 models/2 --json
    """
    if old.is_dir() != new.is_dir():
        raise InputError("one is a folder and the other is not", remedy="compare two files, or two folders.")
    before, after = take_inventory(old), take_inventory(new)
    differences = compare(before, after)
    if as_json:
        show_json({"whole": before.is_whole and after.is_whole, "differences": differences})
    elif differences:
        table(("CHANGE", "WHAT", "NAME", "BEFORE -> AFTER"), [_row(each) for each in differences])
    else:
        say("the same in every part")
    if not (before.is_whole and after.is_whole):
        say("there are more parts than were compared")
    return FOUND if differences else OK


def _row(each: Difference) -> tuple[str, str, str, str]:
    values = " -> ".join(text[:LONGEST] for text in dict.fromkeys((each.before, each.after)) if text)
    if each.share is not None:
        moved = f"moved by {each.relative:.3g} of its length, " if each.relative is not None else ""
        values = f"{values}: {moved}{each.share:.1%} of its numbers"
    return each.change, each.kind, each.name, values
