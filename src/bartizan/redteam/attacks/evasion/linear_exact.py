"""Evasion of linear models by an adversary who has the model file: the nearest row there is, with its proof."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError, WorkError
from bartizan.redteam.attack import Inspect, Query, Search
from bartizan.redteam.nearest_side import least, refuse_dependents
from bartizan.redteam.tasks import Bounded, EvasionTask
from bartizan.targets.feasible import Space, lengths
from bartizan.targets.protocol import Access, Rows
from bartizan.targets.structure import Floats, LinearModel

OVERSHOOT = 1e-9
"""Of the size of all terms of an output: what a candidate gains beyond the plane, and what the bound leaves below it,
so that rounding decides neither."""
PUSHES = (1.0, 1.02, 1.05, 1.1, 1.2, 1.4, 1.7, 2.0, 3.0)
"""How much further candidates go where whole numbers and categories round some of the change away."""


class LinearExact:
    """The nearest possible row of another class: for a plane in a box it is known in closed form.

    For two classes there is one plane; for more, one for each other class, and the nearest counts. Where features
    are whole numbers or categories the bound holds for any value between them, so it may lie below the best
    possible row, and the row that is found may be a little further. Costs a query a row for each push, nothing
    else.
    """

    name = "evasion.linear-exact"
    title = "Exact evasion of linear models, from the model file"
    family = "evasion"
    technique = "T06"
    atlas: tuple[str, ...] = ("AML.T0043.000", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.WEIGHTS})
    position = "user"
    references: tuple[str, ...] = (
        "Moosavi-Dezfooli, Fawzi, Frossard: DeepFool (affine classifiers). CVPR 2016, arXiv:1511.04599",
        "Goodfellow, Shlens, Szegedy: Explaining and harnessing adversarial examples. ICLR 2015, arXiv:1412.6572",
    )

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``. Nothing here is random. Candidates are ``Bounded``.

        Raises:
            WorkError: the model is not linear.
        """
        del rng
        model = yield Inspect()
        if not isinstance(model, LinearModel):
            raise WorkError(
                f"{self.name} attacks linear models, and the model is a {type(model).__name__}",
                remedy="use evasion.tree-exact for trees, an attack by gradients for networks.",
            )
        refuse_dependents(self.name, task.space)
        goal, bound = _nearest(model, task)
        right = model.labels(task.rows) == task.labels
        bound[~right] = 0.0
        found, standing = task.rows.copy(), np.flatnonzero(right)
        # Without a query left, what was found stands without the model's word; the family asks in any case.
        with suppress(BudgetError):
            for push in PUSHES:
                if not standing.size:
                    break
                origin = task.rows[standing]
                rows = task.space.project(origin + push * (goal[standing] - origin), origin)
                answers = yield Query(rows, standing)
                fooled = answers != task.labels[standing]
                found[standing[fooled]] = rows[fooled]
                standing = standing[~fooled]
        return Bounded(found, bound)


@dataclass(frozen=True, slots=True, eq=False)
class _Room:
    """How far each feature of some rows may go, in units of what a change costs."""

    low: Floats
    """``(batch, features)``, at most 0."""
    high: Floats
    scale: Floats
    """``(features,)``: size of a unit in each feature."""
    free: NDArray[np.bool_]
    """``(features,)``: categories. What another one costs does not grow with the distance: in bounds it is nothing."""
    channels: int

    @classmethod
    def of(cls, space: Space, rows: Rows) -> _Room:
        free = space.categorical
        scale = np.where(free, 1.0, space.scale)
        low, high = np.minimum(space.low - rows, 0.0) / scale, np.maximum(space.high - rows, 0.0) / scale
        fixed = space.immutable
        return cls(np.where(fixed, 0.0, low), np.where(fixed, 0.0, high), scale, free, space.channels)

    def take(self, mine: NDArray[np.int64]) -> _Room:
        """The room of some of the rows."""
        return _Room(self.low[mine], self.high[mine], self.scale, self.free, self.channels)

    def least(self, weights: Floats, need: Floats, norm: float) -> Floats:
        """The least changes of the rows that gain enough, ``(batch, features)``; NaN where nothing does."""
        gain = np.broadcast_to(weights * self.scale, self.low.shape)
        return least(gain, self.low, self.high, need, norm) * self.scale

    def bound(self, weights: Floats, need: Floats, norm: float) -> Floats:
        """``(batch,)``: no possible change that is shorter gains enough; infinite where none does at all."""
        gain = np.broadcast_to(weights * self.scale, self.low.shape)
        given = np.where(self.free, np.maximum(gain * self.low, gain * self.high), 0.0).sum(axis=1)
        change = least(np.where(self.free, 0.0, gain), self.low, self.high, need - given, norm)
        length = lengths(np.nan_to_num(change), norm)
        length = np.ceil(length / self.channels) if norm == 0 else length
        return np.where(np.isnan(change).any(axis=1), np.inf, length)


def _nearest(model: LinearModel, task: EvasionTask) -> tuple[Rows, Floats]:
    """The nearest rows on the other side, and a distance below which nothing is: infinite where there is no other side.

    Rows that have no other side stay as they are.
    """
    rows = task.rows.astype(np.float64)
    room, best = _Room.of(task.space, rows), rows.copy()
    bound, shortest = np.full(len(rows), np.inf), np.full(len(rows), np.inf)
    for own, weights, lead in _planes(model, rows):
        mine = np.flatnonzero(task.labels == own)
        here, need = room.take(mine), -lead[mine]
        slack = OVERSHOOT * (np.abs(weights * rows[mine]).sum(axis=1) + np.abs(need))
        moved = rows[mine] + here.least(weights, need + slack, task.norm)
        size = task.space.change(np.nan_to_num(moved), rows[mine], task.norm)
        size[np.isnan(moved).any(axis=1)] = np.inf
        closer = size < shortest[mine]
        best[mine[closer]], shortest[mine[closer]] = moved[closer], size[closer]
        bound[mine] = np.minimum(bound[mine], here.bound(weights, need - slack, task.norm))
    return best, bound


def _planes(model: LinearModel, rows: Rows) -> list[tuple[int, Floats, Floats]]:
    """For each class and each other: weights ``(features,)`` and values ``(batch,)`` of the other's lead."""
    outputs, classes = model.outputs(rows), range(model.classes)
    if len(model.bias) == 1:
        lead = outputs[:, 0] - model.cut
        return [(0, model.weights[0], lead), (1, -model.weights[0], -lead)]
    return [
        (own, model.weights[other] - model.weights[own], outputs[:, other] - outputs[:, own])
        for own in classes
        for other in classes
        if own != other
    ]
