"""Distance folded into confidence: what a model says of a row is worth as much as the row is like those it learnt from.

Of all rows a share may be strangers, on which the word of the model is worth nothing. A usual row is as rare as this
one, or rarer, with a chance that its decades say; a stranger may lie anywhere. By Bayes' rule that gives the chance
that the row is no stranger, and so much of the scores is kept. The rest goes to the shares of classes in the training
data, never so far that another class than the answer comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

USUAL = 1.0
"""Decades up to which nothing is taken off."""


def trust_of(decades: NDArray[np.float64], strangers: float) -> NDArray[np.float64]:
    """``(batch,)``: which part of the model's word is kept."""
    usual = (1 - strangers) * np.power(10.0, -np.maximum(decades - USUAL, 0.0))
    # At the edge of what is usual everything is kept, so that trust falls without a step.
    return np.asarray(usual / (usual + strangers) / (1 - strangers)).clip(0.0, 1.0)


def shrunk(
    scores: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    trust: NDArray[np.float64],
    prior: Sequence[float],
) -> NDArray[np.float64]:
    """Scores ``(batch, classes)`` of which a part ``(batch,)`` is kept; the rest is the prior."""
    rows = np.arange(len(scores))
    towards = np.asarray(prior) - np.asarray(prior)[labels][:, None]
    ahead = scores[rows, labels][:, None] - scores
    # The label stays first while trust * ahead >= (1 - trust) * towards.
    gap = ahead + towards
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.where((towards > 0) & (gap > 0), towards / gap, 0.0).max(axis=1)
    kept = np.clip(np.maximum(trust, least), 0.0, 1.0)[:, None]
    told = np.asarray(kept * scores + (1 - kept) * np.asarray(prior))
    # Where both come to the same, rounding must not put another class a hair ahead.
    told[rows, labels] = told.max(axis=1)
    return told


__all__ = ["USUAL", "shrunk", "trust_of"]
