"""The query ledger: what an attack may ask, charged before it is asked."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError

UNLIMITED = 2**62
"""Stands for no limit."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one run may spend. Queries of models that the adversary fitted itself are free, the fits are not."""

    samples: int
    """Number of samples; queries name them by index from 0."""
    per_sample: int
    """Queries of the victim for each sample."""
    total: int = UNLIMITED
    """Queries of the victim altogether."""
    fits: int = 0
    """Models that may be trained."""
    gradients: int = UNLIMITED
    """Gradients of the victim for each sample; who is given gradients at all is rarely short of them."""
    seconds: float = math.inf
    """Wall time; what a run returns by then may differ from one time to the next."""


class Ledger:
    """Counts what a run spends and lets nothing pass beyond its budget."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.spent: NDArray[np.int64] = np.zeros(budget.samples, dtype=np.int64)
        """Queries of the victim charged to each sample."""
        self.slopes: NDArray[np.int64] = np.zeros(budget.samples, dtype=np.int64)
        """Gradients of the victim charged to each sample."""
        self.own_queries = 0
        """Rows asked of fitted models."""
        self.fits = 0
        self.calls = 0
        """Calls of the victim that carried rows of this run."""
        self.late = False
        """Whether something was refused because the time was over."""
        self._deadline = math.inf

    def begin(self) -> None:
        """Start the clock of a limited time; runs that share a ledger share the time from the first start on."""
        if math.isinf(self._deadline):
            self._deadline = time.monotonic() + self.budget.seconds

    @property
    def queries(self) -> int:
        """Queries of the victim altogether."""
        return int(self.spent.sum())

    @property
    def gradients(self) -> int:
        """Gradients of the victim altogether."""
        return int(self.slopes.sum())

    def charge(self, sample: NDArray[np.int64]) -> NDArray[np.int64]:
        """Charge one query for each entry of ``sample``; all of them or none.

        Returns:
            ``(batch,)``: which query of its sample each row is, from 1.

        Raises:
            BudgetError: a sample, or the run, would spend more than it may, or the time is over.
        """
        self._check_time()
        self._check_names(sample)
        asked = np.bincount(sample, minlength=self.budget.samples)
        over = np.flatnonzero(self.spent + asked > self.budget.per_sample)
        if over.size:
            first = int(over[0])
            raise BudgetError(
                f"sample {first} has {self.budget.per_sample - self.spent[first]} of "
                f"{self.budget.per_sample} queries left and {asked[first]} more were asked for"
            )
        if self.queries + len(sample) > self.budget.total:
            raise BudgetError(
                f"{self.budget.total - self.queries} of {self.budget.total} queries are left "
                f"and {len(sample)} more were asked for"
            )
        ordinal = self.spent[sample] + ordinals(sample)
        self.spent += asked
        return ordinal

    def charge_gradients(self, sample: NDArray[np.int64]) -> NDArray[np.int64]:
        """Charge one gradient for each entry of ``sample``; all of them or none. See ``charge``."""
        self._check_time()
        self._check_names(sample)
        asked = np.bincount(sample, minlength=self.budget.samples)
        over = np.flatnonzero(self.slopes + asked > self.budget.gradients)
        if over.size:
            first = int(over[0])
            raise BudgetError(
                f"sample {first} has {self.budget.gradients - self.slopes[first]} of "
                f"{self.budget.gradients} gradients left and {asked[first]} more were asked for"
            )
        ordinal = self.slopes[sample] + ordinals(sample)
        self.slopes += asked
        return ordinal

    def charge_fit(self) -> None:
        """Charge one training run.

        Raises:
            BudgetError: none is left, or the time is over.
        """
        self._check_time()
        if self.fits >= self.budget.fits:
            raise BudgetError(f"all {self.budget.fits} training runs are spent and one more was asked for")
        self.fits += 1

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            self.late = True
            raise BudgetError(f"the {self.budget.seconds:g} seconds of this run are over")

    def _check_names(self, sample: NDArray[np.int64]) -> None:
        if sample.size and not 0 <= int(sample.min()) <= int(sample.max()) < self.budget.samples:
            raise BudgetError(f"a query names a sample outside 0..{self.budget.samples - 1}; nobody could pay for it")


def ordinals(sample: NDArray[np.int64]) -> NDArray[np.int64]:
    """``(batch,)``: for each entry, how often its value has occurred up to and including it."""
    if (sample[1:] < sample[:-1]).any():
        order = np.argsort(sample, kind="stable")
        counted = np.empty_like(sample)
        counted[order] = ordinals(sample[order])
        return counted
    again = sample[1:] == sample[:-1]
    if not again.any():
        return np.ones(sample.size, dtype=np.int64)
    starts = np.concatenate([[0], np.flatnonzero(~again) + 1, [sample.size]])
    since: NDArray[np.int64] = np.arange(1, sample.size + 1) - np.repeat(starts[:-1], np.diff(starts))
    return since
