"""Consistency of entities: what cannot change about one of them is the same in all its records."""

from __future__ import annotations

import numpy as np

from bartizan.core.finding import Severity
from bartizan.lifecycle.develop.data.encoding import declared_places
from bartizan.lifecycle.develop.data.examination import Examination
from bartizan.lifecycle.develop.data.measure import Measure, NotMeasured, count, counted, finding, names, records


def measure(exam: Examination) -> Measure | NotMeasured:
    """Records of one declared group that differ in a column declared immutable. Exact."""
    sample = exam.sample
    places = declared_places(sample.columns, sample.part.immutable)
    if not sample.groups or not places:
        return NotMeasured(name="entities", reason="needs a declared group column and an immutable one")
    _, group = np.unique(sample.groups, return_inverse=True)
    contradicting = np.zeros(len(sample), np.bool_)
    columns = []
    for place in places:
        values = sample.rows[:, place]
        present = ~np.isnan(values)
        low, high = np.full(group.max() + 1, np.inf), np.full(group.max() + 1, -np.inf)
        np.minimum.at(low, group[present], values[present])
        np.maximum.at(high, group[present], values[present])
        split = (low < high)[group] & present
        if split.any():
            columns.append(sample.columns[place])
        contradicting |= split
    findings = []
    if columns:
        findings.append(
            finding(
                sample,
                "inconsistent-entity",
                Severity.LOW,
                title=f"{count(int(contradicting.sum()), 'record')} contradict others of their {sample.part.group!r}",
                detail=f"Columns: {names(columns)}; {records(np.flatnonzero(contradicting))}.",
                remedy="correct the records, or do not declare the column immutable.",
            )
        )
    return Measure(
        name="entities",
        dimension="consistency",
        method=f"Counted: records of one {sample.part.group!r} with different values in an immutable column.",
        examined=len(sample),
        faults=int(contradicting.sum()),
        metrics={"entity_consistency": counted(len(sample) - int(contradicting.sum()), len(sample))},
        records=records(np.flatnonzero(contradicting)),
        details={"columns": columns},
        findings=tuple(findings),
    )
