"""``bartizan gateway``: a group whose commands lie in files of their own."""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS: dict[str, tuple[str, str]] = {
    "delta": ("gateway_delta:delta", "What each protection is worth, by attacks that know it."),
    "init": ("gateway_init:init", "Write and declare a configuration that is closed but for API keys."),
    "budget": ("gateway_budget:budget", "Budgets: what is spent, filling up, deriving them from attacks."),
    "key": ("gateway_keys:key", "API keys: add, rotate, revoke, list, one-time codes."),
    "roles": ("gateway_roles:roles", "What each role is told: the matrix of roles and routes."),
}
"""Command to (module:object, one line of help)."""


class Lazy(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(f"bartizan.cli.{module}"), name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line each, out of the table."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in COMMANDS.items()])


@click.group(cls=Lazy)
def gateway() -> None:
    """Who may ask the gateway, and how much. `bartizan serve` starts it."""
