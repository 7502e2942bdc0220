"""How well a detector finds poison that is known to be there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import InputError
from bartizan.core.predicates import Metric
from bartizan.redteam.detection.inspected import Suspicion
from bartizan.redteam.statistics import Estimate, auc, proportion, roc, tpr_at


@dataclass(frozen=True, slots=True)
class Found:
    """What a detector found of what it should have."""

    area: Estimate
    """AUROC of the scores."""
    recall: Estimate
    """Share of the poison that is flagged."""
    false_alarms: Estimate
    """Share of the clean records that are flagged."""
    recall_at_1_percent: Estimate
    """Share of the poison found when the threshold accuses 1 % of the clean records."""
    removed_for_90: float
    """Share of all records that must go, the most suspicious first, until 90 % of the poison is gone."""
    removed_for_95: float
    removed_for_99: float
    records: int

    def metrics(self) -> dict[str, Metric]:
        """The same as parts of a statement."""
        return {
            "auroc": self.area.metric(),
            "recall_at_the_flag": self.recall.metric(),
            "false_alarms_at_the_flag": self.false_alarms.metric(),
            "recall_at_1_percent_false_alarms": self.recall_at_1_percent.metric(),
            "removed_for_95_percent_of_the_poison": self._removal(),
        }

    def _removal(self) -> Metric:
        """Counted over all records there are; the interval is that of a share of so many."""
        return proportion(round(self.removed_for_95 * self.records), self.records).metric()


def judge(suspicion: Suspicion, poisoned: NDArray[np.bool_]) -> Found:
    """Compare what a detector says with the truth ``(records,)``.

    Raises:
        InputError: the truth is of another length.
        WorkError: all records are poisoned, or none is.
    """
    if poisoned.shape != suspicion.scores.shape:
        raise InputError(f"{len(poisoned)} truths were given for {len(suspicion.scores)} records")
    curve = roc(suspicion.scores, poisoned)
    clean = ~poisoned
    return Found(
        area=auc(curve),
        recall=proportion(int((suspicion.flagged & poisoned).sum()), int(poisoned.sum())),
        false_alarms=proportion(int((suspicion.flagged & clean).sum()), int(clean.sum())),
        recall_at_1_percent=tpr_at(curve, 0.01),
        removed_for_90=removed(suspicion.scores, poisoned, 0.9),
        removed_for_95=removed(suspicion.scores, poisoned, 0.95),
        removed_for_99=removed(suspicion.scores, poisoned, 0.99),
        records=len(poisoned),
    )


def removed(scores: NDArray[np.float64], poisoned: NDArray[np.bool_], share: float) -> float:
    """Share of the records that score at least as high as the poison that must go; equal scores go together."""
    wanted = int(np.ceil(share * poisoned.sum() - 1e-9))
    if not wanted:
        return 0.0
    threshold = np.sort(scores[poisoned])[-wanted]
    return float((scores >= threshold).mean())
