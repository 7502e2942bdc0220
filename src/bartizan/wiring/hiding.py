"""Under which salt secrets are marked: the project's own, or one for this run."""

from __future__ import annotations

from bartizan.lifecycle.develop.secrets.salt import salt_in
from bartizan.lifecycle.develop.secrets.search import new_salt
from bartizan.wiring.settings import STATE
from bartizan.wiring.workspace import Workspace


def salt_of(workspace: Workspace) -> bytes:
    """The project's salt; outside of a project a new one, so that marks compare within one run only."""
    return salt_in(workspace.folder / STATE) if workspace.declaration.is_file() else new_salt()
