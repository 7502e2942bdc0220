"""Traces in the activations: records of a class that the model reached by another way than the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.detection.inspected import FPR, Inspected, Suspicion, highest, require
from bartizan.targets.protocol import Access

COMPONENTS = 10
"""Principal components that are clustered (Chen et al. 2018)."""
LARGEST_SHARE = 0.35
"""Of a class, above which the smaller cluster is taken for a natural half and not for poison."""
LEAST_SILHOUETTE = 0.1
"""Below it, two clusters are one cloud cut in two."""
RESTARTS, ROUNDS = 4, 50
LEAST_RECORDS = 4
_SILHOUETTE_SAMPLE = 500


@dataclass(frozen=True, slots=True)
class ActivationClustering:
    """Two clusters in each class; a small one that stands apart is suspicious. See ``Detector``.

    The penultimate layer is read. On the logits, which some libraries read, the same clustering
    misses most.
    """

    largest_share: float = LARGEST_SHARE
    least_silhouette: float = LEAST_SILHOUETTE
    name: ClassVar[str] = "activation_clustering"
    title: ClassVar[str] = "Small clusters of a class in the activations"
    needs: ClassVar[frozenset[Access]] = frozenset({Access.WEIGHTS})
    techniques: ClassVar[tuple[str, ...]] = ("T19",)
    references: ClassVar[tuple[str, ...]] = (
        "Chen et al. 2018, Detecting backdoor attacks on neural networks by activation clustering, arXiv:1811.03728",
    )

    def inspect(self, inspected: Inspected, rng: np.random.Generator) -> Suspicion:
        """See ``Detector.inspect``."""
        require(self, inspected)
        assert inspected.activations is not None  # noqa: S101 - required above
        scores, flagged, notes = np.zeros(len(inspected.rows)), np.zeros(len(inspected.rows), np.bool_), []
        for label in range(inspected.classes):
            own = np.flatnonzero(inspected.labels == label)
            if len(own) < LEAST_RECORDS:
                continue
            apart, silhouette, share = split(inspected.activations[own], rng)
            # How far towards the small cluster, weighted by how much the two stand apart at all.
            scores[own] = apart * max(silhouette, 0.0) * (share <= self.largest_share)
            if share <= self.largest_share and silhouette >= self.least_silhouette:
                flagged[own] = apart > 0
                notes.append(f"class {label}: {share:.0%} of its records cluster apart (silhouette {silhouette:.2f}).")
        return Suspicion(scores, flagged, notes=tuple(notes))


@dataclass(frozen=True, slots=True)
class SpectralSignatures:
    """Projection on the strongest direction of a class, squared. See ``Detector``."""

    fpr: float = FPR
    name: ClassVar[str] = "spectral_signatures"
    title: ClassVar[str] = "Outliers along the strongest direction of a class in the activations"
    needs: ClassVar[frozenset[Access]] = frozenset({Access.WEIGHTS})
    techniques: ClassVar[tuple[str, ...]] = ("T19",)
    references: ClassVar[tuple[str, ...]] = (
        "Tran et al. 2018, Spectral signatures in backdoor attacks, arXiv:1811.00636",
    )

    def inspect(self, inspected: Inspected, rng: np.random.Generator) -> Suspicion:
        """See ``Detector.inspect``."""
        del rng
        require(self, inspected)
        assert inspected.activations is not None  # noqa: S101 - required above
        scores = np.zeros(len(inspected.rows))
        for label in range(inspected.classes):
            own = np.flatnonzero(inspected.labels == label)
            if len(own) >= LEAST_RECORDS:
                scores[own] = np.square(projections(inspected.activations[own], 1)[:, 0])
        return Suspicion(scores, highest(scores, self.fpr))


def projections(rows: NDArray[np.floating[Any]], components: int) -> NDArray[np.float64]:
    """``(rows, components)``: coordinates along the principal directions, the strongest first; fewer if there are."""
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    _, vectors = np.linalg.eigh(centred.T @ centred) if centred.shape[1] <= len(rows) else (None, None)
    if vectors is None:
        _, _, right = np.linalg.svd(centred, full_matrices=False)
        vectors = right[::-1].T
    strongest = vectors[:, ::-1][:, :components]
    # The sign of a direction is arbitrary; the largest entry is made positive, so that bytes repeat.
    sign = np.sign(strongest[np.abs(strongest).argmax(axis=0), np.arange(strongest.shape[1])])
    coordinates: NDArray[np.float64] = centred @ (strongest * np.where(sign == 0, 1.0, sign))
    return coordinates


def split(rows: NDArray[np.floating[Any]], rng: np.random.Generator) -> tuple[NDArray[np.float64], float, float]:
    """Two clusters of ``rows`` ``(rows, width)``.

    Returns:
        For each row how far it is towards the smaller cluster, from -1 to 1 and positive within it; the mean
        silhouette; the smaller cluster's share.
    """
    points = projections(rows, COMPONENTS)
    centres = _two_means(points, rng)
    distances = np.sqrt(np.square(points[:, None, :] - centres).sum(axis=2))
    smaller = int((distances.argmin(axis=1) == 1).mean() <= 1 / 2)
    near, far = distances[:, smaller], distances[:, 1 - smaller]
    apart = (far - near) / np.maximum(far + near, np.finfo(np.float64).tiny)
    return apart, _silhouette(points, apart > 0, rng), float((apart > 0).mean())


def _two_means(points: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """``(2, width)``: the centres that leave the least spread, of several starts."""
    best, least = points[:2], np.inf
    for _ in range(RESTARTS):
        first = points[rng.integers(len(points))]
        away = np.square(points - first).sum(axis=1)
        if not away.any():
            return np.stack([first, first])
        centres = np.stack([first, points[rng.choice(len(points), p=away / away.sum())]])
        centres, spread = _settled(points, centres)
        if spread < least:
            best, least = centres, spread
    return best


def _settled(points: NDArray[np.float64], centres: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    for _ in range(ROUNDS):
        distances = np.square(points[:, None, :] - centres).sum(axis=2)
        nearest = distances.argmin(axis=1)
        moved = np.stack(
            [points[nearest == side].mean(axis=0) if (nearest == side).any() else centres[side] for side in (0, 1)]
        )
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres, float(distances.min(axis=1).sum())


def _silhouette(points: NDArray[np.float64], inside: NDArray[np.bool_], rng: np.random.Generator) -> float:
    """Mean silhouette (Rousseeuw 1987) of two clusters, on a sample where there are many points."""
    sample = rng.permutation(len(points))[:_SILHOUETTE_SAMPLE]
    points, inside = points[sample], inside[sample]
    if inside.all() or not inside.any():
        return 0.0
    distances = np.sqrt(np.square(points[:, None, :] - points).sum(axis=2))
    own_side = np.where(inside[:, None], inside, ~inside)
    own = (distances * own_side).sum(axis=1) / np.maximum(own_side.sum(axis=1) - 1, 1)
    other = (distances * ~own_side).sum(axis=1) / (~own_side).sum(axis=1)
    value = (other - own) / np.maximum(np.maximum(own, other), np.finfo(np.float64).tiny)
    return float(np.where(own_side.sum(axis=1) > 1, value, 0.0).mean())
