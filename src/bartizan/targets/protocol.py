"""The Target: what an attack can ask, and what it may know."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bartizan.core.system import Artefact, System

Rows = NDArray[np.float64]
"""Inputs, ``(batch, features)``; images lie flat, by channel, row and column. Some targets compute in float32."""
Labels = NDArray[np.int64]
"""Class indices, ``(batch,)``, from 0 in the order of the declared classes."""
Scores = NDArray[np.float64]
"""Class probabilities, ``(batch, classes)``; rows sum to 1."""


class Access(enum.StrEnum):
    """What an attack needs, a target offers, and a role is granted."""

    LABELS = "labels"
    SCORES = "scores"
    LOGITS = "logits"
    GRADIENTS = "gradients"
    WEIGHTS = "weights"
    ACTIVATIONS = "activations"
    """What the last layer is given, and how that changes with the row."""
    TRAINING = "training"
    """The training procedure can be run again on other data."""


class Loss(enum.StrEnum):
    """What a gradient is taken of; ``z`` are the logits, ``y`` the label, ``t`` the class aimed at.

    Each is summed over nothing: every row has its own. An attack climbs.
    """

    CROSS_ENTROPY = "cross_entropy"
    """``-log softmax(z)[y]``."""
    TOWARDS = "towards"
    """``log softmax(z)[t]``: cross-entropy of the class aimed at, with its sign turned."""
    MARGIN = "margin"
    """``max(z without y) - z[y]``: positive once the row is misclassified (Carlini and Wagner 2017)."""
    DIFFERENCE = "difference"
    """``z[t] - z[y]``."""
    DLR = "dlr"
    """Difference of logits ratio, ``-(z[y] - max(z without y)) / (z[1st] - z[3rd])`` (Croce and Hein 2020)."""
    DLR_TOWARDS = "dlr_towards"
    """``-(z[y] - z[t]) / (z[1st] - (z[3rd] + z[4th]) / 2)`` (Croce and Hein 2020)."""
    LOGIT = "logit"
    """``z[y]``."""


NEEDS_TARGETS = frozenset({Loss.TOWARDS, Loss.DIFFERENCE, Loss.DLR_TOWARDS})
"""Losses that speak of a class aimed at."""
LEAST_CLASSES = {Loss.DLR: 3, Loss.DLR_TOWARDS: 4}
"""Losses that need more classes than two."""


class Target(Protocol):
    """A model under test, in this process, another one, or behind a server."""

    @property
    def name(self) -> str:
        """Artefact id of the model."""

    @property
    def offers(self) -> frozenset[Access]:
        """What it answers."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    @property
    def class_values(self) -> tuple[str, ...]:
        """What the model itself calls its classes, as text and in their order; empty when it does not say."""

    @property
    def features(self) -> int:
        """Number of features."""

    def labels(self, rows: Rows) -> Labels:
        """Predicted class of each row."""

    def scores(self, rows: Rows) -> Scores:
        """Probabilities of each row. Raises WorkError when SCORES is not offered."""

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """The same, untrained, pipeline fitted to other data. Raises WorkError without TRAINING."""


@runtime_checkable
class Differentiable(Target, Protocol):
    """A target whose gradients can be had. Offers LOGITS and GRADIENTS."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """In which it computes; rows are given in it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(channels, height, width)`` for images, ``(features,)`` else."""

    def logits(self, rows: Rows) -> Scores:
        """Scores before the softmax, ``(batch, classes)``."""

    def gradients(self, rows: Rows, loss: Loss, labels: Labels, targets: Labels | None = None) -> NDArray[np.floating]:
        """Logits, and behind them the gradient of each row's loss, ``(batch, classes + features)``."""


@runtime_checkable
class TrainsTogether(Target, Protocol):
    """A target whose training is much cheaper for many models at once. Offers TRAINING."""

    @property
    def at_once(self) -> int:
        """How many models it can train, and hold, together."""

    def retrain_many(self, fits: Sequence[tuple[Rows, Labels, int]]) -> Sequence[Target]:
        """What ``retrain`` would give for each ``(rows, labels, seed)``."""


@runtime_checkable
class Transparent(Target, Protocol):
    """A target whose inside can be read as numbers. Offers WEIGHTS."""

    def structure(self) -> Any:
        """What it is made of: one of ``targets.structure``."""


@runtime_checkable
class Layered(Target, Protocol):
    """A target with a representation before its last layer. Offers WEIGHTS."""

    def activations(self, rows: Rows) -> NDArray[np.floating]:
        """Input of the last layer, ``(batch, width)``."""


@runtime_checkable
class Approachable(Layered, Protocol):
    """A target whose representation can be followed back to the row. Offers ACTIVATIONS."""

    def approach(self, rows: Rows, towards: Rows) -> NDArray[np.floating]:
        """How far rows are from others ``(batch, features)`` before the last layer, ``(batch, 1 + features)``.

        First the squared Euclidean distance of each row's activations to those of its other, then the gradient of
        that by the row.
        """


@runtime_checkable
class Clocked(Protocol):
    """A target in a process of its own, whose work can be told from what else happens."""

    def clock(self) -> float:
        """Seconds of processor time that its process has used so far."""


class Targets(Protocol):
    """Service that opens declared models for use; given to checks by the runner."""

    def open(self, system: System, model: Artefact) -> AbstractContextManager[Target]:
        """Load the model in an isolated process, if its digest has a clean scan. Closed on exit."""
