"""Subjective logic: opinions of several uncertain sources, fused into one (Jøsang, Subjective Logic, Springer 2016).

An opinion about a claim, here "this answer is right", is a belief ``b``, a disbelief ``d`` and an uncertainty ``u``
with ``b + d + u = 1``, and a base rate ``a``: the probability of the claim when nothing is known. Every number may be
one, or one for each row ``(batch,)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Number = Any
"""A float, or an array ``(batch,)``."""

DOGMATIC = 1e-9
"""Two opinions that are both less uncertain than this are weighed alike: the limit of fusion is then undefined."""


class Opinion(NamedTuple):
    """A binomial opinion (chapter 3)."""

    belief: Number
    disbelief: Number
    uncertainty: Number
    base: Number = 0.5

    @property
    def probability(self) -> Number:
        """Projected probability ``b + a u`` (chapter 3)."""
        return self.belief + self.base * self.uncertainty

    def discounted(self, trust: Number) -> Opinion:
        """What the opinion is worth from a source that is trusted so far, 0 to 1 (chapter 14).

        What trust is lacking becomes uncertainty, never disbelief.
        """
        belief, disbelief = trust * self.belief, trust * self.disbelief
        return Opinion(belief, disbelief, 1.0 - belief - disbelief, self.base)


VACUOUS = Opinion(0.0, 0.0, 1.0)
"""Nothing is known."""


def cumulative(first: Opinion, second: Opinion) -> Opinion:
    """Two sources that saw different evidence: together they are surer than each (chapter 12)."""
    total = first.uncertainty + second.uncertainty - first.uncertainty * second.uncertainty
    one, two = _shares(first.uncertainty, second.uncertainty, total)
    belief = one * first.belief + two * second.belief
    disbelief = one * first.disbelief + two * second.disbelief
    return Opinion(belief, disbelief, _at_least(1.0 - belief - disbelief, 0.0), first.base)


def _shares(first: Number, second: Number, total: Number) -> tuple[Number, Number]:
    """Weight of each source: the other's uncertainty over the total; a half each when both are dogmatic."""
    if isinstance(total, np.ndarray):
        settled = total > DOGMATIC
        safe = np.where(settled, total, 1.0)
        return np.where(settled, second / safe, 0.5), np.where(settled, first / safe, 0.5)
    return (second / total, first / total) if total > DOGMATIC else (0.5, 0.5)


def _at_least(number: Number, least: Number) -> Number:
    if isinstance(number, np.ndarray) or isinstance(least, np.ndarray):
        return np.maximum(number, least)
    return max(number, least)


def fused(opinions: Sequence[Opinion], method: str) -> Opinion:
    """All opinions as one: ``cumulative``, or ``averaging`` for sources that saw the same evidence (chapter 12).

    Cumulative fusion makes surer with every source. Averaging does not: it is the mean of the sources' evidence
    ``b / u`` and ``d / u``, so that nobody becomes surer by hearing a thing twice.
    """
    if not opinions:
        return VACUOUS
    if method == "averaging":
        return _averaged(opinions)
    result = opinions[0]
    for opinion in opinions[1:]:
        result = cumulative(result, opinion)
    return result


def _averaged(opinions: Sequence[Opinion]) -> Opinion:
    floor = [_at_least(each.uncertainty, DOGMATIC) for each in opinions]
    belief = sum(each.belief / least for each, least in zip(opinions, floor, strict=True))
    disbelief = sum(each.disbelief / least for each, least in zip(opinions, floor, strict=True))
    weight = sum(1.0 / least for least in floor)
    return Opinion(belief / weight, disbelief / weight, len(opinions) / weight, opinions[0].base)


def conflict(opinions: Sequence[Opinion]) -> Number:
    """Greatest degree of conflict of any two: how far their probabilities lie apart, as far as both are certain.

    Projected distance times conjunctive certainty; 0 none, 1 total.
    """
    worst: Number = 0.0
    for place, one in enumerate(opinions):
        for other in opinions[place + 1 :]:
            apart = abs(one.probability - other.probability) * (1.0 - one.uncertainty) * (1.0 - other.uncertainty)
            worst = _at_least(apart, worst)
    return worst


__all__ = ["VACUOUS", "Opinion", "conflict", "cumulative", "fused"]
