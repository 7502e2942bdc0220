"""Transfer: rows that were made to fool one model, asked of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.family import Material
from bartizan.redteam.play import play, task_of
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Rows, Target
from bartizan.targets.table import Table


def evasion_task(material: Material, rng: np.random.Generator, evaluation: Table | None = None) -> EvasionTask:
    """Rows to attack, drawn from the evaluation data (or the given part of it) with the declared budget."""
    table, settings = evaluation or material.evaluation, material.settings
    order = rng.permutation(len(table))[: settings.samples]
    rest = np.setdiff1d(np.arange(len(table)), order)
    owned = table.take(rest) if len(rest) else material.training
    return task_of(
        table.rows[order],
        table.labels[order],
        space=material.space,
        classes=len(material.model.classes),
        max_change=settings.max_change,
        budget=settings.query_budget,
        starts=(owned.rows, owned.labels),
    )


def broken(target: Target, task: EvasionTask, seed: int) -> tuple[Rows, NDArray[np.bool_]]:
    """Rows that fool the target with as much change as counts ``(samples, features)``, and for which samples they do.

    The closest row that fools a model lies on its boundary and hardly ever fools another one. An
    adversary who is after transfer goes on in the same direction as far as counts; so does this.
    """
    found = play(target, HopSkipJump(), task, seed=seed)
    within = np.isfinite(found.change) & (found.change <= task.max_change) & (found.clean == task.labels)
    reach = np.where(within, task.max_change / np.maximum(found.change, 1e-12), 1.0)
    radius = np.full(len(task.rows), task.max_change)
    farther = task.space.project(task.rows + (found.rows - task.rows) * reach[:, None], task.rows, radius)
    still = target.labels(farther) != task.labels
    return np.where((within & still)[:, None], farther, found.rows), within


def asked_of(target: Target, rows: Rows, task: EvasionTask, found: NDArray[np.bool_]) -> tuple[int, int]:
    """How many of the rows that were ``found`` fool another model, of those whose origin it gets right."""
    counted = found & (target.labels(task.rows) == task.labels)
    fooled = counted & (target.labels(rows) != task.labels)
    return int(fooled.sum()), int(counted.sum())
