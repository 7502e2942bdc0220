"""One candidate on trial, and the shape of what is measured of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.digest import digest_bytes
from bartizan.core.predicates import Metric
from bartizan.lifecycle.develop.choose.candidate import Candidate
from bartizan.redteam.family import Material, Point
from bartizan.targets.protocol import Access, Labels, Scores, Target

Tell = Callable[[int, int, str], None]
"""Told how far a measurement is."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one column says of one candidate. Kept as JSON, so that it need not be measured again."""

    metrics: dict[str, Metric] = {}
    curves: dict[str, tuple[Point, ...]] = {}
    details: dict[str, Any] = {}
    missing: str = ""
    """Why there is nothing, in one sentence; empty when there is."""


@dataclass
class Trial:
    """A fitted candidate with the data it is judged on."""

    candidate: Candidate
    target: Target
    material: Material
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the candidate, as chosen."""
    quick: bool = False
    tell: Tell = lambda _done, _total, _note: None

    @property
    def has_scores(self) -> bool:
        """Whether the target answers probabilities."""
        return Access.SCORES in self.target.offers

    def rng(self, *purpose: str) -> np.random.Generator:
        """Random numbers for one purpose, the same for every candidate."""
        return stream(self.material.settings.seed, *purpose)

    @cached_property
    def answers(self) -> Labels:
        """Of the evaluation rows, ``(records,)``."""
        return self.target.labels(self.material.evaluation.rows)

    @cached_property
    def scores(self) -> Scores:
        """Of the evaluation rows, ``(records, classes)``."""
        return self.target.scores(self.material.evaluation.rows)

    @property
    def right(self) -> NDArray[np.bool_]:
        """``(records,)``: which evaluation rows are answered rightly."""
        right: NDArray[np.bool_] = self.answers == self.material.evaluation.labels
        return right


class Column(Protocol):
    """Measures one thing of every candidate. Stateless."""

    name: str
    version: str
    """Raise it whenever the same inputs may give another result."""
    title: str

    def measure(self, trial: Trial) -> Part:
        """Measure. Raises ``BartizanError`` when the work cannot be done."""


def stream(seed: int, *purpose: str) -> np.random.Generator:
    """Random numbers for one purpose, independent of those for any other."""
    return np.random.default_rng([seed, *(int(digest_bytes(name.encode())[:16], 16) for name in purpose)])
