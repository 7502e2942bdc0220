"""STRIP: records whose answer stays the same whatever is laid over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bartizan.redteam.detection.inspected import FPR, Inspected, Suspicion, highest, require
from bartizan.targets.protocol import Access

OVERLAYS = 10
BATCH = 2048


@dataclass(frozen=True, slots=True)
class Superimposing:
    """Mean entropy of the answers to a record mixed with others; a trigger keeps it low. See ``Detector``."""

    overlays: int = OVERLAYS
    weight: float = 0.5
    """Share of the other record in the mixture."""
    fpr: float = FPR
    name: ClassVar[str] = "strip"
    title: ClassVar[str] = "Records whose answer does not change when others are laid over them"
    needs: ClassVar[frozenset[Access]] = frozenset({Access.SCORES})
    techniques: ClassVar[tuple[str, ...]] = ("T19", "T20")
    references: ClassVar[tuple[str, ...]] = (
        "Gao et al. 2019, STRIP: a defence against trojan attacks on deep neural networks, arXiv:1902.06531",
    )

    def inspect(self, inspected: Inspected, rng: np.random.Generator) -> Suspicion:
        """See ``Detector.inspect``."""
        require(self, inspected)
        assert inspected.scores is not None  # noqa: S101 - required above
        rows, pool = inspected.rows, inspected.rows if inspected.trusted is None else inspected.trusted[0]
        entropy = np.zeros(len(rows))
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            for _ in range(self.overlays):
                other = pool[rng.integers(len(pool), size=len(some))]
                mixed = ((1 - self.weight) * some + self.weight * other).astype(rows.dtype)
                scores = inspected.scores(mixed)
                entropy[start : start + BATCH] -= (scores * np.log2(np.maximum(scores, 1e-12))).sum(axis=1)
        suspicion = -entropy / self.overlays
        return Suspicion(suspicion, highest(suspicion, self.fpr))
