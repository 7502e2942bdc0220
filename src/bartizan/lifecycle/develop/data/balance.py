"""Balance: how unequal the classes are, and which are missing altogether."""

from __future__ import annotations

from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.data.examination import Examination
from bartizan.lifecycle.develop.data.measure import Measure, NotMeasured, finding, names
from bartizan.lifecycle.develop.data.profile import label_counts
from bartizan.lifecycle.develop.data.reading import Sample
from bartizan.redteam.statistics import Interval, metric

LEAST = 0.1
"""Smallest over largest class below which the imbalance is a finding."""


def measure(exam: Examination) -> Measure | NotMeasured:
    """Smallest class over largest class, as counted (counts of personal data in steps of five)."""
    sample = exam.sample
    counts = label_counts(sample)
    if not counts:
        return NotMeasured(name="balance", reason="no record has a label")
    total, smallest, largest = sum(counts.values()), min(counts.values()), max(counts.values())
    share = smallest / largest if largest else 0.0
    absent = sorted({value for other in exam.siblings for value in other.label_values} - set(counts))
    return Measure(
        name="balance",
        dimension="balance",
        method="Counted: records of the smallest class over records of the largest.",
        examined=total,
        faults=len(absent),
        metrics={"balance": metric(share, Interval(share, share), total, "counted", unit="ratio")},
        details={"labels": counts, "imbalanceRatio": round(1 / share, 4) if share else None},
        findings=(*_imbalance(sample, counts, share), *_missing_class(sample, counts, absent)),
    )


def _imbalance(sample: Sample, counts: dict[str, int], share: float) -> tuple[Finding, ...]:
    if len(counts) == 1 or share >= LEAST:
        return ()
    smallest = min(counts, key=lambda value: counts[value])
    times = f"{1 / share:.0f} times" if share else "many times"
    return (
        finding(
            sample,
            "class-imbalance",
            Severity.LOW,
            title=f"the largest class has {times} the records of the smallest",
            detail=f"Smallest: {smallest!r}. A few poisoned records weigh most there, and accuracy says little of it.",
            remedy="collect more of it, and judge the model by class: recall, not accuracy alone.",
        ),
    )


def _missing_class(sample: Sample, counts: dict[str, int], absent: list[str]) -> tuple[Finding, ...]:
    if len(counts) > 1 and not absent:
        return ()
    return (
        finding(
            sample,
            "missing-class",
            Severity.MEDIUM,
            title=f"no record of {names(map(repr, absent))}" if absent else "only one class is present",
            detail="What is missing here cannot be learnt or measured.",
            remedy="draw the split again so that every class is on both sides.",
        ),
    )
