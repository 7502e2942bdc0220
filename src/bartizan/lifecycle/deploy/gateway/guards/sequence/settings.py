"""The part of the configuration that this guard reads."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.guard import Action

Points = Annotated[float, msgspec.Meta(gt=0, le=10_000)]
Step = Literal["flag", "coarsen", "throttle", "hold", "refuse"]
STEPS: dict[Step, Action] = {
    "flag": Action.FLAG,
    "coarsen": Action.COARSEN,
    "throttle": Action.THROTTLE,
    "hold": Action.HOLD,
    "refuse": Action.REFUSE,
}


class SequenceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``[[guard]] use = "sequence"`` may say. A point is one query that is too close to an earlier one."""

    memory: Annotated[int, msgspec.Meta(ge=500, le=200_000)] = 20_000
    """Queries that are remembered for one model, 76 bytes each and what Python needs beside them."""
    near: Annotated[float, msgspec.Meta(ge=0.001, le=0.2)] = 0.006
    """Share of natural queries that may by chance be too close to an earlier one when the memory is full."""
    coarsen: Points = 5.0
    """Points, of an account or at a place, from which on only labels are answered."""
    throttle: Points = 7.0
    """From which on answers come at growing intervals."""
    hold: Points = 9.0
    """From which on a person has to confirm."""
    refuse: Points = 11.0
    """From which on nothing is answered."""
    place_limit: Step = "refuse"
    """The furthest step that a place alone can lead to. It meets whoever asks there, also who never did before:
    anything less than ``refuse`` lets an attack from many accounts go on."""
    slow_limit: Step = "throttle"
    """The furthest step that unnatural rows, rows near the boundary and known rows lead to."""
    wait: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 10.0
    """Seconds between two answers at the first point of throttling; doubles with every further point."""
    place_half_life: Annotated[float, msgspec.Meta(ge=1, le=366)] = 30.0
    """Days after which the points of a place count half."""
    account_half_life: Annotated[float, msgspec.Meta(ge=1, le=8_784)] = 24.0
    """Hours after which the points of an account count half."""
    accounts: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] = 50_000
    """Accounts that are remembered."""
    streams: dict[str, str] = {}
    """Roles that send streams, as cameras do -> declared dataset of recorded frames in their order, from which the
    check ``gateway.sequence`` learns what is usual in them."""
    share: bool = True
    """Whether replicas tell one another of the places where somebody searches."""

    def __post_init__(self) -> None:
        rungs = (self.coarsen, self.throttle, self.hold, self.refuse)
        if list(rungs) != sorted(rungs):
            raise InputError(
                f"the guard sequence steps down at {rungs}, which do not rise",
                remedy="let coarsen <= throttle <= hold <= refuse.",
            )


__all__ = ["STEPS", "SequenceSettings", "Step"]
