"""The check ``data.quality``: every measure on every declared dataset, as one assessment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from bartizan.core.check import Blob, Context, Outcome
from bartizan.core.digest import Digest, canonical_json
from bartizan.core.finding import Finding, worst_first
from bartizan.core.predicates import ASSESSMENT, Assessment, Metric
from bartizan.core.system import Artefact, DatasetPart, System, settings_digest
from bartizan.lifecycle.develop.data import (
    balance,
    columns,
    completeness,
    duplicates,
    entities,
    label_noise,
    leakage,
    outliers,
    size,
    sources,
    timeliness,
    triggers,
    validity,
)
from bartizan.lifecycle.develop.data.examination import MAX_POINTS, REFERENCES, Examination
from bartizan.lifecycle.develop.data.measure import Measure, NotMeasured, count
from bartizan.lifecycle.develop.data.profile import Profile, profile
from bartizan.lifecycle.develop.data.reading import Sample, read_sample
from bartizan.targets.table import MAX_BYTES, MAX_CELLS, MAX_CLASSES, MAX_COLUMNS

NAME = "data.quality"

MEASURES: tuple[Callable[[Examination], Measure | NotMeasured], ...] = (
    completeness.measure,
    validity.measure,
    duplicates.measure_exact,
    duplicates.measure_near,
    duplicates.measure_conflicts,
    entities.measure,
    balance.measure,
    timeliness.measure,
    columns.measure,
    leakage.measure,
    sources.measure,
    size.measure,
    outliers.measure,
    triggers.measure,
    label_noise.measure,
)
"""In the order of the report; the slow ones last."""

OF_TEXTS = frozenset(
    {
        completeness.measure,
        validity.measure,
        duplicates.measure_exact,
        duplicates.measure_conflicts,
        entities.measure,
        balance.measure,
        leakage.measure,
        sources.measure,
    }
)
"""Measures that make sense where a record is a text, of which only equality is known."""

LIMITS = {
    "bytes": MAX_BYTES,
    "cells": MAX_CELLS,
    "columns": MAX_COLUMNS,
    "classes": MAX_CLASSES,
    "recordsWithDistances": MAX_POINTS,
    "neighboursAmong": REFERENCES,
}
"""What is refused beyond (the first four), and what is sampled beyond (the last two)."""


class Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Everything that was found out about one dataset."""

    dataset: str
    digest: Digest
    seed: int
    profile: Profile
    measures: tuple[Measure, ...]
    not_measured: tuple[NotMeasured, ...]
    compared_with: dict[str, Digest]
    limits: dict[str, int] = msgspec.field(default_factory=LIMITS.copy)

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics of all measures."""
        return {name: value for measure in self.measures for name, value in measure.metrics.items()}

    @property
    def findings(self) -> list[Finding]:
        """The findings of all measures, worst first."""
        return worst_first([found for measure in self.measures for found in measure.findings])

    def measured(self, name: str) -> Measure | None:
        """The measure called ``name``; None when it was not taken."""
        return next((measure for measure in self.measures if measure.name == name), None)


def examine(
    sample: Sample,
    siblings: Sequence[Sample] = (),
    *,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda _done, _total, _note: None,
) -> Report:
    """Take every measure of one dataset beside the system's others."""
    exam = Examination(sample, tuple(siblings), seed)
    results: list[Measure | NotMeasured] = []
    for place, measure in enumerate(MEASURES):
        progress(place, len(MEASURES), measure.__module__.rpartition(".")[2].replace("_", " "))
        if sample.part.text and measure not in OF_TEXTS:
            name = measure.__module__.rpartition(".")[2]
            results.append(NotMeasured(name=name, reason="the records are texts, between which there is no distance"))
            continue
        results.append(measure(exam))
    progress(len(MEASURES), len(MEASURES), "done")
    return Report(
        dataset=f"dataset:{sample.part.name}",
        digest=sample.digest,
        seed=seed,
        profile=profile(sample),
        measures=tuple(result for result in results if isinstance(result, Measure)),
        not_measured=tuple(result for result in results if isinstance(result, NotMeasured)),
        compared_with={f"dataset:{other.part.name}": other.digest for other in siblings},
    )


class DataQuality:
    """See ``core.check.Check``: quality of each declared dataset, alone and beside the others."""

    name = NAME
    version = "1"
    title = "Dataset quality"
    controls = ("2.1-g", "2.3-i", "2.3-n", "2.4-e", "2.4-f", "2.4-g", "A-MLSG-002-D002")
    after: tuple[str, ...] = ()

    def subjects(self, system: System) -> Sequence[Artefact]:
        """See ``core.check.Check``: every dataset."""
        return system.of_kind("dataset")

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """See ``core.check.Check``: the dataset, those it is compared with, and what is declared about them."""
        datasets = {artefact.id: artefact.digest for artefact in system.of_kind("dataset")}
        parts = [_settings(system.dataset_part(artefact.name)) for artefact in system.of_kind("dataset")]
        return {
            **datasets,
            f"settings:{NAME}:{subject.name}": settings_digest(subject.name, parts, system.declaration.redteam.seed),
        }

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """See ``core.check.Check``."""
        sample = read_sample(subject, system.dataset_part(subject.name))
        others = [artefact for artefact in system.of_kind("dataset") if artefact.id != subject.id]
        siblings = [read_sample(artefact, system.dataset_part(artefact.name)) for artefact in others]
        report = examine(sample, siblings, seed=system.declaration.redteam.seed, progress=context.progress)
        return Outcome(
            predicate_type=ASSESSMENT,
            predicate=_assessment(report),
            findings=tuple(report.findings),
            report=Blob(data=canonical_json(report)),
        )


def _settings(part: DatasetPart) -> dict[str, Any]:
    """What is declared of a dataset that a measure reads."""
    fields = (
        "name", "split", "target", "text", "group", "integer", "categorical", "immutable", "ranges", "personal_data",
        "provenance", "shape", "value_range",
    )  # fmt: skip
    return {field: getattr(part, field) for field in fields}


def _assessment(report: Report) -> Assessment:
    severities = Counter(str(found.severity) for found in report.findings)
    techniques = sorted({technique for found in report.findings for technique in found.techniques})
    return Assessment(
        method="dataset-quality",
        summary=_summary(report),
        family="dataset",
        metrics=report.metrics,
        techniques=tuple(techniques),
        seed=report.seed,
        settings={"limits": LIMITS, "notMeasured": [missing.name for missing in report.not_measured]},
        findings=dict(sorted(severities.items())),
    )


def _summary(report: Report) -> str:
    faults = {measure.name: measure.faults for measure in report.measures}
    noise = report.metrics.get("label_noise")
    labels = (
        f"about {noise.value:.1%} of the labels look wrong ({noise.low:.1%} to {noise.high:.1%})"
        if noise
        else "label noise could not be estimated"
    )
    return (
        f"{report.profile.records:,} records of {len(report.profile.columns)} features: "
        f"{faults['completeness']:,} empty and {faults['validity']:,} invalid cells, "
        f"{faults['duplicates']:,} duplicates, {faults.get('leakage', 0):,} records known from another split; "
        f"{labels}; {count(len(report.findings), 'finding')}."
    )
