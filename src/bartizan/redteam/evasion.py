"""Evasion: rows that the model never saw, a witness of all that is asked, and robust accuracy measured anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError
from bartizan.core.finding import Finding, Severity
from bartizan.core.predicates import Metric
from bartizan.redteam.attack import Attack
from bartizan.redteam.changes import Pictures, allowance, nearest_of_each_class, unit
from bartizan.redteam.closest import Closest
from bartizan.redteam.engine import Question, Run
from bartizan.redteam.family import Case, Material, Measurement, Measuring, Point, ask
from bartizan.redteam.journal import Answer
from bartizan.redteam.ledger import Budget
from bartizan.redteam.segments import Judged, by_class, by_segment
from bartizan.redteam.statistics import Estimate, bootstrap, confusion, metric, proportion
from bartizan.redteam.steadiness import AT_RANDOM, asked_again, worst
from bartizan.redteam.tasks import NORMS, Bounded, EvasionTask
from bartizan.redteam.windows import is_picture
from bartizan.targets.feasible import TOLERANCE
from bartizan.targets.protocol import Access, Labels, Rows

ATTACKED_SHARE = 0.8
"""Of the evaluation data at most; the rest is what the adversary owns."""
MAX_OWNED = 1_000
BUDGET_MARKS = (10, 30, 100, 300, 1_000, 3_000, 10_000)
"""Numbers of queries at which the curve over the budget is read."""
CHANGE_MARKS = 20
"""Points of the curve over the change, from 0 to twice the largest change that counts."""
SPENT = 0.8
"""An attack whose every success needs at least this part of the largest change did not look for smaller ones."""
NAMED_FEATURES = 3
SEVERITIES = ((0.5, Severity.HIGH), (0.2, Severity.MEDIUM), (0.05, Severity.LOW))
"""Least success, at the lower end of its interval, for each severity."""


class Witness:
    """Sees all that an attack asks and keeps the closest possible row that fooled the victim. See ``Watch``."""

    def __init__(self, task: EvasionTask) -> None:
        marks = [mark for mark in BUDGET_MARKS if mark < task.budget]
        self.by_budget: dict[int, Closest] = {mark: Closest(task) for mark in [*marks, task.budget]}
        """Number of queries to what had been found by then; the last one is all."""
        self.task = task

    @property
    def found(self) -> Closest:
        """The closest rows of the whole run."""
        return self.by_budget[self.task.budget]

    def see(self, query: Question, answer: Answer, ordinal: NDArray[np.int64]) -> None:
        """See ``Watch.see``."""
        labels = answer if answer.ndim == 1 else answer[:, : self.task.classes].argmax(axis=1)
        fooled = np.flatnonzero(labels != self.task.labels[query.sample])
        closer, change = self.found.closer(query.sample[fooled], query.rows[fooled])
        places = fooled[closer]
        possible = self.task.space.possible(query.rows[places], self.task.rows[query.sample[places]])
        places, change = places[possible], change[possible]
        if not places.size:
            return
        for mark, closest in self.by_budget.items():
            # Gradients are counted apart: what cost many of them is still found in the end.
            in_time = (ordinal[places] <= mark) | (mark == self.task.budget)
            paid = places[in_time]
            closest.keep(query.sample[paid], query.rows[paid], change[in_time])


@dataclass(frozen=True, slots=True)
class Truth:
    """What only the measurement knows."""

    material: Material
    places: NDArray[np.int64]
    """Which records of the evaluation data are under attack."""
    witness: Witness
    share: Callable[[int, int], Estimate] = proportion
    """A share of the samples with an interval that allows for how it was decided when to stop."""
    early: bool = False
    """Whether samples were left out because enough had been seen."""
    least: int = 1
    """Queries, or gradients, for a row below which the attack shows nothing."""
    by_gradients: bool = False
    averages: bool = False
    """Whether the attack allows for answers at random."""


class Evasion:
    """See ``Family``. Robust accuracy is measured on rows that no training saw."""

    name = "evasion"
    settings: tuple[str, ...] = ("seed", "samples", "query_budget", "max_change", "norm", "gradient_budget")

    def case(self, attack: Attack, material: Material, rng: np.random.Generator) -> Case:
        """See ``Family.case``.

        The adversary owns labelled rows of the same kind: those of the evaluation data that are not
        under attack.
        """
        settings, evaluation = material.settings, material.evaluation
        count = min(settings.samples, int(ATTACKED_SHARE * len(evaluation)))
        if count < 1:
            raise ArtefactError(
                f"dataset {material.model.evaluated_on!r} has {len(evaluation)} records, too few to attack some "
                "and start from others",
                remedy="evaluate on more records.",
            )
        order = rng.permutation(len(evaluation))
        places, owned = np.sort(order[:count]), order[count : count + MAX_OWNED]
        task = EvasionTask(
            rows=evaluation.rows[places],
            labels=evaluation.labels[places],
            classes=len(material.model.classes),
            starts=evaluation.rows[owned],
            start_labels=evaluation.labels[owned],
            space=material.space,
            max_change=settings.max_change,
            budget=settings.query_budget,
            norm=NORMS[settings.norm],
            shape=material.shape,
            gradients=settings.gradient_budget,
        )
        witness = Witness(task)
        truth = Truth(
            material,
            places,
            witness,
            least=getattr(attack, "least", 1),
            by_gradients=Access.GRADIENTS in attack.needs,
            averages=getattr(attack, "averages", False),
        )
        return Case(
            task=task,
            budget=Budget(samples=count, per_sample=settings.query_budget, gradients=settings.gradient_budget),
            truth=truth,
            watch=witness,
            knowledge=f"owns {len(owned)} labelled rows of the same kind; knows ranges and spread of the features",
            settings={"samples": count, "max_change": settings.max_change, "norm": settings.norm, "unit": unit(task)},
        )

    def measure(self, case: Case, run: Run, rng: np.random.Generator) -> Measuring:
        """See ``Family.measure``: every row that is to count as found is asked again."""
        truth, task = case.truth, case.task
        rows = {mark: closest.rows for mark, closest in truth.witness.by_budget.items()}
        last, rows[RETURNED] = rows.pop(task.budget), _returned(run.candidates, task)
        clean, *asked = np.split(
            (yield ask(np.concatenate([truth.material.evaluation.rows, *rows.values()]))),
            len(truth.material.evaluation) + len(task.rows) * np.arange(len(rows)),
        )
        answers = yield from asked_again(np.concatenate([task.rows, last]))
        untouched, under_attack = np.split(worst(answers, np.tile(task.labels, 2)), 2)
        clean = clean.copy()
        clean[truth.places] = untouched
        found = {mark: _Found.of(task, rows[mark], labels) for mark, labels in zip(rows, asked, strict=True)}
        found[task.budget] = _Found.of(task, last, under_attack)
        found[task.budget] = found[task.budget].or_closer(found.pop(RETURNED))
        doubt = _doubt(truth, run, at_random=len(answers) > 1)
        return _Judgement(truth, task, clean, found, run, doubt).measurement(rng)


def _doubt(truth: Truth, run: Run, *, at_random: bool) -> str:
    """Why the result shows nothing about robustness, in words; empty when it does."""
    budget, least = run.ledger.budget, truth.least
    if at_random and not truth.averages:
        return AT_RANDOM
    if truth.by_gradients and budget.gradients < least:
        return f"{budget.gradients} gradients a row are fewer than the {least} below which this attack shows nothing"
    if not truth.by_gradients and budget.per_sample < least:
        return f"{budget.per_sample} queries a row are fewer than the {least} below which this attack shows nothing"
    return ""


RETURNED = -1
"""Stands in for a number of queries: the rows that the attack itself returned."""


def _returned(candidates: Any, task: EvasionTask) -> Rows:
    """What the attack returned, made possible; the samples themselves when it returned nothing usable."""
    candidates = candidates.rows if isinstance(candidates, Bounded) else candidates
    rows = np.asarray(candidates, dtype=task.rows.dtype) if isinstance(candidates, np.ndarray) else task.rows
    if rows.shape != task.rows.shape or not np.isfinite(rows).all():
        rows = task.rows
    return task.space.project(rows, task.rows)


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows that were asked again: what they were answered, and how large their change is."""

    rows: Rows
    answers: Labels
    change: NDArray[np.float64]
    """``(samples,)``; infinite where the row did not fool the victim when it was asked again."""

    @classmethod
    def of(cls, task: EvasionTask, rows: Rows, answers: Labels) -> _Found:
        change = task.space.change(rows, task.rows, task.norm)
        return cls(rows, answers, np.where(answers != task.labels, change, np.inf))

    def or_closer(self, other: _Found) -> _Found:
        """The better of both for each sample."""
        mine = self.change <= other.change
        return _Found(
            np.where(mine[:, None], self.rows, other.rows),
            np.where(mine, self.answers, other.answers),
            np.minimum(self.change, other.change),
        )


@dataclass(frozen=True, slots=True)
class _Judgement:
    """Turns answers into numbers."""

    truth: Truth
    task: EvasionTask
    clean: Labels
    """Answers to all evaluation rows, unchanged."""
    found: dict[int, _Found]
    """Number of queries to what had been found by then."""
    run: Run
    doubt: str = ""
    """Why nothing is shown about robustness; empty when it is."""

    @property
    def right(self) -> NDArray[np.bool_]:
        """Samples that the model gets right as long as nobody attacks."""
        right: NDArray[np.bool_] = self.clean[self.truth.places] == self.task.labels
        return right

    def robust(self, bound: float, mark: int | None = None) -> NDArray[np.bool_]:
        """Samples that stay right under changes of up to ``bound`` found within ``mark`` queries."""
        change = self.found[mark or self.task.budget].change
        return self.right & ~(change <= bound * (1 + TOLERANCE))

    @property
    def answered(self) -> Labels:
        """What the samples are answered under attack."""
        broken = self.right & ~self.robust(self.task.max_change)
        last = self.found[self.task.budget]
        return np.where(broken, last.answers, self.clean[self.truth.places])

    def measurement(self, rng: np.random.Generator) -> Measurement:
        metrics = self.metrics(rng)
        return Measurement(
            summary=self.summary(metrics),
            metrics=metrics,
            curves={
                "robust_accuracy_by_change": self.by_change(),
                "robust_accuracy_by_queries": self.by_queries(),
            },
            no_claim=self.doubt,
            tables={"confusion": self.confusion(), "samples": self.samples(), **self.parts(), **self.pictures()},
            findings=self.findings(),
        )

    def metrics(self, rng: np.random.Generator) -> dict[str, Metric]:
        right, robust = self.right, self.robust(self.task.max_change)
        evaluation, labels, share = self.truth.material.evaluation, self.task.labels, self.truth.share
        correct = self.clean == evaluation.labels
        metrics = {
            "clean_accuracy": proportion(int(correct.sum()), len(correct)).metric(),
            "robust_accuracy": self._at_most(share(int(robust.sum()), len(robust)).metric()),
        }
        if right.any():
            success = share(int((right & ~robust).sum()), int(right.sum())).metric()
            metrics["attack_success"] = msgspec.structs.replace(success, high=1.0) if self.doubt else success
        if (positive := self.truth.material.positive) is not None:
            real, under_attack = evaluation.labels == positive, labels == positive
            if real.any():
                metrics["clean_recall"] = proportion(int(correct[real].sum()), int(real.sum())).metric()
            if under_attack.any():
                recall = share(int(robust[under_attack].sum()), int(under_attack.sum())).metric()
                metrics["robust_recall"] = self._at_most(recall)
        if not self.truth.early and (median := self._median_change(rng)):
            metrics["median_change"] = median
        if (proven := self.proven()) is not None:
            metrics["proven_robust_accuracy"] = share(int(proven.sum()), len(proven)).metric()
        return metrics

    def proven(self) -> NDArray[np.bool_] | None:
        """Samples that are right and, as the attack proves, stay so; None when it proves nothing.

        A proof that what was found contradicts does not count.
        """
        candidates = self.run.candidates
        if not isinstance(candidates, Bounded) or candidates.bound.shape != self.task.labels.shape:
            return None
        far: NDArray[np.bool_] = candidates.bound > self.task.max_change * (1 + TOLERANCE)
        return far & self.robust(self.task.max_change)

    def _at_most(self, share: Metric) -> Metric:
        """A share that nobody may call shown: it may be anything below."""
        return msgspec.structs.replace(share, low=0.0) if self.doubt else share

    def _median_change(self, rng: np.random.Generator) -> Metric | None:
        """Median over the samples that are right; None where so few fell that it, or its upper end, was not found."""
        change = self.found[self.task.budget].change[self.right]
        if len(change) < 2 or not np.isfinite(_median(change)):  # noqa: PLR2004 - a spread
            return None
        interval = bootstrap(change, _median, rng)
        if not np.isfinite(interval.high):
            return None
        return metric(_median(change), interval, len(change), "bootstrap", unit=unit(self.task))

    def by_change(self) -> tuple[Point, ...]:
        """Robust accuracy over the size of the change, as far as the attack has looked.

        One that always spends all that it may says nothing of smaller changes: then there are the two ends only.
        """
        change = self.found[self.task.budget].change
        change, bound = change[np.isfinite(change) & self.right], self.task.max_change
        farther = bool((change > bound * (1 + TOLERANCE)).any())
        marks = np.linspace(0, 2, CHANGE_MARKS + 1) * bound
        if change.size and change.min() >= SPENT * bound and not farther:
            marks = np.array([0.0, bound])
        return tuple(self._point(mark, self.robust(mark)) for mark in marks.tolist() if farther or mark <= bound)

    def by_queries(self) -> tuple[Point, ...]:
        """Robust accuracy over the queries that the adversary may ask for one sample."""
        nothing = self._point(0, self.right)
        return (nothing, *(self._point(mark, self.robust(self.task.max_change, mark)) for mark in self.found))

    def _point(self, x: float, robust: NDArray[np.bool_]) -> Point:
        share = self.truth.share(int(robust.sum()), len(robust)).metric()
        return Point(float(f"{x:.6g}"), share.value, share.low, share.high)

    def confusion(self) -> dict[str, Any]:
        """Confusion matrices of the samples: rows are true classes, columns are answers."""
        count, labels = self.task.classes, self.task.labels
        return {
            "classes": list(self.truth.material.model.classes),
            "clean": confusion(labels, self.clean[self.truth.places], count),
            "under_attack": confusion(labels, self.answered, count),
            "max_change": self.task.max_change,
        }

    def parts(self) -> dict[str, list[dict[str, Any]]]:
        """Robust accuracy of each class and of each segment of the samples."""
        robust = self.robust(self.task.max_change)
        judged = Judged(self.task.rows, self.right, robust, self.truth.share)
        last = self.found[self.task.budget]
        moved = np.where(np.isfinite(last.change)[:, None], last.rows - self.task.rows, 0.0) / self.task.space.scale
        return {
            "classes": by_class(judged, self.task.labels, self.truth.material.model.classes),
            "segments": by_segment(judged, self.task.space, moved),
        }

    def samples(self) -> list[dict[str, Any]]:
        """What happened to each sample. Values of features are left out: they may be personal."""
        last = self.found[self.task.budget]
        answered, robust = self.answered, self.robust(self.task.max_change)
        classes = self.truth.material.model.classes
        clean = self.clean[self.truth.places]
        return [
            {
                "record": int(place),
                "class": classes[self.task.labels[index]],
                "answer": classes[clean[index]],
                "answer_under_attack": classes[answered[index]],
                "robust": bool(robust[index]),
                "change": _rounded(last.change[index]),
                "queries": int(self.run.ledger.spent[index]),
                "moved_most": self._moved_most(index, last) if np.isfinite(last.change[index]) else {},
            }
            for index, place in enumerate(self.truth.places)
        ]

    def _moved_most(self, index: int, last: _Found) -> dict[str, float | None]:
        """The features that were changed most, with their change in standard deviations; pixels have no names."""
        if self.task.shape:
            return {}
        space = self.task.space
        moved = (last.rows[index] - self.task.rows[index]) / space.scale
        most = np.argsort(-np.abs(moved), kind="stable")[:NAMED_FEATURES]
        return {space.columns[feature]: _rounded(moved[feature]) for feature in most if moved[feature]}

    def findings(self) -> tuple[Finding, ...]:
        """One finding when the attack succeeds more often than can be called chance."""
        right = int(self.right.sum())
        broken = int((self.right & ~self.robust(self.task.max_change)).sum())
        low = self.truth.share(broken, right).interval.low
        severity = next((severity for least, severity in SEVERITIES if low >= least), None)
        if severity is None:
            return ()
        return (
            Finding(
                rule="redteam/evasion",
                severity=severity,
                title=f"{broken} of {right} correct answers are flipped by small changes of the input",
                where=self.truth.material.model.name,
                detail=f"The adversary may {allowance(self.task)}; found with at most {self._spent()} for a row.",
                remedy=(
                    "Harden the model (adversarial training, fewer features that can be forged), "
                    "or limit queries and output detail and watch for query sequences."
                ),
            ),
        )

    def summary(self, metrics: dict[str, Metric]) -> str:
        clean, robust = float(self.right.mean()), metrics["robust_accuracy"]
        interval, free = f"({robust.low:.0%} to {robust.high:.0%})", f"may {allowance(self.task)} and {self._means()}"
        if not (self.right & ~self.robust(self.task.max_change)).any():
            share = f"accuracy on the {len(self.right)} rows under attack stays {robust.value:.0%} {interval}"
            return f"Nothing was found: {share} when an adversary {free} for each row.{self._caveats()}"
        falls = f"Accuracy falls from {clean:.0%} to {robust.value:.0%} {interval}"
        return f"{falls} when an adversary {free} for each row.{self._caveats()}"

    def _caveats(self) -> str:
        return self._cut_short() + (f" No claim of robustness: {self.doubt}." if self.doubt else "")

    def _cut_short(self) -> str:
        """What has to be said of an attack by gradients that was not done when they were spent."""
        ledger = self.run.ledger
        spent = bool(ledger.gradients) and int(ledger.slopes.max()) >= ledger.budget.gradients
        return " It was not done when the gradients were spent: more of them may find more." if spent else ""

    def _means(self) -> str:
        if not self.run.ledger.gradients:
            return f"ask {self.task.budget} times"
        return f"follow {self.run.ledger.budget.gradients} gradients of the model"

    def _spent(self) -> str:
        many = self.run.ledger.budget.gradients
        return f"{many} gradients" if self.run.ledger.gradients else f"{self.task.budget} queries"

    def pictures(self) -> dict[str, Any]:
        """A few images that fell to the attack, before and after, where single records may be shown."""
        material, task, last = self.truth.material, self.task, self.found[self.task.budget]
        if not (is_picture(task.shape) and material.showable):
            return {}
        fallen = np.flatnonzero(self.right & ~self.robust(task.max_change))
        shown = nearest_of_each_class(fallen, last.change, task.labels)
        fallen_to = Pictures(task, material.model.classes, self.clean[self.truth.places], last.rows, last.answers)
        return {"pictures": fallen_to.table(shown, self.truth.places, last.change)}


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values))


def _rounded(number: float) -> float | None:
    """Six significant digits; None for what JSON cannot say."""
    return float(f"{number:.6g}") if np.isfinite(number) else None
