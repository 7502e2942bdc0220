"""What is usual in the streams of a role, as cameras and sensors send them: learnt from recorded ones.

Frames that follow one another are always too close, so that closeness says nothing there. Two things do. A sensor has a
noise of its own and a scene a pace of its own: distances from the nearest earlier frame keep within a band. And what is
seen hardly ever changes its class from one frame to the next. Frames that break either are counted, against the share
of those that do so anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError, InputError
from bartizan.lifecycle.deploy.gateway.guards.sequence.encoder import Encoder, Floats
from bartizan.lifecycle.deploy.gateway.guards.sequence.reference import Expectation, Reference, Spacing, table_of

BAND = (0.002, 0.998)
"""Quantiles of the distances of frames from the nearest earlier one, between which they are usual."""
LEAST_FRAMES = 200
"""Frames close to an earlier one below which nothing is learnt."""
LEAST_UNUSUAL = 0.005
"""Share of unusual frames that is expected at least: few frames cannot show that there are none."""
MOST_FRAMES = 20_000
EARLIER = 2_000
"""Frames back to which one is compared."""


def spacing_of(reference: Reference, encoder: Encoder) -> Spacing:
    """Local spacing by what is kept of natural rows."""
    rows = np.frombuffer(reference.rows, "<f4").reshape(-1, encoder.width).astype(np.float32)
    return Spacing(rows, np.frombuffer(reference.spacing, "<f4").astype(np.float32))


def learn_stream(
    reference: Reference, limit: float, streams: Sequence[tuple[NDArray[np.floating], NDArray[np.int64]]]
) -> Expectation:
    """Learn from recorded streams: frames ``(n, features)`` in their order, and what the model answers to each.

    ``limit`` is the distance, in local units, below which two queries are close.

    Raises:
        InputError: too few frames are close to an earlier one, so that closeness may be counted as anywhere else.
    """
    encoder = Encoder(reference.encoding)
    spacing = spacing_of(reference, encoder)
    parts = [_steps(encoder, spacing, rows[:MOST_FRAMES], labels[:MOST_FRAMES]) for rows, labels in streams]
    distance, turned = (np.concatenate([part[column] for part in parts]) for column in (0, 1))
    close = distance < limit
    if close.sum() < LEAST_FRAMES:
        raise InputError(
            f"{int(close.sum())} frames of the recorded streams are close to an earlier one, which is too few to learn "
            "from",
            remedy=f"record longer streams (at least {LEAST_FRAMES} such frames), or expect no stream of this role.",
        )
    low, high = (float(value) for value in np.quantile(distance[close], BAND))
    outside = (distance[close] < low) | (distance[close] > high)
    unusual = float((outside | turned[close]).mean())
    return Expectation(low=low, high=high, unusual=max(unusual, LEAST_UNUSUAL), frames=int(close.sum()))


def _steps(
    encoder: Encoder, spacing: Spacing, rows: NDArray[np.floating], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of every frame but the first: distance from the nearest earlier one in local units, and another answer there.

    Exact repeats are left out, as they are by the guard.
    """
    if rows.ndim != 2 or rows.shape[1] != encoder.kept.features or len(rows) != len(labels):  # noqa: PLR2004 - a matrix
        raise ArtefactError(
            f"frames {rows.shape} do not fit a model of {encoder.kept.features} features",
            remedy="record streams as the model is given them.",
        )
    _, first = np.unique(rows.astype(np.float32), axis=0, return_index=True)
    kept = np.sort(first)
    short, answers = encoder.many(encoder.left(rows[kept])), labels[kept]
    norms = ((short * short).sum(axis=1) - 1.0).tolist()
    units = np.array([unit for unit, _ in spacing.many(short, norms)])
    nearest, squared = _earlier(short, np.array(norms))
    turned: NDArray[np.bool_] = answers[1:] != answers[nearest]
    return np.sqrt(np.maximum(squared, 0.0)) / units[1:], turned


def _earlier(short: Floats, norms: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Position of, and squared distance from, the nearest of the frames before each but the first."""
    table = table_of(short[:, :-1])
    nearest = np.zeros(len(short) - 1, np.int64)
    squared = np.zeros(len(short) - 1)
    for place in range(1, len(short)):
        begin = max(0, place - EARLIER)
        products = short[place] @ table[:, begin:place]
        best = int(products.argmax())
        nearest[place - 1], squared[place - 1] = begin + best, norms[place] - 2.0 * float(products[best])
    return nearest, squared
