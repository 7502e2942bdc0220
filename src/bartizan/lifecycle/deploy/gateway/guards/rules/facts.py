"""What a rule can look at: one request and its answer, as numbers, classes and words.

Truth has three values, as in Kleene's logic (1952): a rule that rests on a number which is not there can be neither met
nor unmet. What follows from that is for whoever acts on the rule: a protection takes the unknown for met.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.digest import Digest
from bartizan.lifecycle.deploy.gateway.caller import ANONYMOUS
from bartizan.lifecycle.deploy.gateway.guard import Answer, Asked, Numbers
from bartizan.lifecycle.deploy.gateway.guards.rules.opinions import Opinion

NO, UNKNOWN, YES = 0, 1, 2
"""The truth values. ``and`` is the least of two, ``or`` the greatest, ``not`` is ``YES`` minus one."""

Truth = int | NDArray[np.int8]
"""Of one row or of the whole request, or of each row ``(batch,)``."""


class Facts:
    """One request, and its answer once there is one. What is asked twice is worked out once."""

    __slots__ = ("_best", "_second", "asked", "conflict", "index", "labels", "opinion", "rows", "scores", "tree")

    def __init__(self, asked: Asked, answer: Answer | None = None, index: int = 0) -> None:
        self.asked = asked
        self.rows: Numbers = asked.rows
        self.index = index
        """Row that is looked at, where one row is."""
        self.labels: Any = answer.labels if answer is not None else None
        self.scores: Any = answer.scores if answer is not None else None
        self.tree: Any = None
        """What the tree outside the model says: a class, or one for each row."""
        self.opinion: Opinion | None = None
        self.conflict: Any = 0.0
        self._best: Any = None
        self._second: Any = None

    @classmethod
    def of_answers(cls, labels: NDArray[np.int64], scores: NDArray[np.float64]) -> Facts:
        """What answers say, one row each; there is nothing else to look at."""
        return cls(_NOBODY, Answer(labels, scores))

    def confidence(self) -> float:
        """The greatest score of the row; NaN where the model has no scores, or one of them is none."""
        if self._best is None:
            self._ranked()
        return self._best  # type: ignore[no-any-return]

    def margin(self) -> float:
        """How far the greatest score of the row is ahead of the next; NaN as ``confidence`` is."""
        if self._best is None:
            self._ranked()
        return self._best - self._second  # type: ignore[no-any-return]

    def _ranked(self) -> None:
        self._best = self._second = nan
        if self.scores is None:
            return
        ranked = sorted(self.scores[self.index].tolist())
        if not isnan(sum(ranked)):
            self._best, self._second = ranked[-1], ranked[-2] if len(ranked) > 1 else 0.0

    def confidences(self) -> NDArray[np.float64]:
        """``confidence`` of each row ``(batch,)``."""
        if self._best is None:
            self._ranks()
        return self._best  # type: ignore[no-any-return]

    def margins(self) -> NDArray[np.float64]:
        """``margin`` of each row ``(batch,)``."""
        if self._best is None:
            self._ranks()
        return self._best - self._second  # type: ignore[no-any-return]

    def _ranks(self) -> None:
        if self.scores is None:
            self._best = self._second = np.full(len(self.rows), nan)
            return
        wide = np.column_stack([self.scores, np.zeros(len(self.scores))]) if self.scores.shape[1] == 1 else self.scores
        ranked = np.partition(wide, wide.shape[1] - 2, axis=1)  # NaN comes last
        self._best, self._second = ranked[:, -1], ranked[:, -2]

    def hour(self) -> float:
        """Hours since midnight (UTC)."""
        return self.asked.now % 86_400 / 3_600

    def weekday(self) -> float:
        """0 on Monday to 6 on Sunday (UTC)."""
        return float(datetime.fromtimestamp(self.asked.now, UTC).weekday())


_NOBODY = Asked(
    request="", caller=ANONYMOUS, model="", digest=Digest(""), rows=np.empty((0, 0), dtype=np.float64), now=0.0
)


__all__ = ["NO", "UNKNOWN", "YES", "Facts", "Truth"]
