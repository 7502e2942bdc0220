"""Label noise: how many labels are probably wrong, and which.

Confident learning (Northcutt, Jiang and Chuang 2021, doi:10.1613/jair.1.12125): a record is counted
as probably of class j when its out-of-fold probability of j reaches the mean such probability of the
records labelled j. The joint table of given and probable labels, scaled to the label counts, gives
the share of wrong ones; the records with the lowest margin are named, as many as that share says.

It finds labels that contradict the rest of the data. It is blind to errors that follow the data
closely: a whole region mislabelled alike, clean-label poisoning, and triggers, which a model learns
(see ``triggers``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bartizan.core.finding import Finding, Severity
from bartizan.core.predicates import Metric
from bartizan.lifecycle.develop.data.examination import JUDGED_RECORDS, Examination
from bartizan.lifecycle.develop.data.learners import FOLDS, out_of_fold
from bartizan.lifecycle.develop.data.measure import Measure, NotMeasured, count, finding, records
from bartizan.redteam.statistics import Interval, expanded_tail, metric, wilson
from bartizan.targets.protocol import Labels, Scores

RESAMPLES = 400
LEAST_RESAMPLES = 100
RESAMPLED_SCORES = 100_000_000
"""Probabilities looked at by the bootstrap; fewer resamples are drawn of large sets."""
NOTED, SERIOUS = 0.01, 0.05
"""Lower ends of the interval above which there is a finding, and a serious one."""


def measure(exam: Examination) -> Measure | NotMeasured:
    """Estimated share of wrong labels with a bootstrap interval, and the most suspicious records."""
    judged = exam.judged
    if len(judged) <= 1 or not exam.encoder.dimensions:
        return NotMeasured(
            name="label-noise", reason=f"needs two classes with {JUDGED_RECORDS} records each and a column that varies"
        )
    inside = np.flatnonzero(np.isin(exam.labels, judged))
    labels = np.searchsorted(judged, exam.labels[inside])
    rng = exam.rng("label-noise")
    scores = out_of_fold(exam.points[inside], labels, exam.blocks[inside], classes=len(judged), rng=rng)
    share = noise_share(scores, labels, np.ones(len(labels)))
    interval = _bootstrap(scores, labels, share, rng)
    margin = own_margin(scores, labels)
    worst = np.lexsort((np.arange(len(margin)), margin))[: round(share * len(labels))]
    suspects = exam.chosen[inside[worst]]
    noise = metric(share, interval, len(labels), "bootstrap, at least wilson", unit="share")
    return Measure(
        name="label-noise",
        dimension="integrity",
        method=(
            f"Confident learning on {FOLDS}-fold probabilities of neighbours and regression; records ranked by "
            "probability of the given label minus that of the best other. Bootstrap over records, models held fixed."
        ),
        examined=len(labels),
        faults=len(suspects),
        metrics={"label_noise": noise},
        records=records(suspects, margin[worst]),
        details={
            "sampled": exam.sampled,
            "outOfFoldAccuracy": round(float((scores.argmax(axis=1) == labels).mean()), 4),
            "classesLeftOut": [name for place, name in enumerate(exam.sample.label_values) if place not in judged],
        },
        findings=_findings(exam, noise, suspects, margin[worst]),
    )


def noise_share(scores: Scores, labels: Labels, weights: NDArray[np.float64]) -> float:
    """Share of wrong labels by the confident joint; ``weights`` ``(records,)`` counts records more than once."""
    classes = scores.shape[1]
    own = scores[np.arange(len(labels)), labels]
    total = np.bincount(labels, weights, classes)
    thresholds = np.bincount(labels, weights * own, classes) / np.maximum(total, 1e-12)
    confident = np.where(scores >= thresholds, scores, -1.0)
    probable = confident.argmax(axis=1)
    certain = confident[np.arange(len(labels)), probable] >= 0
    pairs = labels[certain] * classes + probable[certain]
    joint = np.bincount(pairs, weights[certain], classes * classes).reshape(classes, classes)
    seen = joint.sum(axis=1)
    right = np.divide(np.diagonal(joint), seen, out=np.ones(classes), where=seen > 0)
    return float(1 - (right * total).sum() / total.sum())


def own_margin(scores: Scores, labels: Labels) -> NDArray[np.float64]:
    """``(records,)`` in [-1, 1]: probability of the given label minus that of the best other one."""
    others = scores.copy()
    others[np.arange(len(labels)), labels] = -1.0
    margin: NDArray[np.float64] = scores[np.arange(len(labels)), labels] - others.max(axis=1)
    return margin


def _bootstrap(scores: Scores, labels: Labels, share: float, rng: np.random.Generator) -> Interval:
    """The wider ends of the percentile interval over resampled records and of the binomial one.

    The first has no width where nothing was found; the second knows nothing of the thresholds.
    """
    n = len(labels)
    times = int(np.clip(RESAMPLED_SCORES // scores.size, LEAST_RESAMPLES, RESAMPLES))
    drawn = [
        noise_share(scores, labels, np.bincount(rng.integers(0, n, n), minlength=n).astype(float)) for _ in range(times)
    ]
    tail = expanded_tail(n, 0.95)
    low, high = np.quantile(drawn, (tail, 1 - tail))
    binomial = wilson(round(share * n), n)
    return Interval(min(binomial.low, float(low)), max(binomial.high, float(high)))


def _findings(
    exam: Examination, noise: Metric, suspects: NDArray[np.int64], margin: NDArray[np.float64]
) -> tuple[Finding, ...]:
    if noise.low <= NOTED:
        return ()
    return (
        finding(
            exam.sample,
            "label-noise",
            Severity.HIGH if noise.low > SERIOUS else Severity.MEDIUM,
            title=f"about {noise.value:.1%} of the labels contradict the data ({noise.low:.1%} to {noise.high:.1%})",
            detail=f"Most suspicious of {count(len(suspects), 'record')}: {records(suspects, margin)}. "
            "Careless labelling and label-flipping poison look the same.",
            remedy="have the named records labelled again by somebody else, and look at who labelled them.",
            techniques=("T16", "T17", "T21"),
        ),
    )
