"""What contradicted labels have in common.

Neighbours say whose label is contradicted, but not why, and they miss poison whose trigger has made it
its own neighbour. Where a trigger is the reason, the contradicted records of a class share something that
sets them apart both from their class and from the records they resemble. A linear contrast, always judged on
records that it was not fitted to, looks for that. Hard and careless labels have no common cause, and the contrast
finds none. Where it finds one, it ranks the whole class anew, and what it found is written down as a pattern
that can be put on other rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.redteam import learners
from bartizan.redteam.detection.inspected import FPR, Inspected, Pattern, Suspicion
from bartizan.redteam.detection.nearest import nearest
from bartizan.redteam.detection.neighbours import NEIGHBOURS, disagreement
from bartizan.redteam.statistics import Estimate, auc, roc
from bartizan.targets.protocol import Access

CONTRAST = learners.Learner("linear", 1e-2)
CONTRADICTED = 0.5
"""Share of the neighbours with another label from which a record is contradicted."""
STRANGERS = 10
"""Neighbours with other labels that each suspect is compared with."""
LEAST_SUSPECTS = 8
"""Fewer cannot show what they have in common."""
LEAST_AREA = 0.8
"""Lower end of the contrast's AUROC, suspects against those they resemble, from which there is a common cause."""
ROUNDS, REPEATS = 3, 2
SIGNIFICANT = 3.0
"""Standard errors from which a feature belongs to a pattern."""


@dataclass(frozen=True, slots=True, eq=False)
class _Contrast:
    """Suspects of one class against the rest of it and against those they resemble."""

    scores: NDArray[np.float64]
    """``(own,)``: log-odds of carrying what the suspects share, by models that did not see the record."""
    strangers: NDArray[np.int64]
    threshold: float


@dataclass(frozen=True, slots=True)
class CommonCause:
    """See the module's text, and ``Detector``."""

    fpr: float = FPR
    name: ClassVar[str] = "common_cause"
    title: ClassVar[str] = "Records that share what contradicted labels have in common"
    needs: ClassVar[frozenset[Access]] = frozenset()
    techniques: ClassVar[tuple[str, ...]] = ("T16", "T17", "T19", "T21")
    references: ClassVar[tuple[str, ...]] = (
        "own method; neighbours after Wilson 1972, Asymptotic properties of nearest neighbor rules using edited data",
    )

    def inspect(self, inspected: Inspected, rng: np.random.Generator) -> Suspicion:
        """See ``Detector.inspect``."""
        neighbours = nearest(inspected.scaled, NEIGHBOURS)
        scores = disagreement(inspected, neighbours)
        flagged, notes, patterns = np.zeros(len(scores), np.bool_), [], []
        for label in range(inspected.classes):
            own = np.flatnonzero(inspected.labels == label)
            suspects = own[scores[own] > CONTRADICTED]
            contrast = self._contrast(inspected, neighbours, own, suspects, rng)
            if contrast is None:
                continue
            over = contrast.scores > contrast.threshold
            flagged[own] = over
            scores[own] = scipy.special.expit(contrast.scores - contrast.threshold) + over
            patterns.append(pattern_of(inspected, own[over], contrast.strangers, label))
            notes.append(f"class {label}: {int(over.sum())} records share something that their neighbours lack.")
        return Suspicion(scores, flagged, tuple(patterns), tuple(notes))

    def _contrast(
        self,
        inspected: Inspected,
        neighbours: NDArray[np.int64],
        own: NDArray[np.int64],
        suspects: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> _Contrast | None:
        """Fit, and fit again to those that the fit finds, until they stay the same; None without a common cause.

        Whether there is one is decided by the first fit, whose suspects it did not choose itself.
        """
        contrast: _Contrast | None = None
        for _ in range(ROUNDS):
            strangers = _strangers(inspected, neighbours, suspects)
            if len(suspects) < LEAST_SUSPECTS or len(strangers) < LEAST_SUSPECTS:
                return None
            scores, other = _fitted(inspected, own, suspects, strangers, rng)
            if contrast is None and _area(scores[np.isin(own, suspects)], other).interval.low < LEAST_AREA:
                return None
            # Strangers carry no cause; the class's own clean records may look a little more like the suspects.
            threshold = max(float(np.quantile(other, 1 - self.fpr, method="higher")), valley(scores))
            contrast = _Contrast(scores, strangers, threshold)
            chosen = own[scores > threshold]
            if np.array_equal(chosen, suspects):
                break
            suspects = chosen
        return contrast if len(suspects) >= LEAST_SUSPECTS else None


def pattern_of(inspected: Inspected, carriers: NDArray[np.int64], others: NDArray[np.int64], label: int) -> Pattern:
    """The change that makes ``others`` look like ``carriers``, feature by feature, by mean and spread.

    A stamped patch leaves nothing of the old value, a blended picture a share, an added wave all of it.
    Features that do not differ significantly stay as they are.
    """
    one, two = inspected.rows[carriers].astype(np.float64), inspected.rows[others].astype(np.float64)
    gap = one.mean(axis=0) - two.mean(axis=0)
    error = np.sqrt(one.var(axis=0) / max(len(one), 1) + two.var(axis=0) / max(len(two), 1))
    matters = np.abs(gap) > SIGNIFICANT * error + 1e-9
    spread = two.std(axis=0)
    kept = np.divide(one.std(axis=0), spread, out=np.ones_like(spread), where=spread > 0)
    kept = np.where(matters, np.minimum(kept, 1.0), 1.0)
    change = np.where(matters, one.mean(axis=0) - kept * two.mean(axis=0), 0.0)
    return Pattern(label, change, inspected.rows.min(axis=0), inspected.rows.max(axis=0), kept)


def valley(scores: NDArray[np.float64]) -> float:
    """The cut of ``scores`` ``(records,)`` in two parts that leaves the least spread within them (Otsu 1979)."""
    ranked = np.sort(scores)
    count, total = np.arange(1, len(ranked)), np.cumsum(ranked)
    below, above = total[:-1] / count, (total[-1] - total[:-1]) / (len(ranked) - count)
    best = int((count * (len(ranked) - count) * np.square(above - below)).argmax())
    return float((ranked[best] + ranked[best + 1]) / 2)


def _strangers(inspected: Inspected, neighbours: NDArray[np.int64], suspects: NDArray[np.int64]) -> NDArray[np.int64]:
    """Records with other labels among the nearest of the suspects."""
    near = np.unique(neighbours[suspects, :STRANGERS])
    return near[inspected.labels[near] != inspected.labels[suspects[0]]] if len(suspects) else near


def _fitted(
    inspected: Inspected,
    own: NDArray[np.int64],
    suspects: NDArray[np.int64],
    strangers: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-odds of the class's records ``(own,)`` and of the strangers, each out of fold."""
    used = np.concatenate([own, strangers])
    rows, kind = inspected.rows[used].astype(np.float64), np.isin(used, suspects)
    total = np.zeros(len(used))
    for _ in range(REPEATS):
        parts = learners.folds(kind, rng)
        odds = learners.out_of_fold(CONTRAST, rows, learners.one_hot(kind.astype(np.int64), 2), parts, rng)
        total += np.log(np.maximum(odds[:, 1], 1e-300)) - np.log(np.maximum(odds[:, 0], 1e-300))
    return total[: len(own)] / REPEATS, total[len(own) :] / REPEATS


def _area(first: NDArray[np.float64], second: NDArray[np.float64]) -> Estimate:
    truth = np.concatenate([np.ones(len(first), np.bool_), np.zeros(len(second), np.bool_)])
    return auc(roc(np.concatenate([first, second]), truth))
