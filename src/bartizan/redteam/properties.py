"""Property inference: whether a model gives away a share among its training records, such as that of a group.

Nobody's record need leak for that: it is a secret of the whole data set, such as the customers of a
firm. Victims are trained here, on records that the adversary does not have, half of them with the
property rare and half with it common; the adversary must say which is which.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.finding import Finding, Severity
from bartizan.redteam import statistics
from bartizan.redteam.attack import Attack, Fit
from bartizan.redteam.attribute import choose
from bartizan.redteam.engine import Run
from bartizan.redteam.family import Case, Material, Measurement, Measuring, ask
from bartizan.redteam.ledger import Budget
from bartizan.redteam.privacy_tasks import PropertyGuesser, PropertyTask
from bartizan.redteam.statistics import Estimate, Interval
from bartizan.targets.protocol import Labels, Rows

SHARES = (0.25, 0.75)
"""Share of the records with the property where it is rare, and where it is common."""
LARGEST = 2_000
"""Records that a victim is trained on, at most."""
LEAST = 20
LEAST_MODELS = 8
PARTS, MAX_PROBES = 7, 200
"""One part in so many, at most so many records, are probes; half of the others are the adversary's."""
TRIES = 50
"""Draws after which a class is taken to be too rare to be in every training set."""
SEVERITIES = ((0.6, Severity.MEDIUM), (0.2, Severity.LOW))
"""Advantage over guessing, at the lower end of its interval."""


@dataclass(frozen=True, slots=True)
class Game:
    """What the attack must not know."""

    attack: Attack
    rows: Rows
    labels: Labels
    holds: NDArray[np.bool_]
    property: str
    victims: int
    model: str


class PropertyInference:
    """See ``Family``."""

    name = "privacy"
    settings: tuple[str, ...] = ("seed", "shadow_models")

    def case(self, attack: Attack, material: Material, rng: np.random.Generator) -> Case:
        """All records, one half for the adversary and the other for the victims.

        Raises:
            ArtefactError: there are too few records with the property, or without.
        """
        rows = np.concatenate([material.training.rows, material.evaluation.rows])
        labels = np.concatenate([material.training.labels, material.evaluation.labels])
        # A record that is there twice must not be on both sides.
        unique = np.sort(np.unique(rows, axis=0, return_index=True)[1])
        rows, labels = rows[unique], labels[unique]
        name, holds = _property(material, rows)
        part = np.empty(len(rows), np.int64)
        part[np.lexsort((rng.random(len(rows)), holds, labels))] = np.arange(len(rows)) % PARTS
        probes, own, rest = part == 0, (part > 0) & (part <= PARTS // 2), part > PARTS // 2
        size = min(LARGEST, *(_room(holds[side]) for side in (own, rest)))
        if size < LEAST:
            raise ArtefactError(
                f"too few records have, or have not, the property {name!r}: training sets would have {size} records",
                remedy="give more records, or declare as categorical a feature that is spread more evenly.",
            )
        models = max(LEAST_MODELS, material.settings.shadow_models // 2 * 2)
        task = PropertyTask(
            rows=rows[own],
            labels=labels[own],
            classes=len(material.model.classes),
            holds=holds[own],
            shares=SHARES,
            size=size,
            fits=models,
            probes=rows[probes][:MAX_PROBES],
        )
        return Case(
            task=task,
            budget=Budget(samples=1, per_sample=0, fits=models),
            truth=Game(attack, rows[rest], labels[rest], holds[rest], name, models, material.model.name),
            knowledge="has own records of the same kind, and can train models of the same kind on them",
            settings={"property": name, "rare": SHARES[0], "common": SHARES[1], "training_records": size},
        )

    def measure(self, case: Case, run: Run, rng: np.random.Generator) -> Measuring:
        """Train the victims, ask them the probes, and count right decisions."""
        game, task, guesser = case.truth, case.task, run.candidates
        if not isinstance(guesser, PropertyGuesser):
            raise WorkError(f"{game.attack.name} stopped before it was done: {run.stopped or 'no candidates'}")
        common = rng.permutation(np.arange(game.victims) % 2 == 0)
        models, scores = [], []
        for coin in common:
            drawn = draw(game.holds, game.labels, SHARES[int(coin)], task.size, rng)
            models.append((yield Fit(game.rows[drawn], game.labels[drawn], int(rng.integers(2**31)))))
        for model in models:
            scores.append(guesser.decide((yield ask(task.probes, model=model, scores=True))))  # noqa: PERF401 - a comprehension cannot yield
        right = int(((np.array(scores) > 0) == common).sum())
        accuracy = _exact(right, len(common))
        area = statistics.auc(statistics.roc(np.array(scores), common))
        return _measurement(game, accuracy, area)


def _property(material: Material, rows: Rows) -> tuple[str, NDArray[np.bool_]]:
    """The first attribute there is to ask for, and its value that is nearest to being held by half."""
    attribute = choose(material.space, material.training)[0]
    values = attribute.of(rows)
    shares = np.bincount(values, minlength=len(attribute.values)) / len(rows)
    value = int(np.abs(shares - 1 / 2).argmin())
    held = ", ".join(f"{number:g}" for number in attribute.values[value])
    return f"{attribute.name} near {held}", values == value


def _room(holds: NDArray[np.bool_]) -> int:
    """Size of the training sets that can be drawn with either share."""
    return int(min(holds.sum(), (~holds).sum()) / max(SHARES))


def draw(
    holds: NDArray[np.bool_], labels: Labels, share: float, size: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """``(size,)``: records of which a share has the property, with every class among them.

    Raises:
        ArtefactError: a class is too rare.
    """
    wanted, classes = round(share * size), np.unique(labels)
    with_it, without = np.flatnonzero(holds), np.flatnonzero(~holds)
    for _ in range(TRIES):
        drawn = np.concatenate([rng.permutation(with_it)[:wanted], rng.permutation(without)[: size - wanted]])
        if len(np.unique(labels[drawn])) == len(classes):
            return rng.permutation(drawn)
    raise ArtefactError("a class is too rare to be in every training set", remedy="add records of the rarest class.")


def _exact(right: int, count: int) -> Estimate:
    return Estimate(right / count, statistics.clopper_pearson(right, count), count, "clopper-pearson")


def _measurement(game: Game, accuracy: Estimate, area: Estimate) -> Measurement:
    interval = Interval(2 * accuracy.interval.low - 1, 2 * accuracy.interval.high - 1)
    advantage = Estimate(2 * accuracy.value - 1, interval, accuracy.n, accuracy.method)
    metrics = {"accuracy": accuracy, "auc": area, "advantage": advantage}
    return Measurement(
        summary=f"An adversary tells in {accuracy.value:.0%} of {accuracy.n} models ({accuracy.interval.low:.0%} to "
        f"{accuracy.interval.high:.0%}) whether {game.property!r} was rare or common in the training data; "
        "guessing would give 50 %.",
        metrics={name: estimate.metric() for name, estimate in metrics.items()},
        findings=_finding(game, advantage),
    )


def _finding(game: Game, advantage: Estimate) -> tuple[Finding, ...]:
    severity = next((level for least, level in SEVERITIES if advantage.interval.low >= least), None)
    if severity is None:
        return ()
    return (
        Finding(
            rule="redteam/property",
            severity=severity,
            title=f"models of this kind give away how common {game.property!r} is in their training data",
            where=game.model,
            detail=f"Advantage over guessing {advantage.value:.2f} (at least {advantage.interval.low:.2f}) over "
            f"{advantage.n} models. Differential privacy of single records does not prevent this.",
            remedy="if the share is a secret, balance it before training, or leave out features that stand for it.",
        ),
    )
