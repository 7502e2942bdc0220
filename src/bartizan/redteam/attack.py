"""The Attack shape: a generator that asks and is told.

An attack never touches the target. It yields requests, receives answers and returns candidates;
the engine batches, charges the budget, and measures success itself on the candidates.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bartizan.targets.protocol import Access, Labels, Loss, Rows

VICTIM = 0
"""Handle of the model under attack; models fitted on the way get further handles."""


@dataclass(frozen=True, slots=True)
class Query:
    """Ask a model about rows. Answer: labels ``(batch,)`` or, with ``scores``, ``(batch, classes)``."""

    rows: Rows
    sample: NDArray[np.int64]
    """``(batch,)``: which sample of the task each row is charged to."""
    scores: bool = False
    model: int = VICTIM


@dataclass(frozen=True, slots=True)
class Gradient:
    """Ask a model for its logits and for the gradient of a loss by the input.

    Answer: ``(batch, classes + features)``, the logits first; ``slope`` takes it apart.
    """

    rows: Rows
    sample: NDArray[np.int64]
    """``(batch,)``: which sample of the task each row is charged to, as one gradient."""
    loss: Loss
    labels: Labels
    """``(batch,)``: the classes that the loss speaks of."""
    targets: Labels | None = None
    """``(batch,)``: the classes aimed at, for losses that need one."""
    model: int = VICTIM


@dataclass(frozen=True, slots=True)
class Approach:
    """Ask how far rows are from others in what the last layer is given, and for the gradient of that by the row.

    Answer: ``(batch, 1 + features)``, the squared distance first. It is charged as a gradient.
    """

    rows: Rows
    sample: NDArray[np.int64]
    """``(batch,)``: which sample of the task each row is charged to, as one gradient."""
    towards: Rows
    """``(batch, features)``: the row that each is to resemble."""
    model: int = VICTIM


@dataclass(frozen=True, slots=True)
class Inspect:
    """Ask what the model is made of. Answer: one of ``targets.structure``. It costs no query."""


def slope(answer: NDArray[np.floating], classes: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Logits ``(batch, classes)`` and gradients ``(batch, features)`` of an answer to ``Gradient``."""
    return answer[:, :classes], answer[:, classes:]


@dataclass(frozen=True, slots=True)
class Fit:
    """Train the target's own pipeline on other data. Answer: an integer handle for queries."""

    rows: Rows
    labels: Labels
    seed: int


Request = Query | Gradient | Approach | Inspect | Fit
Search = Generator[Request, Any, Any]
"""Yields requests, is sent answers, returns the candidates of its family (see ``redteam.tasks``)."""


class Facts(Protocol):
    """What every attack says of itself, whatever it attacks."""

    name: str
    """``evasion.hopskipjump``; also the name of its check, with ``redteam.`` in front."""
    title: str
    family: str
    """``evasion``, ``poisoning``, ``privacy``, ``extraction``, ``text``, ``availability``."""
    technique: str
    """Catalogue technique, such as ``T08``."""
    atlas: tuple[str, ...]
    needs: frozenset[Access]
    position: str
    """Catalogue position that the adversary takes: ``user``, ``contributor``."""
    references: tuple[str, ...]
    """Paper or source, with year."""


class Attack(Facts, Protocol):
    """One technique, implemented. Stateless: everything it needs comes in with the task."""

    def search(self, task: Any, rng: np.random.Generator) -> Search:
        """Look for candidates. ``task`` is the family's task from ``redteam.tasks``."""
