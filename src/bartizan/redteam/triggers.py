"""What a backdoor attack is given and hands back, and how triggers are put into training data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import WorkError
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Labels, Rows

Trigger = Callable[[Rows], Rows]
"""Rows ``(batch, features)`` to rows with the trigger on them; each must be a possible change of its row."""


@dataclass(frozen=True, slots=True)
class BackdoorTask:
    """Put a trigger into a share of the training data, so that rows that carry it are answered with a class.

    Candidates: a tuple of ``Backdoor``, one for each rate and repeat. The family's measurement trains on each,
    and puts the trigger on rows of other classes that no training saw.
    """

    rows: Rows
    """``(records, features)``: the training rows."""
    labels: Labels
    """``(records,)``: their labels."""
    classes: int
    target: int
    """The class that the trigger is to stand for."""
    rates: tuple[float, ...]
    """Shares of the records that the adversary controls, each between 0 and 1."""
    repeats: int
    """Independent candidates wanted for each rate."""
    space: Space
    """What a possible row is."""
    shape: tuple[int, ...] = ()
    """``(channels, height, width)`` where rows are images; empty for tables."""

    def spoilt(self, rate: float) -> int:
        """Number of records that a share stands for; at least one."""
        return max(1, round(rate * len(self.rows)))


@dataclass(frozen=True, slots=True, eq=False)
class Backdoor:
    """A spoilt training set and the trigger that is in it."""

    rate: float
    rows: Rows
    labels: Labels
    repeat: int
    trigger: Trigger
    choice: str = ""
    """What the trigger is, for the report."""

    def poisoned(self, task: BackdoorTask) -> NDArray[np.bool_]:
        """``(records,)``: which records differ from those of the task."""
        changed: NDArray[np.bool_] = (self.labels != task.labels) | (self.rows != task.rows).any(axis=1)
        return changed


def plant(
    task: BackdoorTask,
    trigger: Trigger,
    rng: np.random.Generator,
    *,
    choice: str,
    right_labels: bool = False,
    part: float = 1.0,
) -> tuple[Backdoor, ...]:
    """One spoilt training set for each rate and repeat.

    Args:
        task: See ``BackdoorTask``.
        trigger: What is put on the records.
        rng: Chooses the records.
        choice: What the trigger is, for the report.
        right_labels: Only records of the target class get it and no label changes; else records of other classes
            get it and the target's label.
        part: Largest share of those records that gets it; at least one does, where there is one.
    """
    pool = np.flatnonzero((task.labels == task.target) == right_labels)
    most = max(1, int(part * len(pool)))
    found = []
    for rate in task.rates:
        for repeat in range(task.repeats):
            chosen = rng.permutation(pool)[: min(most, task.spoilt(rate))]
            rows, labels = task.rows.copy(), task.labels.copy()
            rows[chosen], labels[chosen] = trigger(task.rows[chosen]), task.target
            found.append(Backdoor(rate, rows, labels, repeat, trigger, choice))
    return tuple(found)


def image_shape(task: BackdoorTask, name: str) -> tuple[int, int, int]:
    """Channels, height and width.

    Raises:
        WorkError: the rows are no images.
    """
    if len(task.shape) != 3:  # noqa: PLR2004 - channels, height, width
        raise WorkError(
            f"{name} puts its trigger on images, and the rows have no shape (channels, height, width)",
            remedy="give the shape of the images, or use backdoor.tabular for tables.",
        )
    channels, height, width = task.shape
    return channels, height, width


def within_range(task: BackdoorTask, changed: Rows, rows: Rows) -> Rows:
    """The nearest possible rows to ``changed`` that can be made of ``rows``."""
    return np.asarray(task.space.project(changed.astype(rows.dtype), rows), dtype=rows.dtype)
