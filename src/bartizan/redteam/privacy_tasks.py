"""Tasks and candidates of the privacy attacks beside membership inference.

As in ``redteam.tasks``, a task holds only what the assumed adversary has; the truth stays with the
family that measures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Labels, Rows, Scores

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Attribute:
    """A property of a person that the adversary wants to know: one feature, or a one-hot group."""

    name: str
    columns: NDArray[np.int64]
    values: Rows
    """``(values, columns)``: what the columns hold for each possible value; rises for numbers."""

    def filled(self, rows: Rows, value: int) -> Rows:
        """``rows`` ``(batch, features)`` as they would be with this value."""
        filled = rows.copy()
        filled[:, self.columns] = self.values[value]
        return filled

    def of(self, rows: Rows) -> Labels:
        """``(batch,)``: the value nearest to what each row holds."""
        distance = np.abs(rows[:, None, self.columns] - self.values).sum(axis=2)
        nearest: Labels = distance.argmin(axis=1)
        return nearest


@dataclass(frozen=True, slots=True)
class AttributeTask:
    """Guess one attribute of each of these people from all their others, their class, and the model.

    Candidates: an ``AttributeGuess``.
    """

    rows: Rows
    """``(records, features)``: people in question; the attribute asked of each holds its first value."""
    labels: Labels
    """``(records,)``: their true classes."""
    classes: int
    attributes: tuple[Attribute, ...]
    asked: NDArray[np.int64]
    """``(records,)``: which of the attributes is asked of each."""
    known: Rows
    """``(known, features)``: complete records of other people."""
    known_labels: Labels
    seed: int
    """For the model of the target's kind that the adversary trains on half of ``known``."""


@dataclass(frozen=True, slots=True)
class AttributeGuess:
    """What is guessed."""

    values: Labels
    """``(records,)``: value of the attribute asked, by index."""
    weights: tuple[float, ...]
    """For each attribute how much the model counted, settled on the adversary's own model."""


@dataclass(frozen=True, slots=True)
class InversionTask:
    """Reconstruct what each class looks like in the training data.

    Candidates: rows ``(classes, features)``.
    """

    classes: int
    features: int
    space: Space
    """What a possible row is, from the adversary's own rows."""
    centre: Floats
    """``(features,)``: a usual row, all that the adversary knows of the population beside ``space``."""
    budget: int
    """Queries, or gradients, for each class."""


@dataclass(frozen=True, slots=True)
class CanaryTask:
    """Design records that a model would only know if it has learnt them by heart.

    Candidates: ``Canaries``. Which of them are trained on is drawn afterwards.
    """

    rows: Rows
    """``(records, features)``: the training records."""
    labels: Labels
    classes: int
    space: Space
    count: int
    """Canaries wanted."""


@dataclass(frozen=True, slots=True)
class Canaries:
    """Designed records, all drawn alike, so that those left out are the yardstick of those put in."""

    rows: Rows
    """``(count, features)``"""
    labels: Labels


@dataclass(frozen=True, slots=True)
class PropertyTask:
    """Tell whether a property is rare or common among the records a model was trained on.

    Candidates: a ``PropertyGuesser``.
    """

    rows: Rows
    """``(records, features)``: the adversary's own records; no victim is trained on any of them."""
    labels: Labels
    classes: int
    holds: NDArray[np.bool_]
    """``(records,)``: which of them have the property."""
    shares: tuple[float, float]
    """Share of records with the property: rare, common."""
    size: int
    """Records that a victim is trained on."""
    fits: int
    """Models that the adversary can train."""
    probes: Rows
    """``(probes, features)``: further own rows to ask models about, which none of the models has seen."""


@dataclass(frozen=True, slots=True)
class PropertyGuesser:
    """How to read what a model answers about the probes of the task."""

    decide: Callable[[Scores], float]
    """Answers ``(probes, classes)`` to a score, above 0 where the property is common."""


@dataclass(frozen=True, slots=True)
class PopulationTask:
    """Tell which records the model was trained on, without training anything like it.

    Candidates: a ``MembershipResult`` without answers.
    """

    rows: Rows
    """``(records, features)``: records to decide about, members and others mixed."""
    labels: Labels
    """``(records,)``: their true classes."""
    owned: Rows
    """``(owned, features)``: records that the adversary knows to be no members."""
    owned_labels: Labels
    classes: int
