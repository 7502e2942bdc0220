"""What gradient attacks climb: values of the losses, and the questions that give their slopes."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.attack import Gradient, slope
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.protocol import Labels, Loss, Rows

TINY = 1e-12
"""Keeps a ratio of logits finite where all of them are equal."""

Values = NDArray[np.floating]
"""Numbers in the precision of the victim."""
Slopes = Generator[Gradient, Values, tuple[Values, Values]]
"""Asks, and returns logits ``(batch, classes)`` and gradients ``(batch, features)``."""


def slopes(
    task: EvasionTask,
    sample: NDArray[np.int64],
    rows: Rows,
    loss: Loss,
    *,
    targets: Labels | None = None,
    draws: int = 1,
) -> Slopes:
    """Ask for the slope of a loss at ``rows``; for victims that answer at random the mean of some ``draws``."""
    labels = task.labels[sample]
    if draws == 1:
        answer = yield Gradient(rows, sample, loss, labels, targets)
        return slope(answer, task.classes)
    aimed = None if targets is None else np.tile(targets, draws)
    question = Gradient(np.tile(rows, (draws, 1)), np.tile(sample, draws), loss, np.tile(labels, draws), aimed)
    answer = yield question
    return slope(answer.reshape(draws, len(rows), -1).mean(axis=0), task.classes)


def values(logits: Values, loss: Loss, labels: Labels, targets: Labels | None = None) -> NDArray[np.float64]:
    """``(batch,)``: the loss at each of the ``logits`` ``(batch, classes)``. See ``Loss``."""
    logits = np.asarray(logits, dtype=np.float64)
    every = np.arange(len(logits))
    own = np.asarray(logits[every, labels], dtype=np.float64)
    aimed = own if targets is None else logits[every, targets]
    if loss in {Loss.CROSS_ENTROPY, Loss.TOWARDS}:
        top = logits.max(axis=1, initial=-np.inf)
        total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        return np.asarray(total - own if loss is Loss.CROSS_ENTROPY else aimed - total)
    if loss is Loss.LOGIT:
        return own
    if loss is Loss.DIFFERENCE:
        return np.asarray(aimed - own)
    if loss is Loss.DLR_TOWARDS:
        top = np.sort(logits, axis=1)
        return np.asarray((aimed - own) / (top[:, -1] - (top[:, -3] + top[:, -4]) / 2 + TINY))
    margin = margins(logits, labels)
    if loss is Loss.MARGIN:
        return margin
    top = np.sort(logits, axis=1)
    return np.asarray(margin / (top[:, -1] - top[:, -3] + TINY))


def margins(logits: Values, labels: Labels) -> NDArray[np.float64]:
    """``(batch,)``: the best logit of another class minus that of the label; positive where the victim is fooled."""
    others = np.array(logits, dtype=np.float64)
    every = np.arange(len(others))
    own = others[every, labels]
    others[every, labels] = -np.inf
    return np.asarray(others.max(axis=1) - own)


def runners_up(logits: Values, labels: Labels, count: int) -> Labels:
    """``(batch, count)``: the other classes, the likeliest first; fewer where there are fewer."""
    others = np.array(logits, dtype=np.float64)
    others[np.arange(len(others)), labels] = -np.inf
    order = np.argsort(-others, axis=1, kind="stable")
    return order[:, : min(count, others.shape[1] - 1)]
