"""What the check ``gateway.outliers`` found, as numbers with intervals, as a statement and as a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.check import Outcome
from bartizan.core.finding import Finding, Severity
from bartizan.core.predicates import Assessment, Metric, Threat
from bartizan.lifecycle.deploy.gateway.evaluation.stating import stated
from bartizan.lifecycle.deploy.gateway.evaluation.toll import Toll
from bartizan.lifecycle.deploy.gateway.guards.outliers.detectors import Detector
from bartizan.lifecycle.deploy.gateway.guards.outliers.guard import OutlierSettings
from bartizan.lifecycle.deploy.gateway.guards.outliers.reference import Reference
from bartizan.lifecycle.deploy.gateway.guards.outliers.wire import packed
from bartizan.redteam.family import Material
from bartizan.redteam.statistics import Estimate, auc, bootstrap, metric, proportion, roc

SHARES = (0.1, 0.01, 0.001)
"""Stated shares of usual rows at which false positives are counted, beside the configured ones."""

Rows = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Rows of one set, as the detectors see them."""

    kind: str
    """``shift`` or ``attack``."""
    says: str
    rows: Rows
    scores: NDArray[np.floating[Any]] | None
    sample: NDArray[np.int64] | None = None
    """``(batch,)``: rows of one sample hang together; None where each stands for itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """A fitted reference, and the sets that it was measured on."""

    reference: Reference
    usual: Shown
    sets: dict[str, Shown]
    tolls: dict[str, tuple[Toll, Toll]]
    """Attack to what it costs without the detector, and what it costs an adversary who knows of it."""
    calibrated_on: int


def share_of(settings: OutlierSettings) -> float:
    """The share of usual rows that may be taken for unusual, by the mildest step that is configured."""
    steps = (settings.flag, settings.coarsen, settings.hold, settings.refuse)
    return max(steps) or SHARES[1]


def _found(found: Evaluated, detector: Detector, name: str, share: float) -> Estimate:
    """Share of a set that is rarer than a stated share of usual rows."""
    shown = found.usual if name == "usual" else found.sets[name]
    rare = found.reference.decades(detector, shown.rows, shown.scores) >= -np.log10(share)
    if shown.sample is None:
        return proportion(int(rare.sum()), len(rare))
    each = np.array([rare[shown.sample == sample].mean() for sample in np.unique(shown.sample)])
    interval = bootstrap(each, lambda values: float(values.mean()), np.random.default_rng(0))
    if not np.isfinite([interval.low, interval.high]).all():
        return proportion(int(rare.sum()), len(rare))
    return Estimate(float(each.mean()), interval, len(each), "bootstrap over samples")


def _area(found: Evaluated, detector: Detector, names: Sequence[str]) -> Estimate:
    """How well a detector tells sets from usual rows: the area under its ROC curve."""
    parts = [found.usual, *(found.sets[name] for name in names)]
    raw = [found.reference.raw(detector, part.rows, part.scores) for part in parts]
    scores = np.nan_to_num(np.concatenate(raw), nan=np.inf)
    return auc(roc(scores, np.arange(len(scores)) >= len(raw[0])))


def _of_kind(found: Evaluated, kind: str) -> list[str]:
    return [name for name, shown in found.sets.items() if shown.kind == kind]


def _metrics(found: Evaluated, settings: OutlierSettings, share: float) -> dict[str, Metric]:
    chosen = settings.detector
    shifts, attacks = _of_kind(found, "shift"), _of_kind(found, "attack")
    return {
        "false_positive_rate": _found(found, chosen, "usual", share).metric(),
        **{f"detected_{name}": _found(found, chosen, name, share).metric() for name in (*shifts, *attacks)},
        **_successes(found),
        **{f"auroc_{detector}": _area(found, detector, shifts).metric() for detector in found.reference.detectors},
        **{f"worst_auroc_{detector}": _worst(found, detector, shifts) for detector in found.reference.detectors},
    }


def _successes(found: Evaluated) -> dict[str, Metric]:
    """Right answers that each attack turns, without the detector and unnoticed by it."""
    numbers = {}
    for name, (bare, wary) in found.tolls.items():
        right = int(bare.right.sum())
        numbers[f"success_{name}"] = proportion(int((bare.right & ~bare.robust).sum()), right).metric()
        unnoticed = bare.right & np.isfinite(wary.first)
        numbers[f"success_{name}_unnoticed"] = proportion(int(unnoticed.sum()), right).metric()
    return numbers


def _worst(found: Evaluated, detector: Detector, names: Sequence[str]) -> Metric:
    least = min((_area(found, detector, [name]) for name in names), key=lambda area: area.value)
    return metric(least.value, least.interval, least.n, least.method)


def _compared(found: Evaluated, share: float) -> dict[str, Any]:
    """Every detector on every set, for the report."""
    return {
        detector: {
            "false_positives": {
                f"{stated:g}": _found(found, detector, "usual", stated).plain() for stated in sorted({*SHARES, share})
            },
            "sets": {
                name: {
                    "auroc": _area(found, detector, [name]).plain(),
                    "detected": _found(found, detector, name, share).plain(),
                }
                for name in found.sets
            },
        }
        for detector in found.reference.detectors
    }


def _criteria(found: Evaluated, settings: OutlierSettings, columns: list[dict[str, Any]]) -> dict[str, Any]:
    """What is expected, and from where on something counts as anomalous."""
    steps = {name: getattr(settings, name) for name in ("flag", "coarsen", "hold", "refuse")}
    return {
        "columns": columns,
        "detector": settings.detector,
        "steps": {
            name: {"share_of_usual_rows": share, "decades": float(f"{-np.log10(share):.4g}")}
            for name, share in steps.items()
            if share
        },
        "distance_to_nearest": {
            f"{share:g}": float(f"{found.reference.rarities['neighbours'].number_at(share):.6g}") for share in SHARES
        },
    }


def outcome(found: Evaluated, material: Material, settings: OutlierSettings, columns: list[dict[str, Any]]) -> Outcome:
    """Statement and report; it fails when surely more usual rows are taken for unusual than is stated."""
    share = share_of(settings)
    metrics = _metrics(found, settings, share)
    alarms = metrics["false_positive_rate"]
    findings = (_finding(alarms, share, material),) if alarms.low > share else ()
    assessment = Assessment(
        method="outlier detection",
        summary=_summary(found, metrics, settings, share),
        result="failed" if findings else "passed",
        metrics=metrics,
        techniques=("T07", "T08", "T38"),
        family="detector",
        threat=Threat(
            position="user",
            access=("labels", "scores"),
            knowledge="for success_..._unnoticed: asks the detector as often as the model",
        ),
        budget={
            "prototypes": float(len(found.reference.prototypes)),
            "calibrated_on": float(found.calibrated_on),
            "measured_on": float(len(found.usual.rows)),
        },
        seed=material.settings.seed,
        settings={
            "detector": settings.detector,
            "stated_false_positive_rate": share,
            "temperature": float(f"{found.reference.temperature:.4g}"),
            "compared": ", ".join(found.reference.detectors),
        },
        findings={Severity.MEDIUM.value: len(findings)} if findings else {},
    )
    report = {
        "criteria": _criteria(found, settings, columns),
        "comparison": _compared(found, share),
        "sets": {
            name: {"kind": each.kind, "says": each.says, "rows": len(each.rows)} for name, each in found.sets.items()
        },
        "reference": packed(found.reference),
    }
    return stated(assessment, report, findings)


def _summary(found: Evaluated, metrics: Mapping[str, Metric], settings: OutlierSettings, share: float) -> str:
    alarms, shifts = metrics["false_positive_rate"], _of_kind(found, "shift")
    worst = min(shifts, key=lambda name: metrics[f"detected_{name}"].value)
    missed = metrics[f"detected_{worst}"]
    return (
        f"The detector {settings.detector} takes {alarms.value:.1%} of usual rows for unusual ({alarms.low:.1%} to "
        f"{alarms.high:.1%}; {share:.1%} is stated). Of rows of another kind it notices {missed.value:.0%} "
        f"({missed.low:.0%} to {missed.high:.0%}) of those that it notices least ({worst})."
    )


def _finding(alarms: Metric, share: float, material: Material) -> Finding:
    return Finding(
        rule="gateway/outliers",
        severity=Severity.MEDIUM,
        title=f"{alarms.value:.1%} of usual rows are taken for unusual, and {share:.1%} is stated",
        where=material.model.name,
        detail=f"Measured on {alarms.n} rows that nothing was fitted on; the rate is surely above {alarms.low:.1%}.",
        remedy="Evaluate on more records of the kind that the model will be asked about, or state a higher rate.",
    )


__all__ = ["Evaluated", "Shown", "outcome", "share_of"]
