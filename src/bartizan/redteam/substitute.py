"""Substitutes: small networks that an adversary trains on its own rows, to find directions that also fool the victim.

Two hidden layers of rectified units, trained by Adam; all in NumPy, so that nothing needs to be
installed. An ensemble transfers better than any one of its members (Liu et al. 2017, arXiv:1611.02770).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.targets.protocol import Labels, Loss, Rows, Scores

Floats = NDArray[np.floating]

PASSES = 40
BATCH = 64
RATE = 2e-3
DECAY = 1e-4
"""Quadratic penalty on the weights, for each step."""
WIDTHS = ((64, 64), (128, 64), (96, 96))
"""Hidden units of the members of an ensemble."""
JITTER = 0.3
"""Noise on the training rows, in standard deviations: with few rows it keeps the slopes meaningful."""


@dataclass(frozen=True, slots=True)
class Substitute:
    """A network on standardised features."""

    centre: Floats
    factor: Floats
    layers: tuple[tuple[Floats, Floats], ...]
    """Weights ``(inputs, outputs)`` and biases of each layer."""

    def logits(self, rows: Floats) -> Floats:
        """``(batch, classes)``."""
        return self.values(rows)[-1]

    def gradients(self, rows: Rows, loss: Loss, labels: Labels, targets: Labels | None = None) -> Floats:
        """Logits, and behind them the gradient of the cross-entropy, ``(batch, classes + features)``."""
        del loss, targets
        values = self.values(rows)
        slope: Floats = scipy.special.softmax(values[-1], axis=1)
        slope[np.arange(len(rows)), labels] -= 1
        for (weights, _), value in zip(self.layers[::-1], values[-2::-1], strict=True):
            slope = slope @ weights.T
            if value is not values[0]:
                slope = slope * (value > 0)
        return np.concatenate([values[-1], slope * self.factor], axis=1)

    def values(self, rows: Floats) -> list[Floats]:
        """Input and output of every layer."""
        values: list[Floats] = [(rows - self.centre) * self.factor]
        for place, (weights, bias) in enumerate(self.layers):
            value = values[-1] @ weights + bias
            values.append(np.maximum(value, 0) if place < len(self.layers) - 1 else value)
        return values


def train(rows: Rows, targets: Scores, scale: Floats, hidden: Sequence[int], rng: np.random.Generator) -> Substitute:
    """Fit to soft targets ``(records, classes)``; ``scale`` ``(features,)`` is what changes are measured in.

    A feature that hardly varies in the rows, such as a pixel at the border, is not blown up: its
    slope would be noise.
    """
    centre, spread = rows.mean(axis=0), rows.std(axis=0) / scale
    factor = 1 / (np.maximum(np.maximum(spread, spread.mean()), _LEAST) * scale)
    sizes = (rows.shape[1], *hidden, targets.shape[1])
    layers = [
        (rng.normal(0, np.sqrt(2 / size), (size, after)).astype(np.float32), np.zeros(after, np.float32))
        for size, after in pairwise(sizes)
    ]
    inputs = ((rows - centre) * factor).astype(np.float32)
    learner = _Adam([part for layer in layers for part in layer])
    network = Substitute(np.zeros(1), np.ones(1), tuple(layers))
    batches = max(len(rows) // BATCH, 1)
    for step in range(PASSES * batches):
        if step % batches == 0:
            order = rng.permutation(len(rows))
        places = order[step % batches * BATCH : (step % batches + 1) * BATCH]
        noisy = inputs[places] + JITTER * rng.standard_normal((len(places), inputs.shape[1]), dtype=np.float32)
        rate = RATE * (1 - step / (PASSES * batches))
        learner.step(_slopes(network, noisy, targets[places]), rate)
    return Substitute(centre, factor, tuple(layers))


_LEAST = 1e-12


def _slopes(network: Substitute, inputs: Floats, targets: Scores) -> list[Floats]:
    """Gradient of the mean cross-entropy by every weight and bias, in their order."""
    values = network.values(inputs)
    slope: Floats = ((scipy.special.softmax(values[-1], axis=1) - targets) / len(inputs)).astype(np.float32)
    found: list[Floats] = []
    for (weights, _), value in zip(network.layers[::-1], values[-2::-1], strict=True):
        found = [value.T @ slope + DECAY * weights, slope.sum(axis=0), *found]
        slope = (slope @ weights.T) * (value > 0)
    return found


class _Adam:
    """Kingma and Ba 2015; changes its parameters in place."""

    def __init__(self, parameters: Sequence[Floats]) -> None:
        self.parameters = parameters
        self.first = [np.zeros_like(part) for part in parameters]
        self.second = [np.zeros_like(part) for part in parameters]
        self.steps = 0

    def step(self, slopes: Sequence[Floats], rate: float) -> None:
        self.steps += 1
        for place, slope in enumerate(slopes):
            self.first[place] += 0.1 * (slope - self.first[place])
            self.second[place] += 0.001 * (np.square(slope) - self.second[place])
            mean = self.first[place] / (1 - 0.9**self.steps)
            spread = self.second[place] / (1 - 0.999**self.steps)
            self.parameters[place][...] -= rate * mean / (np.sqrt(spread) + 1e-8)


def ensemble(rows: Rows, targets: Scores, scale: Floats, rng: np.random.Generator) -> tuple[Substitute, ...]:
    """Networks of several widths, each trained on rows ``(records, features)`` and soft targets. See ``train``."""
    return tuple(train(rows, targets, scale, hidden, rng) for hidden in WIDTHS)
