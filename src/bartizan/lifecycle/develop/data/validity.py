"""Validity: whether cells hold what the declaration says they may hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.data.encoding import declared_places
from bartizan.lifecycle.develop.data.examination import Examination
from bartizan.lifecycle.develop.data.measure import Measure, count, counted, finding, names, records
from bartizan.lifecycle.develop.data.reading import Sample

TRAINING = "train"


def measure(exam: Examination) -> Measure:
    """Cells that break a declared rule, by rule and column. Exact; an empty cell breaks none."""
    sample = exam.sample
    broken = {rule: test(exam) for rule, test in RULES.items()}
    wrong = np.logical_or.reduce(list(broken.values()))
    faults = int(wrong.sum()) + len(sample.ragged)
    concerned = wrong.any(axis=1)
    concerned[sample.ragged] = True
    findings = [_finding(sample, rule, cells) for rule, cells in broken.items() if cells.any()]
    return Measure(
        name="validity",
        dimension="validity",
        method="Counted: finite numbers, declared ranges, declared whole numbers, and categories as codes or one-hot.",
        examined=wrong.size,
        faults=faults,
        metrics={"validity": counted(max(0, wrong.size - faults), wrong.size)},
        records=records(np.flatnonzero(concerned)),
        details={
            "byRule": {
                rule: {sample.columns[place]: int(cells[:, place].sum()) for place in np.flatnonzero(cells.any(axis=0))}
                for rule, cells in broken.items()
                if cells.any()
            },
            "raggedRecords": len(sample.ragged),
        },
        findings=(*findings, *_layout(sample)),
    )


def _unreadable(exam: Examination) -> NDArray[np.bool_]:
    cells = np.zeros(exam.sample.rows.shape, np.bool_)
    cells[exam.sample.unreadable[:, 0], exam.sample.unreadable[:, 1]] = True
    return cells


def _out_of_range(exam: Examination) -> NDArray[np.bool_]:
    rows, part = exam.sample.rows, exam.sample.part
    cells = np.zeros(rows.shape, np.bool_)
    if part.shape and part.value_range:
        low, high = part.value_range
        return np.asarray((rows < low) | (rows > high))
    for place, column in enumerate(exam.sample.columns):
        if column in part.ranges:
            low, high = part.ranges[column]
            cells[:, place] = (rows[:, place] < low) | (rows[:, place] > high)
    return cells


def _not_whole(exam: Examination) -> NDArray[np.bool_]:
    rows = exam.sample.rows
    cells = np.zeros(rows.shape, np.bool_)
    places = declared_places(exam.sample.columns, exam.sample.part.integer)
    cells[:, places] = ~np.isnan(rows[:, places]) & (rows[:, places] != np.rint(rows[:, places]))
    return cells


def _not_one_hot(exam: Examination) -> NDArray[np.bool_]:
    """One-hot columns that hold something else than 0 and 1, or more than a single 1."""
    sample = exam.sample
    cells = np.zeros(sample.rows.shape, np.bool_)
    for name in sample.part.categorical:
        places = declared_places(sample.columns, (name,))
        if name in sample.columns or not places:
            continue
        values = sample.rows[:, places]
        wrong = ~np.isnan(values) & (values != 0) & (values != 1)
        twice = (values == 1).sum(axis=1, keepdims=True) > 1
        cells[:, places] = wrong | (twice & (values == 1))
    return cells


def _unknown_category(exam: Examination) -> NDArray[np.bool_]:
    """Codes that the declared training data never hold."""
    sample = exam.sample
    cells = np.zeros(sample.rows.shape, np.bool_)
    training = [other for other in exam.siblings if other.part.split == TRAINING and other.columns == sample.columns]
    if sample.part.split == TRAINING or not training:
        return cells
    for place, column in enumerate(sample.columns):
        if column in sample.part.categorical:
            known = np.unique(np.concatenate([other.rows[:, place] for other in training]))
            cells[:, place] = ~np.isnan(sample.rows[:, place]) & ~np.isin(sample.rows[:, place], known)
    return cells


RULES: dict[str, Callable[[Examination], NDArray[np.bool_]]] = {
    "not-a-number": _unreadable,
    "out-of-range": _out_of_range,
    "not-whole": _not_whole,
    "not-one-hot": _not_one_hot,
    "unknown-category": _unknown_category,
}
"""Rule to the cells ``(records, features)`` that break it."""

_TITLES = {
    "not-a-number": "hold something that is no finite number",
    "out-of-range": "lie outside the declared range",
    "not-whole": "hold fractions where whole numbers are declared",
    "not-one-hot": "break a one-hot category",
    "unknown-category": "hold categories that training never saw",
}


def _finding(sample: Sample, rule: str, cells: NDArray[np.bool_]) -> Finding:
    columns = names(sample.columns[place] for place in np.flatnonzero(cells.any(axis=0)))
    return finding(
        sample,
        rule,
        Severity.MEDIUM,
        title=f"{count(int(cells.sum()), 'cell')} {_TITLES[rule]}",
        detail=f"Columns: {columns}; {records(np.flatnonzero(cells.any(axis=1)))}.",
        remedy="correct or remove these records; if the values are right, correct the declaration.",
        techniques=("T23",) if rule == "out-of-range" else (),
    )


def _layout(sample: Sample) -> list[Finding]:
    """Faults of the file as a whole: ragged records, and declared columns that it has not."""
    found = []
    if len(sample.ragged):
        found.append(
            finding(
                sample,
                "ragged-records",
                Severity.HIGH,
                title=f"{count(len(sample.ragged), 'record')} with too few or too many cells",
                detail=f"{str(records(sample.ragged)).capitalize()}; their values may stand in the wrong columns.",
                remedy="write the file again from its source.",
            )
        )
    declared = {*sample.part.integer, *sample.part.categorical, *sample.part.immutable, *sample.part.ranges}
    declared |= sample.part.dependent.keys()
    unknown = sorted(name for name in declared if not declared_places(sample.columns, (name,)))
    if sample.part.group and not sample.groups:
        unknown.append(sample.part.group)
    if unknown:
        found.append(
            finding(
                sample,
                "unknown-column",
                Severity.MEDIUM,
                title=f"{count(len(unknown), 'declared column')} not in the file",
                detail=f"Declared: {names(unknown)}. Whatever is declared of them protects nothing.",
                remedy="correct the names in the declaration or in the file's header.",
            )
        )
    return found
