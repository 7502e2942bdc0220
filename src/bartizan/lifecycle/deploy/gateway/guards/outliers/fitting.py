"""Fits a ``Reference``: prototypes from the training data, how rare a number is from rows that training did not see.

To the latter the distances between training rows are added where single ones are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.deploy.gateway.guards.outliers.detectors import (
    BY_SCORES,
    DETECTORS,
    Scores,
    at_temperature,
)
from bartizan.lifecycle.deploy.gateway.guards.outliers.encoding import Encoding, Points, encoding_of
from bartizan.lifecycle.deploy.gateway.guards.outliers.reference import Reference
from bartizan.lifecycle.deploy.gateway.guards.outliers.surprise import rarity_of

MOST_WHOLE = 2_000
"""Training rows that are kept one by one: a row is compared with all of them in some ten microseconds."""
PROTOTYPES = 1_000
"""Means that stand for more: they tell better than twice as many rows that are drawn by chance."""
ROUNDS = 3
"""In which means and what they stand for are settled (Lloyd 1982); more of them change little."""
LEAST_CALIBRATION = 20
LEAST_EACH = 8
"""Rows for each coordinate from which on the form of classes is that of new rows as well."""
TEMPERATURES = (0.05, 20.0)
SHRINKAGE = 0.1
"""Part of the covariance that is taken to be round, so that few records suffice."""
MOST_FITTED = 20_000
"""Training rows that the covariance is worked out on."""
_TINY = 1e-12
_AT_ONCE = 256

Rows = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Usual:
    """What a reference is fitted on."""

    rows: Rows
    """``(records, features)``: training data."""
    labels: Labels
    """``(records,)``: their classes."""
    classes: int
    codes: tuple[tuple[int, tuple[float, ...]], ...] = ()
    """Columns that hold categories, each with the numbers that stand for them."""
    flags: tuple[int, ...] = ()
    """Columns that are 1 for one category and 0 for all others."""
    image: bool = False
    members: int = 1
    """Records that every prototype is the mean of; more than one where single records must not be kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Rows that training did not see, with what the model answers."""

    rows: Rows
    labels: Labels
    scores: Scores | None
    """``(records, classes)``; None where the model gives none."""


def fit(usual: Usual, calibration: Calibration, rng: np.random.Generator) -> Reference:
    """Fit everything.

    Raises:
        ArtefactError: there are too few rows.
    """
    if len(calibration.rows) < LEAST_CALIBRATION or len(usual.rows) < usual.members:
        raise ArtefactError(
            f"{len(calibration.rows)} rows that training did not see are too few to say what is usual",
            remedy=f"evaluate on at least {2 * LEAST_CALIBRATION} records.",
        )
    encoding = encoding_of(usual.rows, codes=usual.codes, flags=usual.flags, image=usual.image, rng=rng)
    points = _points(encoding, usual.rows)
    whitening, middles = _classes(points, usual, rng)
    counts = np.bincount(usual.labels, minlength=usual.classes).astype(float)
    reference = Reference(
        features=usual.rows.shape[1],
        prior=tuple((counts / counts.sum()).tolist()),
        encoding=encoding,
        prototypes=_prototypes(points if usual.image else points @ whitening, usual.members, rng),
        whitening=whitening,
        middles=middles,
        turned=not usual.image,
        temperature=1.0 if calibration.scores is None else _temperature(calibration.scores, calibration.labels),
    )
    apart = _left_out(reference.prototypes) if _tells_apart(reference, usual) else np.empty(0)
    return _calibrated(reference, calibration, apart)


def _points(encoding: Encoding, rows: Rows) -> Points:
    parts = [encoding.points(rows[start : start + _AT_ONCE]) for start in range(0, len(rows), _AT_ONCE)]
    return np.concatenate(parts)


def _prototypes(points: Points, members: int, rng: np.random.Generator) -> Points:
    """Few rows as they are, of more the means of groups; with ``members`` means of so many that are alike."""
    some = points[np.sort(rng.permutation(len(points))[:MOST_FITTED])]
    chosen = points if len(points) <= MOST_WHOLE else _middles(some, rng)
    if members == 1:
        return chosen
    square = np.einsum("ij,ij->i", points, points)
    means = np.empty_like(chosen)
    for start in range(0, len(chosen), _AT_ONCE):
        part = chosen[start : start + _AT_ONCE]
        near = np.argpartition(square - 2 * (part @ points.T), members - 1, axis=1)[:, :members]
        means[start : start + len(part)] = points[near].mean(axis=1)
    return means


def _middles(points: Points, rng: np.random.Generator) -> Points:
    """``(PROTOTYPES, coordinates)``: means of groups of points, each in the group of the mean that is nearest."""
    middles = points[rng.permutation(len(points))[:PROTOTYPES]].copy()
    for _ in range(ROUNDS):
        square = np.einsum("ij,ij->i", middles, middles)
        group = np.concatenate(
            [
                (square - 2 * (points[start : start + _AT_ONCE] @ middles.T)).argmin(axis=1)
                for start in range(0, len(points), _AT_ONCE)
            ]
        )
        total = np.zeros(middles.shape)
        np.add.at(total, group, points)
        count = np.bincount(group, minlength=len(middles))[:, None]
        middles = np.where(count > 0, total / np.maximum(count, 1), middles).astype(np.float32)
    return middles


def _classes(points: Points, usual: Usual, rng: np.random.Generator) -> tuple[Points, Points]:
    """What makes classes round, and their middles then; classes without a record have none."""
    some = rng.permutation(len(points))[:MOST_FITTED]
    points, labels = points[some].astype(np.float64), usual.labels[some]
    present = np.unique(labels)
    middles = np.stack([points[labels == label].mean(axis=0) for label in present])
    within = points - middles[np.searchsorted(present, labels)]
    covariance = within.T @ within / len(within)
    size = max(float(np.trace(covariance)) / len(covariance), _TINY)
    values, vectors = np.linalg.eigh((1 - SHRINKAGE) * covariance + SHRINKAGE * size * np.eye(len(covariance)))
    whitening = (vectors / np.sqrt(np.maximum(values, _TINY))).astype(np.float32)
    return whitening, (middles @ whitening).astype(np.float32)


def _temperature(scores: Scores, labels: Labels) -> float:
    """The temperature at which the scores of the true classes are likeliest."""
    rows = np.arange(len(labels))

    def loss(log: float) -> float:
        given = at_temperature(scores, float(np.exp(log)))[rows, labels]
        return float(-np.log(np.maximum(given, _TINY)).mean())

    bounds = (float(np.log(TEMPERATURES[0])), float(np.log(TEMPERATURES[1])))
    return float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _tells_apart(reference: Reference, usual: Usual) -> bool:
    """Whether distances between training rows are as those to new ones.

    Means are nearer to what they were made of, and so are few rows in a form that was learnt from them.
    """
    many = len(reference.prototypes) >= LEAST_EACH * reference.encoding.coordinates
    whole = usual.members == 1 and len(usual.rows) <= MOST_WHOLE
    return whole and (many or not reference.turned)


def _left_out(prototypes: Points) -> NDArray[np.float64]:
    """``(references,)``: how far each prototype is from the nearest other one.

    Training rows are as good as new ones here, since what says how far they are was not trained; they make the tail
    of the distances known much better where evaluation rows are few.
    """
    if len(prototypes) == 1:
        return np.empty(0)
    square = np.einsum("ij,ij->i", prototypes, prototypes)
    found = np.empty(len(prototypes))
    for start in range(0, len(prototypes), _AT_ONCE):
        part = prototypes[start : start + _AT_ONCE]
        apart = square + square[start : start + len(part), None] - 2 * (part @ prototypes.T)
        apart[np.arange(len(part)), start + np.arange(len(part))] = np.inf
        found[start : start + len(part)] = apart.min(axis=1)
    return np.asarray(np.sqrt(np.maximum(found, 0)))


def _calibrated(reference: Reference, calibration: Calibration, apart: NDArray[np.float64]) -> Reference:
    """With how rare the numbers of each detector are; ``combined`` needs no more than the others."""
    names = [name for name in DETECTORS if calibration.scores is not None or name not in BY_SCORES]
    numbers = {name: reference.raw(name, calibration.rows, calibration.scores) for name in names if name != "combined"}
    numbers["neighbours"] = np.concatenate([numbers["neighbours"], apart])
    return replace(reference, rarities={name: rarity_of(found) for name, found in numbers.items()})


__all__ = ["LEAST_CALIBRATION", "MOST_WHOLE", "PROTOTYPES", "Calibration", "Usual", "fit"]
