"""Any Python callable as a target: a function of rows that answers classes, scores or logits.

The function runs in this process; it is trusted as whoever wrote it is. What it answers is not: shapes, kinds and
ranges are checked, since an answer that means something else would count as a robust or a broken model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bartizan.core.errors import InputError, WorkError
from bartizan.targets.protocol import Access, Labels, Rows, Scores

Answers = Literal["labels", "scores", "logits"]
Function = Callable[[Rows], ArrayLike]
Trainer = Callable[[Rows, Labels, int], Function]
"""Trains on rows ``(records, features)`` and labels, with a seed; returns a function of the same kind."""
_SUM = 1e-3
"""How far scores of a row may be from summing to 1: single precision over many classes."""


class CallableTarget:
    """A classifier as a function. See ``Target``."""

    def __init__(
        self,
        function: Function,
        *,
        features: int,
        classes: int,
        answers: Answers = "labels",
        name: str = "model:callable",
        class_values: Sequence[str] = (),
        trainer: Trainer | None = None,
    ) -> None:
        if features < 1 or classes < 2:  # noqa: PLR2004 - one class is no choice
            raise InputError(f"a target needs a feature and two classes, and is given {features} and {classes}")
        self.name, self.features, self.classes = name, features, classes
        self.class_values = tuple(class_values)
        self._function, self._answers, self._trainer = function, answers, trainer

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        access = {Access.LABELS}
        if self._answers != "labels":
            access.add(Access.SCORES)
        if self._answers == "logits":
            access.add(Access.LOGITS)
        if self._trainer is not None:
            access.add(Access.TRAINING)
        return frozenset(access)

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        if not len(rows):
            return np.empty(0, dtype=np.int64)
        if self._answers != "labels":
            likeliest: Labels = self.scores(rows).argmax(axis=1).astype(np.int64)
            return likeliest
        answer = self._ask(rows)
        whole = np.asarray(answer, dtype=np.float64)
        if not (np.isfinite(whole) & (whole == np.floor(whole)) & (whole >= 0) & (whole < self.classes)).all():
            raise WorkError(
                f"{self.name} answers with something that is no class from 0 to {self.classes - 1}",
                remedy="answer the index of a class for each row.",
            )
        return whole.astype(np.int64)

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        if self._answers == "labels":
            raise WorkError(f"{self.name} answers labels only", remedy="use an attack that needs labels only.")
        if not len(rows):
            return np.empty((0, self.classes))
        answer = np.asarray(self._ask(rows), dtype=np.float64)
        if self._answers == "logits":
            powers = np.exp(answer - answer.max(axis=1, keepdims=True, initial=-np.inf))
            shares: Scores = powers / powers.sum(axis=1, keepdims=True)
            return shares
        if (answer < -_SUM).any() or (np.abs(answer.sum(axis=1) - 1) > _SUM * max(1, self.classes / 10)).any():
            raise WorkError(
                f"{self.name} answers scores that are no probabilities", remedy='say answers="logits" if they are that.'
            )
        return answer

    def logits(self, rows: Rows) -> Scores:
        """See ``Differentiable.logits``. Raises WorkError where the function answers something else."""
        if self._answers != "logits":
            raise WorkError(f"{self.name} gives no logits", remedy="use an attack that needs none.")
        return np.asarray(self._ask(rows), dtype=np.float64) if len(rows) else np.empty((0, self.classes))

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> CallableTarget:
        """See ``Target.retrain``."""
        if self._trainer is None:
            raise WorkError(f"{self.name} cannot be trained again", remedy="give the target a trainer.")
        return CallableTarget(
            self._trainer(rows, labels, seed),
            features=self.features,
            classes=self.classes,
            answers=self._answers,
            name=self.name,
            class_values=self.class_values,
            trainer=self._trainer,
        )

    def _ask(self, rows: Rows) -> NDArray[Any]:
        """The function's answer, in the shape that is due."""
        if rows.ndim != 2 or rows.shape[1] != self.features:  # noqa: PLR2004 - a matrix
            raise WorkError(f"{self.name} takes rows of {self.features} features and was given an array {rows.shape}")
        try:
            answer = np.asarray(self._function(rows))
        except Exception as error:
            raise WorkError(
                f"{self.name} broke: {type(error).__name__}: {error}", remedy="mend the function."
            ) from error
        due = (len(rows),) if self._answers == "labels" else (len(rows), self.classes)
        if answer.shape != due or answer.dtype.kind not in "biuf":
            raise WorkError(
                f"{self.name} answers an array {answer.shape} of {answer.dtype} where {self._answers} {due} are due",
                remedy="answer one class, or one number for each class, for each row.",
            )
        if not np.isfinite(answer).all():
            raise WorkError(f"{self.name} answers with numbers that are not finite", remedy="mend the function.")
        return answer
