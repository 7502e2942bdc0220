"""Extraction: how well a copy made from answers agrees with the model, over the number of answers.

Half of the evaluation records are the adversary's, without labels; the other half is kept for
comparing copy and model, so that no copy is judged on rows that it could have asked about.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.finding import Finding, Severity
from bartizan.redteam.attack import Attack, Request
from bartizan.redteam.engine import Run
from bartizan.redteam.family import Case, Material, Measurement, Measuring, Point, ask
from bartizan.redteam.ledger import Budget
from bartizan.redteam.statistics import Estimate, Interval, proportion
from bartizan.redteam.tasks import ExtractionTask, Substitute
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Labels, Rows
from bartizan.targets.table import Table

CHECKPOINTS = (25, 50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800)
"""Numbers of queries at which the curve is read, as far as the budget goes."""
LEAST_RECORDS = 20
"""Evaluation records; half of them make the adversary's start."""
MAX_RECORDS = 20_000
"""More would make no interval narrower that anybody waits for."""
BOUNDARY_PAIRS = 200
HALVINGS = 4
"""Rows near the boundary lie within ``2 ** -HALVINGS`` of the way from one class to another."""
FAITHFUL = 0.9
SEVERITIES = ((0.95, Severity.HIGH), (0.9, Severity.MEDIUM), (0.8, Severity.LOW))
"""Agreement on rows near the boundary or all rows, at the lower end of its interval, for each severity."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What only the measurement sees."""

    model: str
    kept: Table
    """Records for measuring; none of them is the adversary's."""


class Extraction:
    """See ``Family``."""

    name = "extraction"
    settings: tuple[str, ...] = ("seed", "extraction_budget")

    def case(self, attack: Attack, material: Material, rng: np.random.Generator) -> Case:
        """Half of the evaluation rows, without labels.

        Raises:
            ArtefactError: there are too few to share.
        """
        del attack
        evaluation, budget = material.evaluation, material.settings.extraction_budget
        if len(evaluation) < LEAST_RECORDS:
            raise ArtefactError(
                f"dataset {material.model.evaluated_on!r} has {len(evaluation)} records; extraction needs "
                f"{LEAST_RECORDS}, half of them to measure with",
                remedy="evaluate on more records.",
            )
        order = rng.permutation(len(evaluation))
        own, kept = np.array_split(order[:MAX_RECORDS], 2)
        rows = evaluation.rows[own]
        task = ExtractionTask(
            rows=rows,
            classes=len(material.model.classes),
            space=_seen(material.space, rows),
            budget=budget,
            checkpoints=(*(mark for mark in CHECKPOINTS if mark < budget), budget),
        )
        return Case(
            task=task,
            budget=Budget(samples=1, per_sample=budget),
            truth=Truth(material.model.name, evaluation.take(np.sort(kept))),
            knowledge=f"owns {len(rows)} unlabelled rows of the same kind and knows what the features mean",
            settings={"extraction_budget": budget, "own_rows": len(rows), "rows_for_measuring": len(kept)},
        )

    def measure(self, case: Case, run: Run, rng: np.random.Generator) -> Measuring:
        """Compare each copy with the model, on records kept back and between them."""
        task, kept = case.task, case.truth.kept
        substitutes = _checked(run.candidates, run)
        labels = yield ask(kept.rows)
        near, near_labels = yield from _near_boundary(kept.rows, labels, task.space, rng)
        rows = np.concatenate([kept.rows, near])
        answers: dict[int, Labels] = {}
        for substitute in substitutes:
            answers[substitute.queries] = yield from _ask(substitute, rows, task.classes)
        return _Judgement(case.truth, labels, near_labels, answers, task.budget).all()


def _seen(space: Space, rows: Rows) -> Space:
    """The space as the adversary knows it: kinds of features, and the ranges of its own rows."""
    spread = rows.std(axis=0)
    scale = np.where(space.categorical | (spread == 0), 1.0, spread)
    return replace(space, low=rows.min(axis=0), high=rows.max(axis=0), scale=scale)


def _checked(candidates: Any, run: Run) -> tuple[Substitute, ...]:
    """The copies, by rising number of queries.

    Raises:
        WorkError: there is none, or one claims more queries than were asked.
    """
    if not isinstance(candidates, tuple) or not candidates:
        raise WorkError(f"the extraction attack handed over no copy: {run.stopped or 'no candidates'}")
    if max(substitute.queries for substitute in candidates) != run.ledger.queries:
        raise WorkError("the extraction attack handed over no copy made from all answers that it got")
    return tuple(sorted(candidates, key=lambda substitute: substitute.queries))


def _ask(substitute: Substitute, rows: Rows, classes: int) -> Generator[Request, Any, Labels]:
    """What a copy answers."""
    if substitute.predict is None:
        answer = yield ask(rows, model=substitute.model or 0)
    else:
        answer = np.asarray(substitute.predict(rows))
    if answer.shape != (len(rows),) or answer.dtype.kind != "i" or not ((answer >= 0) & (answer < classes)).all():
        raise WorkError(f"a copy answers with an array {answer.dtype} {answer.shape}; class indices ({len(rows)},) fit")
    labels: Labels = answer
    return labels


def _near_boundary(
    rows: Rows, labels: Labels, space: Space, rng: np.random.Generator
) -> Generator[Request, Any, tuple[Rows, Labels]]:
    """Rows close to where the model changes its mind, and what it answers there; none if it never does.

    Found by halving the way between two records of different answers; of the two rows that
    enclose the change, one is drawn.
    """
    first, second = rng.integers(0, len(rows), (2, 4 * BOUNDARY_PAIRS))
    apart = np.flatnonzero(labels[first] != labels[second])[:BOUNDARY_PAIRS]
    here, there = rows[first[apart]], rows[second[apart]]
    labels_here, labels_there = labels[first[apart]], labels[second[apart]]
    for _ in range(HALVINGS if len(apart) else 0):
        middle = space.project((here + there) / 2, here)
        answer = yield ask(middle)
        same = answer == labels_here
        here, there = np.where(same[:, None], middle, here), np.where(same[:, None], there, middle)
        labels_there = np.where(same, labels_there, answer)
    drawn = rng.random(len(apart)) < 0.5  # noqa: PLR2004 - a fair coin
    return np.where(drawn[:, None], here, there), np.where(drawn, labels_here, labels_there)


@dataclass(frozen=True, slots=True)
class _Judgement:
    """What model and copies answered, and what follows from it."""

    truth: Truth
    labels: Labels
    """Of the model, on the records kept back."""
    near_labels: Labels
    """Of the model, on rows near its boundary."""
    answers: Mapping[int, Labels]
    """Of each copy, on both, by its number of queries."""
    budget: int

    def fidelity(self, queries: int) -> Estimate:
        """Share of records kept back on which the copy answers like the model."""
        agreed = self.answers[queries][: len(self.labels)] == self.labels
        return proportion(int(agreed.sum()), len(agreed))

    def fidelity_near_boundary(self, queries: int) -> Estimate:
        """The same on rows near the model's boundary."""
        agreed = self.answers[queries][len(self.labels) :] == self.near_labels
        return proportion(int(agreed.sum()), len(agreed))

    def accuracy(self, answers: Labels) -> Estimate:
        """Share of records kept back on which the truth is answered."""
        right = answers[: len(self.labels)] == self.truth.kept.labels
        return proportion(int(right.sum()), len(right))

    def queries_for_faithful(self) -> Estimate | None:
        """Queries after which the copy agrees with the model on 90 % of the records; none if it never does.

        The interval runs from the first number of queries at which this may be so to the first at
        which it surely is. Where that is not seen within the budget the interval ends there, and says so.
        """
        scores = [(queries, self.fidelity(queries)) for queries in self.answers]
        value = next((queries for queries, score in scores if score.value >= FAITHFUL), None)
        if value is None:
            return None
        low = next(queries for queries, score in scores if score.interval.high >= FAITHFUL)
        sure = next((queries for queries, score in scores if score.interval.low >= FAITHFUL), None)
        method = "wilson at checkpoints" if sure else "wilson at checkpoints; not surely reached within the budget"
        return Estimate(value, Interval(low, max(sure or self.budget, value)), len(self.labels), method)

    def all(self) -> Measurement:
        """Everything that is reported."""
        most = max(self.answers)
        estimates = {"fidelity": self.fidelity(most)}
        if len(self.near_labels):
            estimates["fidelity_near_boundary"] = self.fidelity_near_boundary(most)
        estimates["substitute_accuracy"] = self.accuracy(self.answers[most])
        metrics = {name: estimate.metric() for name, estimate in estimates.items()}
        if (needed := self.queries_for_faithful()) is not None:
            metrics["queries_for_90_percent_fidelity"] = needed.metric(unit="queries")
        more = f"more than {self.budget} queries"
        never = "" if needed else f" {FAITHFUL:.0%} was not reached: if ever, that takes {more}."
        return Measurement(
            summary=self.summary(most, estimates) + never,
            metrics=metrics,
            curves=self.curves(),
            tables={
                "victim_accuracy": self.accuracy(self.labels).plain(),
                "constant_copy_fidelity": float(f"{np.bincount(self.labels).max() / len(self.labels):.6g}"),
                "near_boundary": f"within {2.0**-HALVINGS:g} of the way between records of different answers",
            },
            findings=self.findings(most),
        )

    def curves(self) -> dict[str, tuple[Point, ...]]:
        """Fidelity over the number of queries."""
        curves = {"fidelity_by_queries": _curve([(queries, self.fidelity(queries)) for queries in self.answers])}
        if len(self.near_labels):
            points = [(queries, self.fidelity_near_boundary(queries)) for queries in self.answers]
            curves["fidelity_near_boundary_by_queries"] = _curve(points)
        return curves

    def summary(self, most: int, estimates: Mapping[str, Estimate]) -> str:
        fidelity, accuracy = estimates["fidelity"], estimates["substitute_accuracy"]
        return (
            f"With {most} queries an adversary gets a copy that answers like the model on {fidelity.value:.1%} of "
            f"unseen records ({fidelity.interval.low:.1%} to {fidelity.interval.high:.1%}) and is right on "
            f"{accuracy.value:.1%}, against the model's {self.accuracy(self.labels).value:.1%}."
        )

    def findings(self, most: int) -> tuple[Finding, ...]:
        """One finding when the copy is surely a good one, and better than a constant answer."""
        fidelity = self.fidelity(most)
        severity = next((level for least, level in SEVERITIES if fidelity.interval.low >= least), None)
        if severity is None or fidelity.interval.low <= np.bincount(self.labels).max() / len(self.labels):
            return ()
        return (
            Finding(
                rule="redteam/extraction",
                severity=severity,
                title=f"a copy made from {most} answers agrees with the model on {fidelity.value:.0%} of records",
                where=self.truth.model,
                detail="The copy can be sold, studied at leisure, and used to prepare evasion without being seen.",
                remedy="authenticate callers and limit their queries, answer with labels only, and watch for "
                "sequences of queries that cluster around the boundary.",
            ),
        )


def _curve(scores: Sequence[tuple[int, Estimate]]) -> tuple[Point, ...]:
    metrics = [(queries, estimate.metric()) for queries, estimate in scores]
    return tuple(Point(float(queries), metric.value, metric.low, metric.high) for queries, metric in metrics)
