"""What attacks that copy a model share: asking up to each checkpoint, and handing over a copy there."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bartizan.redteam import learners
from bartizan.redteam.attack import Query
from bartizan.redteam.tasks import ExtractionTask, Substitute
from bartizan.targets.protocol import Labels, Rows, Scores

Predict = Callable[[Rows], Labels]
COPIES = (*learners.LINEAR, *learners.RADIAL, *learners.NETWORK, *learners.FOREST)
"""What a copy may be when the adversary has no learner of its own."""


class Spent(Exception):  # noqa: N818 - the natural end of many searches, not an error
    """The last checkpoint has been reached."""


@dataclass(slots=True)
class Siege:
    """What was asked and told so far."""

    task: ExtractionTask
    scores: bool
    """Ask for scores, else for labels."""
    copy: Callable[[], Predict]
    """Makes a copy from what was told so far."""
    asked: Rows = field(init=False)
    """``(asked, features)``"""
    told: Scores = field(init=False)
    """``(asked, classes)``: probabilities, or labels as certain ones."""
    substitutes: list[Substitute] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.asked = np.empty((0, self.task.rows.shape[1]), self.task.rows.dtype)
        self.told = np.empty((0, self.task.classes))

    @property
    def left(self) -> int:
        """Queries up to the last checkpoint."""
        return max(0, self.task.checkpoints[-1] - len(self.asked)) if self.task.checkpoints else 0

    @property
    def due(self) -> int:
        """Queries up to the next checkpoint; 0 after the last."""
        return next((mark - len(self.asked) for mark in self.task.checkpoints if mark > len(self.asked)), 0)

    def ask(self, rows: Rows) -> Generator[Query, Any, Scores]:
        """What is told about ``rows`` ``(batch, features)``: ``(batch, classes)``.

        Raises:
            Spent: it does not go as far as that.
        """
        at, first = 0, len(self.asked)
        while at < len(rows):
            mark = next((mark for mark in self.task.checkpoints if mark > len(self.asked)), None)
            if mark is None:
                raise Spent
            part = rows[at : at + mark - len(self.asked)]
            self._learn(part, (yield Query(part, np.zeros(len(part), np.int64), scores=self.scores)))
            at += len(part)
            if len(self.asked) == mark:
                self._hand_over()
        return self.told[first:]

    def done(self) -> tuple[Substitute, ...]:
        """All copies, the last one made from everything that was told."""
        if len(self.asked) and (not self.substitutes or self.substitutes[-1].queries < len(self.asked)):
            self._hand_over()
        return tuple(self.substitutes)

    def _hand_over(self) -> None:
        self.substitutes.append(Substitute(len(self.asked), predict=self.copy()))

    def _learn(self, rows: Rows, answer: Any) -> None:
        told = learners.one_hot(answer.astype(np.int64), self.task.classes) if answer.ndim == 1 else answer
        self.asked = np.concatenate([self.asked, rows])
        self.told = np.concatenate([self.told, told])


def taught(siege: Siege, rng: np.random.Generator) -> Predict:
    """A copy by the adversary's learner, or by the small one that predicts held-out answers best."""
    task = siege.task
    if task.learner is not None:
        own = task.learner(siege.asked, siege.told, rng)
        return lambda rows: np.asarray(own(rows)).argmax(axis=1).astype(np.int64)
    learner = learners.select(COPIES, siege.asked, siege.told, rng)
    small = learner.fit(siege.asked, siege.told, rng)
    return lambda rows: small(rows).argmax(axis=1).astype(np.int64)
