"""Completeness: how many cells and labels are empty, and where."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.data.examination import Examination
from bartizan.lifecycle.develop.data.measure import Measure, count, counted, finding, names, records
from bartizan.lifecycle.develop.data.reading import ABSENT, MISSING_WORDS, Sample

TOLERATED = 0.05
"""Share of empty cells in one column above which the finding is more than a note."""


def measure(exam: Examination) -> Measure:
    """Empty cells by column, and records without a label. Exact."""
    sample = exam.sample
    missing = sample.missing
    unlabelled = sample.labels == ABSENT
    by_column = missing.sum(axis=0)
    empty = int(by_column.sum() + unlabelled.sum())
    cells = missing.size + len(sample)
    return Measure(
        name="completeness",
        dimension="completeness",
        method=f"Counted: cells that are blank or say {', '.join(sorted(filter(None, MISSING_WORDS)))}; the label too.",
        examined=cells,
        faults=empty,
        metrics={"completeness": counted(cells - empty, cells)},
        records=records(np.flatnonzero(missing.any(axis=1) | unlabelled)),
        details={
            "emptyByColumn": {sample.columns[place]: int(by_column[place]) for place in np.flatnonzero(by_column)},
            "unlabelled": int(unlabelled.sum()),
        },
        findings=(*_gaps(sample, by_column), *_no_label(sample, unlabelled)),
    )


def _gaps(sample: Sample, by_column: NDArray[np.int64]) -> tuple[Finding, ...]:
    worst_first = [place for place in np.argsort(-by_column, kind="stable").tolist() if by_column[place]]
    if not worst_first:
        return ()
    serious = by_column.max() > TOLERATED * len(sample)
    return (
        finding(
            sample,
            "missing-cells",
            Severity.MEDIUM if serious else Severity.LOW,
            title=f"{count(int(by_column.sum()), 'cell')} empty in {count(len(worst_first), 'column')}",
            detail=f"Columns: {names(sample.columns[place] for place in worst_first)}. "
            "What a model makes of a gap, an adversary can ask for by leaving one.",
            remedy="record the values, or state how gaps are filled and apply the same rule at the gateway.",
        ),
    )


def _no_label(sample: Sample, unlabelled: NDArray[np.bool_]) -> tuple[Finding, ...]:
    if not unlabelled.any():
        return ()
    return (
        finding(
            sample,
            "missing-labels",
            Severity.MEDIUM,
            title=f"{count(int(unlabelled.sum()), 'record')} without a label",
            detail=f"{str(records(np.flatnonzero(unlabelled))).capitalize()}.",
            remedy="label them or take them out of the set.",
        ),
    )
