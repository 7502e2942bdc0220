"""Outliers: records far from all others, and single cells far from their column.

A record's score is the logarithm of its mean distance to its nearest neighbours, in upper
deviations from the median. Were these logarithms normal above the median, one record in two
thousand would be flagged by chance; real data have longer tails (none to 1.1 % of the records of
four clean public sets are flagged), so an outlier is a record to look at, not one to delete.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.data.examination import Examination
from bartizan.lifecycle.develop.data.measure import Measure, NotMeasured, Records, count, estimated, finding, records

FALSE_ALARMS = 0.0005
"""Nominal share of ordinary records flagged by distance."""
NEIGHBOURS = 10
LEAST_RECORDS = 30
CELL_DEVIATIONS = 12.0
"""One-sided deviations from the median beyond which a single cell is flagged."""
ONE_SIGMA = NormalDist().cdf(1.0)
LEAST_DISTINCT = 20
"""Columns with fewer different values have no outlying cells."""


def measure(exam: Examination) -> Measure | NotMeasured:
    """Records that lie far away or hold a cell far from its column."""
    if len(exam.chosen) < LEAST_RECORDS or not exam.encoder.dimensions:
        return NotMeasured(name="outliers", reason=f"needs {LEAST_RECORDS} records and a column that varies")
    score = distance_scores(exam.neighbours.distances[:, :NEIGHBOURS])
    threshold = float(scipy.stats.norm.isf(FALSE_ALARMS))
    far_cells = _far_cells(exam.points[:, : len(exam.encoder.numeric)])
    cell = far_cells.max(axis=1, initial=0.0) / CELL_DEVIATIONS
    extent = np.maximum(score / threshold, cell)
    flagged = np.flatnonzero(extent > 1)
    by_column = (far_cells > CELL_DEVIATIONS).sum(axis=0)
    columns = [exam.sample.columns[place] for place in exam.encoder.numeric]
    farthest = records(exam.chosen[flagged], -extent[flagged])
    return Measure(
        name="outliers",
        dimension="validity",
        method=(
            f"Mean distance to {NEIGHBOURS} neighbours, as logarithm, more than {threshold:.2f} upper deviations above "
            f"the median (nominal false alarms {FALSE_ALARMS:.2%}); or a cell more than {CELL_DEVIATIONS:.0f} "
            "one-sided deviations from the median of its column."
        ),
        examined=len(exam.chosen),
        faults=len(flagged),
        metrics={"outlier_share": estimated(len(flagged), len(exam.chosen))},
        records=farthest,
        details={
            "sampled": exam.sampled,
            "neighboursAmong": len(exam.references),
            "byDistance": int((score > threshold).sum()),
            "farCellsByColumn": {columns[place]: int(by_column[place]) for place in np.flatnonzero(by_column)},
        },
        findings=_findings(exam, farthest),
    )


def _findings(exam: Examination, farthest: Records) -> tuple[Finding, ...]:
    if not farthest.count:
        return ()
    return (
        finding(
            exam.sample,
            "outliers",
            Severity.LOW,
            title=f"{count(farthest.count, 'record')} unlike all others",
            detail=f"Farthest: {farthest}.",
            remedy="look for slips, wrong units and planted records; keep what is real and say so in the card.",
            techniques=("T16",),
        ),
    )


def distance_scores(distances: NDArray[np.floating]) -> NDArray[np.float64]:
    """``(records,)``: upper deviations of the log mean distance from its median; ``distances`` ``(records, k)``."""
    finite = np.where(np.isfinite(distances), distances, np.nan)
    mean = np.nanmean(finite, axis=1) if finite.size else np.zeros(len(finite))
    positive = mean[mean > 0]
    floor = positive.min() if len(positive) else 1.0
    logs = np.log(np.maximum(mean, floor))
    return _one_sided(logs[:, None])[:, 0]


def _far_cells(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(records, columns)``: deviations from the median on the cell's own side; 0 in columns of few values."""
    below = _one_sided(-points)
    above = _one_sided(points)
    distinct = np.array([len(np.unique(column)) for column in points.T])
    return np.where(distinct >= LEAST_DISTINCT, np.maximum(below, above), 0.0)


def _one_sided(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance above the median of each column, in units of what 84 % of the column stay within."""
    median, reach = np.quantile(values, (0.5, ONE_SIGMA), axis=0)
    width = reach - median
    return np.where(width > 0, (values - median) / np.where(width > 0, width, 1.0), 0.0)
