"""The detector to use when nothing is known of the poison: by its label or by its class's variety."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bartizan.redteam.detection.common_cause import CommonCause
from bartizan.redteam.detection.inspected import FPR, Inspected, Suspicion
from bartizan.redteam.detection.own_direction import OwnDirection
from bartizan.targets.protocol import Access


@dataclass(frozen=True, slots=True)
class Combined:
    """``CommonCause`` for wrong labels, ``OwnDirection`` for right ones; the higher score counts. See ``Detector``.

    It needs no model. It does not find triggers that bend a picture (WaNet) beyond what the neighbours of
    their wrong labels say, nor poison made for one input.
    """

    fpr: float = FPR
    name: ClassVar[str] = "combined"
    title: ClassVar[str] = "Records with a common cause for wrong labels, or with an odd heap in their class"
    needs: ClassVar[frozenset[Access]] = frozenset()
    techniques: ClassVar[tuple[str, ...]] = ("T16", "T17", "T18", "T19", "T21")
    references: ClassVar[tuple[str, ...]] = (*CommonCause.references, *OwnDirection.references)

    def inspect(self, inspected: Inspected, rng: np.random.Generator) -> Suspicion:
        """See ``Detector.inspect``."""
        first, second = rng.spawn(2)
        one, two = CommonCause(self.fpr).inspect(inspected, first), OwnDirection().inspect(inspected, second)
        return Suspicion(
            np.maximum(one.scores, two.scores * two.flagged),
            one.flagged | two.flagged,
            (*one.patterns, *two.patterns),
            (*one.notes, *two.notes),
        )
