"""Gradients of models that are known as numbers: by the rules of calculus, without any framework.

Linear models and dense networks are smooth enough for every attack by gradients. Where a class has no output
of its own (two classes, one output), its logit is 0.
"""

from __future__ import annotations

import numpy as np

from bartizan.core.errors import WorkError
from bartizan.targets.protocol import LEAST_CLASSES, NEEDS_TARGETS, Labels, Loss, Rows
from bartizan.targets.structure import Floats, LinearModel, NetworkModel, Structure

TINY = 1e-12
"""Keeps a ratio of logits finite where all of them are equal."""
_EARS = {Loss.DLR: ((2, 1.0),), Loss.DLR_TOWARDS: ((2, 0.5), (3, 0.5))}
"""Which logits, counted from the largest, are subtracted from it below a ratio, and with what weight."""


def differentiable(structure: Structure) -> bool:
    """Whether a model of this kind has slopes to follow: trees have none."""
    return isinstance(structure, LinearModel | NetworkModel)


def logits(structure: Structure, rows: Rows) -> Floats:
    """``(batch, classes)``: what the softmax, or the largest of them, makes answers of.

    Raises:
        WorkError: trees have none, or the rows are no rows of this model.
    """
    outputs = _smooth(structure).outputs(rows)
    if outputs.shape[1] > 1:
        return outputs
    return np.column_stack([np.zeros(len(outputs)), outputs[:, 0] - _smooth(structure).cut])


def gradients(structure: Structure, rows: Rows, loss: Loss, labels: Labels, targets: Labels | None = None) -> Floats:
    """Logits, and behind them the gradient of each row's loss: see ``Differentiable.gradients``.

    Raises:
        WorkError: trees have none, or the loss needs more classes, or a class to aim at.
    """
    model, known = _smooth(structure), logits(structure, rows)
    if known.shape[1] < LEAST_CLASSES.get(loss, 2) or (loss in NEEDS_TARGETS) != (targets is not None):
        raise WorkError(f"the loss {loss} cannot be taken of {known.shape[1]} classes as it was asked for")
    pull = pulls(known, loss, labels, targets)
    if len(model.bias) == 1:
        pull = pull[:, 1:]
    return np.concatenate([known, model.pulled_back(rows, pull)], axis=1)


def pulls(logits: Floats, loss: Loss, labels: Labels, targets: Labels | None = None) -> Floats:
    """``(batch, classes)``: the derivative of each row's loss by its logits."""
    every = np.arange(len(logits))
    own = _at(logits, labels)
    if loss is Loss.LOGIT:
        return own
    if loss in {Loss.CROSS_ENTROPY, Loss.TOWARDS}:
        chances = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        chances /= chances.sum(axis=1, keepdims=True)
        pull: Floats = chances - own if targets is None else _at(logits, targets) - chances
        return pull
    if targets is None:
        others = logits.copy()
        others[every, labels] = -np.inf
        targets = others.argmax(axis=1)
    lead = _at(logits, targets) - own
    if loss not in _EARS:
        return lead
    order = np.argsort(-logits, axis=1, kind="stable")
    width = _at(logits, order[:, 0])
    for place, weight in _EARS[loss]:
        width -= weight * _at(logits, order[:, place])
    value, span = (lead * logits).sum(axis=1), (width * logits).sum(axis=1) + TINY
    ratio: Floats = lead / span[:, None] - (value / span**2)[:, None] * width
    return ratio


def _at(logits: Floats, place: Labels) -> Floats:
    """1 in the place named in each row, 0 elsewhere."""
    marked = np.zeros_like(logits)
    marked[np.arange(len(logits)), place] = 1.0
    return marked


def _smooth(structure: Structure) -> LinearModel | NetworkModel:
    if not isinstance(structure, LinearModel | NetworkModel):
        raise WorkError(
            f"a {type(structure).__name__} has no slopes to follow", remedy="use an attack on trees, or by queries."
        )
    return structure
