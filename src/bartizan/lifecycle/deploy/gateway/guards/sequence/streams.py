"""What is usual in the streams of a role, as cameras and sensors send them: learnt from recorded ones.

Frames that follow one another are always too close, so that closeness says nothing there. Two things do. A sensor has a
noise of its own and a scene a pace of its own: distances from the nearest earlier frame keep within a band. And what is
seen hardly ever changes its class from one frame to the next. Frames that break either are counted, against the share
of those that do so anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError, InputError
from bartizan.lifecycle.deploy.gateway.guards.sequence.encoder import Encoder, Floats
from bartizan.lifecycle.deploy.gateway.guards.sequence.reference import (
    Expectation,
    Reference,
    Spacing,
    spacing_of,
    table_of,
)

BAND = (0.002, 0.998)
"""Quantiles of the distances of frames from the nearest earlier one, between which they are usual."""
LEAST_FRAMES = 200
"""Frames close to an earlier one below which nothing is learnt."""
LEAST_UNUSUAL = 0.005
"""Share of unusual frames that is expected at least: few frames cannot show that there are none."""
FALL = 8.0
"""An unsuspicious query takes away so many times the share of natural queries that look suspicious: the sum of an
honest account stays near 0 even where suspicious ones are several times as common as they were in the reference."""
REACHED, SAFETY, LEAST_SLACK = 0.9995, 2.0, 10.0
"""Of the frames of recorded streams stay below the points that are allowed for, and how much more is allowed: other
streams are not the recorded ones; and what is allowed for at least."""
MOST_FRAMES = 20_000
EARLIER = 2_000
"""Frames back to which one is compared."""


def learn_stream(
    reference: Reference, limit: float, memory: int, streams: Sequence[tuple[NDArray[np.floating], NDArray[np.int64]]]
) -> Expectation:
    """Learn from recorded streams: frames ``(n, features)`` in their order, and what the model answers to each.

    ``limit`` is the distance, in local units, below which two queries are close when ``memory`` are remembered.

    Raises:
        InputError: too few frames are close to an earlier one, so that closeness may be counted as anywhere else.
    """
    encoder = Encoder(reference.encoding)
    spacing = spacing_of(reference, memory)
    parts = [_steps(encoder, spacing, rows[:MOST_FRAMES], labels[:MOST_FRAMES]) for rows, labels in streams]
    near = [part.distance[part.distance < limit] for part in parts]
    distance = np.concatenate(near)
    if len(distance) < LEAST_FRAMES:
        raise InputError(
            f"{len(distance)} frames of the recorded streams are close to an earlier one, too few to learn from",
            remedy=f"record longer streams (at least {LEAST_FRAMES} such frames), or expect no stream of this role.",
        )
    low, high = (float(value) for value in np.quantile(distance, BAND))
    turned = np.concatenate([part.turned[part.distance < limit] for part in parts])
    unusual = max(float(((distance < low) | (distance > high) | turned).mean()), LEAST_UNUSUAL)
    reached = np.concatenate([_points(part, limit, (low, high), FALL * unusual) for part in parts])
    slack = max(LEAST_SLACK, SAFETY * float(np.quantile(reached, REACHED)))
    return Expectation(low=low, high=high, unusual=unusual, slack=slack, frames=len(distance))


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """Every frame of a stream but the first."""

    nearest: NDArray[np.int64]
    """Position of the nearest earlier frame."""
    distance: NDArray[np.float64]
    """From it, in local units."""
    turned: NDArray[np.bool_]
    """Whether it was answered otherwise."""


def _steps(encoder: Encoder, spacing: Spacing, rows: NDArray[np.floating], labels: NDArray[np.int64]) -> _Steps:
    """What the frames of one stream have to do with those before. Exact repeats are left out, as they are served."""
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
    return _Steps(nearest, np.sqrt(np.maximum(squared, 0.0)) / units[1:], answers[1:] != answers[nearest])


def _points(steps: _Steps, limit: float, band: tuple[float, float], fall: float) -> NDArray[np.float64]:
    """Points of its place after each frame that is close to an earlier one, counted as the guard counts them."""
    places: dict[int, int] = {}
    points: list[float] = []
    reached = np.zeros(len(steps.distance))
    outside = ((steps.distance < band[0]) | (steps.distance > band[1])).tolist()
    for frame in np.flatnonzero(steps.distance < limit).tolist():
        home = places[frame + 1] = places.setdefault(int(steps.nearest[frame]), len(points))
        if home == len(points):
            points.append(0.0)
        points[home] = points[home] + 1.0 if outside[frame] else max(0.0, points[home] - fall)
        points[home] += float(steps.turned[frame])
        reached[frame] = points[home]
    return reached


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
