"""What an attack on single rows through the training data is given and hands back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Labels, Rows


@dataclass(frozen=True, slots=True)
class AimedTask:
    """Change a few training rows, no label, so that one row that is not among them gets another class.

    Candidates: a tuple of ``AimedPoison``, one for each aim. The family's measurement trains on each and asks
    about the row aimed at, and about others.
    """

    rows: Rows
    """``(records, features)``: the training rows."""
    labels: Labels
    """``(records,)``: their labels."""
    classes: int
    aims: Rows
    """``(aims, features)``: rows that are to be misread, each of them by poison of its own."""
    wanted: Labels
    """``(aims,)``: the class that each is to be answered with."""
    records: int
    """Training rows that may be changed for one aim."""
    space: Space
    """What a possible row is."""
    max_change: float = np.inf
    """Largest change of a training row, Linf, in units of ``space.scale``; infinite where none is set."""
    shape: tuple[int, ...] = ()
    """``(channels, height, width)`` where rows are images; empty for tables."""
    fits: int = 0
    """Models of the target's own pipeline that the adversary can afford to train while searching."""

    def possible(self, rows: Rows, origin: Rows) -> Rows:
        """The nearest possible rows within reach of their ``origin`` ``(batch, features)``."""
        if np.isfinite(self.max_change):
            return self.space.within(rows, origin, np.full(len(rows), self.max_change))
        return self.space.project(rows, origin)


@dataclass(frozen=True, slots=True, eq=False)
class AimedPoison:
    """The training rows changed for one aim; labels stay."""

    aim: int
    places: NDArray[np.int64]
    """``(changed,)``: which records."""
    rows: Rows
    """``(changed, features)``: what they are changed to."""
    choice: str = ""
    """What the attack settled on, for the report."""

    def spoilt(self, task: AimedTask) -> Rows:
        """``(records, features)``: the training rows with the poison in them."""
        spoilt = task.rows.copy()
        spoilt[self.places] = self.rows
        return spoilt
