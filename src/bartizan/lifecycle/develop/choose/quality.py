"""Quality: accuracy, recall of each class, calibration, and how far training and unseen data differ."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.predicates import Metric
from bartizan.lifecycle.develop.choose.trial import Part, Trial
from bartizan.redteam.learners import one_hot
from bartizan.redteam.statistics import bootstrap, difference, metric, proportion
from bartizan.targets.protocol import Labels, Scores

BINS = 15
"""Of equal width, as in Guo et al. 2017, arXiv:1706.04599."""
MAX_CLASSES_NAMED = 20


class Quality:
    """See ``Column``."""

    name = "quality"
    version = "1"
    title = "Accuracy, recall, calibration, generalisation gap"

    def measure(self, trial: Trial) -> Part:
        """See ``Column.measure``."""
        evaluation, classes = trial.material.evaluation, trial.material.model.classes
        right = trial.right
        metrics = {"accuracy": proportion(int(right.sum()), len(right)).metric("share")}
        recalls = {}
        for index, name in enumerate(classes[:MAX_CLASSES_NAMED]):
            of_class = evaluation.labels == index
            recalls[name] = proportion(int(right[of_class].sum()), int(of_class.sum())).metric("share")
        if (positive := trial.material.positive) is not None:
            metrics["recall"] = recalls[classes[positive]]
        metrics |= _fit(trial)
        if trial.has_scores:
            metrics |= calibration(trial.scores, evaluation.labels, trial.rng("calibration"))
        return Part(metrics=metrics, details={"recall_by_class": recalls, "right": right_as_text(right)})


def right_as_text(right: NDArray[np.bool_]) -> str:
    """Which rows are answered rightly, as hexadecimal digits; ``right_from_text`` reads it."""
    return np.packbits(right).tobytes().hex()


def right_from_text(text: str, count: int) -> NDArray[np.bool_]:
    """See ``right_as_text``."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:count]
    right: NDArray[np.bool_] = bits.astype(np.bool_)
    return right


def _fit(trial: Trial) -> dict[str, Metric]:
    """Accuracy on the training records less that on unseen ones: what was learnt by heart.

    The one place beside membership inference where training records are asked; the gap is the point.
    """
    training = trial.material.training
    known = int((trial.target.labels(training.rows) == training.labels).sum())
    gap = difference((known, len(training)), (int(trial.right.sum()), len(trial.right)))
    return {
        "training_accuracy": proportion(known, len(training)).metric("share"),
        "generalisation_gap": gap.metric("share"),
    }


def calibration(scores: Scores, labels: Labels, rng: np.random.Generator) -> dict[str, Metric]:
    """Expected calibration error and Brier score with bootstrap intervals; log loss without the infinite.

    The calibration error of few records is biased upwards, also for a perfect model; the Brier score is
    not, and rewards both calibration and sharpness.
    """
    table = np.column_stack([scores.max(axis=1), scores.argmax(axis=1) == labels, brier(scores, labels)])

    def error(drawn: NDArray[np.float64]) -> float:
        return calibration_error(drawn[:, 0], drawn[:, 1])

    def mean(drawn: NDArray[np.float64]) -> float:
        return float(drawn[:, 2].mean())

    found: dict[str, Metric] = {}
    statistics: dict[str, Any] = {"calibration_error": error, "brier": mean}
    for name, statistic in statistics.items():
        if len(table) > 1:
            interval = bootstrap(table, statistic, rng)
            found[name] = metric(statistic(table), interval, len(table), "bootstrap")
    return found


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Mean distance between confidence and accuracy over bins of equal width, weighted by records."""
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def brier(scores: Scores, labels: Labels) -> NDArray[np.float64]:
    """Squared distance of each answer from the truth, ``(records,)``, from 0 to 2 (Brier 1950)."""
    squares: NDArray[np.float64] = np.square(scores - one_hot(labels, scores.shape[1])).sum(axis=1)
    return squares
