"""Paired comparisons: two candidates on the same rows, with care for the number of comparisons."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.core.predicates import Metric
from bartizan.redteam.statistics import CONFIDENCE, Interval, metric

SIGNIFICANT = 0.05


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate against another on the same rows."""

    first: str
    second: str
    difference: Metric
    """Share of ``first`` less share of ``second``."""
    only_first: int
    """Rows that only ``first`` got right."""
    only_second: int
    p: float
    """Exact McNemar test, two-sided."""
    p_adjusted: float
    """After Holm's correction for all pairs of the same table."""

    @property
    def told_apart(self) -> bool:
        """Whether they surely differ, all comparisons considered."""
        return self.p_adjusted < SIGNIFICANT


def mcnemar(only_first: int, only_second: int) -> float:
    """Chance of so uneven a split when both are equally good (McNemar 1947, exact binomial form)."""
    both = only_first + only_second
    return float(scipy.stats.binomtest(only_first, both).pvalue) if both else 1.0


def holm(chances: Sequence[float]) -> list[float]:
    """The chances, adjusted so that all of them may be looked at (Holm 1979)."""
    order = np.argsort(chances, kind="stable")
    adjusted, largest = [1.0] * len(chances), 0.0
    for rank, place in enumerate(order.tolist()):
        largest = max(largest, min(1.0, chances[place] * (len(chances) - rank)))
        adjusted[place] = largest
    return adjusted


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Metric:
    """Difference of two shares on the same rows (Agresti and Min 2005: half a row added to each cell)."""
    n = len(first)
    gained, lost = int((first & ~second).sum()), int((second & ~first).sum())
    half = 0.5
    total, up, down = n + 4 * half, gained + half, lost + half
    centre = (up - down) / total
    reach = float(scipy.stats.norm.isf((1 - CONFIDENCE) / 2) * np.sqrt(((up + down) / total - centre**2) / total))
    value = (gained - lost) / n if n else 0.0
    low, high = min(value, max(-1.0, centre - reach)), max(value, min(1.0, centre + reach))
    return metric(value, Interval(low, high), n, "agresti-min paired", unit="share")


def all_pairs(right: Mapping[str, NDArray[np.bool_]]) -> tuple[Pair, ...]:
    """Every two candidates, by name, from which rows ``(rows,)`` each got right."""
    couples = list(itertools.combinations(right, 2))
    counts = [(int((right[a] & ~right[b]).sum()), int((right[b] & ~right[a]).sum())) for a, b in couples]
    chances = [mcnemar(*each) for each in counts]
    return tuple(
        Pair(
            first=a,
            second=b,
            difference=paired_difference(right[a], right[b]),
            only_first=only_a,
            only_second=only_b,
            p=float(f"{chance:.4g}"),
            p_adjusted=float(f"{adjusted:.4g}"),
        )
        for (a, b), (only_a, only_b), chance, adjusted in zip(couples, counts, chances, holm(chances), strict=True)
    )
