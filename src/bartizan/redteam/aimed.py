"""Poison aimed at single rows: how many of them are answered as the adversary wants, and what it costs elsewhere.

The target's own pipeline is trained on clean data and, for each aim, on data with the poison in it; the aims are
rows that no training sees. What clean models answer as wanted anyway is taken off, and beside it stands what
it does to mix the aim itself into the same rows, at the same distance: whoever can do no better needs no optimiser.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.finding import Finding, Severity
from bartizan.redteam.aims import AimedPoison, AimedTask
from bartizan.redteam.attack import Attack, Fit
from bartizan.redteam.detection.nearest import nearest
from bartizan.redteam.engine import Run
from bartizan.redteam.family import Case, Material, Measurement, Measuring, ask
from bartizan.redteam.ledger import Budget
from bartizan.redteam.statistics import Estimate, crossed, proportion
from bartizan.targets.feasible import TOLERANCE, image_space
from bartizan.targets.protocol import Labels, Rows
from bartizan.targets.table import Table

MOST_AIMS = 20
"""Rows aimed at when more samples are allowed: each takes three training runs and more."""
LEAST_AIMS = 2
FITS_PER_AIM = 5
"""Models that the adversary may train to see whether its poison works, for each aim."""
NEIGHBOURS = 5
"""Clean rows that vote on whether poison still looks like its label."""
OTHERS = 500
"""Evaluation rows on which accuracy is compared."""
SEVERITIES = ((0.5, Severity.HIGH), (0.2, Severity.MEDIUM), (0.05, Severity.LOW))
"""Share of aims turned beyond clean models, at the lower end, for each severity."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What only the measurement sees."""

    model: str
    others: Table
    """Evaluation rows that nobody aims at."""
    seeds: tuple[int, ...]
    """Of the training runs; the aims take them by turns."""


@dataclass(slots=True)
class _Answers:
    """What the models said."""

    clean: list[int] = field(default_factory=list)
    spoilt: list[int] = field(default_factory=list)
    control: list[int] = field(default_factory=list)
    """To each aim, one after the other."""
    before: list[Labels] = field(default_factory=list)
    after: list[Labels] = field(default_factory=list)
    """To the other rows."""


class AimedPoisoning:
    """See ``Family``. ``shape`` says that rows are images; ``max_change`` bounds poison in ranges of a value (Linf)."""

    name = "poisoning"
    settings: tuple[str, ...] = ("seed", "samples", "repeats")

    def __init__(self, shape: tuple[int, ...] = (), *, max_change: float = np.inf, records: int = 1) -> None:
        self.shape = shape
        self.max_change = max_change
        self.records = records

    def case(self, attack: Attack, material: Material, rng: np.random.Generator) -> Case:
        """Some evaluation rows to aim at, each with another class than its own; the others stay behind.

        Raises:
            ArtefactError: training knows one class only, or there are too few evaluation rows.
        """
        del attack
        shape = self.shape or material.shape
        training, evaluation = material.training, material.evaluation
        known = np.unique(training.labels)
        count = min(MOST_AIMS, material.settings.samples, len(evaluation.rows) // 2)
        if len(known) < 2 or count < LEAST_AIMS:  # noqa: PLR2004 - another class is needed
            raise ArtefactError(
                f"poison for single rows needs two classes in training and {2 * LEAST_AIMS} evaluation rows",
                remedy="add records; each aim is a row that training does not see.",
            )
        order = rng.permutation(len(evaluation.rows))
        aims, others = order[:count], np.sort(order[count : count + OTHERS])
        wanted = np.array([rng.choice(known[known != label]) for label in evaluation.labels[aims]], np.int64)
        low, high = float(training.rows.min()), float(training.rows.max())
        task = AimedTask(
            rows=training.rows,
            labels=training.labels,
            classes=len(material.model.classes),
            aims=evaluation.rows[aims],
            wanted=wanted,
            records=self.records,
            space=image_space(self.shape, low, high) if self.shape else material.space,
            max_change=self.max_change,
            shape=shape,
            fits=FITS_PER_AIM * count,
        )
        seeds = tuple(int(seed) for seed in rng.choice(2**31, max(1, material.settings.repeats), replace=False))
        return Case(
            task=task,
            budget=Budget(samples=count, per_sample=0, fits=task.fits),
            truth=Truth(material.model.name, evaluation.take(others), seeds),
            knowledge="contributes single training records with their right labels, sees the others, knows the row "
            "that it wants misread, the layers that are kept, and can train models of the same kind",
            settings={"aims": count, "records_changed_for_each": task.records},
        )

    def measure(self, case: Case, run: Run, rng: np.random.Generator) -> Measuring:
        """For each aim, train on clean and on spoilt data with the same seed, and ask."""
        del rng
        task, truth = case.task, case.truth
        poisons = _checked(run.candidates, task, run.stopped)
        answers = _Answers()
        for aim, row in enumerate(task.aims[:, None]):
            seed = truth.seeds[aim % len(truth.seeds)]
            asked = np.concatenate([row, truth.others.rows])
            clean = yield Fit(task.rows, task.labels, seed)
            said = yield ask(asked, model=clean)
            answers.clean.append(int(said[0]))
            answers.before.append(said[1:])
            spoilt, control = _spoilt(task, poisons.get(aim))
            model = yield Fit(spoilt, task.labels, seed)
            said = yield ask(asked, model=model)
            answers.spoilt.append(int(said[0]))
            answers.after.append(said[1:])
            model = yield Fit(control, task.labels, seed)
            answers.control.append(int((yield ask(row, model=model))[0]))
        return _Judgement(task, truth, answers, tuple(poisons.values())).all()


def _spoilt(task: AimedTask, poison: AimedPoison | None) -> tuple[Rows, Rows]:
    """Training rows with the poison in them, and with as much of the aim mixed into the same rows instead."""
    if poison is None:
        return task.rows, task.rows
    base = task.rows[poison.places]
    way = (task.aims[poison.aim] - base) / task.space.scale
    size = np.linalg.norm((poison.rows - base) / task.space.scale, axis=1, keepdims=True)
    share = np.minimum(1.0, size / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), np.finfo(float).tiny))
    control = task.rows.copy()
    control[poison.places] = task.possible(base + share * way * task.space.scale, base)
    return poison.spoilt(task), control


def _checked(candidates: Any, task: AimedTask, stopped: str) -> dict[int, AimedPoison]:
    """The candidates by their aims, when they change no more than they may. An aim without one was given up.

    Raises:
        WorkError: the attack stopped early or broke the rules.
    """
    if not isinstance(candidates, tuple):
        raise WorkError(f"the poisoning attack stopped before it was done: {stopped or 'no candidates'}")
    poisons = {poison.aim: poison for poison in candidates}
    if len(poisons) != len(candidates) or not poisons.keys() <= set(range(len(task.aims))):
        raise WorkError("the poisoning attack returned other candidates than at most one for each aim")
    for poison in candidates:
        _check_change(poison, task)
    return poisons


def _check_change(poison: AimedPoison, task: AimedTask) -> None:
    places = np.unique(poison.places)
    if len(places) != len(poison.places) or len(places) > task.records:
        raise WorkError(f"the poisoning attack changed other than {task.records} records for one aim")
    if poison.rows.shape != (len(places), task.rows.shape[1]) or not np.isfinite(poison.rows).all():
        raise WorkError("the poisoning attack returned rows of another shape, or such as are not finite")
    base = task.rows[poison.places]
    if not task.space.possible(poison.rows, base).all():
        raise WorkError("the poisoning attack put rows into the training data that are not possible")
    if (task.space.change(poison.rows, base) > task.max_change * (1 + TOLERANCE) + TOLERANCE).any():
        raise WorkError(f"the poisoning attack changed a row by more than {task.max_change:g}")


@dataclass(frozen=True, slots=True)
class _Judgement:
    """What the models answered, and what follows from it."""

    task: AimedTask
    truth: Truth
    answers: _Answers
    poisons: tuple[AimedPoison, ...]

    def turned(self, answers: list[int]) -> NDArray[np.bool_]:
        """``(aims,)``: which are answered as wanted."""
        turned: NDArray[np.bool_] = np.array(answers) == self.task.wanted
        return turned

    def share(self, answers: list[int]) -> Estimate:
        turned = self.turned(answers)
        return proportion(int(turned.sum()), len(turned))

    def gain(self, over: list[int]) -> Estimate:
        """Share of aims turned, less what is turned by others, aim by aim."""
        more = self.turned(self.answers.spoilt).astype(np.float64) - self.turned(over)
        return crossed(more[None], (-1.0, 1.0))

    def drop(self) -> Estimate:
        """Accuracy lost on rows that nobody aims at."""
        labels = self.truth.others.labels
        before, after = (np.array(each) == labels for each in (self.answers.before, self.answers.after))
        return crossed(before.astype(np.float64) - after, (-1.0, 1.0))

    def kept(self) -> Estimate:
        """Share of the poison that its clean neighbours, which nobody trained on, would label as it is labelled."""
        judges, votes = self.truth.others, []
        for poison in self.poisons:
            scale = self.task.space.scale
            near = nearest(_single(poison.rows / scale), NEIGHBOURS, _single(judges.rows / scale))
            for around, label in zip(judges.labels[near], self.task.labels[poison.places], strict=True):
                votes.append(np.bincount(around, minlength=self.task.classes).argmax() == label)
        return proportion(sum(map(int, votes)), len(votes))

    def estimates(self) -> dict[str, Estimate]:
        """The metrics."""
        labels = self.truth.others.labels
        right = (np.array(self.answers.before) == labels).astype(np.float64)
        return {
            "attack_success": self.share(self.answers.spoilt),
            "attack_success_beyond_clean_models": self.gain(self.answers.clean),
            "attack_success_beyond_mixing": self.gain(self.answers.control),
            "clean_accuracy": crossed(right, (0.0, 1.0)),
            "accuracy_drop": self.drop(),
            "poison_that_looks_like_its_label": self.kept(),
        }

    def all(self) -> Measurement:
        """Everything that is reported."""
        estimates = self.estimates()
        metrics = {name: estimate.metric() for name, estimate in estimates.items()}
        success, kept = metrics["attack_success"], metrics["poison_that_looks_like_its_label"]
        drop = metrics["accuracy_drop"]
        return Measurement(
            summary=f"Changing {self.task.records} of {len(self.task.rows)} training records, and no label, has "
            f"{success.value:.0%} ({success.low:.0%} to {success.high:.0%}) of the rows aimed at answered as the "
            f"adversary wants; accuracy on other rows falls by {drop.value:.1%}, and {kept.value:.0%} of the poison "
            f"still looks like its label.",
            metrics=metrics,
            tables={"aims": self.aims()},
            findings=tuple(self.findings(estimates["attack_success_beyond_clean_models"])),
        )

    def aims(self) -> list[dict[str, Any]]:
        """What came of each aim; distances are Euclidean, in units of the space's scale."""
        by_aim = {poison.aim: poison for poison in self.poisons}
        rows = []
        for aim, wanted in enumerate(self.task.wanted.tolist()):
            row = {"aim": aim, "wanted": wanted, "clean": self.answers.clean[aim], "spoilt": self.answers.spoilt[aim]}
            if poison := by_aim.get(aim):
                row["from_base"] = self._distance(poison.rows - self.task.rows[poison.places])
                row["from_aim"] = self._distance(poison.rows - self.task.aims[aim])
                row["choice"] = poison.choice
            rows.append(row)
        return rows

    def _distance(self, change: Rows) -> float:
        return float(f"{np.linalg.norm(change / self.task.space.scale, axis=1).mean():.6g}")

    def findings(self, gain: Estimate) -> Iterable[Finding]:
        """One, where enough aims are turned."""
        reached = next((severity for least, severity in SEVERITIES if gain.interval.low >= least), None)
        if reached:
            yield Finding(
                rule="redteam/poisoning-aimed",
                severity=reached,
                title=f"{self.task.records} rightly labelled training record(s) have {gain.value:.0%} of single rows "
                "misread",
                where=self.truth.model,
                detail=f"{gain.value:.1%} ({gain.interval.low:.1%} to {gain.interval.high:.1%}) beyond what models "
                "trained on clean data answer so.",
                remedy="train all layers, or take them from a network that the adversary does not know; know who "
                "contributed each record, and look at those whose neighbours before the last layer have other labels.",
            )


def _single(rows: Rows) -> NDArray[np.float32]:
    return np.asarray(rows, dtype=np.float32)
