"""Poisoning: how much worse the model gets when part of its training data is spoilt.

The target's own pipeline is trained on clean data and on each spoilt copy, repeatedly and with the
same seeds on both sides, and compared on the evaluation records, which no training saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from bartizan.redteam.statistics import CONFIDENCE, Estimate, Interval, crossed
from bartizan.redteam.tasks import Poison, PoisoningTask
from bartizan.targets.protocol import Labels
from bartizan.targets.table import Table

Correct = NDArray[np.float64]
"""``(repeats, records)``: 1 where a model was right, else 0."""

FITS_PER_RATE = 10
"""Models that the adversary may train to find out what hurts most, for each rate."""
LEAST_REPEATS = 2
"""Training runs that a spread between runs can be seen from."""
SEVERITIES = ((0.2, Severity.HIGH), (0.1, Severity.MEDIUM), (0.05, Severity.LOW))
"""Loss of accuracy or recall, at the lower end of its interval, for each severity."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What only the measurement sees."""

    model: str
    evaluation: Table
    seeds: tuple[int, ...]
    """Of the training runs, one for each repeat."""
    positive: str = "the costly class"
    """The class whose recall is measured, in words."""


class Poisoning:
    """See ``Family``."""

    name = "poisoning"
    settings: tuple[str, ...] = ("seed", "poison_rates", "repeats")

    def case(self, attack: Attack, material: Material, rng: np.random.Generator) -> Case:
        """The training data to spoil; the evaluation data stay behind.

        Raises:
            ArtefactError: the evaluation data have no record of the class whose being missed costs most.
        """
        del attack
        training, repeats = material.training, max(LEAST_REPEATS, material.settings.repeats)
        counts = np.bincount(training.labels, minlength=len(material.model.classes))
        rarest = int(np.where(counts > 0, counts, counts.max() + 1).argmin())
        positive = rarest if material.positive is None else material.positive
        if positive not in material.evaluation.labels:
            raise ArtefactError(
                f"dataset {material.model.evaluated_on!r} has no record of class {material.model.classes[positive]!r}",
                remedy="add records of this class; its recall cannot be measured without.",
            )
        rates = tuple(sorted({rate for rate in material.settings.poison_rates if 0 < rate < 1}))
        task = PoisoningTask(
            rows=training.rows,
            labels=training.labels,
            classes=len(material.model.classes),
            rates=rates,
            repeats=repeats,
            positive=positive,
            fits=FITS_PER_RATE * len(rates),
        )
        seeds = rng.choice(2**31, repeats, replace=False)
        return Case(
            task=task,
            budget=Budget(samples=1, per_sample=0, fits=task.fits),
            truth=Truth(
                material.model.name,
                material.evaluation,
                tuple(int(seed) for seed in seeds),
                f"class {material.model.classes[positive]}",
            ),
            knowledge="sees the training data, relabels a share of it, and can train models of the same kind",
            settings={
                "poison_rates": list(rates),
                "repeats": repeats,
                "positive_class": material.model.classes[positive],
            },
        )

    def measure(self, case: Case, run: Run, rng: np.random.Generator) -> Measuring:
        """Train on clean and spoilt data, and compare."""
        del rng
        task, truth = case.task, case.truth
        poisons = _checked(run.candidates, task, run.stopped)
        clean = []
        for seed in truth.seeds:
            model = yield Fit(task.rows, task.labels, seed)
            clean.append((yield ask(truth.evaluation.rows, model=model)))
        answers: dict[tuple[str, float], list[Labels]] = {}
        for poison in poisons:
            model = yield Fit(poison.rows, poison.labels, truth.seeds[poison.repeat])
            answer = yield ask(truth.evaluation.rows, model=model)
            answers.setdefault((poison.strategy, poison.rate), []).append(answer)
        return _Judgement(task, truth, np.array(clean), {key: np.array(each) for key, each in answers.items()}).all(
            poisons
        )


def _checked(candidates: Any, task: PoisoningTask, stopped: str) -> tuple[Poison, ...]:
    """The candidates, sorted, when each spoils no more than its share and no repeat is missing.

    Raises:
        WorkError: the attack stopped early or broke the rules.
    """
    if not isinstance(candidates, tuple) or not candidates:
        raise WorkError(f"the poisoning attack stopped before it was done: {stopped or 'no candidates'}")
    for poison in candidates:
        _check_share(poison, task)
    poisons = sorted(candidates, key=lambda poison: (poison.strategy, poison.rate, poison.repeat))
    wanted = {
        (name, rate, repeat)
        for name in {poison.strategy for poison in poisons}
        for rate in task.rates
        for repeat in range(task.repeats)
    }
    if [(poison.strategy, poison.rate, poison.repeat) for poison in poisons] != sorted(wanted):
        raise WorkError("the poisoning attack returned other candidates than one for each strategy, rate and repeat")
    return tuple(poisons)


def _check_share(poison: Poison, task: PoisoningTask) -> None:
    if poison.rows.shape != task.rows.shape or poison.labels.shape != task.labels.shape:
        raise WorkError("the poisoning attack returned data of another shape than the training data")
    changed = (poison.labels != task.labels) | (poison.rows != task.rows).any(axis=1)
    if changed.sum() > task.spoilt(poison.rate):
        raise WorkError(
            f"the poisoning attack spoilt {changed.sum()} of {len(task.rows)} records at a rate of {poison.rate:g}"
        )


@dataclass(frozen=True, slots=True)
class _Judgement:
    """What the models answered, and what follows from it."""

    task: PoisoningTask
    truth: Truth
    clean: NDArray[np.int64]
    """``(repeats, records)``"""
    answers: Mapping[tuple[str, float], NDArray[np.int64]]
    """``(repeats, records)`` by strategy and rate."""

    @property
    def strategies(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(strategy for strategy, _ in self.answers))

    def right(self, answers: NDArray[np.int64], *, positive: bool) -> Correct:
        """Where models were right, on all records or on those of the positive class."""
        labels = self.truth.evaluation.labels
        counted = labels == self.task.positive if positive else np.ones_like(labels, dtype=np.bool_)
        right: Correct = (answers[:, counted] == labels[counted]).astype(np.float64)
        return right

    def score(self, strategy: str, rate: float, *, positive: bool) -> Estimate:
        """Accuracy, or recall of the positive class, under a strategy at a rate; 0 is clean."""
        answers = self.answers[strategy, rate] if rate else self.clean
        return crossed(self.right(answers, positive=positive), (0.0, 1.0))

    def drop(self, strategy: str, rate: float, *, positive: bool, confidence: float = CONFIDENCE) -> Estimate:
        """What is lost against models trained on clean data with the same seeds, record by record."""
        before, after = self.clean, self.answers[strategy, rate]
        lost = self.right(before, positive=positive) - self.right(after, positive=positive)
        return crossed(lost, (-1.0, 1.0), confidence)

    def worst(self, rate: float, *, positive: bool) -> Estimate:
        """Drop under whichever strategy hurts most.

        Each strategy's interval is widened (Bonferroni), so that picking the worst afterwards does
        not make the figure look surer than it is.
        """
        confidence = 1 - (1 - CONFIDENCE) / len(self.strategies)
        drops = [self.drop(name, rate, positive=positive, confidence=confidence) for name in self.strategies]
        interval = Interval(max(drop.interval.low for drop in drops), max(drop.interval.high for drop in drops))
        method = f"{drops[0].method}, worst of {len(drops)}"
        return Estimate(max(drop.value for drop in drops), interval, drops[0].n, method)

    def estimates(self) -> dict[str, Estimate]:
        """The metrics."""
        name = self.strategies[0]
        numbers = {
            "clean_accuracy": self.score(name, 0.0, positive=False),
            "clean_positive_recall": self.score(name, 0.0, positive=True),
        }
        for rate in self.task.rates:
            numbers[f"accuracy_drop_at_{percent(rate)}_percent"] = self.worst(rate, positive=False)
            numbers[f"positive_recall_drop_at_{percent(rate)}_percent"] = self.worst(rate, positive=True)
        return numbers

    def curve(self, strategy: str, *, positive: bool) -> tuple[Point, ...]:
        """Accuracy or recall over the rate, from clean data on."""
        scores = [(rate, self.score(strategy, rate, positive=positive)) for rate in (0.0, *self.task.rates)]
        return tuple(_point(rate, score) for rate, score in scores)

    def all(self, poisons: Sequence[Poison]) -> Measurement:
        """Everything that is reported."""
        estimates = self.estimates()
        accuracy = {f"accuracy_by_poison_rate_{name}": self.curve(name, positive=False) for name in self.strategies}
        recall = {f"positive_recall_by_poison_rate_{name}": self.curve(name, positive=True) for name in self.strategies}
        return Measurement(
            summary=self.summary(estimates),
            metrics={name: estimate.metric() for name, estimate in estimates.items()},
            curves=accuracy | recall,
            tables={"drops": self.drops(), "choices": _choices(poisons)},
            findings=tuple(self.findings()),
        )

    def drops(self) -> list[dict[str, Any]]:
        """Drop of accuracy and recall under each strategy, with the interval of that strategy alone."""
        rows = []
        for strategy, rate in self.answers:
            kinds = {"accuracy": False, "positive_recall": True}
            drops = {kind: self.drop(strategy, rate, positive=flag).metric() for kind, flag in kinds.items()}
            plain = {kind: [drop.value, drop.low, drop.high] for kind, drop in drops.items()}
            rows.append({"strategy": strategy, "rate": rate, **plain})
        return rows

    def summary(self, estimates: Mapping[str, Estimate]) -> str:
        rate = min(self.task.rates, key=lambda each: abs(each - 0.1))
        overall = estimates[f"accuracy_drop_at_{percent(rate)}_percent"]
        missed = estimates[f"positive_recall_drop_at_{percent(rate)}_percent"]
        return (
            f"An adversary who relabels {100 * rate:.3g}% of the training records lowers accuracy by "
            f"{_points(overall)} and recall of {self.truth.positive} by {_points(missed)}."
        )

    def findings(self) -> Iterable[Finding]:
        """For accuracy and for recall, the least rate at which the worst severity is reached."""
        for positive, what in ((False, "accuracy"), (True, f"recall of {self.truth.positive}")):
            drops = [(rate, self.worst(rate, positive=positive)) for rate in self.task.rates]
            for least, severity in SEVERITIES:
                reached = next(((rate, drop) for rate, drop in drops if drop.interval.low >= least), None)
                if reached:
                    yield _finding(self.truth.model, what, *reached, severity, targeted=positive)
                    break


def _finding(model: str, what: str, rate: float, drop: Estimate, severity: Severity, *, targeted: bool) -> Finding:
    return Finding(
        rule="redteam/poisoning-targeted" if targeted else "redteam/poisoning",
        severity=severity,
        title=f"relabelling {100 * rate:.3g}% of the training records costs {drop.value:.0%} {what}",
        where=model,
        detail=f"{_points(drop)}, on records that no training saw.",
        remedy="control who can label, have samples labelled twice, check label quality before training, "
        "and gate releases on recall for each class.",
    )


def _points(drop: Estimate) -> str:
    return f"{drop.value:.1%} ({drop.interval.low:.1%} to {drop.interval.high:.1%})"


def _choices(poisons: Sequence[Poison]) -> dict[str, dict[str, str]]:
    """What each strategy settled on, by rate."""
    chosen: dict[str, dict[str, str]] = {}
    for poison in poisons:
        if poison.choice:
            chosen.setdefault(poison.strategy, {})[f"{poison.rate:g}"] = poison.choice
    return chosen


def _point(x: float, estimate: Estimate) -> Point:
    metric = estimate.metric()
    return Point(x, metric.value, metric.low, metric.high)


def percent(rate: float) -> str:
    """A rate as part of a metric's name: ``10``, ``2_5``."""
    return f"{100 * rate:.6g}".replace(".", "_")
