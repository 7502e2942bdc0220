"""The Family shape: builds the task of an attack from declared data, and measures what came of it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from bartizan.core.finding import Finding
from bartizan.core.predicates import Metric
from bartizan.core.system import Expectation, ModelPart, RedTeam
from bartizan.redteam.attack import VICTIM, Attack, Query, Request
from bartizan.redteam.engine import Run, Watch
from bartizan.redteam.ledger import Budget
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Rows
from bartizan.targets.table import Table

Measuring = Generator[Request, Any, "Measurement"]
"""Asks through the engine like an attack, outside the attack's budget, and returns what it found."""


@dataclass(frozen=True, slots=True)
class Material:
    """What the declaration provides for one model."""

    model: ModelPart
    settings: RedTeam
    expected: Expectation
    training: Table
    """The data the model was trained on; nothing is ever measured on it."""
    evaluation: Table
    """Data that training did not see."""
    space: Space
    """What a possible row is: declared types and ranges, else what training shows."""
    shape: tuple[int, ...] = ()
    """``(channels, height, width)`` where rows are images; empty for tables."""
    showable: bool = False
    """Whether single evaluation records may be shown: they are not about people, and not confidential."""

    @property
    def positive(self) -> int | None:
        """Index of the class whose being missed costs most, when one is declared."""
        return self.model.classes.index(self.model.positive) if self.model.positive else None


@dataclass(frozen=True, slots=True)
class Case:
    """One task with its budget, and the truth that only the measurement may see."""

    task: Any
    """A task of ``redteam.tasks``."""
    budget: Budget
    truth: Any = None
    """Whatever ``Family.measure`` needs and the attack must not know."""
    watch: Watch | None = None
    """Sees every answered query of the attack."""
    knowledge: str = ""
    """What the adversary is assumed to know or own beyond the access, in one sentence."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What was assumed, for the statement."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a curve, with its interval."""

    x: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """What came of an attack, measured by the engine and not by the attack."""

    summary: str
    """One sentence that a risk owner understands."""
    metrics: dict[str, Metric]
    """Names without dots."""
    curves: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    """Further parts of the report, plain JSON: ``confusion``, ``samples``."""
    findings: tuple[Finding, ...] = ()
    no_claim: str = ""
    """Why the result shows nothing about how well the model withstands, in words; empty when it does."""


class Family(Protocol):
    """Attacks that share a task and a measure of success."""

    name: str
    """``evasion``, ``poisoning``, ``privacy``, ``extraction``."""
    settings: tuple[str, ...]
    """Fields of ``RedTeam`` that results of this family rest on, ``seed`` among them."""

    def case(self, attack: Attack, material: Material, rng: np.random.Generator) -> Case:
        """Build the task. Raises ArtefactError when the data do not allow it."""

    def measure(self, case: Case, run: Run, rng: np.random.Generator) -> Measuring:
        """Judge ``run.candidates`` by asking the victim (and ``Fit``-ted models) again."""


def ask(rows: Rows, *, model: int = VICTIM, scores: bool = False) -> Query:
    """A query of a measurement, which is charged to no sample."""
    return Query(rows, np.zeros(len(rows), dtype=np.int64), scores=scores, model=model)
