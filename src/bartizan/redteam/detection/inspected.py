"""What a detector looks at, and what it says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import InputError, WorkError
from bartizan.targets.protocol import Access, Differentiable, Labels, Layered, Loss, Rows, Scores, Target

FPR = 0.01
"""Share of the clean records that a detector may flag when nothing else is asked for."""
_MATRIX = 2


@dataclass(frozen=True, slots=True, eq=False)
class Inspected:
    """Labelled records under suspicion, and what may be asked of a model that was trained on them."""

    rows: Rows
    """``(records, features)``, finite."""
    labels: Labels
    """``(records,)``: the classes they were trained as."""
    classes: int
    shape: tuple[int, ...] = ()
    """``(channels, height, width)`` where rows are images; empty for tables, whose features are standardised."""
    activations: NDArray[np.floating[Any]] | None = None
    """``(records, width)``: input of the model's last layer."""
    scores: Callable[[Rows], Scores] | None = None
    """``(batch, features)`` to probabilities ``(batch, classes)``."""
    slopes: Callable[[Rows, Labels], Rows] | None = None
    """Gradient ``(batch, features)`` of each row's cross-entropy to a class ``(batch,)``."""
    trusted: tuple[Rows, Labels] | None = None
    """Records that are known to be sound, where there are any."""

    def __post_init__(self) -> None:
        """Refuse what no detector could judge.

        Raises:
            InputError: shapes do not fit, a label is no class, or a value is not finite.
        """
        if self.rows.ndim != _MATRIX or self.labels.shape != (len(self.rows),):
            raise InputError(f"rows {self.rows.shape} and labels {self.labels.shape} do not fit each other")
        if not np.isfinite(self.rows).all():
            raise InputError(
                "a record to inspect has a value that is not finite", remedy="fill or leave out missing values."
            )
        if not ((self.labels >= 0) & (self.labels < self.classes)).all():
            raise InputError(f"labels must be class indices from 0 to {self.classes - 1}")
        if self.activations is not None and (
            len(self.activations) != len(self.rows) or not np.isfinite(self.activations).all()
        ):
            raise InputError("activations must be finite, one row for each record")

    @property
    def offers(self) -> frozenset[Access]:
        """What is there beside the records."""
        there = {
            Access.WEIGHTS: self.activations is not None,
            Access.SCORES: self.scores is not None,
            Access.GRADIENTS: self.slopes is not None,
        }
        return frozenset(access for access, given in there.items() if given)

    @property
    def scaled(self) -> NDArray[np.float32]:
        """``(records, features)``: rows in which distances mean something, centred; images share one scale."""
        return self.like(self.rows)

    def like(self, rows: Rows) -> NDArray[np.float32]:
        """Other rows ``(batch, features)``, scaled as ``scaled`` is."""
        centre = self.rows.mean(axis=0, dtype=np.float64) if len(self.rows) else 0.0
        if self.shape:
            return np.asarray(rows - centre, dtype=np.float32)
        spread = self.rows.std(axis=0, dtype=np.float64) if len(self.rows) else np.ones(rows.shape[1])
        factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12 * (1 + np.abs(centre)))
        return np.asarray((rows - centre) * factor, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """What the suspicious records of a class have in common, as a change that can be made to other rows."""

    label: int
    """The class that records with the pattern carry."""
    change: NDArray[np.floating[Any]]
    """``(features,)``: what is added."""
    low: NDArray[np.floating[Any]]
    high: NDArray[np.floating[Any]]
    """``(features,)``: the range that values stay in."""
    kept: NDArray[np.floating[Any]] | None = None
    """``(features,)``: share of the old value that stays; all of it when None."""

    def __call__(self, rows: Rows) -> Rows:
        """``rows`` ``(batch, features)`` with the pattern put on."""
        carried = rows if self.kept is None else rows * self.kept
        return np.clip(carried + self.change, self.low, self.high).astype(rows.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Suspicion:
    """What a detector says."""

    scores: NDArray[np.float64]
    """``(records,)``: higher for more suspicious records."""
    flagged: NDArray[np.bool_]
    """``(records,)``: those that it would remove."""
    patterns: tuple[Pattern, ...] = ()
    """Triggers that it found, the surest first."""
    notes: tuple[str, ...] = ()
    """What it saw, in one sentence each."""
    figures: dict[str, float] = field(default_factory=dict)


class Detector(Protocol):
    """Looks for poisoned records. Stateless but for its settings."""

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[frozenset[Access]]
    """What must be known of the model: nothing, WEIGHTS (activations), SCORES or GRADIENTS."""
    techniques: ClassVar[tuple[str, ...]]
    """Catalogue techniques whose traces it looks for."""
    references: ClassVar[tuple[str, ...]]

    def inspect(self, inspected: Inspected, rng: np.random.Generator) -> Suspicion:
        """Score and flag the records. Raises WorkError when something that it needs is not there."""


def inspected_of(
    rows: Rows,
    labels: Labels,
    target: Target | None = None,
    *,
    classes: int | None = None,
    shape: tuple[int, ...] = (),
    trusted: tuple[Rows, Labels] | None = None,
) -> Inspected:
    """Records, and everything that ``target`` offers about them.

    Raises:
        InputError: the records cannot be judged. See ``Inspected``.
    """
    known = target.classes if target else int(labels.max(initial=0)) + 1
    layered = target if isinstance(target, Layered) and Access.WEIGHTS in target.offers else None
    differentiable = target if isinstance(target, Differentiable) and Access.GRADIENTS in target.offers else None
    return Inspected(
        rows=rows,
        labels=np.asarray(labels, dtype=np.int64),
        classes=classes or known,
        shape=shape,
        activations=layered.activations(rows) if layered else None,
        scores=target.scores if target and Access.SCORES in target.offers else None,
        slopes=_slopes(differentiable) if differentiable else None,
        trusted=trusted,
    )


def require(detector: Detector, inspected: Inspected) -> None:
    """See that everything is there.

    Raises:
        WorkError: something is missing; it is named.
    """
    missing = sorted(detector.needs - inspected.offers)
    if missing:
        raise WorkError(
            f"{detector.name} needs {' and '.join(missing)} of the model, which is not there",
            remedy="give a target that offers it, or use a detector that looks at the records alone.",
        )


def highest(scores: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Flag at most ``share`` of the records, those with the highest scores; of equal ones all or none.

    Whatever the scores mean, no more than ``share`` of all records are accused wrongly, and where more are
    poisoned, some are missed.
    """
    count = int(share * len(scores))
    if not len(scores):
        return np.zeros(0, dtype=np.bool_)
    threshold = np.sort(scores)[len(scores) - count - 1]
    flagged: NDArray[np.bool_] = scores > threshold
    return flagged


def _slopes(target: Differentiable) -> Callable[[Rows, Labels], Rows]:
    def slopes(rows: Rows, labels: Labels) -> Rows:
        answer = target.gradients(rows, Loss.CROSS_ENTROPY, labels)
        return np.asarray(answer[:, target.classes :], dtype=np.float64)

    return slopes
