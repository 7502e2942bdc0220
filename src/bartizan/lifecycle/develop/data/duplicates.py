"""Copies: records that come twice, nearly twice, or twice with different labels."""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.core.finding import Severity
from bartizan.lifecycle.develop.data.examination import Examination
from bartizan.lifecycle.develop.data.measure import Measure, NotMeasured, count, counted, finding, records, shared
from bartizan.lifecycle.develop.data.reading import ABSENT
from bartizan.targets.protocol import Rows

NEAR = 0.05
"""Largest difference in any coordinate, in deviations, between near duplicates."""
CLOSE_SHARE = 0.1
"""Near duplicates are also this much closer than nine in ten records are to their neighbour."""
PROBES = 500
"""Records that the usual distance to a neighbour is learnt from."""
LEAST_DIMENSIONS = 3
"""With fewer, chance alone puts records that close together."""
TOLERATED = 0.01
"""Share of duplicates above which the finding is more than a note."""
POISON = ("T16", "T17")


def measure_exact(exam: Examination) -> Measure:
    """Records whose features equal those of an earlier record, to the last bit. Exact."""
    sample = exam.sample
    _, first = np.unique(exam.copies, return_index=True)
    repeats = np.setdiff1d(np.arange(len(sample)), first)
    findings = []
    if len(repeats):
        share = len(repeats) / len(sample)
        findings.append(
            finding(
                sample,
                "duplicates",
                Severity.MEDIUM if share > TOLERATED else Severity.LOW,
                title=f"{count(len(repeats), 'record')} ({share:.1%}) repeat an earlier one",
                detail=f"{str(records(repeats)).capitalize()}. A repeated record counts more than the others, "
                "and a copy across a split makes a measurement look better than it is.",
                remedy="find out where the copies come from; keep one of each unless they are real repetitions.",
                techniques=POISON if share > TOLERATED else (),
            )
        )
    return Measure(
        name="duplicates",
        dimension="consistency",
        method="Counted: records whose features are equal to the last bit, after the first of each.",
        examined=len(sample),
        faults=len(repeats),
        metrics={"duplicate_share": counted(len(repeats), len(sample))},
        records=records(repeats),
        findings=tuple(findings),
    )


def measure_near(exam: Examination) -> Measure | NotMeasured:
    """Records that lie next to another one that is not equal to them."""
    name = "near-duplicates"
    if exam.encoder.dimensions < LEAST_DIMENSIONS:
        return NotMeasured(name=name, reason=f"fewer than {LEAST_DIMENSIONS} columns vary; chance makes neighbours")
    _, single = np.unique(exam.copies[exam.chosen], return_index=True)
    if len(single) < LEAST_DIMENSIONS:
        return NotMeasured(name=name, reason="fewer than three different records")
    points = exam.points[single]
    reach = near_reach(points, exam.rng(name))
    near = exam.chosen[single[_has_neighbour(points, reach)]]
    share = len(near) / len(single)
    findings = []
    if len(near):
        findings.append(
            finding(
                exam.sample,
                name,
                Severity.MEDIUM if share > TOLERATED else Severity.LOW,
                title=f"{count(len(near), 'record')} ({share:.1%}) almost repeat another one",
                detail=f"{str(records(near)).capitalize()}: no coordinate differs by more than {reach:.3g} deviations.",
                remedy="find out whether they are jittered or rounded copies; keep copies on one side of every split.",
                techniques=POISON if share > TOLERATED else (),
            )
        )
    return Measure(
        name=name,
        dimension="consistency",
        method=(
            f"Another, unequal record within {reach:.3g} deviations in every coordinate: the smaller of {NEAR} and a "
            "tenth of the distance below which nine in ten records have their nearest neighbour."
        ),
        examined=len(single),
        faults=len(near),
        metrics={"near_duplicate_share": shared(len(near), len(single), sampled=exam.sampled)},
        records=records(near),
        details={"reach": round(reach, 6), "sampled": exam.sampled},
        findings=tuple(findings),
    )


def near_reach(points: Rows, rng: np.random.Generator) -> float:
    """How close, in the largest coordinate difference, records must lie to count as nearly equal."""
    probes = rng.permutation(len(points))[:PROBES]
    distances = np.asarray(scipy.spatial.cKDTree(points).query(points[probes], k=2, p=np.inf)[0])
    usual = np.quantile(distances[:, 1], 0.9)
    return float(min(NEAR, CLOSE_SHARE * usual))


def _has_neighbour(points: Rows, reach: float) -> NDArray[np.bool_]:
    """``(records,)``: which points, all different, have another one within ``reach``."""
    distances = np.asarray(
        scipy.spatial.cKDTree(points).query(points, k=2, p=np.inf, distance_upper_bound=np.nextafter(reach, np.inf))[0]
    )
    found: NDArray[np.bool_] = np.isfinite(distances[:, 1])
    return found


def measure_conflicts(exam: Examination) -> Measure:
    """Records with equal features and different labels: at least one label is wrong, or something is not recorded."""
    sample = exam.sample
    labelled = np.flatnonzero(sample.labels != ABSENT)
    _, place = np.unique(exam.copies[labelled], return_inverse=True)
    pairs = np.unique(np.stack([place, sample.labels[labelled]]), axis=1)
    different = np.bincount(pairs[0], minlength=int(place.max(initial=-1)) + 1) > 1
    conflicting = labelled[different[place]]
    findings = []
    if len(conflicting):
        findings.append(
            finding(
                sample,
                "conflicting-labels",
                Severity.MEDIUM,
                title=f"{count(len(conflicting), 'record')} equal to another one with a different label",
                detail=f"{str(records(conflicting)).capitalize()}.",
                remedy="look at their sources and decide each label; no model can satisfy both.",
                techniques=("T21", *POISON),
            )
        )
    return Measure(
        name="conflicts",
        dimension="consistency",
        method="Counted: records that agree in every feature with a record of another label.",
        examined=len(labelled),
        faults=len(conflicting),
        metrics={"conflict_share": counted(len(conflicting), len(labelled))},
        records=records(conflicting),
        findings=tuple(findings),
    )
