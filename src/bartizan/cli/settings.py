"""``bartizan settings``."""

from __future__ import annotations

import click

from bartizan.cli.output import as_json, show_json, table, workspace
from bartizan.wiring.settings import SETTINGS


@click.command()
@as_json
@click.pass_context
def settings(ctx: click.Context, as_json: bool) -> None:
    """Print every setting with its environment variable, value and meaning."""
    values = workspace(ctx).settings.values
    if as_json:
        show_json({setting.name: values[setting.name] for setting in SETTINGS})
        return
    table(
        ("VARIABLE", "VALUE", "MEANING"),
        [(setting.variable, values[setting.name] or "-", setting.help) for setting in SETTINGS],
    )
