"""The Target: what an attack can ask, and what it may know."""

from __future__ import annotations

import enum
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bartizan.core.system import Artefact, System

Rows = NDArray[np.float64]
"""Inputs, ``(batch, features)``."""
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
    TRAINING = "training"
    """The training procedure can be run again on other data."""


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


class Targets(Protocol):
    """Service that opens declared models for use; given to checks by the runner."""

    def open(self, system: System, model: Artefact) -> AbstractContextManager[Target]:
        """Load the model in an isolated process, if its digest has a clean scan. Closed on exit."""
