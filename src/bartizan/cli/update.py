"""``bartizan update``."""

from __future__ import annotations

from pathlib import Path

import click

from bartizan.cli.main import FOUND, OK
from bartizan.cli.output import as_json, say, show_json, table, workspace
from bartizan.core.errors import InputError
from bartizan.wiring import updating
from bartizan.wiring.updating import Examined
from bartizan.wiring.workspace import Workspace

PRODUCT = click.option("--product", default="", help="Name of the product; that of the declared system by default.")
PLACE = click.option("--place", default="production", show_default=True, help="Where it is activated.")


@click.group()
def update() -> None:
    """Update packages: signed, with a version and an expiry, and activated only when all of it verifies."""


@update.command()
@click.argument("contents", nargs=-1, required=True)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="New folder for the package.")
@click.option("--version", "number", required=True, type=int, help="Number of this version; higher is newer.")
@click.option("--expires", default="30d", show_default=True, help="When nobody should install it any more.")
@click.option("--notes", default="", help="What changes for users.")
@click.option("--key", default="service", show_default=True, help="Name of the key that signs.")
@PRODUCT
@as_json
@click.pass_context
def pack(
    ctx: click.Context,
    *,
    contents: tuple[str, ...],
    output: Path,
    number: int,
    expires: str,
    notes: str,
    key: str,
    product: str,
    as_json: bool,
) -> None:
    """Pack CONTENTS (artefact ids, files or folders) into a signed package.

    \b
    Example: bartizan update pack model:tumour prompt.txt --version 7 -o update-7
    """
    space = workspace(ctx)
    asked = updating.Packing(
        product=product or _product(space),
        version=number,
        expires=expires,
        contents=contents,
        notes=notes,
        key=key,
        folder=Path.cwd(),
    )
    label = updating.pack(space, asked, output)
    if as_json:
        show_json(label)
    else:
        say(f"packed version {label.version} of {label.product} with {len(label.contents)} contents into {output}")


@update.command()
@click.argument("package", type=click.Path(path_type=Path))
@PRODUCT
@PLACE
@as_json
@click.pass_context
def verify(ctx: click.Context, package: Path, product: str, place: str, as_json: bool) -> int:
    """Verify a package; record and change nothing. Exit code 1 when it may not be activated."""
    space = workspace(ctx)
    examined = updating.verify(space, package, product or _product(space), place)
    if as_json:
        show_json(_plain(examined))
    else:
        _tell(examined)
    return OK if examined.passed else FOUND


@update.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--to", required=True, type=click.Path(path_type=Path), help="Folder of versions and the link `current`.")
@click.option("--key", default="service", show_default=True, help="Name of the key that signs.")
@PRODUCT
@PLACE
@as_json
@click.pass_context
def activate(ctx: click.Context, *, package: Path, to: Path, key: str, product: str, place: str, as_json: bool) -> int:
    """Verify a package, record the verdict, and if it passes install it and move the link `current` to it.

    \b
    Example: bartizan update activate update-7 --to deploy
    """
    space = workspace(ctx)
    done = updating.activate(space, package, product or _product(space), place=place, to=to, key=key)
    if as_json:
        parts = {"verdict": done.verdict, "deployment": done.deployment, "pointer": done.pointer}
        show_json({**_plain(done.examined), **parts})
    else:
        _tell(done.examined)
        say(f"verdict {done.verdict[:12]} recorded")
        if done.deployment:
            say(f"activated: {done.pointer}")
    return OK if done.examined.passed else FOUND


def _product(space: Workspace) -> str:
    if not space.declaration.exists():
        raise InputError("no product is named", remedy="give --product.")
    return space.system().declaration.name


def _plain(examined: Examined) -> dict[str, object]:
    return {
        "passed": examined.passed,
        "problem": examined.problem,
        "rules": examined.rules,
        "package": examined.package,
        "label": examined.label,
        "signers": examined.signers,
        "last_version": examined.last_version,
    }


def _tell(examined: Examined) -> None:
    table(("RULE", "STATE"), updating.show_rules(examined))
    if examined.problem:
        say(f"refused: {examined.problem}")
