"""What speaks against an account or a place, and how it fades."""

from __future__ import annotations

from math import exp2


class Place:
    """Queries that lie too close to one another: those around one target, or along one way to it."""

    __slots__ = ("accounts", "answers_at", "at", "flips", "half_life", "hits", "last", "number", "points", "slot")

    def __init__(self, number: int, half_life: float, now: float) -> None:
        self.number, self.half_life, self.at = number, half_life, now
        self.points = 0.0
        """As of ``at``."""
        self.hits = self.flips = 0
        """Queries that were too close to an earlier one, and those of them with another answer."""
        self.accounts, self.last = 0, ""
        """How often another account went on with the search, and which was last."""
        self.slot = -1
        """Its row in the memory."""
        self.answers_at = 0.0
        """When the next answer is due while answers come at intervals."""

    def points_at(self, now: float) -> float:
        """Points that are left."""
        if now <= self.at:
            return self.points
        return self.points * exp2((self.at - now) / self.half_life)

    def add(self, points: float, now: float) -> None:
        """Count; a clock that goes backwards takes nothing away."""
        self.points = self.points_at(now) + points
        self.at = max(self.at, now)


class Tally:
    """A cumulative sum: rises with what is suspicious, falls with every query that is not (Page 1954)."""

    __slots__ = ("points",)

    def __init__(self) -> None:
        self.points = 0.0

    def see(self, suspicious: bool, fall: float) -> None:
        """One more query; ``fall`` is what an unsuspicious one takes away."""
        if suspicious:
            self.points += 1.0
        elif self.points > 0.0:
            self.points = self.points - fall if self.points > fall else 0.0


class Account:
    """What is held against one caller."""

    __slots__ = ("answers_at", "at", "edge", "half_life", "known", "near", "strange")

    def __init__(self, half_life: float, now: float) -> None:
        self.half_life, self.at = half_life, now
        self.near, self.strange, self.edge, self.known = Tally(), Tally(), Tally(), Tally()
        """Queries close to earlier ones, unnatural ones, ones near the boundary, ones that the model was trained on."""
        self.answers_at = 0.0

    def fade(self, now: float) -> None:
        """Let time pass; looked at once a minute at most."""
        if now - self.at < 60.0:  # noqa: PLR2004 - seconds
            return
        left = exp2((self.at - now) / self.half_life)
        for tally in (self.near, self.strange, self.edge, self.known):
            tally.points *= left
        self.at = now
