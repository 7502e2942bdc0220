"""Columns that carry nothing, carry the same twice, or give the label away."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bartizan.core.digest import digest_bytes
from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.data.examination import Examination
from bartizan.lifecycle.develop.data.measure import Measure, count, counted, finding, names
from bartizan.lifecycle.develop.data.reading import Sample
from bartizan.redteam.statistics import wilson

BINS = 64
"""Intervals of equal frequency that a column is cut into to predict the label."""
GIVES_AWAY = 0.99
"""Share of labels predicted by one column alone, averaged over the classes, that is too good."""
LOWEST = float(np.finfo(np.float64).min)
"""Stands for a gap, so that gaps can give a label away too."""
LEAST_LOW = 0.95
"""The lower end of its interval must lie above this."""
LEAST_RECORDS = 150


def measure(exam: Examination) -> Measure:
    """Constant columns, repeated columns, and columns that predict the label almost perfectly by themselves."""
    sample = exam.sample
    constant = [name for name, values in zip(sample.columns, sample.rows.T, strict=True) if _is_constant(values)]
    repeated = repeated_columns(sample)
    leaks = label_leaks(exam)
    wrong = {*constant, *repeated, *leaks}
    return Measure(
        name="columns",
        dimension="consistency",
        method=(
            f"Equal up to a linear map, or constant; label predicted from {BINS} intervals of one column learnt on one "
            f"half and judged on the other: mean recall of at least {GIVES_AWAY}."
        ),
        examined=len(sample.columns),
        faults=len(wrong),
        metrics={"useful_columns": counted(len(sample.columns) - len(wrong), len(sample.columns))},
        details={"constant": constant, "repeated": repeated, "givesLabelAway": leaks},
        findings=tuple(_findings(sample, constant, repeated, leaks)),
    )


def _findings(
    sample: Sample, constant: list[str], repeated: dict[str, str], leaks: dict[str, float]
) -> Iterator[Finding]:
    if constant:
        yield finding(
            sample,
            "constant-column",
            Severity.LOW,
            title=f"{count(len(constant), 'column')} without variation",
            detail=f"Columns: {names(constant)}. A model learns nothing of them; another value is unknown ground.",
            remedy="leave them out of the features, or refuse other values at the gateway.",
        )
    if repeated:
        yield finding(
            sample,
            "repeated-column",
            Severity.LOW,
            title=f"{count(len(repeated), 'column')} equal to another one",
            detail=f"Columns: {names(f'{name} (as {first})' for name, first in repeated.items())}.",
            remedy="keep one of each; the others only widen what can be tampered with.",
        )
    if leaks:
        yield finding(
            sample,
            "target-leak",
            Severity.MEDIUM,
            title=f"the label can be told from {count(len(leaks), 'column')} alone",
            detail=f"Columns: {names(leaks)}. They may be derived from the label, or known only after the fact.",
            remedy="make sure each is known at the moment of prediction; if not, remove it and measure again.",
            techniques=("T23",),
        )


def _is_constant(values: NDArray[np.float64]) -> bool:
    present = values[~np.isnan(values)]
    return not len(present) or bool((present == present[0]).all())


def repeated_columns(sample: Sample) -> dict[str, str]:
    """Column to an earlier one that it equals, exactly or up to a linear map."""
    firsts: dict[str, str] = {}
    repeated = {}
    for name, values in zip(sample.columns, sample.rows.T, strict=True):
        if _is_constant(values):
            continue
        shape = _shape(values)
        if shape in firsts:
            repeated[name] = firsts[shape]
        firsts.setdefault(shape, name)
    return repeated


def _shape(values: NDArray[np.float64]) -> str:
    """A digest that stays the same under linear maps of the column."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        centred = values - np.nanmin(values)
        unit = centred / np.nanmax(centred)
    rising = unit if unit[~np.isnan(unit)][:1] < 0.5 else 1 - unit  # noqa: PLR2004 - a falling map is turned round
    return digest_bytes(np.where(np.isnan(rising), np.nan, np.round(rising, 9) + 0.0).tobytes())


def label_leaks(exam: Examination) -> dict[str, float]:
    """Columns that predict the label almost perfectly by themselves, with the mean recall they reach."""
    labels, classes = exam.labels, exam.sample.classes
    if classes <= 1 or len(labels) < LEAST_RECORDS:
        return {}
    order = exam.rng("columns").permutation(len(labels))
    learn, judge = order[::2], order[1::2]
    leaks = {}
    for place, name in enumerate(exam.sample.columns):
        values = np.nan_to_num(exam.sample.rows[exam.chosen, place], nan=LOWEST)
        recall, low = _single_column_recall(values, labels, learn, judge, classes)
        if recall >= GIVES_AWAY and low >= LEAST_LOW:
            leaks[name] = round(recall, 4)
    return leaks


def _single_column_recall(
    values: NDArray[np.float64],
    labels: NDArray[np.int64],
    learn: NDArray[np.int64],
    judge: NDArray[np.int64],
    classes: int,
) -> tuple[float, float]:
    """Mean recall over the classes, and the lower end of the interval of the share predicted."""
    steps = np.unique(np.quantile(values[learn], np.linspace(0, 1, BINS + 1), method="nearest"))
    edges = steps[:-1] / 2 + steps[1:] / 2
    table = np.zeros((len(edges) + 1, classes), np.int64)
    np.add.at(table, (np.searchsorted(edges, values[learn], side="right"), labels[learn]), 1)
    right = table.argmax(axis=1)[np.searchsorted(edges, values[judge], side="right")] == labels[judge]
    present = np.unique(labels[judge])
    recall = float(np.mean([right[labels[judge] == label].mean() for label in present]))
    return recall, wilson(int(right.sum()), len(judge)).low
