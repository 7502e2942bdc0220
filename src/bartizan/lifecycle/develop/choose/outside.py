"""Outside: how sure a model is of rows that are not of its world, and whether its confidence tells them apart.

Three kinds of such rows are made from the evaluation data: *shuffled* (each column permuted by itself:
every value is usual, the combination is not), *shifted* (each row moved by a few standard deviations in a
random direction, as a miscalibrated instrument would) and *far* (the same, much further).
"""

from __future__ import annotations

import numpy as np

from bartizan.core.predicates import Metric
from bartizan.lifecycle.develop.choose.trial import Part, Trial
from bartizan.redteam.statistics import auc, proportion, roc
from bartizan.targets.protocol import Rows

SHIFTED, FAR = 3.0, 30.0
"""Length of the move in standard deviations, root mean square over the features."""
SURE = 0.9
"""Confidence from which on an answer about an outside row is called sure."""


class Outside:
    """See ``Column``."""

    name = "outside"
    version = "1"
    title = "Confidence on rows from outside"

    def measure(self, trial: Trial) -> Part:
        """See ``Column.measure``."""
        if not trial.has_scores:
            return Part(missing="the model answers labels only, so it says nothing of its confidence.")
        inside = trial.scores.max(axis=1)
        metrics: dict[str, Metric] = {}
        for kind, rows in outside_rows(trial).items():
            confidence = trial.target.scores(rows).max(axis=1)
            told = np.concatenate([inside, confidence])
            truth = np.arange(len(told)) < len(inside)
            metrics[f"{kind}_auroc"] = auc(roc(told, truth)).metric()
            sure = confidence >= SURE
            metrics[f"{kind}_sure"] = proportion(int(sure.sum()), len(sure)).metric("share")
        return Part(metrics=metrics)


def outside_rows(trial: Trial) -> dict[str, Rows]:
    """Rows ``(records, features)`` of each kind, the same for every candidate."""
    rows, scale = trial.material.evaluation.rows, trial.material.space.scale
    rng = trial.rng("outside-rows")
    shuffled = rng.permuted(rows, axis=0)
    direction = rng.normal(size=rows.shape)
    direction *= np.sqrt(rows.shape[1]) / np.linalg.norm(direction, axis=1, keepdims=True)
    return {
        "shuffled": shuffled,
        "shifted": rows + SHIFTED * scale * direction,
        "far": rows + FAR * scale * direction,
    }
