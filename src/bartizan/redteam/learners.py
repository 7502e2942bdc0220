"""Small learners that an adversary, or a blind control, can train without any framework.

All but the forest minimise the cross-entropy to soft targets plus a quadratic penalty with L-BFGS,
to convergence, on standardised features; they differ in the features they see. ``select`` chooses
among settings by cross-validation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.redteam import forest
from bartizan.targets.protocol import Labels, Rows, Scores

Floats = NDArray[np.float64]
Model = Callable[[Rows], Scores]
"""``(batch, features)`` to probabilities ``(batch, classes)``."""

Loss = Callable[[Floats], tuple[float, Floats]]
"""Value and slope at a point."""
Steps = deque[tuple[Floats, Floats, float]]
"""Last steps of a search: how far it moved, how the slope turned, and the product of the two."""

MAX_STEPS = 300
"""L-BFGS steps; problems of this size settle well before."""
MEMORY = 10
SETTLED = 1e-5
"""Largest slope in any direction at which a minimum is taken as found."""
ARMIJO, LEAST_STEP, LEAST_CURVATURE = 1e-4, 1e-10, 1e-10
MAX_LANDMARKS = 200
"""Centres of radial features; bounds time and memory on long answers."""
FOLDS = 3


@dataclass(frozen=True, slots=True)
class Learner:
    """Settings of one learner."""

    kind: str
    """``linear``, ``radial`` (Gaussian bumps around landmarks), ``network`` (one hidden layer) or ``forest``."""
    penalty: float = 0.0
    """Quadratic penalty, for one row."""
    width: float = 1.0
    """Radial: of the bumps, in median distances between rows. Network: hidden units."""

    def fit(self, rows: Rows, targets: Scores, rng: np.random.Generator) -> Model:
        """Train on ``rows`` ``(batch, features)`` towards ``targets`` ``(batch, classes)``, rows summing to 1."""
        if self.kind == "forest":
            return forest.grow(rows, targets, rng)
        scaling = _scaling(rows)
        scaled = scaling(rows)
        if self.kind == "network":
            network = _fit_network(scaled, targets, self.penalty, int(self.width), rng)
            return lambda new: network(scaling(new))
        features = _radial(scaled, self.width, rng) if self.kind == "radial" else _plain
        weights = _fit_softmax(features(scaled), targets, self.penalty)
        return lambda new: scipy.special.softmax(features(scaling(new)) @ weights, axis=1)


LINEAR = tuple(Learner("linear", penalty) for penalty in (1e-5, 1e-3, 1e-2))
RADIAL = tuple(Learner("radial", penalty) for penalty in (1e-4, 1e-3))
FOREST = (Learner("forest"),)
NETWORK = (Learner("network", 1e-3, 32),)


def one_hot(labels: Labels, classes: int) -> Scores:
    """Labels as certain probabilities ``(batch, classes)``."""
    certain: Scores = np.eye(classes)[labels]
    return certain


def select(learners: Sequence[Learner], rows: Rows, targets: Scores, rng: np.random.Generator) -> Learner:
    """The learner with the least cross-entropy on rows that it was not trained on; the first if there are too few."""
    if len(rows) < FOLDS:
        return learners[0]
    parts = folds(targets.argmax(axis=1), rng)
    losses = [_held_out_loss(learner, rows, targets, parts, rng) for learner in learners]
    return learners[int(np.argmin(losses))]


def folds(kinds: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int64]:
    """``(batch,)``: fold of each row, at random, with the same mixture of ``kinds`` ``(batch,)`` in each."""
    order = np.lexsort((rng.random(len(kinds)), kinds))
    parts = np.empty(len(kinds), np.int64)
    parts[order] = np.arange(len(kinds)) % FOLDS
    return parts


def out_of_fold(
    learner: Learner, rows: Rows, targets: Scores, parts: NDArray[np.int64], rng: np.random.Generator
) -> Scores:
    """Probabilities ``(batch, classes)`` of each row by a model that did not see its fold ``parts`` ``(batch,)``."""
    scores = np.empty_like(targets)
    for part in np.unique(parts):
        held = parts == part
        scores[held] = learner.fit(rows[~held], targets[~held], rng)(rows[held])
    return scores


def _held_out_loss(
    learner: Learner, rows: Rows, targets: Scores, parts: NDArray[np.int64], rng: np.random.Generator
) -> float:
    scores = out_of_fold(learner, rows, targets, parts, rng)
    return float(-(targets * np.log(np.maximum(scores, 1e-6))).sum(axis=1).mean())


def _scaling(rows: Rows) -> Callable[[Rows], Rows]:
    """Standardisation learnt from ``rows``; features that never vary stay out."""
    centre, spread = rows.mean(axis=0), rows.std(axis=0)
    factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12 * (1 + np.abs(centre)))
    return lambda new: (new - centre) * factor


def _plain(rows: Rows) -> Floats:
    """The rows and a constant."""
    return np.column_stack([np.ones(len(rows)), rows])


def _radial(rows: Rows, width: float, rng: np.random.Generator) -> Callable[[Rows], Floats]:
    """Gaussian bumps around landmarks taken from ``rows``, beside the rows themselves."""
    centres = rows[np.sort(rng.permutation(len(rows))[:MAX_LANDMARKS])]
    distances = scipy.spatial.distance.pdist(centres, "sqeuclidean")
    scale = 2 * width**2 * max(float(np.median(distances)) if distances.size else 1.0, 1e-12)

    def features(new: Rows) -> Floats:
        bumps = np.exp(-scipy.spatial.distance.cdist(new, centres, "sqeuclidean") / scale)
        return np.column_stack([_plain(new), bumps])

    return features


def _fit_softmax(features: Floats, targets: Scores, penalty: float) -> Floats:
    """Weights ``(features, classes)`` of multinomial logistic regression; the constant goes unpunished."""
    shape = (features.shape[1], targets.shape[1])
    penalties = np.full((shape[0], 1), penalty)
    penalties[0] = 0.0

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(shape)
        value, slope = _cross_entropy(features @ weights, targets)
        pulled = penalties * weights
        return value + float(np.vdot(pulled, weights)) / 2, (features.T @ slope + pulled).ravel()

    return _minimise(loss, np.zeros(shape[0] * shape[1])).reshape(shape)


def _fit_network(rows: Rows, targets: Scores, penalty: float, hidden: int, rng: np.random.Generator) -> Model:
    """One hidden layer of ``tanh`` units, all weights trained."""
    inputs, outputs = rows.shape[1] + 1, targets.shape[1]
    split = inputs * hidden
    start = np.append(
        rng.normal(0, 1 / np.sqrt(inputs), split), rng.normal(0, 1 / np.sqrt(hidden), (hidden + 1) * outputs)
    )
    plain = _plain(rows)

    def unpack(flat: Floats) -> tuple[Floats, Floats]:
        return flat[:split].reshape(inputs, hidden), flat[split:].reshape(hidden + 1, outputs)

    def loss(flat: Floats) -> tuple[float, Floats]:
        first, second = unpack(flat)
        layer = np.tanh(plain @ first)
        value, slope = _cross_entropy(_plain(layer) @ second, targets)
        back = (slope @ second[1:].T) * (1 - layer**2)
        gradient = np.append((plain.T @ back).ravel(), (_plain(layer).T @ slope).ravel())
        return value + penalty / 2 * float(flat @ flat), gradient + penalty * flat

    first, second = unpack(_minimise(loss, start))
    return lambda new: scipy.special.softmax(_plain(np.tanh(_plain(new) @ first)) @ second, axis=1)


def _cross_entropy(logits: Floats, targets: Scores) -> tuple[float, Floats]:
    """Mean loss, and its slope ``(batch, classes)`` with respect to the logits.

    The exponentials are computed once for both: most of the time of a fit is spent here.
    """
    logs = logits - logits.max(axis=1, keepdims=True)
    slope = np.exp(logs)
    sums = slope.sum(axis=1, keepdims=True)
    logs -= np.log(sums)
    slope /= sums
    slope -= targets
    slope /= len(logits)
    return -float(np.vdot(targets, logs) / len(logits)), slope


def _minimise(loss: Loss, start: Floats) -> Floats:
    """Minimum by L-BFGS (Nocedal and Wright 2006, algorithm 7.5) with backtracking.

    SciPy's calls threaded linear algebra for its tiny inner systems, which on a busy machine costs ten
    times what the problem does.
    """
    memory: Steps = deque(maxlen=MEMORY)
    here, (value, slope) = start, loss(start)
    for _ in range(MAX_STEPS):
        if np.abs(slope).max() < SETTLED:
            break
        direction = -_curved(slope, memory)
        step, fall = 1.0 if memory else min(1.0, 1 / float(np.linalg.norm(slope))), float(slope @ direction)
        there = loss(here + step * direction)
        while there[0] > value + ARMIJO * step * fall and step > LEAST_STEP:
            step /= 2
            there = loss(here + step * direction)
        if step <= LEAST_STEP:
            break
        moved, turned = step * direction, there[1] - slope
        if (curvature := float(moved @ turned)) > LEAST_CURVATURE * float(turned @ turned):
            memory.append((moved, turned, curvature))
        here, (value, slope) = here + moved, there
    return here


def _curved(slope: Floats, memory: Steps) -> Floats:
    """The slope times the inverse curvature that the last steps showed: the two loops."""
    direction, shares = slope.copy(), []
    for moved, turned, curvature in reversed(memory):
        share = float(moved @ direction) / curvature
        direction -= share * turned
        shares.append(share)
    if memory:
        _, turned, curvature = memory[-1]
        direction *= curvature / (turned @ turned)
    for (moved, turned, curvature), share in zip(memory, reversed(shares), strict=True):
        direction += (share - float(turned @ direction) / curvature) * moved
    return direction
