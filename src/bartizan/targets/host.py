"""What hosts of models share: the commands they are given, how rows come in, and what is never sent back.

A host runs in a confined process (``targets.hosting``); the other side is ``targets.hosted``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.targets import structure
from bartizan.targets.hosting import Answer, Refusal
from bartizan.targets.hosting import Question as AnyQuestion
from bartizan.targets.protocol import Labels

PROBES = 16
"""Rows of random numbers by which a host finds out what a model answers with."""
TOLERANCE = 1e-3
"""How far a row of probabilities may sum up beside 1; float16 rounds that much."""
TINY = 1.2e-38
"""Keeps the logarithm of a probability finite; the smallest normal float32."""
_MATRIX = 2


class Question(AnyQuestion, kw_only=True):
    """One command. What follows it are rows, then labels, then classes aimed at; or a file."""

    rows: int = 0
    model: int = 0
    """Handle: 0 is the declared model."""
    seed: int = 0
    drop: tuple[int, ...] = ()
    """Handles that are no longer needed."""
    classes: int = 0
    """With ``load``: how many are declared."""
    features: int = 0
    shape: tuple[int, ...] = ()
    """With ``load``: of an image, as declared; empty for tables."""
    loss: str = ""
    aimed: bool = False
    """A class aimed at is given for each row."""


def rows_of(question: Question, features: int, kind: str = "<f8") -> NDArray[Any]:
    """The rows ``(rows, features)`` that followed."""
    count = question.rows * features
    return np.frombuffer(question.data, dtype=kind, count=count).reshape(question.rows, features)


def packed(answers: NDArray[Any], kind: str) -> bytes:
    """An answer as it is sent."""
    return np.ascontiguousarray(answers, dtype=kind).tobytes()


def labels_of(question: Question, features: int, kind: str = "<f8", place: int = 0) -> Labels:
    """Labels ``(rows,)`` that followed the rows; with ``place`` 1 the classes aimed at behind them."""
    start = question.rows * (features * np.dtype(kind).itemsize + place * 8)
    return np.frombuffer(question.data, dtype="<i8", offset=start, count=question.rows)


def probes(features: int) -> NDArray[np.float64]:
    """Rows ``(PROBES, features)``, always the same."""
    return np.random.default_rng(0).uniform(0.0, 1.0, (PROBES, features))


def are_probabilities(answers: NDArray[Any]) -> bool:
    """Whether every row is from 0 to 1 and sums up to 1."""
    if answers.ndim != _MATRIX or not answers.size or not np.isfinite(answers).all():
        return False
    inside = (answers >= -TOLERANCE).all() and (answers <= 1 + TOLERANCE).all()
    return bool(inside and np.abs(answers.sum(axis=1) - 1).max() <= TOLERANCE)


def numbers(answers: NDArray[Any]) -> NDArray[Any]:
    """The same answers.

    Raises:
        Refusal: one of them is no number.
    """
    if not np.isfinite(answers).all():
        raise Refusal("it answers with something that is no number (NaN or infinite)")
    return answers


def library(name: str, extra: str) -> Any:
    """A framework, imported now.

    Raises:
        Refusal: it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        raise Refusal(f"that needs {missing}, which is not installed here: pip install '{extra}'") from error


class Inside:
    """What the model is made of, read once and handed out in two steps: the plan, then the arrays."""

    def __init__(self) -> None:
        self.read: structure.Structure | None = None
        self._arrays = b""

    def structure(self, _: Question) -> Answer:
        """The plan."""
        if self.read is None:
            raise Refusal("its structure is not read")
        plan, self._arrays = structure.pack(self.read)
        return {"facts": plan}

    def arrays(self, _: Question) -> Answer:
        """The arrays of the structure whose plan was told last."""
        packed, self._arrays = self._arrays, b""
        return packed
