"""What each detail of output costs an honest user, on rows that training did not see.

A user who is told less knows less well when to trust an answer. Numbers are taken as they are shown. What words are
worth is learnt: half of the rows show how often answers with the same word were right, the other half is judged by it,
and then the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import InputError
from bartizan.core.predicates import Metric
from bartizan.redteam.statistics import bootstrap, metric, proportion
from bartizan.targets.detail import Detail, likeliest
from bartizan.targets.protocol import Labels, Scores
from bartizan.targets.tailored import FIRST, KEY, seen

SURE = 0.9
"""Confidence from which on a user acts without asking a person."""
BINS = 10
LEAST = 1e-3
"""No probability is taken for smaller; nor for larger than 1 less this."""
PRIOR = 2.0
"""Answers of the same kind that are added in thought, right as often as all are."""
WORDS = frozenset({"label", "top-k", "buckets", "summary"})
"""Details without numbers: what their words are worth has to be learnt."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Use:
    """What an answer at one detail is worth."""

    detail: Detail
    accuracy: Metric
    """Share of the labels that are right: no detail changes it."""
    log_loss: Metric
    """Mean of ``-log`` of what the user then gives the truth; nats."""
    calibration_error: Metric
    """Mean gap of confidence and share that is right (Guo et al. 2017), in ``BINS`` bins."""
    same_decisions: Metric
    """Share of the answers on which a user who acts alone when ``SURE`` does as with all scores."""
    truth_named: Metric | None
    """Share of the answers that name the truth among the likeliest, where any are named."""


def usefulness(scores: Scores, truth: Labels, asked: Sequence[bytes], detail: Detail, rng: np.random.Generator) -> Use:
    """Judge one detail by the model's ``scores`` ``(rows, classes)``, what is true, and the bytes of each input.

    Raises:
        InputError: there are fewer than two rows, or they do not fit.
    """
    if len(scores) < 2 or truth.shape != (len(scores),) or len(asked) != len(scores):  # noqa: PLR2004 - two halves
        raise InputError(f"scores {scores.shape}, {truth.shape} labels and {len(asked)} inputs do not fit")
    labels = scores.argmax(axis=1)
    right = labels == truth
    told = _completed(scores, labels, asked, detail)
    sure = _confidence(told, labels, right, detail)
    chance = np.where(right, sure, (1 - sure) * _among_others(told, labels, truth)).clip(LEAST, 1 - LEAST)
    loss, gap = -np.log(chance), np.stack([sure, right.astype(np.float64)], axis=1)
    alike = (sure >= SURE) == (scores[np.arange(len(scores)), labels] >= SURE)
    return Use(
        detail=detail,
        accuracy=proportion(int(right.sum()), len(right)).metric(),
        log_loss=metric(float(loss.mean()), bootstrap(loss, _mean, rng), len(loss), "bootstrap", unit="nats"),
        calibration_error=metric(_gap(gap), bootstrap(gap, _gap, rng), len(gap), "bootstrap"),
        same_decisions=proportion(int(alike.sum()), len(alike)).metric(),
        truth_named=_named(scores, labels, truth, detail),
    )


def _completed(scores: Scores, labels: Labels, asked: Sequence[bytes], detail: Detail) -> Scores:
    """What is told as probabilities; of labels alone, all others alike."""
    if detail.kind == "scores":
        return scores
    if detail.kind == "label":
        even = np.full(scores.shape, 1 / scores.shape[1])
        even[np.arange(len(even)), labels] += FIRST
        return even
    return seen(scores, labels, asked, detail, KEY)


def _confidence(told: Scores, labels: Labels, right: NDArray[np.bool_], detail: Detail) -> Floats:
    """How sure the user is of each label: the number that is shown, or how often answers that look alike were right."""
    shown = told[np.arange(len(told)), labels]
    if detail.kind not in WORDS:
        return shown.clip(0, 1)
    kinds = np.unique(shown.round(6), return_inverse=True)[1]
    first = np.arange(len(right)) % 2 == 0
    sure = np.empty(len(right))
    for half in (first, ~first):
        usual = right[~half].mean()
        for kind in range(kinds.max() + 1):
            known, judged = right[~half & (kinds == kind)], half & (kinds == kind)
            sure[judged] = (known.sum() + PRIOR * usual) / (len(known) + PRIOR)
    return sure


def _among_others(told: Scores, labels: Labels, truth: Labels) -> Floats:
    """Share of the truth among the classes that are not the label."""
    places = np.arange(len(told))
    others = told.clip(LEAST / told.shape[1])
    others[places, labels] = 0
    share: Floats = others[places, truth] / others.sum(axis=1)
    return share


def _named(scores: Scores, labels: Labels, truth: Labels, detail: Detail) -> Metric | None:
    if detail.kind != "top-k":
        return None
    places = likeliest(scores, labels, detail.named(scores.shape[1]))
    return proportion(int((places == truth[:, None]).any(axis=1).sum()), len(truth)).metric()


def _mean(values: Floats) -> float:
    return float(values.mean())


def _gap(pairs: Floats) -> float:
    """Calibration error of confidence and right or wrong, ``(rows, 2)``."""
    places = np.minimum((pairs[:, 0] * BINS).astype(np.int64), BINS - 1)
    sums = [np.bincount(places, weights=column, minlength=BINS) for column in pairs.T]
    return float(np.abs(sums[0] - sums[1]).sum() / len(pairs))


__all__ = ["SURE", "Use", "usefulness"]
