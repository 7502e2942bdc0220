"""Play one attack against a target in this process, and measure what came of it.

What the checks do for declared systems, for whoever has a target and rows in hand: lessons,
notebooks, benchmarks. Success is measured on rows that are asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import InputError
from bartizan.redteam.attack import Attack
from bartizan.redteam.engine import Engine, Progress, Run, Usage
from bartizan.redteam.evasion import Witness
from bartizan.redteam.journal import Journal
from bartizan.redteam.ledger import UNLIMITED, Budget, Ledger
from bartizan.redteam.statistics import Estimate, proportion
from bartizan.redteam.steadiness import asked_again, worst
from bartizan.redteam.tasks import Bounded, EvasionTask
from bartizan.targets.feasible import TOLERANCE, Space
from bartizan.targets.protocol import Labels, Rows, Target


@dataclass(frozen=True)
class Evaded:
    """What an evasion attack found, asked again."""

    task: EvasionTask
    rows: Rows
    """``(samples, features)``: the closest row found for each sample; the sample where nothing was."""
    clean: Labels
    """``(samples,)``: what the untouched samples are answered."""
    answers: Labels
    """``(samples,)``: what ``rows`` are answered."""
    bound: NDArray[np.float64]
    """``(samples,)``: what the attack says no possible row is nearer than; 0 where it proves nothing."""
    ledger: Ledger
    usage: Usage
    at_random: bool = False
    """Whether the target answered the same rows otherwise when it was asked again. Then a sample counts as broken that
    was answered wrongly once, and an attack that does not average over answers shows nothing about robustness."""

    @cached_property
    def change(self) -> NDArray[np.float64]:
        """``(samples,)``: size of the change by the task's norm; infinite where the row did not fool the target."""
        change = self.task.space.change(self.rows, self.task.rows, self.task.norm)
        return np.where(self.answers != self.task.labels, change, np.inf)

    @property
    def robust(self) -> NDArray[np.bool_]:
        """``(samples,)``: right, and still right under every change found that counts."""
        right: NDArray[np.bool_] = self.clean == self.task.labels
        return right & ~(self.change <= self.task.max_change * (1 + TOLERANCE))

    @property
    def clean_accuracy(self) -> Estimate:
        """Share of the samples that are answered rightly."""
        return proportion(int((self.clean == self.task.labels).sum()), len(self.clean))

    @property
    def robust_accuracy(self) -> Estimate:
        """Share of the samples that stay right under attack."""
        return proportion(int(self.robust.sum()), len(self.clean))


def task_of(
    rows: Rows,
    labels: Labels,
    *,
    space: Space,
    classes: int,
    max_change: float,
    norm: float = np.inf,
    budget: int = UNLIMITED,
    gradients: int = UNLIMITED,
    shape: Sequence[int] = (),
    starts: tuple[Rows, Labels] | None = None,
) -> EvasionTask:
    """A task from arrays ``(samples, features)`` and ``(samples,)``.

    Raises:
        InputError: there are no samples, labels do not fit, or a row is not finite.
    """
    if not len(rows):
        raise InputError("there are no samples to attack", remedy="give at least one row.")
    if rows.ndim != 2 or labels.shape != (len(rows),):  # noqa: PLR2004 - a matrix
        raise InputError(f"rows {rows.shape} and labels {labels.shape} do not fit each other")
    if not np.isfinite(rows).all():
        raise InputError("a row to attack is not finite", remedy="leave out or fill missing values first.")
    if not ((labels >= 0) & (labels < classes)).all():
        raise InputError(f"labels must be class indices from 0 to {classes - 1}")
    if not max_change > 0 or budget < 1 or gradients < 0:
        raise InputError(
            f"a largest change of {max_change:g}, {budget} queries and {gradients} gradients leave nothing to try",
            remedy="give a change above 0 and at least one query.",
        )
    owned = starts or (np.empty((0, rows.shape[1]), rows.dtype), np.empty(0, np.int64))
    return EvasionTask(
        rows=rows,
        labels=np.asarray(labels, dtype=np.int64),
        classes=classes,
        starts=owned[0],
        start_labels=owned[1],
        space=space,
        max_change=max_change,
        budget=budget,
        norm=norm,
        shape=tuple(shape),
        gradients=gradients,
    )


def play(
    target: Target,
    attack: Attack,
    task: EvasionTask,
    *,
    seed: int = 0,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> Evaded:
    """Run an evasion attack and ask again what it found, together with what the engine saw succeed on the way.

    Raises:
        WorkError: the attack does not apply to the target, breaks the rules, or the target cannot answer.
    """
    witness = Witness(task)
    budget = Budget(samples=len(task.rows), per_sample=task.budget, gradients=task.gradients)
    run = Run(attack.search(task, np.random.default_rng(seed)), budget=budget, needs=attack.needs, watch=witness)
    engine = Engine(target, journal=journal, progress=progress)
    engine.drive([run], note=attack.name)
    usage = Usage(**{name: getattr(engine.usage, name) for name in Usage.__slots__})
    # What the engine saw succeed counts even where the attack itself forgot it.
    rows = witness.found.rows
    answers = _again(engine, run, np.concatenate([task.rows, rows]))
    clean, under_attack = np.split(worst(answers, np.tile(task.labels, 2)), 2)
    return Evaded(
        task,
        rows,
        clean,
        under_attack,
        bound=_bound(run.candidates, task),
        ledger=run.ledger,
        usage=usage,
        at_random=len(answers) > 1,
    )


def _bound(candidates: Any, task: EvasionTask) -> NDArray[np.float64]:
    proven = isinstance(candidates, Bounded) and candidates.bound.shape == task.labels.shape
    return np.asarray(candidates.bound, np.float64) if proven else np.zeros(len(task.rows))


def _again(engine: Engine, run: Run, rows: Rows) -> NDArray[np.int64]:
    """Ask about rows outside the budget: ``(times, rows)``, see ``asked_again``."""
    asking = run.measuring(asked_again(rows))
    engine.drive([asking], note="measuring")
    again: NDArray[np.int64] = asking.candidates
    return again
