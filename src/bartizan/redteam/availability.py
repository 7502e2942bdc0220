"""Availability: inputs that cost far more time than others of their size.

The target is anything that can be called with one item: a pipeline, a tokenizer, a client of a
server. Time is measured, not modelled. A search may have been lucky, so what it found is measured
afresh: by turns with ordinary items, so that whatever else the machine does falls on both alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.core.errors import InputError
from bartizan.redteam.attack import Facts
from bartizan.redteam.statistics import Estimate, bootstrap
from bartizan.targets.feasible import Space

Costly = Callable[[Any], Any]
"""Answers one item. An exception counts as an answer: refusing is an answer, and it has a cost."""
Clock = Callable[[], float]

WARM_UP = 3
"""Ordinary items that are answered before anything is measured."""
ROUNDS = 25
"""Times that what was found is measured beside an ordinary item."""
LEAST_SECONDS = 1e-7
"""What the clock cannot see counts as this much."""


@dataclass(frozen=True, slots=True)
class CostTask:
    """Find an item that costs more than ordinary ones.

    Candidates: a list of items, costliest first.
    """

    ordinary: tuple[Any, ...]
    """Items as they come in use: rows ``(features,)``, texts or bytes."""
    max_size: int
    """Largest item that the interface takes: characters or bytes; without meaning for rows."""
    budget: int
    """Items that may be asked."""
    most_seconds: float = 2.0
    """Longest time for one item that the search looks for; beyond it, the point is made."""
    space: Space | None = None
    """What a possible row is, where items are rows."""


@dataclass(frozen=True, slots=True)
class CostQuery:
    """Ask what items cost. Answer: seconds ``(items,)``."""

    items: tuple[Any, ...]


CostSearch = Generator[CostQuery, NDArray[np.float64], list[Any]]


class CostAttack(Facts, Protocol):
    """One technique against availability. See ``Attack``."""

    def search(self, task: CostTask, rng: np.random.Generator) -> CostSearch:
        """Look for costly items."""


@dataclass(frozen=True, slots=True)
class Slowdown:
    """How much longer the costliest item takes than ordinary ones, measured by turns."""

    item: Any
    """The costliest item that was found; None when nothing was."""
    ratio: Estimate
    """Median over pairs of its time over that of an ordinary item."""
    p_value: float
    """Chance of pairs like these if it took no longer (Wilcoxon's signed ranks, one-sided)."""
    seconds: float
    """Median time of the item."""
    ordinary_seconds: float
    """Median time of an ordinary one."""
    queries: int
    """Items asked in the search."""

    @property
    def is_slow(self) -> bool:
        """Whether it takes longer beyond chance."""
        return self.p_value < 0.01 and self.ratio.interval.low > 1  # noqa: PLR2004 - a strict level


def play_cost(
    target: Costly, attack: CostAttack, task: CostTask, *, seed: int = 0, clock: Clock = time.process_time
) -> Slowdown:
    """Search for a costly item, and measure the costliest one afresh.

    ``clock`` is the time of this process's processor; take ``time.perf_counter`` for a target that
    works elsewhere, such as a server.

    Raises:
        InputError: there are no ordinary items to compare with.
    """
    if not task.ordinary:
        raise InputError("there are no ordinary items to compare with", remedy="give some of those that come in use.")
    for item in task.ordinary[:WARM_UP]:
        cost(target, item, clock)
    search, asked = attack.search(task, np.random.default_rng(seed)), 0
    found: list[Any] = []
    try:
        query = next(search)
        while True:
            allowed = query.items[: max(task.budget - asked, 0)]
            asked += len(allowed)
            seconds = [cost(target, item, clock) for item in allowed]
            # What is beyond the budget is not asked and is worth nothing.
            query = search.send(np.array(seconds + [0.0] * (len(query.items) - len(allowed))))
    except StopIteration as end:
        found = list(end.value or [])
    worst = found[0] if found else None
    return measured(target, worst, task, queries=asked, clock=clock, rng=np.random.default_rng([seed, 1]))


def cost(target: Costly, item: Any, clock: Clock = time.process_time) -> float:
    """Seconds that one item takes; a refusal by exception is timed like an answer."""
    began = clock()
    try:
        target(item)
    except Exception:  # noqa: BLE001 - whatever the target raises, it has taken this long
        return max(clock() - began, LEAST_SECONDS)
    return max(clock() - began, LEAST_SECONDS)


def measured(
    target: Costly, item: Any, task: CostTask, *, queries: int = 0, clock: Clock, rng: np.random.Generator
) -> Slowdown:
    """Time ``item`` and ordinary items by turns, as often as is worth it."""
    ordinary = [task.ordinary[place] for place in rng.integers(0, len(task.ordinary), ROUNDS)]
    if item is None:
        item = task.ordinary[0]
    pairs = []
    for other in ordinary:
        pairs.append(_pair(target, item, other, clock, first=bool(rng.integers(2))))
        if sum(slow for slow, _ in pairs) > ROUNDS * task.most_seconds / 2 and len(pairs) >= _LEAST_PAIRS:
            break
    slow, plain = np.array(pairs).T
    logarithms = np.log(slow / plain)
    interval = bootstrap(slow / plain, _median, rng)
    ratio = Estimate(math.exp(float(np.median(logarithms))), interval, len(pairs), "bootstrap of pairs")
    p_value = float(scipy.stats.wilcoxon(logarithms, alternative="greater").pvalue) if logarithms.any() else 1.0
    return Slowdown(item, ratio, p_value, float(np.median(slow)), float(np.median(plain)), queries)


_LEAST_PAIRS = 8


def _pair(target: Costly, item: Any, other: Any, clock: Clock, *, first: bool) -> tuple[float, float]:
    """Seconds of the item and of an ordinary one, in an order that is drawn."""
    if first:
        slow = cost(target, item, clock)
        return slow, cost(target, other, clock)
    plain = cost(target, other, clock)
    return cost(target, item, clock), plain


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values))


def costliest(items: Sequence[Any], seconds: NDArray[np.float64], most: int = 10) -> list[Any]:
    """Items in falling order of their cost."""
    return [items[place] for place in np.argsort(-seconds, kind="stable")[:most]]
