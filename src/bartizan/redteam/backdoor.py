"""Backdoors: how many triggered rows are answered with the adversary's class, and what it costs elsewhere.

The target's own pipeline is trained on clean data and on each spoilt copy, with the same seeds on both
sides. The trigger is then put on evaluation records of other classes, which no training saw. What the clean
models already get wrong under the trigger is shown beside: that is no backdoor.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.finding import Finding, Severity
from bartizan.redteam.attack import Attack, Fit
from bartizan.redteam.engine import Run
from bartizan.redteam.family import Case, Material, Measurement, Measuring, Point, ask
from bartizan.redteam.ledger import Budget
from bartizan.redteam.poisoning import LEAST_REPEATS, percent
from bartizan.redteam.statistics import Estimate, crossed
from bartizan.redteam.triggers import Backdoor, BackdoorTask
from bartizan.targets.feasible import Space, image_space
from bartizan.targets.protocol import Rows
from bartizan.targets.table import Table

SEVERITIES = ((0.5, Severity.HIGH), (0.2, Severity.MEDIUM), (0.05, Severity.LOW))
"""Share of rows that the backdoor turns beyond what clean models do, at the lower end, for each severity."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What only the measurement sees."""

    model: str
    evaluation: Table
    seeds: tuple[int, ...]
    """Of the training runs, one for each repeat."""


class Backdoors:
    """See ``Family``. ``shape`` ``(channels, height, width)`` says that rows are images."""

    name = "backdoor"
    settings: tuple[str, ...] = ("seed", "poison_rates", "repeats")

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.shape = shape

    def case(self, attack: Attack, material: Material, rng: np.random.Generator) -> Case:
        """The training data to put a trigger into; the evaluation data stay behind.

        The trigger is to stand for the class that is declared as costly to miss, turned round: the adversary wants
        its rows taken for another. Without one, it is the most frequent class.

        Raises:
            ArtefactError: the evaluation data have no record of another class.
        """
        del attack
        shape = self.shape or material.shape
        training, repeats = material.training, max(LEAST_REPEATS, material.settings.repeats)
        classes = material.model.classes
        counts = np.bincount(training.labels, minlength=len(classes))
        if material.positive is not None:
            counts[material.positive] = -1
        target = int(counts.argmax())
        if not (material.evaluation.labels != target).any():
            raise ArtefactError(
                f"dataset {material.model.evaluated_on!r} has only records of class {classes[target]!r}",
                remedy="add records of other classes; a trigger is measured on them.",
            )
        rates = tuple(sorted({rate for rate in material.settings.poison_rates if 0 < rate < 1}))
        task = BackdoorTask(
            rows=training.rows,
            labels=training.labels,
            classes=len(classes),
            target=target,
            rates=rates,
            repeats=repeats,
            space=_image_space(self.shape, training.rows) if self.shape else material.space,
            shape=shape,
        )
        seeds = rng.choice(2**31, repeats, replace=False)
        return Case(
            task=task,
            budget=Budget(samples=1, per_sample=0),
            truth=Truth(material.model.name, material.evaluation, tuple(int(seed) for seed in seeds)),
            knowledge="contributes a share of the training records, labels included, and sees the others",
            settings={"poison_rates": list(rates), "repeats": repeats, "target_class": classes[target]},
        )

    def measure(self, case: Case, run: Run, rng: np.random.Generator) -> Measuring:
        """Train on clean and spoilt data, and ask about evaluation rows with and without the trigger."""
        del rng
        task, truth = case.task, case.truth
        backdoors = _checked(run.candidates, task, run.stopped)
        others = truth.evaluation.rows[truth.evaluation.labels != task.target]
        clean: list[NDArray[np.int64]] = []
        for seed in truth.seeds:
            model = yield Fit(task.rows, task.labels, seed)
            clean.append((yield ask(truth.evaluation.rows, model=model)))
        results: dict[float, list[tuple[NDArray[np.int64], ...]]] = {}
        for backdoor in backdoors:
            triggered = _triggered(backdoor, task, others)
            innocent = yield Fit(task.rows, task.labels, truth.seeds[backdoor.repeat])
            before = yield ask(triggered, model=innocent)
            model = yield Fit(backdoor.rows, backdoor.labels, truth.seeds[backdoor.repeat])
            answers = yield ask(truth.evaluation.rows, model=model)
            after = yield ask(triggered, model=model)
            results.setdefault(backdoor.rate, []).append((answers, before, after))
        return _Judgement(task, truth, np.array(clean), results).all(backdoors)


def _image_space(shape: tuple[int, ...], rows: Rows) -> Space:
    """All pictures of the shape, within the range of values that training shows.

    Raises:
        ArtefactError: the rows do not hold so many pixels.
    """
    if int(np.prod(shape)) != rows.shape[1]:
        raise ArtefactError(f"images of shape {shape} have {int(np.prod(shape))} values, and rows have {rows.shape[1]}")
    return image_space(shape, float(rows.min()), float(rows.max()))


def _checked(candidates: Any, task: BackdoorTask, stopped: str) -> tuple[Backdoor, ...]:
    """The candidates, sorted, when each spoils no more than its share and no repeat is missing.

    Raises:
        WorkError: the attack stopped early or broke the rules.
    """
    if not isinstance(candidates, tuple) or not candidates:
        raise WorkError(f"the backdoor attack stopped before it was done: {stopped or 'no candidates'}")
    for backdoor in candidates:
        _check_share(backdoor, task)
    backdoors = sorted(candidates, key=lambda each: (each.rate, each.repeat))
    wanted = [(rate, repeat) for rate in task.rates for repeat in range(task.repeats)]
    if [(each.rate, each.repeat) for each in backdoors] != wanted:
        raise WorkError("the backdoor attack returned other candidates than one for each rate and repeat")
    return tuple(backdoors)


def _check_share(backdoor: Backdoor, task: BackdoorTask) -> None:
    if backdoor.rows.shape != task.rows.shape or backdoor.labels.shape != task.labels.shape:
        raise WorkError("the backdoor attack returned data of another shape than the training data")
    changed = backdoor.poisoned(task)
    if changed.sum() > task.spoilt(backdoor.rate):
        raise WorkError(
            f"the backdoor attack spoilt {changed.sum()} of {len(task.rows)} records at a rate of {backdoor.rate:g}"
        )
    if not task.space.possible(backdoor.rows[changed], task.rows[changed]).all():
        raise WorkError("the backdoor attack put rows into the training data that are not possible")


def _triggered(backdoor: Backdoor, task: BackdoorTask, rows: Rows) -> Rows:
    """``rows`` with the trigger on them, as far as it makes possible rows.

    Raises:
        WorkError: it does not.
    """
    triggered = np.asarray(backdoor.trigger(rows.copy()), dtype=np.float64)
    if triggered.shape != rows.shape or not np.isfinite(triggered).all():
        raise WorkError("the trigger makes rows of another shape, or rows that are not finite")
    if not task.space.possible(triggered, rows).all():
        raise WorkError("the trigger makes rows that are not possible")
    return triggered


@dataclass(frozen=True, slots=True)
class _Judgement:
    """What the models answered, and what follows from it."""

    task: BackdoorTask
    truth: Truth
    clean: NDArray[np.int64]
    """``(repeats, records)``"""
    results: dict[float, list[tuple[NDArray[np.int64], ...]]]
    """By rate, for each repeat: answers to the evaluation rows; to triggered rows by the clean and the spoilt model."""

    def right(self, answers: NDArray[np.int64]) -> NDArray[np.float64]:
        """``(repeats, records)``: 1 where a model was right."""
        return np.asarray(answers == self.truth.evaluation.labels, np.float64)

    def turned(self, rate: float, place: int) -> NDArray[np.float64]:
        """``(repeats, records)``: 1 where a triggered row is answered with the target; 1 clean, 2 spoilt model."""
        return np.asarray(np.array([each[place] for each in self.results[rate]]) == self.task.target, np.float64)

    def success(self, rate: float) -> Estimate:
        """Share of triggered rows of other classes that are answered with the target."""
        return crossed(self.turned(rate, 2), (0.0, 1.0))

    def gain(self, rate: float) -> Estimate:
        """The same, less what clean models answer so under the same trigger, row by row."""
        return crossed(self.turned(rate, 2) - self.turned(rate, 1), (-1.0, 1.0))

    def drop(self, rate: float) -> Estimate:
        """Accuracy lost on rows without a trigger."""
        spoilt = np.array([each[0] for each in self.results[rate]])
        return crossed(self.right(self.clean) - self.right(spoilt), (-1.0, 1.0))

    def estimates(self) -> dict[str, Estimate]:
        """The metrics."""
        numbers = {"clean_accuracy": crossed(self.right(self.clean), (0.0, 1.0))}
        for rate in self.task.rates:
            said = f"at_{percent(rate)}_percent"
            numbers[f"attack_success_{said}"] = self.success(rate)
            numbers[f"attack_success_beyond_clean_models_{said}"] = self.gain(rate)
            numbers[f"accuracy_drop_{said}"] = self.drop(rate)
        return numbers

    def all(self, backdoors: Iterable[Backdoor]) -> Measurement:
        """Everything that is reported."""
        estimates = self.estimates()
        curve = tuple(_point(rate, self.success(rate)) for rate in self.task.rates)
        return Measurement(
            summary=self.summary(),
            metrics={name: estimate.metric() for name, estimate in estimates.items()},
            curves={"attack_success_by_poison_rate": curve},
            tables={"triggers": sorted({each.choice for each in backdoors if each.choice})},
            findings=tuple(self.findings()),
        )

    def summary(self) -> str:
        rate = max(self.task.rates)
        success, gain, drop = (each.metric() for each in (self.success(rate), self.gain(rate), self.drop(rate)))
        return (
            f"With a trigger in {100 * rate:.3g}% of training records, {success.value:.1%} of rows that carry it "
            f"are answered with the adversary's class, {gain.value:.1%} beyond what clean models answer so; accuracy "
            f"on other rows falls by {drop.value:.1%}."
        )

    def findings(self) -> Iterable[Finding]:
        """The least rate at which the worst severity is reached."""
        gains = [(rate, self.gain(rate)) for rate in self.task.rates]
        for least, severity in SEVERITIES:
            reached = next(((rate, gain) for rate, gain in gains if gain.interval.low >= least), None)
            if reached:
                yield _finding(self.truth.model, *reached, severity)
                return


def _finding(model: str, rate: float, gain: Estimate, severity: Severity) -> Finding:
    return Finding(
        rule="redteam/backdoor",
        severity=severity,
        title=f"a trigger in {100 * rate:.3g}% of the training records turns {gain.value:.0%} of rows",
        where=model,
        detail=f"{gain.value:.1%} ({gain.interval.low:.1%} to {gain.interval.high:.1%}) beyond what models trained on "
        "clean data answer so, on records that no training saw.",
        remedy="inspect training records before they are used (redteam.detection), know who contributed them, and "
        "scan the model for triggers before release.",
    )


def _point(x: float, estimate: Estimate) -> Point:
    metric = estimate.metric()
    return Point(x, metric.value, metric.low, metric.high)
