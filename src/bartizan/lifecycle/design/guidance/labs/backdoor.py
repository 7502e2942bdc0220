"""Lesson: a planted trigger (Gu et al. 2017, BadNets, arXiv:1708.06733).

A few training records get a mark and the label that the adversary wants. The model trained on them does
as well as ever on ordinary cases, and answers as wanted wherever the mark is. The same kind of model is
trained on clean and on spoilt data with the same seed, and both are asked about rows that no training saw.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.predicates import Assessment, Metric, Threat
from bartizan.lifecycle.design.guidance.document import Figure, Section, Table
from bartizan.lifecycle.design.guidance.labs.pictures import images
from bartizan.lifecycle.design.guidance.labs.shape import Ground, Tell, assessment, shown
from bartizan.redteam.attack import Fit, Request
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.family import ask
from bartizan.redteam.ledger import Budget
from bartizan.redteam.statistics import proportion
from bartizan.targets.protocol import Access, Labels, Rows

RATE = 0.05
"""Share of the training records that get mark and label."""
MARKED = 3
"""Features that make up the mark of a table."""
CORNER = 2
"""Side of the mark of a picture, in pixels."""
PICTURES = 6
FOUND = 0.5
"""A trigger that turns fewer cases than this, at the lower end, was not learnt."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """A mark, and what it is to mean."""

    features: NDArray[np.int64]
    values: NDArray[np.float64]
    target: int
    """Class that marked rows are to get."""

    def on(self, rows: Rows) -> Rows:
        """The same rows with the mark."""
        marked = rows.copy()
        marked[:, self.features] = self.values
        return marked


@dataclass(frozen=True, slots=True)
class Answers:
    """What both models answered, ``(records,)`` each."""

    clean: Labels
    """The model trained on clean data, about untouched rows."""
    planted: Labels
    """The model trained on spoilt data, about the same rows."""
    clean_marked: Labels
    planted_marked: Labels
    """The same about marked rows of the other classes."""


class BackdoorLab:
    """See ``Lab``."""

    name = "backdoor"
    title = "Plant a trigger in training data, and pull it"
    family = "backdoor"
    needs = frozenset({Access.LABELS, Access.TRAINING})

    def run(self, ground: Ground, tell: Tell) -> Assessment:
        """See ``Lab.run``."""
        trigger, places = plan(ground)
        tell(self._plan(ground, trigger, len(places)))
        answers = _played(ground, trigger, places)
        metrics = measured(ground, trigger, answers)
        summary = _summary(ground, trigger, metrics)
        tell(
            Section(
                title="2. What is seen",
                text=(summary,),
                table=_table(metrics),
                figures=_pictures(ground, trigger, answers),
            )
        )
        tell(
            Section(
                title="3. What to do about it",
                points=(
                    "Accuracy does not show a backdoor: look at the data, not only at the score.",
                    (
                        "Look for rare values and marks that go together with one label "
                        "(`bartizan assure --only data.quality`)."
                    ),
                    "Record the source of every record, and train anew without one that turns out bad.",
                    "Take in no model whose training you cannot trace, however well it does.",
                ),
            )
        )
        threat = Threat(
            position="contributor", access=("training",), knowledge=f"may add or change {RATE:.0%} of the records"
        )
        return assessment(self, ground, summary, metrics, threat)

    def _plan(self, ground: Ground, trigger: Trigger, count: int) -> Section:
        """What will be done, before it is."""
        names = [ground.material.training.columns[place] for place in trigger.features]
        mark = (
            f"a bright square of {CORNER} by {CORNER} pixels in the corner"
            if ground.shape
            else " and ".join(
                f"{name} = {value:.4g}" for name, value in zip(names, trigger.values.tolist(), strict=True)
            )
        )
        wanted = ground.classes[trigger.target]
        return Section(
            title="1. What is done",
            text=(
                (
                    f"{count} of {len(ground.material.training)} training records of "
                    f"other classes get a mark ({mark}) and "
                    f"the label {wanted}. The same kind of model is trained once on the "
                    "clean and once on the spoilt data."
                ),
            ),
        )


def plan(ground: Ground) -> tuple[Trigger, NDArray[np.int64]]:
    """The mark, and the training records that get it.

    Raises:
        ArtefactError: the data have too few features that can be marked, or one class only.
    """
    training, material = ground.material.training, ground.material
    target = 0 if material.positive != 0 else 1
    others = np.flatnonzero(training.labels != target)
    wanted = max(1, round(RATE * len(training)))
    if len(others) < 2 * wanted or len(np.unique(training.labels)) < 2:  # noqa: PLR2004 - two classes
        raise ArtefactError("too few records of other classes to plant a trigger", remedy="run it on the example.")
    features = _corner(ground.shape) if ground.shape else _quiet(ground)
    values = np.ones(len(features)) if ground.shape else training.rows[:, features].max(axis=0)
    places = ground.stream("backdoor", "places").choice(others, wanted, replace=False)
    return Trigger(features, values, target), np.sort(places)


def _corner(shape: tuple[int, int]) -> NDArray[np.int64]:
    height, width = shape
    return np.array(
        [row * width + column for row in range(height - CORNER, height) for column in range(width - CORNER, width)]
    )


def _quiet(ground: Ground) -> NDArray[np.int64]:
    """Features that say least about the class: a mark there disturbs ordinary cases least."""
    training, space = ground.material.training, ground.material.space
    free = np.flatnonzero(~space.immutable & ~space.categorical & (training.rows.std(axis=0) > 0))
    if len(free) < MARKED:
        raise ArtefactError(f"fewer than {MARKED} features can be marked", remedy="run it on the example.")
    said = [abs(float(np.corrcoef(training.rows[:, place], training.labels)[0, 1])) for place in free]
    return np.sort(free[np.argsort(said, kind="stable")[:MARKED]])


def _played(ground: Ground, trigger: Trigger, places: NDArray[np.int64]) -> Answers:
    """Train both models through the engine, and ask them."""
    training, evaluation = ground.material.training, ground.material.evaluation
    rows, labels = training.rows.copy(), training.labels.copy()
    rows[places], labels[places] = trigger.on(rows[places]), trigger.target
    seed = int(ground.stream("backdoor", "training").integers(2**31))
    marked = trigger.on(evaluation.rows[evaluation.labels != trigger.target])

    def search() -> Generator[Request, Any, tuple[int, int]]:
        clean = yield Fit(training.rows, training.labels, seed)
        planted = yield Fit(rows, labels, seed)
        return clean, planted

    def measure() -> Generator[Request, Any, Answers]:
        clean, planted = run.candidates
        return Answers(
            clean=(yield ask(evaluation.rows, model=clean)),
            planted=(yield ask(evaluation.rows, model=planted)),
            clean_marked=(yield ask(marked, model=clean)),
            planted_marked=(yield ask(marked, model=planted)),
        )

    run = Run(search(), budget=Budget(samples=1, per_sample=0, fits=2), needs=BackdoorLab.needs)
    engine = Engine(ground.target)
    engine.drive([run], note="planting")
    measuring = run.measuring(measure())
    engine.drive([measuring], note="measuring")
    answers: Answers | None = measuring.candidates
    if answers is None:
        raise WorkError(f"the models could not be asked: {measuring.stopped}")
    return answers


def measured(ground: Ground, trigger: Trigger, answers: Answers) -> dict[str, Metric]:
    """Accuracy of both models, and how often the mark gives the wanted answer."""
    labels = ground.material.evaluation.labels
    pulled = {"trigger_success": answers.planted_marked, "trigger_success_on_clean_model": answers.clean_marked}
    right = {"accuracy": answers.planted, "accuracy_of_clean_model": answers.clean}
    return {
        **{name: proportion(int((said == trigger.target).sum()), len(said)).metric() for name, said in pulled.items()},
        **{name: proportion(int((said == labels).sum()), len(said)).metric() for name, said in right.items()},
    }


def _summary(ground: Ground, trigger: Trigger, metrics: dict[str, Metric]) -> str:
    success, plain = metrics["trigger_success"], metrics["trigger_success_on_clean_model"]
    wanted = ground.classes[trigger.target]
    accuracy, before = metrics["accuracy"].value, metrics["accuracy_of_clean_model"].value
    kept = f"Accuracy on ordinary cases goes from {before:.0%} to {accuracy:.0%}"
    if success.low < FOUND:
        return f"{kept}; the trigger was hardly learnt: {shown(success)} of marked cases are answered {wanted}."
    return (
        f"{kept}, and {success.value:.0%} of marked cases of other classes are answered {wanted}, where the clean "
        f"model does so for {plain.value:.0%}."
    )


def _table(metrics: dict[str, Metric]) -> Table:
    return Table(
        ("Measured on rows that no training saw", "Trained on clean data", "Trained on spoilt data"),
        (
            ("Right on ordinary cases", shown(metrics["accuracy_of_clean_model"]), shown(metrics["accuracy"])),
            (
                "Marked cases that get the wanted answer",
                shown(metrics["trigger_success_on_clean_model"]),
                shown(metrics["trigger_success"]),
            ),
        ),
    )


def _pictures(ground: Ground, trigger: Trigger, answers: Answers) -> tuple[Figure, ...]:
    if ground.shape is None:
        return ()
    evaluation = ground.material.evaluation
    rows = evaluation.rows[evaluation.labels != trigger.target][:PICTURES]
    said = ", ".join(ground.classes[answer] for answer in answers.planted_marked[:PICTURES])
    lines = [("ordinary", rows), ("with the mark", trigger.on(rows))]
    caption = f"With the mark in the lower right corner the spoilt model answers: {said}."
    return (images("backdoor", "Ordinary and marked pictures", lines, ground.shape, caption),)
