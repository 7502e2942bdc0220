"""``bartizan gateway``: a group whose commands lie in files of their own."""

from __future__ import annotations

import click

from bartizan.cli.main import Lazy

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("gateway_init:init", "Write and declare a configuration that is closed but for API keys."),
    "key": ("gateway_keys:key", "API keys: add, rotate, revoke, list, one-time codes."),
    "roles": ("gateway_roles:roles", "What each role is told: the matrix of roles and routes."),
    "budget": ("gateway_budget:budget", "Budgets: what is spent, filling up, deriving them from attacks."),
    "delta": ("gateway_delta:delta", "What each protection is worth, by attacks that know it."),
}
"""Command to (module:object, one line of help)."""


@click.group(cls=Lazy, table=COMMANDS)
def gateway() -> None:
    """Who may ask the gateway, and how much. `bartizan serve` starts it."""
