"""Timeliness: the latest year that the declaration gives for the collection. Declared, never measured."""

from __future__ import annotations

import re

from bartizan.core.finding import Severity
from bartizan.lifecycle.develop.data.examination import Examination
from bartizan.lifecycle.develop.data.measure import Measure, finding
from bartizan.redteam.statistics import Interval, metric

_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")


def measure(exam: Examination) -> Measure:
    """The latest year named in ``provenance.collected``."""
    sample = exam.sample
    years = sorted(int(year) for year in _YEAR.findall(sample.part.provenance.collected))
    latest = float(years[-1]) if years else 0.0
    undated = finding(
        sample,
        "undated",
        Severity.LOW,
        title="the declaration does not say when the data were collected",
        detail="Without a date nobody can tell whether they still describe the world that the model meets.",
        remedy="name at least the year in `provenance.collected`.",
    )
    return Measure(
        name="timeliness",
        dimension="timeliness",
        method="Declared, not measured: the latest year named in `provenance.collected`.",
        examined=1,
        faults=0 if years else 1,
        metrics={"collected_until": metric(latest, Interval(latest, latest), 1, "declared", unit="year")}
        if years
        else {},
        details={"declared": sample.part.provenance.collected},
        findings=() if years else (undated,),
    )
