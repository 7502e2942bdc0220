"""Leakage: records, near copies and groups that stand on both sides of a split."""

from __future__ import annotations

import msgspec
import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.core.finding import Finding, Severity
from bartizan.lifecycle.develop.data.duplicates import LEAST_DIMENSIONS, near_reach
from bartizan.lifecycle.develop.data.examination import MAX_POINTS, Examination, copy_numbers
from bartizan.lifecycle.develop.data.measure import Measure, NotMeasured, count, finding, records, shared
from bartizan.lifecycle.develop.data.reading import Sample

TOLERATED = 0.01
"""Share of a set that may be known from another one before the finding is serious."""
UNSPLIT = "reference"
"""A reference for drift may well be taken from the training data."""


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """What this dataset has in common with another one."""

    dataset: str
    exact: int
    """Records that are there too, to the last bit."""
    near: int
    """Further records that have a near copy there."""
    grouped: int
    """Records whose group is there too."""


def measure(exam: Examination) -> Measure | NotMeasured:
    """Share of this set's records that are known from a set on the other side of a split."""
    comparable = [other for other in exam.siblings if other.columns == exam.sample.columns]
    splits = {exam.sample.part.split, UNSPLIT}
    apart = [other for other in comparable if other.part.split not in splits]
    if exam.sample.part.split == UNSPLIT or not apart:
        return NotMeasured(name="leakage", reason="no other split with the same columns is declared")
    known = np.zeros(len(exam.sample), np.bool_)
    overlaps, findings = [], list[Finding]()
    for other in apart:
        exact, near, grouped = _exact(exam, other), _near(exam, other), _grouped(exam.sample, other)
        near &= ~exact
        known |= exact | near | grouped
        overlaps.append(_overlap(other, exact, near, grouped))
        findings.extend(_findings(exam.sample, other, exact, near, grouped))
    return Measure(
        name="leakage",
        dimension="integrity",
        method="Equal features, near copies (as in near-duplicates), and declared groups shared with each other split.",
        examined=len(exam.sample),
        faults=int(known.sum()),
        metrics={"leakage_share": shared(int(known.sum()), len(exam.sample), sampled=exam.sampled)},
        records=records(np.flatnonzero(known)),
        details={
            "overlaps": msgspec.to_builtins(overlaps),
            "notCompared": [other.part.name for other in exam.siblings if other not in comparable],
            "sampled": exam.sampled,
        },
        findings=tuple(findings),
    )


def _overlap(other: Sample, exact: NDArray[np.bool_], near: NDArray[np.bool_], grouped: NDArray[np.bool_]) -> Overlap:
    return Overlap(
        dataset=other.part.name,
        exact=int(exact.sum()),
        near=int(near.sum()),
        grouped=int(grouped.sum()),
    )


def _exact(exam: Examination, other: Sample) -> NDArray[np.bool_]:
    """``(records,)``: which records the other set holds too."""
    numbers = copy_numbers(exam.sample.rows, other.rows)
    return np.isin(numbers[: len(exam.sample)], numbers[len(exam.sample) :])


def _near(exam: Examination, other: Sample) -> NDArray[np.bool_]:
    """``(records,)``: which of the chosen records have a near copy in (a sample of) the other set."""
    near = np.zeros(len(exam.sample), np.bool_)
    if exam.encoder.dimensions < LEAST_DIMENSIONS or len(exam.chosen) < LEAST_DIMENSIONS:
        return near
    _, single = np.unique(exam.copies[exam.chosen], return_index=True)
    if len(single) < LEAST_DIMENSIONS:
        return near
    reach = near_reach(exam.points[single], exam.rng("near-duplicates"))
    theirs = other.rows
    if len(theirs) > MAX_POINTS:
        theirs = theirs[exam.rng(f"leakage {other.part.name}").choice(len(theirs), MAX_POINTS, replace=False)]
    distances, _ = scipy.spatial.cKDTree(exam.encoder.points(theirs)).query(
        exam.points, k=1, p=np.inf, distance_upper_bound=np.nextafter(reach, np.inf)
    )
    near[exam.chosen[np.isfinite(distances)]] = True
    return near


def _grouped(sample: Sample, other: Sample) -> NDArray[np.bool_]:
    """``(records,)``: which records belong to a group that the other set has records of."""
    if not sample.groups or not other.groups:
        return np.zeros(len(sample), np.bool_)
    theirs = set(other.groups) - {""}
    return np.array([group in theirs for group in sample.groups], np.bool_)


def _findings(
    sample: Sample, other: Sample, exact: NDArray[np.bool_], near: NDArray[np.bool_], grouped: NDArray[np.bool_]
) -> list[Finding]:
    kinds = (
        ("leakage", exact, "holds", "remove them from one of the two sets and measure the model again."),
        ("near-leakage", near, "holds near copies of", "remove the copies from one of the two sets and measure again."),
        ("group-overlap", grouped, "holds groups of", "split by group, so that each is on one side only."),
    )
    found = []
    for rule, mask, verb, remedy in kinds:
        number = int(mask.sum())
        known = f"{count(number, 'record')} ({number / len(sample):.1%})"
        if number:
            severity = Severity.HIGH if number > TOLERATED * len(sample) else Severity.MEDIUM
            found.append(
                finding(
                    sample,
                    rule,
                    severity,
                    title=f"dataset {other.part.name!r} {verb} {known} of this one",
                    detail=f"{str(records(np.flatnonzero(mask))).capitalize()}. Measuring on them proves nothing.",
                    remedy=remedy,
                )
            )
    return found
