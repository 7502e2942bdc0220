"""Rows that attacks ask about and rows that they end with, from attacks that really run against the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.attack import Attack
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.attacks.extraction.knockoff import Copycat
from bartizan.redteam.engine import Engine, Question, Run
from bartizan.redteam.evasion import Witness
from bartizan.redteam.family import Material
from bartizan.redteam.journal import Answer
from bartizan.redteam.ledger import Budget
from bartizan.redteam.tasks import NORMS, EvasionTask, ExtractionTask
from bartizan.targets.protocol import Rows, Scores, Target

MOST_KEPT = 20_000
"""Queries of one attack that are kept."""
EXTRACTION_QUERIES = 500


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What one attack showed of itself."""

    attack: str
    rows: Rows
    """``(samples, features)``: the closest row that fooled the model, for samples for which there is one."""
    queries: Rows
    """``(queries, features)``: everything that was asked."""
    sample: NDArray[np.int64]
    """``(queries,)``: for which sample."""
    samples: int
    """That were attacked."""


class Recorder:
    """Keeps what is asked, and hands it on. See ``Watch``."""

    def __init__(self, witness: Witness | None = None) -> None:
        self._witness = witness
        self._asked: list[tuple[Rows, NDArray[np.int64]]] = []
        self._kept = 0

    def see(self, query: Question, answer: Answer, ordinal: NDArray[np.int64]) -> None:
        """See ``Watch.see``."""
        room = MOST_KEPT - self._kept
        if room > 0:
            self._asked.append((query.rows[:room].copy(), query.sample[:room].copy()))
            self._kept += min(room, len(query.rows))
        if self._witness is not None:
            self._witness.see(query, answer, ordinal)

    def queries(self) -> tuple[Rows, NDArray[np.int64]]:
        """``(queries, features)`` and for which sample each was asked."""
        return np.concatenate([rows for rows, _ in self._asked]), np.concatenate([sample for _, sample in self._asked])


def task_of(material: Material, places: NDArray[np.int64], owned: NDArray[np.int64], *, budget: int) -> EvasionTask:
    """Evaluation rows at ``places`` under attack, by an adversary who owns those at ``owned``."""
    settings, evaluation = material.settings, material.evaluation
    return EvasionTask(
        rows=evaluation.rows[places],
        labels=evaluation.labels[places],
        classes=len(material.model.classes),
        starts=evaluation.rows[owned],
        start_labels=evaluation.labels[owned],
        space=material.space,
        max_change=settings.max_change,
        budget=min(settings.query_budget, budget),
        norm=NORMS[settings.norm],
        shape=material.shape,
    )


def attacks_on(target: Target, task: EvasionTask) -> tuple[Attack, ...]:
    """Attacks by query that apply: from labels alone, and from scores where the model gives them."""
    every: tuple[Attack, ...] = (HopSkipJump(), Square())
    return tuple(attack for attack in every if attack.needs <= target.offers and searches(attack, task))


def searches(attack: Attack, task: EvasionTask) -> bool:
    """Whether an attack searches by the norm of a task."""
    of_images = getattr(attack, "norms_of_images", None)
    known = of_images if of_images is not None and task.shape else getattr(attack, "norms", None)
    return known is None or task.norm in known


def run(target: Target, attack: Attack, task: EvasionTask, rng: np.random.Generator) -> Seen:
    """Let an attack run to the end of its budget.

    Raises:
        WorkError: it breaks the rules, or the target cannot answer.
    """
    witness = Witness(task)
    recorder = Recorder(witness)
    budget = Budget(samples=len(task.rows), per_sample=task.budget, gradients=task.gradients)
    going = Run(attack.search(task, rng), budget=budget, needs=attack.needs, watch=recorder)
    Engine(target).drive([going], note=attack.name)
    fooled = np.isfinite(witness.found.change)
    queries, sample = recorder.queries()
    return Seen(short(attack), witness.found.rows[fooled], queries, sample, samples=len(task.rows))


def copied(target: Target, task: EvasionTask, rng: np.random.Generator) -> Rows:
    """Queries of an adversary who copies the model without a whole row of the right kind (see ``Copycat``)."""
    known = task.starts if len(task.starts) else task.rows
    extraction = ExtractionTask(
        rows=known,
        classes=task.classes,
        space=task.space,
        budget=EXTRACTION_QUERIES,
        checkpoints=(EXTRACTION_QUERIES,),
        learner=_no_learner,
    )
    recorder, attack = Recorder(), Copycat()
    budget = Budget(samples=1, per_sample=EXTRACTION_QUERIES)
    going = Run(attack.search(extraction, rng), budget=budget, needs=attack.needs, watch=recorder)
    Engine(target).drive([going], note=attack.name)
    return recorder.queries()[0]


def _no_learner(rows: Rows, scores: Scores, rng: np.random.Generator) -> Callable[[Rows], Scores]:
    """What is asked does not depend on what is learnt from it, so that nothing is."""
    del rows, rng
    return lambda asked: np.repeat(scores.mean(axis=0, keepdims=True), len(asked), axis=0)


def short(attack: Attack) -> str:
    """Last part of an attack's name."""
    return attack.name.rpartition(".")[2]


def jittered(task: EvasionTask, rng: np.random.Generator) -> Rows:
    """The samples, each value changed as far as an adversary may change it, up or down by chance."""
    moved = task.rows + task.max_change * task.space.scale * rng.choice([-1.0, 1.0], task.rows.shape)
    return task.space.within(moved.astype(task.rows.dtype), task.rows, np.full(len(task.rows), task.max_change), np.inf)


__all__ = ["Recorder", "Seen", "attacks_on", "copied", "jittered", "run", "searches", "short", "task_of"]
