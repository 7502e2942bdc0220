"""What each detector makes of a row: a number, higher for rows that are less like those the model learnt from.

``neighbours``: distance to the nearest row that the model learnt from (Sun et al. 2022, here on the input itself).
``mahalanobis``: distance to the nearest class, by a covariance that all classes share (Lee et al. 2018).
``energy``: what the model's scores say of how strongly it answers (Liu et al. 2020). A server of scores has no logits;
    the logarithms of scores are the logits but for their sum, and with logits that add up to nothing the free energy
    is the mean logarithm of the scores with its sign turned.
``softmax``: one less the highest score (Hendrycks and Gimpel 2017), at a temperature that is fitted (Guo et al. 2017;
    Liang et al. 2018).
``combined``: the rarer of ``neighbours`` and ``energy``. Energy alone takes a picture that stands on its side for
    the clearest of all; a neighbour alone does not see that a model wavers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, log
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Detector = Literal["combined", "neighbours", "energy", "mahalanobis", "softmax"]
DETECTORS: tuple[Detector, ...] = ("combined", "neighbours", "energy", "mahalanobis", "softmax")
BY_SCORES: frozenset[str] = frozenset({"combined", "energy", "softmax"})
"""Detectors that want the scores of the model."""
FLOOR = 1e-30
"""Scores below count as this."""

FEW = 64
"""Classes up to which a row is quicker looked at without arrays."""

Scores = NDArray[np.floating[Any]]


def energy(scores: Scores) -> NDArray[np.float64]:
    """``(batch,)`` from scores ``(batch, classes)``: the mean logarithm of a row's scores."""
    logs = np.log(np.maximum(scores, FLOOR))
    return np.asarray(logs.sum(axis=1) / scores.shape[1])


def energy_of(scores: Sequence[float]) -> float:
    """The same of one row, without arrays; NaN when a score is none."""
    return sum([score if isnan(score) else log(max(FLOOR, score)) for score in scores]) / len(scores)


def softmax(scores: Scores, temperature: float) -> NDArray[np.float64]:
    """``(batch,)``: how far the highest score is from one, once scores ``(batch, classes)`` are at a temperature."""
    return np.asarray(1 - at_temperature(scores, temperature).max(axis=1))


def at_temperature(scores: Scores, temperature: float) -> NDArray[np.float64]:
    """Scores ``(batch, classes)`` as they are when logits are divided by ``temperature``."""
    logs = np.log(np.maximum(scores, FLOOR)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


__all__ = ["BY_SCORES", "DETECTORS", "FEW", "Detector", "at_temperature", "energy", "energy_of", "softmax"]
