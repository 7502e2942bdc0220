"""Answers that no model can mean, told without the model: broken numbers, no probabilities, no such class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.deploy.gateway.guard import Answer

TOLERANCE = 1e-3
"""How far scores may be from adding up to 1: single precision over thousands of classes stays below."""
NO_PROBABILITIES = "scores that are no probabilities"
NOT_GREATEST = "a label that is not the one of the greatest score"


def impossible(answer: Answer, classes: int) -> str:
    """What is wrong with the answer to a single row; empty when nothing is."""
    labels, scores = answer.labels, answer.scores
    if len(labels) != 1:
        return f"{len(labels)} labels for one row"
    label = labels.item(0)
    if not 0 <= label < classes:
        return f"label {label} of {classes} classes"
    if scores is None:
        return ""
    if scores.shape != (1, classes):
        return f"scores of shape {scores.shape} for one row of {classes} classes"
    row = scores[0].tolist()
    if not abs(sum(row) - 1.0) <= TOLERANCE or min(row) < -TOLERANCE:
        return NO_PROBABILITIES
    return NOT_GREATEST if row[label] < max(row) - TOLERANCE else ""


def impossible_rows(answer: Answer, classes: int, rows: int) -> str:
    """What is wrong with the answer to a batch; empty when nothing is."""
    labels, scores = answer.labels, answer.scores
    if labels.shape != (rows,):
        return f"labels of shape {labels.shape} for {rows} rows"
    if rows and not 0 <= labels.min() <= labels.max() < classes:
        return f"labels outside of {classes} classes"
    if scores is None or not rows:
        return ""
    if scores.shape != (rows, classes):
        return f"scores of shape {scores.shape} for {rows} rows of {classes} classes"
    with np.errstate(all="ignore"):
        if not (np.abs(scores.sum(axis=1) - 1.0) <= TOLERANCE).all() or scores.min() < -TOLERANCE:
            return NO_PROBABILITIES
        return NOT_GREATEST if (scores[np.arange(rows), labels] < scores.max(axis=1) - TOLERANCE).any() else ""


def possible(labels: NDArray[np.int64], scores: NDArray[np.float64], classes: int) -> NDArray[np.bool_]:
    """``(batch,)``: which answers to one row each are possible beyond doubt.

    Of those that are nearly impossible it says no: however a sum is rounded, they are looked at by themselves.
    """
    if scores.shape != (len(labels), classes):
        return np.zeros(len(labels), dtype=np.bool_)
    known = (labels >= 0) & (labels < classes)
    with np.errstate(all="ignore"):
        told = scores[np.arange(len(labels)), np.where(known, labels, 0)]
        return np.asarray(
            known
            & (np.abs(scores.sum(axis=1) - 1.0) <= TOLERANCE / 2)
            & (scores.min(axis=1) >= -TOLERANCE / 2)
            & (told >= scores.max(axis=1) - TOLERANCE / 2)
        )


__all__ = ["impossible", "impossible_rows", "possible"]
