"""An adversary who knows of a detector, and to whom a row that it notices is worth nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.deploy.gateway.evaluation.toll import Toll, toll
from bartizan.redteam.attack import Attack
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target

Notices = Callable[[Rows, Scores | None], NDArray[np.bool_]]
"""Rows ``(batch, features)``, and scores where there are any, to which of them are noticed."""


@dataclass(frozen=True, slots=True, eq=False)
class Wary:
    """See ``Target``. To an attack on a row of the class ``label``, noticed rows look as if they had failed."""

    target: Target
    notices: Notices
    label: int

    @property
    def name(self) -> str:
        """See ``Target.name``."""
        return self.target.name

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        return self.target.offers & {Access.LABELS, Access.SCORES}

    @property
    def classes(self) -> int:
        """See ``Target.classes``."""
        return self.target.classes

    @property
    def class_values(self) -> tuple[str, ...]:
        """See ``Target.class_values``."""
        return self.target.class_values

    @property
    def features(self) -> int:
        """See ``Target.features``."""
        return self.target.features

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        if Access.SCORES in self.target.offers:
            scores = np.asarray(self.target.scores(rows))
            answers = scores.argmax(axis=1)
        else:
            scores, answers = None, self.target.labels(rows)
        return np.where(self.notices(rows, scores), self.label, answers).astype(np.int64)

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        scores = np.asarray(self.target.scores(rows), dtype=np.float64)
        failed = np.zeros(self.classes)
        failed[self.label] = 1.0
        return np.where(self.notices(rows, scores)[:, None], failed, scores)

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``."""
        return self.target.retrain(rows, labels, seed=seed)


def wary_toll(target: Target, notices: Notices, attack: Attack, task: EvasionTask, rng: np.random.Generator) -> Toll:
    """What an attack costs one sample after the other, when only rows count that are not noticed.

    The adversary begins at those of its own rows that are not noticed either.
    """
    scores = target.scores(task.starts) if Access.SCORES in target.offers and len(task.starts) else None
    quiet = ~notices(task.starts, scores) if len(task.starts) else slice(0)
    task = replace(task, starts=task.starts[quiet], start_labels=task.start_labels[quiet])
    each = [
        toll(
            Wary(target, notices, int(task.labels[place])),
            attack,
            replace(task, rows=task.rows[place : place + 1], labels=task.labels[place : place + 1]),
            rng,
        )
        for place in range(len(task.rows))
    ]
    return Toll(
        right=np.concatenate([one.right for one in each]),
        first=np.concatenate([one.first for one in each]),
        rows=np.concatenate([one.rows for one in each]),
        allowed=task.budget,
    )


__all__ = ["Notices", "Wary", "wary_toll"]
