"""Signals as opinions: what several uncertain sources say together about whether an answer is right."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.guards.rules.expression import Names, Reading, read_number
from bartizan.lifecycle.deploy.gateway.guards.rules.facts import Facts
from bartizan.lifecycle.deploy.gateway.guards.rules.opinions import Opinion, conflict, fused
from bartizan.lifecycle.deploy.gateway.guards.rules.settings import FusionSettings, SourceSettings
from bartizan.lifecycle.deploy.gateway.guards.rules.vocabulary import Lookup


class Fusion:
    """Reads every source and fuses what they say."""

    def __init__(self, settings: FusionSettings, lookup: Lookup, known: Names) -> None:
        self._method = settings.method
        self._sources = tuple(_Source(each, settings.base, lookup, known) for each in settings.source)
        self.names = frozenset().union(*(source.signal.names for source in self._sources))
        """Everything that the signals look at."""
        self.wants_conflict = True
        """Whether somebody asks how far the sources contradict one another."""

    def one(self, facts: Facts) -> None:
        """Put the opinion about one row into the facts."""
        opinions = [source.opinion(source.signal.one(facts)) for source in self._sources]
        facts.opinion = fused(opinions, self._method)
        if self.wants_conflict:
            facts.conflict = conflict(opinions)

    def each(self, facts: Facts) -> None:
        """Put the opinions about each row into the facts."""
        shape = len(facts.rows)
        opinions = [source.opinion(np.full(shape, source.signal.each(facts), float)) for source in self._sources]
        facts.opinion = fused(opinions, self._method)
        if self.wants_conflict:
            facts.conflict = conflict(opinions)


class _Source:
    """One signal, and how its values are read."""

    def __init__(self, settings: SourceSettings, base: float, lookup: Lookup, known: Names) -> None:
        where = f"source {settings.name!r}"
        if settings.good == settings.bad or not np.isfinite([settings.good, settings.bad]).all():
            raise InputError(f"{where}: good and bad are the same", remedy="give two values that differ.")
        self.signal: Reading = read_number(settings.signal, lookup, where, known)
        self._bad, self._span = settings.bad, settings.good - settings.bad
        self._certainty = settings.certainty * settings.trust
        self._against = settings.doubt == "wrong"
        self._base = base

    def opinion(self, value: Any) -> Opinion:
        """What a value says; a value that is not known says nothing."""
        share = (value - self._bad) / self._span
        if isinstance(share, np.ndarray):
            return self._opinions(share)
        if isnan(share):
            return Opinion(0.0, 0.0, 1.0, self._base)
        belief = self._certainty * min(max(share, 0.0), 1.0)
        disbelief = self._certainty - belief if self._against else 0.0
        return Opinion(belief, disbelief, 1.0 - belief - disbelief, self._base)

    def _opinions(self, shares: NDArray[np.float64]) -> Opinion:
        known = ~np.isnan(shares)
        belief = np.where(known, self._certainty * np.clip(shares, 0.0, 1.0), 0.0)
        disbelief = np.where(known & self._against, self._certainty - belief, 0.0)
        return Opinion(belief, disbelief, 1.0 - belief - disbelief, self._base)


__all__ = ["Fusion"]
