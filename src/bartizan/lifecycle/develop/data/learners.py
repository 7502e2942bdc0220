"""Our own small classifier: class probabilities of records by a model that never saw them.

The mean of k nearest neighbours and of a regularised softmax regression: one follows the data
wherever they go, the other is calm where they are few, and both are deterministic.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.lifecycle.develop.data.neighbours import nearest
from bartizan.targets.protocol import Labels, Rows, Scores

FOLDS = 5
NEIGHBOURS = 10
PENALTY = 1e-2
"""Weight of the squared coefficients in the regression."""
CLIP = 5.0
"""Coordinates are cut off here, so that one wild value does not rule a prediction."""
TRAINING_ROWS = 8_000
"""Records that one fold learns from at most."""
REGRESSION_CELLS = 2_000_000
"""Records x dimensions that the regression learns from at most."""
REGRESSION_CLASSES = 30
"""With more classes only the neighbours vote."""
STEPS = 100


def predict(points: Rows, labels: Labels, queries: Rows, classes: int) -> Scores:
    """Class probabilities ``(queries, classes)`` learnt from ``points`` and ``labels``."""
    points, queries = np.clip(points, -CLIP, CLIP), np.clip(queries, -CLIP, CLIP)
    voted = votes(labels[nearest(points, queries, NEIGHBOURS).places], classes)
    prior = np.bincount(labels, minlength=classes) / len(labels)
    by_neighbours: Scores = (voted + prior) / (voted.sum(axis=1, keepdims=True) + 1)
    if classes > REGRESSION_CLASSES:
        return by_neighbours
    kept = max(1, REGRESSION_CELLS // (points.shape[1] + 1))
    weights = _regression(points[:kept], labels[:kept], classes)
    by_regression = np.asarray(scipy.special.softmax(_with_constant(queries) @ weights, axis=1))
    mean: Scores = (by_neighbours + by_regression) / 2
    return mean


def votes(labels: Labels, classes: int) -> NDArray[np.float64]:
    """How often each class is among ``labels`` ``(batch, k)``: ``(batch, classes)``."""
    flat = labels + np.arange(len(labels))[:, None] * classes
    counted = np.bincount(flat.ravel(), minlength=len(labels) * classes)
    return counted.reshape(len(labels), classes).astype(np.float64)


def _regression(points: Rows, labels: Labels, classes: int) -> NDArray[np.float64]:
    """Coefficients ``(dimensions + 1, classes)`` of the softmax regression; the last row is the constant."""
    inputs, shape = _with_constant(points), (points.shape[1] + 1, classes)
    truth = np.eye(classes)[labels]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(shape)
        logits = inputs @ weights
        normaliser = scipy.special.logsumexp(logits, axis=1)
        slope = inputs.T @ (np.exp(logits - normaliser[:, None]) - truth) / len(inputs)
        slope[:-1] += PENALTY * weights[:-1]
        value = (normaliser - (logits * truth).sum(axis=1)).mean() + PENALTY / 2 * (weights[:-1] ** 2).sum()
        return float(value), slope.ravel()

    found = scipy.optimize.minimize(
        loss, np.zeros(shape[0] * classes), jac=True, method="L-BFGS-B", options={"maxiter": STEPS}
    )
    coefficients: NDArray[np.float64] = found.x.reshape(shape)
    return coefficients


def _with_constant(points: Rows) -> Rows:
    return np.hstack([points, np.ones((len(points), 1))])


def out_of_fold(
    points: Rows,
    labels: Labels,
    blocks: NDArray[np.int64],
    *,
    classes: int,
    rng: np.random.Generator,
) -> Scores:
    """Probabilities of each record by a model that was fitted without it and without its whole block.

    Args:
        points: ``(records, dimensions)``.
        labels: ``(records,)``, each class at least ``FOLDS`` times.
        blocks: ``(records,)``: records that must stay together, such as copies or one patient's.
        classes: number of classes.
        rng: decides the folds.
    """
    folds = fold_of(labels, blocks, rng)
    scores = np.empty((len(labels), classes))
    for fold in range(FOLDS):
        others = rng.permutation(np.flatnonzero(folds != fold))[:TRAINING_ROWS]
        held = folds == fold
        scores[held] = predict(points[others], labels[others], points[held], classes)
    return scores


def fold_of(labels: Labels, blocks: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Fold of each record: blocks stay whole, and every class is spread over all folds."""
    _, first, block = np.unique(blocks, return_index=True, return_inverse=True)
    order = rng.permutation(len(first))
    order = order[np.argsort(labels[first[order]], kind="stable")]
    folds = np.empty(len(first), np.int64)
    folds[order] = np.arange(len(first)) % FOLDS
    return folds[block]
