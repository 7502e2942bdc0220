"""Size: is there enough data? Rules of thumb, what can be measured with it, and a learning curve.

Rules for training data: ten records of the smallest class per feature (Peduzzi et al. 1996,
doi:10.1016/S0895-4356(96)00236-3) and thirty records of each class. Rule for evaluation data: enough
records that an accuracy of 90 % is known to three percentage points. The learning curve says what the
rules cannot: whether more data would still help, as seen by our own small classifier.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import scipy

from bartizan.core.finding import Severity
from bartizan.lifecycle.develop.data.examination import Examination
from bartizan.lifecycle.develop.data.learners import FOLDS, fold_of, predict
from bartizan.lifecycle.develop.data.measure import Measure, count, finding
from bartizan.redteam.statistics import Interval, metric, proportion, wilson

PER_FEATURE = 10
PER_CLASS = 30
EVALUATED_ACCURACY, EVALUATED_WITHIN = 0.9, 0.03
SHARES = (0.125, 0.25, 0.5, 1.0)
CURVE_ROWS = 4_000
"""Records that the learning curve uses at most."""
SIGNIFICANT = 0.05


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule of thumb and how the data meet it."""

    rule: str
    needed: float
    found: float

    @property
    def met(self) -> bool:
        """Whether there is enough."""
        return self.found >= self.needed


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A way out of too little data, and what it costs in security."""

    option: str
    security_cost: str


OPTIONS = (
    Option(
        option="collect more data",
        security_cost="each further source is another party that can poison it; more personal data are at stake.",
    ),
    Option(
        option="transfer: start from a model trained by others",
        security_cost="takes over its backdoors and flaws; attacks built on the public parent carry over.",
    ),
    Option(
        option="augmentation: vary the records you have",
        security_cost="a poisoned record is multiplied too, and copies may leak across splits.",
    ),
    Option(
        option="synthetic data",
        security_cost="shows only what its generator knows, may repeat records it was fitted to, and hides rare cases.",
    ),
    Option(
        option="frugal algorithm: a simpler model or fewer features",
        security_cost="none of its own; fewer features are also fewer to tamper with. Accuracy may suffer.",
    ),
)
"""Advice for sets that are too small."""


def measure(exam: Examination) -> Measure:
    """Rules of thumb, learning curve, and what to do when there is too little."""
    sample = exam.sample
    rules = _rules(exam)
    curve = learning_curve(exam)
    unmet = [rule for rule in rules if not rule.met]
    rising = bool(curve and curve["stillRising"])
    findings = []
    if unmet:
        findings.append(
            finding(
                sample,
                "too-few-records",
                Severity.LOW,
                title=f"too few records by {count(len(unmet), 'rule')} of thumb",
                detail="; ".join(f"{rule.rule}: {rule.found:g} of {rule.needed:g}" for rule in unmet)
                + ". A model that fits few records closely remembers them, and gives them away."
                + (" More data would still help: the learning curve rises." if rising else ""),
                remedy="; ".join(option.option for option in OPTIONS)
                + ": the report says what each costs in security.",
                techniques=("T35",),
            )
        )
    records = float(len(sample))
    return Measure(
        name="size",
        dimension="size",
        method="Rules of thumb, and out-of-fold accuracy of a small classifier learnt from growing shares of the data.",
        examined=len(rules),
        faults=len(unmet),
        metrics={
            "rows": metric(records, Interval(records, records), len(sample), "counted", unit="records"),
        },
        details={
            "rules": [{**msgspec.to_builtins(rule), "met": rule.met} for rule in rules],
            "learningCurve": curve,
            "options": msgspec.to_builtins(OPTIONS) if unmet or rising else [],
        },
        findings=tuple(findings),
    )


def _rules(exam: Examination) -> list[Rule]:
    sample = exam.sample
    counts = np.bincount(sample.labels[sample.labels >= 0], minlength=sample.classes)
    smallest = int(counts.min()) if len(counts) else 0
    if sample.part.split == "train":
        return [
            Rule(
                rule="records of the smallest class per feature",
                needed=PER_FEATURE,
                found=round(smallest / len(sample.columns), 2),
            ),
            Rule(rule="records of each class", needed=PER_CLASS, found=smallest),
        ]
    return [
        Rule(rule="records to know an accuracy of 90 % to 3 points", needed=records_for_accuracy(), found=len(sample)),
        Rule(rule="records of each class", needed=PER_CLASS, found=smallest),
    ]


def records_for_accuracy(accuracy: float = EVALUATED_ACCURACY, within: float = EVALUATED_WITHIN) -> int:
    """Fewest records whose Wilson interval of ``accuracy`` reaches no further than ``within`` down."""
    needed = 1
    while accuracy - wilson(round(accuracy * needed), needed).low > within:
        needed += 1
    return needed


def learning_curve(exam: Examination) -> dict[str, Any] | None:
    """Accuracy on held-out folds when learning from growing shares; None when a class is too small.

    ``stillRising`` compares the last doubling on the same held-out records (exact sign test).
    """
    if not exam.encoder.dimensions or exam.sample.classes <= 1 or len(exam.judged) < exam.sample.classes:
        return None
    rng = exam.rng("learning-curve")
    used = np.sort(rng.permutation(len(exam.labels))[:CURVE_ROWS])
    points, labels, blocks = exam.points[used], exam.labels[used], exam.blocks[used]
    folds = fold_of(labels, blocks, rng)
    right = np.zeros((len(SHARES), len(used)), np.bool_)
    learnt = np.zeros(len(SHARES), np.int64)
    for fold in range(FOLDS):
        others = rng.permutation(np.flatnonzero(folds != fold))
        held = folds == fold
        for step, share in enumerate(SHARES):
            some = others[: max(2, round(share * len(others)))]
            guess = predict(points[some], labels[some], points[held], exam.sample.classes).argmax(axis=1)
            right[step, held] = guess == labels[held]
            learnt[step] += len(some)
    return _curve(right, learnt // FOLDS)


def _curve(right: np.ndarray[Any, np.dtype[np.bool_]], learnt: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, Any]:
    steps = []
    for size, hits in zip(learnt.tolist(), right, strict=True):
        accuracy = proportion(int(hits.sum()), len(hits)).metric("share")
        steps.append({"records": size, "accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high})
    gained, lost = int((right[-1] & ~right[-2]).sum()), int((right[-2] & ~right[-1]).sum())
    chance = float(scipy.stats.binomtest(gained, gained + lost, alternative="greater").pvalue) if gained + lost else 1.0
    return {"steps": steps, "stillRising": chance < SIGNIFICANT, "chance": float(f"{chance:.3g}")}
