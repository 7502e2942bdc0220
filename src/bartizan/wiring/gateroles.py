"""The roles of the declared gateway, and what each is told."""

from __future__ import annotations

import msgspec

from bartizan.core.digest import Digest
from bartizan.lifecycle.deploy.gateway.disclosure import Disclosure, Told, disclosures, open_to_all
from bartizan.wiring.notice import choose
from bartizan.wiring.serving import configured
from bartizan.wiring.workspace import Workspace


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told what of one model."""

    model: str
    configuration: Digest
    roles: tuple[Disclosure, ...]
    everybody: tuple[Told, ...]
    """Routes that ask for no role."""


def matrix(workspace: Workspace, model: str) -> Matrix:
    """Roles and routes as the configuration has them.

    Raises:
        InputError: the configuration has faults, or grants what was never assessed; or there are several models.
    """
    system = workspace.system()
    artefact = choose(system, model)
    configuration = configured(system)
    classes = len(system.model_part(artefact.name).classes)
    return Matrix(
        model=artefact.name,
        configuration=configuration.digest,
        roles=disclosures(configuration.roles, classes),
        everybody=open_to_all(),
    )
