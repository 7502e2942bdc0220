"""Sources: whether evaluation data come from elsewhere than the training data."""

from __future__ import annotations

import numpy as np

from bartizan.core.finding import Finding, Severity
from bartizan.core.system import Provenance
from bartizan.lifecycle.develop.data.examination import Examination
from bartizan.lifecycle.develop.data.measure import Measure, NotMeasured, counted, finding

LIMIT = 0.5
"""Share of evaluation records from a source of the training data above which there is a finding."""
EVALUATION = ("validation", "holdout")


def measure(exam: Examination) -> Measure | NotMeasured:
    """Share of the records whose source the training data have too, by declared provenance and group."""
    sample = exam.sample
    training = [other for other in exam.siblings if other.part.split == "train"]
    if sample.part.split not in EVALUATION or not training:
        return NotMeasured(name="sources", reason="only an evaluation set beside a training set has a source overlap")
    same = [other.part.name for other in training if _source(other.part.provenance) == _source(sample.part.provenance)]
    trained_on = {group for other in training for group in other.groups} - {""}
    grouped = np.array([group in trained_on for group in sample.groups], np.bool_)
    overlap = len(sample) if same else int(grouped.sum())
    share = overlap / len(sample)
    findings: tuple[Finding, ...] = ()
    if share > LIMIT:
        findings = (
            finding(
                sample,
                "source-overlap",
                Severity.LOW,
                title=f"{share:.0%} of the records come from a source of the training data",
                detail="The same host and contributors are declared."
                if same
                else "Their groups are in the training data.",
                remedy="evaluate also on data that others collected: from within, a flaw of the source cannot be seen.",
                techniques=("T22",),
            ),
        )
    return Measure(
        name="sources",
        dimension="integrity",
        method="Same declared host, contributors and URL as training data: all records; else those of a shared group.",
        examined=len(sample),
        faults=overlap,
        metrics={"source_overlap": counted(overlap, len(sample))},
        details={"sameDeclaredSource": same, "sharedGroups": int(grouped.sum())},
        findings=findings,
    )


def _source(provenance: Provenance) -> tuple[str, ...]:
    return tuple(" ".join(text.lower().split()) for text in (provenance.host, provenance.contributors, provenance.url))
