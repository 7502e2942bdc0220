"""From points to steps: labels only, at intervals, after a person, not at all."""

from __future__ import annotations

from bartizan.lifecycle.deploy.gateway.guard import Action, Verdict
from bartizan.lifecycle.deploy.gateway.guards.sequence.places import Account, Place
from bartizan.lifecycle.deploy.gateway.guards.sequence.settings import STEPS, SequenceSettings

ORDER = (Action.ALLOW, Action.FLAG, Action.COARSEN, Action.THROTTLE, Action.HOLD, Action.REFUSE)
"""From the mildest step to the hardest. Who is throttled gets some answers; who is held gets none by himself."""
LONGEST = 86_400.0
"""Seconds between two answers at most."""


LABELS_ONLY = ORDER.index(Action.COARSEN)


class Ladder:
    """The steps of one configuration. A rung is a position in ``ORDER``."""

    def __init__(self, settings: SequenceSettings) -> None:
        self.settings = settings
        self._place_limit = ORDER.index(STEPS[settings.place_limit])
        self._slow_limit = ORDER.index(STEPS[settings.slow_limit])

    def rung(self, points: float) -> int:
        """The rung that so many points lead to."""
        settings = self.settings
        if points < settings.coarsen:
            return 0
        if points < settings.throttle:
            return 2
        if points < settings.hold:
            return 3
        return 4 if points < settings.refuse else 5

    def of_place(self, points: float) -> int:
        """The rung for whoever asks at a place."""
        return min(self.rung(points), self._place_limit)

    def of_account(self, account: Account) -> tuple[int, float, str]:
        """The rung for an account, the points that lead to it, and what they were counted for."""
        near = account.near.points
        rung, points, name = self.rung(near), near, "close queries"
        slow = max(account.strange.points, account.edge.points, account.known.points)
        if slow >= self.settings.coarsen:
            limited = min(self.rung(slow), self._slow_limit)
            if limited > rung:
                return limited, slow, _slow_name(account, slow)
        return rung, points, name

    def throttled(self, holder: Account | Place, points: float, now: float, reason: str) -> Verdict:
        """An answer, by its label, where one is due again; else how long to wait."""
        if now < holder.answers_at:
            return Verdict(action=Action.THROTTLE, reason=reason, wait=holder.answers_at - now)
        pause = self.settings.wait * 2.0 ** (points - self.settings.throttle)
        holder.answers_at = now + min(pause, LONGEST)
        return Verdict(action=Action.COARSEN, reason=reason, measures={"points": points})


def _slow_name(account: Account, points: float) -> str:
    names = {
        "unnatural rows": account.strange,
        "rows near the boundary": account.edge,
        "rows that the model was trained on": account.known,
    }
    return next(name for name, tally in names.items() if tally.points == points)
