"""A target behind a chain of transforms: what an adversary asks who goes through the gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import WorkError
from bartizan.targets.protocol import Access, Differentiable, Labels, Loss, Rows, Scores, Target

Transform = Callable[[Any], Any]


class Filtered:
    """See ``Target``. Every row goes through the chain first.

    Gradients are those at the row that comes out of it, as if the chain were the identity: backward pass
    differentiable approximation (Athalye, Carlini and Wagner 2018), the attack on transforms whose own slopes are
    nothing. Attacks by query go through the chain by themselves.
    """

    def __init__(self, target: Target, chain: Transform) -> None:
        self._target, self._chain = target, chain
        self.dtype: np.dtype[Any] = getattr(target, "dtype", np.dtype(np.float64))
        self.shape: tuple[int, ...] = getattr(target, "shape", (target.features,))

    @property
    def name(self) -> str:
        """See ``Target.name``."""
        return self._target.name

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        return self._target.offers & {Access.LABELS, Access.SCORES, Access.LOGITS, Access.GRADIENTS}

    @property
    def classes(self) -> int:
        """See ``Target.classes``."""
        return self._target.classes

    @property
    def class_values(self) -> tuple[str, ...]:
        """See ``Target.class_values``."""
        return self._target.class_values

    @property
    def features(self) -> int:
        """See ``Target.features``."""
        return self._target.features

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        return self._target.labels(self._chain(rows))

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        return self._target.scores(self._chain(rows))

    def logits(self, rows: Rows) -> Scores:
        """See ``Differentiable.logits``."""
        return self._differentiable().logits(self._chain(rows))

    def gradients(self, rows: Rows, loss: Loss, labels: Labels, targets: Labels | None = None) -> NDArray[np.floating]:
        """See ``Differentiable.gradients``."""
        return self._differentiable().gradients(self._chain(rows), loss, labels, targets)

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``: what is trained again has no chain before it."""
        return self._target.retrain(rows, labels, seed=seed)

    def _differentiable(self) -> Differentiable:
        if not isinstance(self._target, Differentiable):
            raise WorkError(f"{self.name} gives no gradients", remedy="use an attack by query.")
        return self._target


__all__ = ["Filtered"]
