"""Sends recorded queries through the guard, one after another as they were asked, and notes what came of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.core.digest import Digest
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked
from bartizan.lifecycle.deploy.gateway.guards.sequence.guard import SequenceGuard

START = 1_700_000_000.0
"""Seconds since the epoch at which replays begin; any time will do."""
STEPPED = (Action.COARSEN, Action.HOLD, Action.THROTTLE, Action.REFUSE)


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """What a guard said to every query of a recording."""

    actions: NDArray[np.int64]
    """``(queries,)``: values of ``Action``; the harder one of request and answer."""
    sample: NDArray[np.int64]
    """``(queries,)``: which target, or which account, a query belongs to."""

    @property
    def stepped(self) -> NDArray[np.bool_]:
        """Queries that were not answered as they would be otherwise."""
        return np.isin(self.actions, STEPPED)

    @property
    def firsts(self) -> NDArray[np.int64]:
        """For each sample, the number of its first query that was stepped down; 0 where none was."""
        return np.array([_first(self.stepped[self.sample == one]) for one in np.unique(self.sample)], np.int64)


def _first(stepped: NDArray[np.bool_]) -> int:
    return int(stepped.argmax()) + 1 if stepped.any() else 0


def replay(
    guard: SequenceGuard,
    rows: NDArray[np.floating],
    scores: NDArray[np.float64] | None,
    labels: NDArray[np.int64],
    sample: NDArray[np.int64],
    *,
    role: str = "replayed",
    seconds: float = 1.0,
) -> Replayed:
    """Ask about ``rows`` ``(queries, features)`` in their order; every sample has an account of its own."""
    actions = np.zeros(len(rows), np.int64)
    for place, row in enumerate(rows):
        caller = Caller(id=f"{role}:{sample[place]}", role=role, method="key")
        asked = Asked(
            request=f"replay-{place}",
            caller=caller,
            model="replayed",
            digest=Digest(""),
            rows=row[None],
            now=START + seconds * place,
        )
        given = Answer(labels[place : place + 1], None if scores is None else scores[place : place + 1])
        said = (guard.on_request(asked), guard.on_response(asked, given))
        actions[place] = max((verdict.action for verdict in said if verdict is not None), default=Action.ALLOW)
    return Replayed(actions, np.asarray(sample))


__all__ = ["Replayed", "replay"]
