"""Model inversion: what the model gives away of how each class looked in its training data.

The adversary knows what a usual row is, and no row of any class. Its reconstruction of a class is
compared with the mean of the training rows of that class, as directions away from the usual row: a
guess without the model points anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import WorkError
from bartizan.core.finding import Finding, Severity
from bartizan.redteam import statistics
from bartizan.redteam.attack import Attack
from bartizan.redteam.engine import Run
from bartizan.redteam.family import Case, Material, Measurement, Measuring
from bartizan.redteam.ledger import Budget
from bartizan.redteam.privacy_tasks import InversionTask
from bartizan.redteam.statistics import Estimate, Interval
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Rows

BLIND_TRIES = 1_000
"""Random directions that show what similarity comes about by chance."""
SEVERITIES = ((0.7, Severity.MEDIUM), (0.3, Severity.LOW))
"""Similarity beyond chance, at the lower end of its interval."""


@dataclass(frozen=True, slots=True)
class Game:
    """What the attack must not know."""

    attack: Attack
    means: Rows
    """``(classes, features)``: of the training rows of each class."""
    model: str


class Inversion:
    """See ``Family``."""

    name = "privacy"
    settings: tuple[str, ...] = ("seed", "query_budget")

    def case(self, attack: Attack, material: Material, rng: np.random.Generator) -> Case:  # noqa: ARG002 - see Family
        """A usual row for the adversary; the class means of the training rows for the measurement."""
        classes = len(material.model.classes)
        training = material.training
        means = np.array([training.rows[training.labels == label].mean(axis=0) for label in range(classes)])
        budget = material.settings.query_budget
        task = InversionTask(
            classes=classes,
            features=training.rows.shape[1],
            space=material.space,
            centre=material.evaluation.rows.mean(axis=0),
            budget=budget,
        )
        return Case(
            task=task,
            budget=Budget(samples=classes, per_sample=budget, gradients=budget),
            truth=Game(attack, means, material.model.name),
            knowledge="knows a usual row and the ranges of the features, and no row of any class",
            settings={"classes": classes},
        )

    def measure(self, case: Case, run: Run, rng: np.random.Generator) -> Measuring:
        """Similarity of each reconstruction with the mean of its class, and whether it is the right class's."""
        yield from ()
        game, task, found = case.truth, case.task, run.candidates
        if not isinstance(found, np.ndarray) or found.shape != game.means.shape or not np.isfinite(found).all():
            raise WorkError(f"{game.attack.name} stopped before it was done: {run.stopped or 'no candidates'}")
        wanted, got = _directions(game.means, task), _directions(found, task)
        alike = got @ wanted.T
        own = np.diag(alike)
        blind = _blind(wanted, task.space, rng)
        similarity = _over_classes(own)
        chosen = (alike.argmax(axis=1) == np.arange(task.classes)) & (np.linalg.norm(got, axis=1) > 0)
        identified = Estimate(
            float(chosen.mean()),
            statistics.clopper_pearson(int(chosen.sum()), task.classes),
            task.classes,
            "clopper-pearson",
        )
        return _measurement(game, similarity, identified, blind, own)


def _directions(rows: Rows, task: InversionTask) -> Rows:
    """Unit vectors from the usual row, in standard deviations; zero where nothing was moved."""
    moved = (rows - task.centre) / task.space.scale
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    directions: Rows = np.divide(moved, length, out=np.zeros_like(moved), where=length > 1e-12)  # noqa: PLR2004 - rounding
    return directions


def _blind(wanted: Rows, space: Space, rng: np.random.Generator) -> Estimate:
    """Mean similarity of random directions, with the range in which 95 % of such guesses fall."""
    drawn = rng.normal(size=(BLIND_TRIES, *wanted.shape)) * ~space.immutable
    drawn /= np.maximum(np.linalg.norm(drawn, axis=2, keepdims=True), np.finfo(float).tiny)
    means = (drawn * wanted).sum(axis=2).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(means.mean()), Interval(float(low), float(high)), BLIND_TRIES, "random directions")


def _over_classes(own: NDArray[np.float64]) -> Estimate:
    value = float(own.mean())
    interval = statistics.jackknife(value, (own.sum() - own) / max(1, len(own) - 1))
    return Estimate(
        value, Interval(max(-1.0, interval.low), min(1.0, interval.high)), len(own), "jackknife over classes"
    )


def _measurement(
    game: Game, similarity: Estimate, identified: Estimate, blind: Estimate, own: NDArray[np.float64]
) -> Measurement:
    metrics = {"similarity": similarity, "classes_identified": identified, "similarity_without_model": blind}
    return Measurement(
        summary=f"Reconstructions of the classes point the way of the training data with similarity "
        f"{similarity.value:.2f} ({similarity.interval.low:.2f} to {similarity.interval.high:.2f}); guesses without "
        f"the model reach {blind.interval.high:.2f} once in forty times.",
        metrics={name: estimate.metric() for name, estimate in metrics.items()},
        tables={"similarity_by_class": [float(value) for value in own]},
        findings=_finding(game, similarity, blind),
    )


def _finding(game: Game, similarity: Estimate, blind: Estimate) -> tuple[Finding, ...]:
    beyond = similarity.interval.low - blind.interval.high
    severity = next((level for least, level in SEVERITIES if beyond >= least), None)
    if severity is None:
        return ()
    return (
        Finding(
            rule="redteam/inversion",
            severity=severity,
            title="the model shows what the classes of its training data look like",
            where=game.model,
            detail=f"Mean similarity {similarity.value:.2f}, at least {similarity.interval.low:.2f}. This is harmless "
            "where classes are public kinds of things, and a breach where a class is a person.",
            remedy="answer with labels or rounded scores, and do not hand out the model.",
        ),
    )
