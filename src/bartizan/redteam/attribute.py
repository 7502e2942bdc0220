"""Attribute inference: whether the model gives away what a person's record held, beyond what statistics give away.

Anyone with records of other people can guess an attribute from the remaining ones. What the model
adds to that guess on people it was not trained on is knowledge of the population; what it adds
beyond that on people it was trained on is the leak (Jayaraman and Evans 2022, arXiv:2209.01292).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.finding import Finding, Severity
from bartizan.redteam import learners, statistics
from bartizan.redteam.attack import Attack
from bartizan.redteam.engine import Run
from bartizan.redteam.family import Case, Material, Measurement, Measuring
from bartizan.redteam.ledger import Budget
from bartizan.redteam.privacy_tasks import Attribute, AttributeGuess, AttributeTask
from bartizan.redteam.statistics import Estimate
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Labels, Rows, Scores
from bartizan.targets.table import Table

MAX_PEOPLE = 2_000
"""Members in question, and as many others."""
MAX_KNOWN = 4_000
LEAST_PEOPLE = 20
MAX_ATTRIBUTES = 6
MAX_VALUES = 20
"""Values of an attribute up to which each is tried; numbers with more fall into a low and a high half."""
LEAST_CHANCE = 1e-4
IMPUTERS = (learners.Learner("linear", 1e-3), learners.Learner("radial", 1e-2))
SEVERITIES = ((0.3, Severity.HIGH), (0.1, Severity.MEDIUM), (0.02, Severity.LOW))
"""Share of members that are guessed rightly only because they were trained on, at the lower end of its interval."""


@dataclass(frozen=True, slots=True)
class Game:
    """What the attack must not know."""

    attack: Attack
    truth: Labels
    """``(records,)``: the value of the attribute asked."""
    members: NDArray[np.bool_]
    model: str


class AttributeInference:
    """See ``Family``."""

    name = "privacy"
    settings: tuple[str, ...] = ("seed",)

    def case(self, attack: Attack, material: Material, rng: np.random.Generator) -> Case:
        """Members, as many others, and further records that the adversary holds in full.

        Raises:
            ArtefactError: there are too few records, or no feature that varies.
        """
        attributes = choose(material.space, material.training)
        fresh = _fresh(material.training, material.evaluation)
        count = min(MAX_PEOPLE, len(material.training), len(fresh) // 2)
        if count < LEAST_PEOPLE:
            raise ArtefactError(
                f"{len(fresh)} evaluation records that were not trained on are too few for attribute inference",
                remedy=f"evaluate on at least {2 * LEAST_PEOPLE} such records.",
            )
        inside, outside = rng.permutation(len(material.training))[:count], rng.permutation(len(fresh))
        mixed = rng.permutation(2 * count)
        rows = np.concatenate([material.training.rows[inside], fresh.rows[outside[:count]]])[mixed]
        labels = np.concatenate([material.training.labels[inside], fresh.labels[outside[:count]]])[mixed]
        known = fresh.take(outside[count : count + MAX_KNOWN])
        if (np.bincount(known.labels, minlength=len(material.model.classes)) < 2).any():  # noqa: PLR2004 - one in a half
            raise ArtefactError(
                "the adversary's own records lack a class, so it cannot train a model of this kind",
                remedy="evaluate on at least eight records of each class.",
            )
        asked = rng.integers(len(attributes), size=len(rows))
        truth = _truth(rows, attributes, asked)
        task = AttributeTask(
            rows=_blanked(rows, attributes, asked),
            labels=labels,
            classes=len(material.model.classes),
            attributes=attributes,
            asked=asked,
            known=known.rows,
            known_labels=known.labels,
            seed=int(rng.integers(2**31)),
        )
        tries = max(len(attribute.values) for attribute in attributes)
        return Case(
            task=task,
            budget=Budget(samples=2 * count, per_sample=tries, fits=1),
            truth=Game(attack, truth, mixed < count, material.model.name),
            knowledge="knows a person's record but for one attribute, its class, and records of other people in full",
            settings={"members": count, "non_members": count, "known_records": len(known)},
        )

    def measure(self, case: Case, run: Run, rng: np.random.Generator) -> Measuring:
        """Right guesses with the model and without it, on members and on others."""
        yield from ()
        game: Game = case.truth
        task: AttributeTask = case.task
        guess = run.candidates
        if not isinstance(guess, AttributeGuess) or guess.values.shape != task.asked.shape:
            raise WorkError(f"{game.attack.name} stopped before it was done: {run.stopped or 'no candidates'}")
        right = guess.values == game.truth
        imputed = np.array([chances.argmax() for chances in imputation(task, rng)]) == game.truth
        return self._measurement(game, task, right, imputed, rng)

    def _measurement(
        self,
        game: Game,
        task: AttributeTask,
        right: NDArray[np.bool_],
        imputed: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> Measurement:
        members = game.members
        gain = right.astype(np.float64) - imputed
        on_members, on_others = _gain(gain[members], rng), _gain(gain[~members], rng)
        leak = statistics.apart(on_members, on_others)
        metrics = {
            "accuracy": statistics.proportion(int(right[members].sum()), int(members.sum())),
            "accuracy_without_model": statistics.proportion(int(imputed[members].sum()), int(members.sum())),
            "gain_on_members": on_members,
            "gain_on_others": on_others,
            "leak": leak,
        }
        return Measurement(
            summary=f"An adversary guesses {right[members].mean():.1%} of the hidden attributes of people the model "
            f"was trained on, {imputed[members].mean():.1%} without the model. Having been trained on accounts for "
            f"{leak.value:.1%} ({leak.interval.low:.1%} to {leak.interval.high:.1%}).",
            metrics={name: estimate.metric() for name, estimate in metrics.items()},
            tables={
                "attributes": [_row(task, place, right, imputed, members) for place in range(len(task.attributes))]
            },
            findings=_finding(game, leak),
        )


# -- the attributes --------------------------------------------------------------------------------


def choose(space: Space, table: Table) -> tuple[Attribute, ...]:
    """Attributes to ask for: declared categories first, then columns of few values, then halves of numbers.

    Raises:
        ArtefactError: nothing varies.
    """
    declared = [_category(space, group.columns, np.eye(len(group.columns))) for group in space.one_hot]
    declared += [_category(space, np.array([codes.column]), codes.values[:, None]) for codes in space.codes]
    taken = np.concatenate([np.empty(0, np.int64), *(attribute.columns for attribute in declared)])
    rest = [place for place in range(table.rows.shape[1]) if place not in taken]
    others = [attribute for place in rest if (attribute := _number(space, table.rows[:, place], place)) is not None]
    others.sort(key=lambda attribute: attribute.name.endswith("(half)"))
    chosen = [attribute for attribute in declared if 1 < len(attribute.values) <= MAX_VALUES] + others
    if not chosen:
        raise ArtefactError("no feature varies, so there is no attribute to infer", remedy="see to the training data.")
    return tuple(chosen[:MAX_ATTRIBUTES])


def _category(space: Space, columns: NDArray[np.int64], values: Rows) -> Attribute:
    return Attribute(space.columns[int(columns[0])], columns, values)


def _number(space: Space, held: NDArray[np.float64], place: int) -> Attribute | None:
    """A column as an attribute: all its values when they are few, else its low and its high half."""
    values = np.unique(held)
    if len(values) < 2:  # noqa: PLR2004 - nothing to tell apart
        return None
    name = space.columns[place]
    if len(values) > MAX_VALUES:
        values, name = np.quantile(held, [0.25, 0.75]), f"{name} (half)"
        if values[0] == values[1]:
            return None
    return Attribute(name, np.array([place]), values[:, None])


def _truth(rows: Rows, attributes: tuple[Attribute, ...], asked: NDArray[np.int64]) -> Labels:
    held = np.array([attribute.of(rows) for attribute in attributes])
    truth: Labels = held[asked, np.arange(len(rows))]
    return truth


def _blanked(rows: Rows, attributes: tuple[Attribute, ...], asked: NDArray[np.int64]) -> Rows:
    blanked = rows.copy()
    for place, attribute in enumerate(attributes):
        blanked[asked == place] = attribute.filled(rows[asked == place], 0)
    return blanked


def _fresh(training: Table, evaluation: Table) -> Table:
    """Evaluation records that were not trained on."""
    seen = {row.tobytes() for row in training.rows}
    return evaluation.take(np.flatnonzero([row.tobytes() not in seen for row in evaluation.rows]))


# -- the guess without a model ---------------------------------------------------------------------


def imputation(task: AttributeTask, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """For each person the chances of the values of the attribute asked, learnt from the known records."""
    chances: list[NDArray[np.float64]] = [np.ones(1)] * len(task.asked)
    for place, attribute in enumerate(task.attributes):
        people = np.flatnonzero(task.asked == place)
        if not len(people):
            continue
        given = impute(
            attribute, (task.known, task.known_labels), (task.rows[people], task.labels[people]), task.classes, rng
        )
        for person, row in zip(people, given, strict=True):
            chances[person] = row
    return chances


def impute(
    attribute: Attribute,
    known: tuple[Rows, Labels],
    asked: tuple[Rows, Labels],
    classes: int,
    rng: np.random.Generator,
) -> Scores:
    """``(people, values)``: chances of each value given all other features and the class."""
    features, targets = _others(attribute, *known, classes), attribute.of(known[0])
    wanted = learners.one_hot(targets, len(attribute.values))
    learner = learners.select(IMPUTERS, features, wanted, rng)
    chances: Scores = learner.fit(features, wanted, rng)(_others(attribute, *asked, classes))
    return np.maximum(chances, LEAST_CHANCE)


def _others(attribute: Attribute, rows: Rows, labels: Labels, classes: int) -> Rows:
    """All features but the attribute's, and the class."""
    kept = np.delete(rows, attribute.columns, axis=1)
    return np.column_stack([kept, learners.one_hot(labels, classes)])


# -- the measure -----------------------------------------------------------------------------------


def _gain(gain: NDArray[np.float64], rng: np.random.Generator) -> Estimate:
    """Mean of paired differences, each -1, 0 or 1; pseudo-pairs of both signs keep it from promising certainty."""
    padded = np.append(gain, [-1.0, 1.0])
    interval = statistics.bootstrap(padded, lambda values: float(values.mean()), rng)
    value = float(gain.mean())
    low, high = min(value, interval.low), max(value, interval.high)
    return Estimate(value, statistics.Interval(low, high), len(gain), "paired bootstrap")


def _places(task: AttributeTask) -> range:
    return range(len(task.attributes))


def _row(
    task: AttributeTask, place: int, right: NDArray[np.bool_], imputed: NDArray[np.bool_], members: NDArray[np.bool_]
) -> dict[str, float | str]:
    """One attribute, for the report."""
    asked = (task.asked == place) & members
    count = max(1, int(asked.sum()))
    return {
        "attribute": task.attributes[place].name,
        "values": len(task.attributes[place].values),
        "members": int(asked.sum()),
        "accuracy": float(right[asked].sum() / count),
        "accuracy_without_model": float(imputed[asked].sum() / count),
    }


def _finding(game: Game, leak: Estimate) -> tuple[Finding, ...]:
    severity = next((level for least, level in SEVERITIES if leak.interval.low >= least), None)
    if severity is None:
        return ()
    return (
        Finding(
            rule="redteam/attribute",
            severity=severity,
            title=f"hidden attributes of {leak.value:.0%} of the training records are given away by the model",
            where=game.model,
            detail=f"At least {leak.interval.low:.1%} at 95 % confidence, beyond what records of other people and the "
            "model's knowledge of the population allow.",
            remedy="regularise the model, leave out features that the task does not need, or answer with less detail.",
        ),
    )
