"""Confident learning: labels that a model of the other records contradicts with confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bartizan.redteam import learners
from bartizan.redteam.detection.inspected import Inspected, Suspicion
from bartizan.targets.protocol import Access, Labels, Scores

LEARNERS = (learners.Learner("linear", 1e-2), learners.Learner("linear", 1e-3))
"""Chosen between by cross-validation."""


@dataclass(frozen=True, slots=True)
class ConfidentLearning:
    """Records that are confidently counted into another class than their label. See ``Detector``.

    A trigger is learnt like anything else that predicts the label: records that carry one look right,
    and this detector is not for them.
    """

    name: ClassVar[str] = "confident_learning"
    title: ClassVar[str] = "Labels that a model of the other records contradicts"
    needs: ClassVar[frozenset[Access]] = frozenset()
    techniques: ClassVar[tuple[str, ...]] = ("T16", "T17", "T21")
    references: ClassVar[tuple[str, ...]] = (
        "Northcutt et al. 2021, Confident learning: estimating uncertainty in dataset labels, arXiv:1911.00068",
    )

    def inspect(self, inspected: Inspected, rng: np.random.Generator) -> Suspicion:
        """See ``Detector.inspect``."""
        if len(inspected.rows) < learners.FOLDS:
            return Suspicion(np.zeros(len(inspected.rows)), np.zeros(len(inspected.rows), np.bool_))
        rows, targets = inspected.scaled.astype(np.float64), learners.one_hot(inspected.labels, inspected.classes)
        learner = learners.select(LEARNERS, rows, targets, rng)
        parts = learners.folds(inspected.labels, rng)
        return judge_labels(learners.out_of_fold(learner, rows, targets, parts, rng), inspected.labels)


def judge_labels(scores: Scores, labels: Labels) -> Suspicion:
    """Label errors by out-of-fold probabilities ``(records, classes)`` of any model.

    Score: by how much the likeliest other class is preferred to the label. Flagged: those off the
    diagonal of the confident joint, whose likeliest class among those above their own class's mean
    self-confidence is another than the label.
    """
    classes = scores.shape[1]
    own = scores[np.arange(len(labels)), labels]
    sizes = np.bincount(labels, minlength=classes)
    threshold = np.where(sizes > 0, np.bincount(labels, own, classes) / np.maximum(sizes, 1), np.inf)
    confident = np.where(scores >= threshold, scores, -1.0)
    counted = confident.max(axis=1, initial=-1.0) >= 0
    others = np.where(np.arange(classes) == labels[:, None], -1.0, scores)
    flagged = counted & (confident.argmax(axis=1) != labels)
    return Suspicion(others.max(axis=1) - own, flagged)
