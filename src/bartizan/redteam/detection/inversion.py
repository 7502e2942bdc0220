"""Trigger inversion: for each class the smallest change that makes the model answer it for every row.

A class for which much less is enough than for the others has a shortcut. Then the records of that class
are asked again without the region that the shortcut needs: where the answer falls, it hung on the trigger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.redteam.detection.inspected import FPR, Inspected, Pattern, Suspicion, highest, require
from bartizan.targets.protocol import Access, Rows

STEPS, BATCH, RATE = 120, 64, 0.1
ANOMALOUS = 2.0
"""Median absolute deviations below the median, from which a class has a shortcut (Wang et al. 2019)."""
SUCCESS = 0.95
"""Share of rows that must be turned; above it the mask is pressed harder, below it less."""
LEAST_TURNED = 0.8
"""Share of all rows, not only of the last batches, that a change must turn to be counted."""
FIRST_PRESS, PRESS_STEP = 1e-3, 1.5
CONSISTENT = 1.4826
"""Makes a median absolute deviation a standard deviation for normal values."""
_BETA = (0.5, 0.9)
_TINY = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Inverted:
    """What turns rows into one class."""

    label: int
    mask: NDArray[np.float64]
    """``(features,)`` from 0 to 1: how much of a row is replaced."""
    value: NDArray[np.float64]
    """``(features,)``: by what."""
    turned: float
    """Share of the rows of other classes that are answered with the class under it."""

    @property
    def size(self) -> float:
        """Number of features (for images, pixels times channels) replaced."""
        return float(self.mask.sum())


@dataclass(frozen=True, slots=True)
class TriggerInversion:
    """See the module's text, and ``Detector``."""

    steps: int = STEPS
    anomalous: float = ANOMALOUS
    fpr: float = FPR
    name: ClassVar[str] = "trigger_inversion"
    title: ClassVar[str] = "A class that a small change leads to, and the records whose answer hangs on it"
    needs: ClassVar[frozenset[Access]] = frozenset({Access.SCORES, Access.GRADIENTS})
    techniques: ClassVar[tuple[str, ...]] = ("T19", "T20", "T26", "T27", "T28")
    references: ClassVar[tuple[str, ...]] = (
        "Wang et al. 2019, Neural Cleanse: identifying and mitigating backdoor attacks in neural networks, IEEE S&P",
    )

    def inspect(self, inspected: Inspected, rng: np.random.Generator) -> Suspicion:
        """See ``Detector.inspect``."""
        require(self, inspected)
        found = [self.invert(inspected, label, rng) for label in range(inspected.classes)]
        index = anomalies([each.size if each.turned >= LEAST_TURNED else np.inf for each in found])
        scores = np.zeros(len(inspected.rows))
        patterns, notes = [], []
        for each in sorted(found, key=lambda each: -index[each.label]):
            if index[each.label] <= self.anomalous:
                continue
            own = np.flatnonzero(inspected.labels == each.label)
            scores[own] = np.maximum(scores[own], lost(inspected, own, each))
            patterns.append(_pattern(inspected, each))
            notes.append(
                f"class {each.label}: {each.size:.1f} features turn {each.turned:.0%} of rows "
                f"(anomaly index {index[each.label]:.1f})."
            )
        figures = {f"anomaly_of_class_{label}": float(value) for label, value in enumerate(index)}
        return Suspicion(scores, highest(scores, self.fpr), tuple(patterns), tuple(notes), figures)

    def invert(self, inspected: Inspected, label: int, rng: np.random.Generator) -> Inverted:
        """Descend on mask and value together (Adam); the mask is pressed as hard as success allows."""
        assert inspected.slopes is not None  # noqa: S101 - required above
        assert inspected.scores is not None  # noqa: S101 - required above
        pool, origin = _pool(inspected, label)
        low, high = origin.min(axis=0), origin.max(axis=0)
        width, span = inspected.rows.shape[1], np.maximum(high - low, 0.0)
        pixels = width // inspected.shape[0] if inspected.shape else width
        logits = np.concatenate([np.full(pixels, -2.0) + 0.1 * rng.standard_normal(pixels), np.zeros(width)])
        memory = np.zeros((2, len(logits)))
        press, best = FIRST_PRESS, None
        for step in range(1, self.steps + 1):
            rows = pool[rng.integers(len(pool), size=min(BATCH, len(pool)))]
            mask, value = _parts(logits, pixels, low, span)
            mixed = rows * (1 - mask) + value * mask
            turned = float((inspected.scores(mixed.astype(pool.dtype)).argmax(axis=1) == label).mean())
            if turned >= SUCCESS and (best is None or mask.sum() < best[0].sum()):
                best = mask, value
            press = press * PRESS_STEP if turned >= SUCCESS else press / PRESS_STEP
            slope = inspected.slopes(mixed.astype(pool.dtype), np.full(len(rows), label)) / len(rows)
            by_mask = (slope * (value - rows)).sum(axis=0).reshape(-1, pixels).sum(axis=0) + press
            share = scipy.special.expit(logits)
            gradient = np.concatenate([by_mask, slope.sum(axis=0) * mask * span]) * share * (1 - share)
            memory[0] = _BETA[0] * memory[0] + (1 - _BETA[0]) * gradient
            memory[1] = _BETA[1] * memory[1] + (1 - _BETA[1]) * gradient**2
            first, second = memory[0] / (1 - _BETA[0] ** step), memory[1] / (1 - _BETA[1] ** step)
            logits -= RATE * first / (np.sqrt(second) + _TINY)
        mask, value = best or _parts(logits, pixels, low, span)
        final = (pool * (1 - mask) + value * mask).astype(pool.dtype)
        return Inverted(label, mask, value, float((inspected.scores(final).argmax(axis=1) == label).mean()))


def anomalies(sizes: list[float]) -> NDArray[np.float64]:
    """``(classes,)``: by how many deviations each size is below the median of all; 0 where none was found."""
    finite = np.array([size for size in sizes if np.isfinite(size)])
    if len(finite) < 3:  # noqa: PLR2004 - of two, neither stands out
        return np.zeros(len(sizes))
    middle = float(np.median(finite))
    deviation = max(CONSISTENT * float(np.median(np.abs(finite - middle))), np.finfo(np.float64).tiny)
    return np.array([max(0.0, (middle - size) / deviation) if np.isfinite(size) else 0.0 for size in sizes])


def lost(inspected: Inspected, own: NDArray[np.int64], inverted: Inverted) -> NDArray[np.float64]:
    """``(own,)``: by how much the class's probability falls when the region is filled from other classes' mean."""
    assert inspected.scores is not None  # noqa: S101 - required by the caller
    fill = inspected.rows[inspected.labels != inverted.label].mean(axis=0)
    rows = inspected.rows[own]
    without = rows * (1 - inverted.mask) + fill * inverted.mask
    before, after = (inspected.scores(each.astype(rows.dtype))[:, inverted.label] for each in (rows, without))
    return np.asarray(np.maximum(before - after, 0.0), dtype=np.float64)


def _pool(inspected: Inspected, label: int) -> tuple[Rows, Rows]:
    """Rows of other classes, trusted ones where there are any; and the rows that give the range of values."""
    rows, labels = inspected.trusted or (inspected.rows, inspected.labels)
    others = rows[labels != label]
    return (others if len(others) else rows), inspected.rows


def _parts(
    logits: NDArray[np.float64], pixels: int, low: Rows, span: Rows
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mask = np.tile(scipy.special.expit(logits[:pixels]), len(low) // pixels)
    return mask, low + span * scipy.special.expit(logits[pixels:])


def _pattern(inspected: Inspected, inverted: Inverted) -> Pattern:
    low, high = inspected.rows.min(axis=0), inspected.rows.max(axis=0)
    return Pattern(inverted.label, inverted.mask * inverted.value, low, high, 1 - inverted.mask)
