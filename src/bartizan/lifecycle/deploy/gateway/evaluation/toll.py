"""What an attack costs: how many samples fall, after how many queries, and with which change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.attack import Attack
from bartizan.redteam.closest import Closest
from bartizan.redteam.engine import Engine, Question, Run
from bartizan.redteam.journal import Answer
from bartizan.redteam.ledger import Budget
from bartizan.redteam.statistics import Estimate, bootstrap
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.feasible import TOLERANCE
from bartizan.targets.protocol import Labels, Rows, Target


class FirstFall:
    """Sees which query of each sample was the first to fool the model within what counts. See ``Watch``."""

    def __init__(self, task: EvasionTask) -> None:
        self._task = task
        self.first: NDArray[np.float64] = np.full(len(task.rows), np.inf)
        """``(samples,)``: its number, from 1; infinite for samples that stand."""
        self.within = Closest(task)
        """The closest such rows."""

    def see(self, query: Question, answer: Answer, ordinal: NDArray[np.int64]) -> None:
        """See ``Watch.see``."""
        task = self._task
        labels = answer if answer.ndim == 1 else answer[:, : task.classes].argmax(axis=1)
        fooled = np.flatnonzero(labels != task.labels[query.sample])
        rows, sample = query.rows[fooled], query.sample[fooled]
        counts = (task.change(rows, sample) <= task.max_change * (1 + TOLERANCE)) & task.space.possible(
            rows, task.rows[sample]
        )
        np.minimum.at(self.first, sample[counts], ordinal[fooled[counts]].astype(np.float64))
        self.within.offer(sample[counts], rows[counts])


@dataclass(frozen=True, slots=True, eq=False)
class Toll:
    """What came of one attack on one target."""

    right: NDArray[np.bool_]
    """``(samples,)``: answered rightly before the attack."""
    first: NDArray[np.float64]
    """``(samples,)``: the query that was the first to succeed; infinite where none did."""
    rows: Rows
    """``(samples, features)``: the closest row that succeeded; the sample where none did."""
    allowed: int
    """Queries for each sample."""

    @property
    def robust(self) -> NDArray[np.bool_]:
        """``(samples,)``: right, and still right under the attack."""
        return self.right & np.isinf(self.first)

    def queries(self, rng: np.random.Generator) -> Estimate:
        """Median queries to success of the samples that were right; of those that stand all that was allowed."""
        spent = np.minimum(self.first[self.right], self.allowed)
        if not len(spent):
            spent = np.array([0.0])
        interval = bootstrap(spent, lambda values: float(np.median(values)), rng)
        if not np.isfinite([interval.low, interval.high]).all():
            interval = type(interval)(0.0, float(self.allowed))
        return Estimate(float(np.median(spent)), interval, len(spent), "bootstrap of the median")


def toll(target: Target, attack: Attack, task: EvasionTask, rng: np.random.Generator) -> Toll:
    """Let an attack run to the end of its budget and see what it took.

    Raises:
        WorkError: it breaks the rules, or the target cannot answer.
    """
    right = right_of(target.labels(task.rows), task)
    watch = FirstFall(task)
    budget = Budget(samples=len(task.rows), per_sample=task.budget, gradients=task.gradients)
    run = Run(attack.search(task, rng), budget=budget, needs=attack.needs, watch=watch)
    Engine(target).drive([run], note=attack.name)
    first = watch.first
    fallen = np.isfinite(first)
    # Asked again: what the target answered at random is no success.
    again = target.labels(watch.within.rows) != task.labels
    return Toll(right, np.where(fallen & again, first, np.inf), watch.within.rows, task.budget)


def right_of(answers: Labels, task: EvasionTask) -> NDArray[np.bool_]:
    """``(samples,)``: which answers are right."""
    return np.asarray(answers == task.labels)


__all__ = ["FirstFall", "Toll", "right_of", "toll"]
