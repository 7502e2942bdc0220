"""Small networks trained many at a time, in NumPy: shadow models at a fraction of the usual cost.

Each step multiplies the weights of several networks at once (one product of stacked matrices), so
that the work of the interpreter is shared and the weights stay in the processor's cache. A network
comes out the same, bit for bit, whatever others it is trained with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.targets.protocol import Access, Labels, Rows, Scores

Singles = NDArray[np.float32]

MAX_HELD = 1 << 28
"""Bytes of weights trained and held at once."""
STACK = 8
"""Networks in one product: enough to share the interpreter's work, few enough for the cache."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How each network is trained: one hidden layer of rectifiers, momentum, a rate that falls as a cosine."""

    hidden: int = 128
    epochs: int = 40
    batch: int = 50
    rate: float = 0.1
    momentum: float = 0.9
    decay: float = 0.0
    """Quadratic penalty on the weights."""
    standardise: bool = True
    """Scale each feature by what the training rows show; False leaves pixels as they are."""


@dataclass(frozen=True, slots=True)
class Job:
    """Data and seed of one network."""

    rows: Rows
    """``(records, features)``"""
    labels: Labels
    """``(records,)``"""
    seed: int


class Network:
    """One trained network. A ``Target`` in this process that can be retrained many times at once."""

    name = "model:network"
    offers = frozenset({Access.LABELS, Access.SCORES, Access.TRAINING})
    class_values: tuple[str, ...] = ()

    def __init__(
        self, recipe: Recipe, classes: int, weights: Sequence[Singles], scaling: tuple[Singles, Singles]
    ) -> None:
        self.recipe, self.classes = recipe, classes
        self.features = len(weights[0])
        self._weights, self._scaling = tuple(weights), scaling

    @property
    def at_once(self) -> int:
        """How many networks of this size are trained and held together."""
        return max(STACK, MAX_HELD // sum(part.nbytes for part in self._weights))

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        first, first_bias, second, second_bias = self._weights
        hidden = np.maximum(_scaled(rows, self._scaling) @ first + first_bias, 0)
        scores: Scores = scipy.special.softmax((hidden @ second + second_bias).astype(np.float64), axis=1)
        return scores

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        labels: Labels = self.scores(rows).argmax(axis=1)
        return labels

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Network:
        """See ``Target.retrain``."""
        return self.retrain_many([(rows, labels, seed)])[0]

    def retrain_many(self, fits: Sequence[tuple[Rows, Labels, int]]) -> Sequence[Network]:
        """See ``TrainsTogether.retrain_many``."""
        return train([Job(*fit) for fit in fits], self.classes, self.recipe)


def train(jobs: Sequence[Job], classes: int, recipe: Recipe | None = None) -> list[Network]:
    """A network for each job.

    Raises:
        ArtefactError: a job has no rows, or labels that are no class.
        WorkError: training diverged.
    """
    recipe = recipe or Recipe()
    for job in jobs:
        _check(job, classes)
    trained: dict[int, Network] = {}
    for group in _alike(jobs):
        for start in range(0, len(group), STACK):
            places = group[start : start + STACK]
            networks = _train_stack([jobs[place] for place in places], classes, recipe)
            trained |= dict(zip(places, networks, strict=True))
    return [trained[place] for place in range(len(jobs))]


def _check(job: Job, classes: int) -> None:
    if not len(job.rows):
        raise ArtefactError("a network cannot be trained on no rows", remedy="give at least one row.")
    if not 0 <= job.labels.min() <= job.labels.max() < classes:
        raise ArtefactError(f"a label is outside of the {classes} classes", remedy="number the classes from 0.")


def _alike(jobs: Sequence[Job]) -> list[list[int]]:
    """Places of jobs with arrays of the same shape."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, job in enumerate(jobs):
        groups.setdefault(job.rows.shape, []).append(place)
    return list(groups.values())


def _train_stack(jobs: Sequence[Job], classes: int, recipe: Recipe) -> list[Network]:
    """Networks whose jobs have the same shape, trained in one stack."""
    scalings = [_scaling(job.rows, recipe) for job in jobs]
    rows = np.stack([_scaled(job.rows, scaling) for job, scaling in zip(jobs, scalings, strict=True)])
    targets = np.eye(classes, dtype=np.float32)[np.stack([job.labels for job in jobs])]
    streams = [np.random.default_rng(job.seed) for job in jobs]
    weights = _start(streams, rows.shape[2], recipe.hidden, classes)
    with np.errstate(over="ignore", invalid="ignore"):  # what diverges is refused below
        _descend(weights, rows, targets, streams, recipe)
    if not all(np.isfinite(part).all() for part in weights):
        raise WorkError("training a network diverged", remedy="lower the rate, or scale the features.")
    return [
        Network(recipe, classes, [part[place] for part in weights], scaling) for place, scaling in enumerate(scalings)
    ]


def _start(streams: Sequence[np.random.Generator], features: int, hidden: int, classes: int) -> list[Singles]:
    """Stacked weights and biases; each network draws its own (He et al. 2015, arXiv:1502.01852)."""

    def drawn(inputs: int, outputs: int) -> Singles:
        scale = np.float32(np.sqrt(2 / inputs))
        return np.stack([scale * stream.standard_normal((inputs, outputs), dtype=np.float32) for stream in streams])

    count = len(streams)
    biases = [np.zeros((count, 1, width), dtype=np.float32) for width in (hidden, classes)]
    return [drawn(features, hidden), biases[0], drawn(hidden, classes), biases[1]]


def _descend(
    weights: list[Singles], rows: Singles, targets: Singles, streams: Sequence[np.random.Generator], recipe: Recipe
) -> None:
    """Train in place; each epoch takes the rows in an order of each network's own."""
    stack, records, _ = rows.shape
    batch = min(recipe.batch, records)
    each, speed = np.arange(stack)[:, None], [np.zeros_like(part) for part in weights]
    steps, step = recipe.epochs * (records // batch), 0
    for _ in range(recipe.epochs):
        order = np.stack([stream.permutation(records) for stream in streams])
        for start in range(0, records - batch + 1, batch):
            chosen = order[:, start : start + batch]
            slopes = _slopes(weights, rows[each, chosen], targets[each, chosen])
            rate = recipe.rate * (1 + np.cos(np.pi * step / steps)) / 2
            _move(weights, speed, slopes, rate, recipe)
            step += 1


def _slopes(weights: Sequence[Singles], rows: Singles, targets: Singles) -> tuple[Singles, ...]:
    """Gradient of the mean cross-entropy of each network by its weights."""
    first, first_bias, second, second_bias = weights
    hidden = np.maximum(rows @ first + first_bias, 0)
    scores = hidden @ second + second_bias
    scores -= scores.max(axis=2, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=2, keepdims=True)
    error = (scores - targets) / np.float32(rows.shape[1])
    back = error @ second.transpose(0, 2, 1)
    back *= hidden > 0
    return (
        rows.transpose(0, 2, 1) @ back,
        back.sum(axis=1, keepdims=True),
        hidden.transpose(0, 2, 1) @ error,
        error.sum(axis=1, keepdims=True),
    )


def _move(
    weights: Sequence[Singles], speed: Sequence[Singles], slopes: Sequence[Singles], rate: float, recipe: Recipe
) -> None:
    """One step of momentum, in place."""
    for part, pace, slope in zip(weights, speed, slopes, strict=True):
        np.multiply(pace, np.float32(recipe.momentum), out=pace)
        np.add(pace, slope, out=pace)
        if recipe.decay:
            np.add(pace, np.float32(recipe.decay) * part, out=pace)
        np.subtract(part, np.multiply(pace, np.float32(rate), out=slope), out=part)


def _scaling(rows: Rows, recipe: Recipe) -> tuple[Singles, Singles]:
    """Centre and factor of each feature; features that never vary stay out."""
    if not recipe.standardise:
        return np.zeros(rows.shape[1], np.float32), np.ones(rows.shape[1], np.float32)
    centre, spread = rows.mean(axis=0), rows.std(axis=0)
    factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12 * (1 + np.abs(centre)))
    return centre.astype(np.float32), factor.astype(np.float32)


def _scaled(rows: Rows, scaling: tuple[Singles, Singles]) -> Singles:
    centre, factor = scaling
    scaled: Singles = (rows.astype(np.float32) - centre) * factor
    return scaled


def untrained(features: int, classes: int, recipe: Recipe | None = None) -> Network:
    """A network that has learnt nothing: what to retrain, where no target is given."""
    recipe = recipe or Recipe()
    parts = _start([np.random.default_rng(0)], features, recipe.hidden, classes)
    return Network(
        replace(recipe),
        classes,
        [part[0] for part in parts],
        _scaling(np.zeros((1, features)), replace(recipe, standardise=False)),
    )
