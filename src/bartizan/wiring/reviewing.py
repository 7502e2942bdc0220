"""Cases that wait for people: the vault they lie in, the decisions that count, and what the gateway is given."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from bartizan.core import predicates
from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.cases import Case, CaseStore
from bartizan.lifecycle.deploy.gateway.casework import Casework
from bartizan.lifecycle.deploy.gateway.front import Policy, Teller
from bartizan.lifecycle.deploy.gateway.holds import Decisions, Holds, HoldSettings, Ruled
from bartizan.lifecycle.deploy.gateway.masking import (
    Masker,
    MaskingSettings,
)
from bartizan.lifecycle.deploy.gateway.review import Reviews, ReviewSettings
from bartizan.lifecycle.deploy.gateway.sealing import Sealer
from bartizan.lifecycle.deploy.gateway.vault import Known, Vault
from bartizan.wiring.workspace import Workspace, load

KEY = "review.key"
KIND = "review"
_SETTINGS = {"holds": HoldSettings, "review": ReviewSettings, "masking": MaskingSettings}


def open_vault(workspace: Workspace, models: Mapping[str, Known]) -> Vault:
    """The cases of a workspace, with the key that they are sealed with.

    Raises:
        StoreError: the database cannot be had.
        KeyFileError: the key cannot.
    """
    store: CaseStore = load("bartizan.stores.cases:open_cases")(workspace.settings.location("cases"))
    return Vault(store, sealer_of(workspace), models)


def sealer_of(workspace: Workspace) -> Sealer:
    """What cases are sealed with. Raises KeyFileError when the key cannot be had."""
    path = workspace.settings.path("keys") / KEY
    key: bytes = load("bartizan.stores.review_key:review_key")(path, workspace.passphrase())
    return Sealer(key)


def masker_of(workspace: Workspace, settings: MaskingSettings) -> Masker:
    """What masks for this workspace. Raises InputError when it is not installed or names something unknown."""
    return Masker(settings, sealer_of(workspace).masking_key)


def casework(
    workspace: Workspace,
    models: Mapping[str, tuple[str, ...]],
    *,
    holds: HoldSettings,
    review: ReviewSettings,
    policy: Policy,
    teller: Teller,
) -> Casework:
    """Everything that waits for people, for the front of a gateway. ``models`` are the classes of each.

    Decisions are looked up on a thread of their own, so through a workspace of their own.
    """
    vault = open_vault(workspace, {name: Known(classes=classes) for name, classes in models.items()})
    own = Workspace(workspace.folder, clock=workspace.clock, environment=workspace.environment)
    seed = sealer_of(workspace).seed
    return Casework(
        Holds(holds, vault, decisions=decisions(own), policy=policy, teller=teller),
        Reviews(review, vault, seed=seed),
        vault,
        clock=lambda: workspace.clock().timestamp(),
        ends=own.close,
    )


def decisions(workspace: Workspace) -> Decisions:
    """Finds the first decision about a case that counts now: signed by a person who may, and not withdrawn."""

    def decided(case: Case) -> Ruled | None:
        with workspace.view() as seen:
            for item in workspace.evidence(seen, [case.digest], {}):
                if item.holds and item.kind == KIND and item.statement is not None:
                    said: predicates.Decision = item.statement.read()
                    ruled = _ruled(said, item.received_at) if said.details.get("case") == case.id else None
                    if ruled is not None:
                        return ruled
        return None

    return decided


def _ruled(said: predicates.Decision, received_at: datetime) -> Ruled | None:
    """What a decision says of its case; None where it says nothing, as one that somebody looked beneath the mask."""
    plain = {
        "verdict": said.details.get("verdict"),
        "role": said.role,
        "at": int(received_at.timestamp() * 1000),
        "labels": said.details.get("labels", {}),
    }
    try:
        return msgspec.convert(plain, Ruled)
    except msgspec.ValidationError:
        return None


class Tables(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway's configuration says of reviews."""

    holds: HoldSettings = HoldSettings()
    review: ReviewSettings = ReviewSettings()
    masking: MaskingSettings = MaskingSettings()


def tables(workspace: Workspace) -> Tables:
    """The tables ``[holds]``, ``[review]`` and ``[masking]`` of the document ``gateway``; defaults when there is none.

    Raises:
        InputError: one of them cannot be read.
    """
    paths: dict[str, Any] = load("bartizan.wiring.declared:declared_paths")(workspace.declaration)
    path = paths.get("document:gateway")
    if path is None or not path.exists():
        return Tables()
    try:
        written = msgspec.toml.decode(path.read_bytes())
        return msgspec.convert({name: written[name] for name in _SETTINGS if name in written}, Tables)
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise InputError(f"{path}: {error}", remedy="mend the tables [holds], [review] and [masking].") from error


__all__ = [
    "KIND",
    "Tables",
    "casework",
    "decisions",
    "masker_of",
    "open_vault",
    "sealer_of",
    "tables",
]
