"""Tasks and candidates: what the attacks of each family are given, and what they hand back.

A task holds only what the assumed adversary has. What decides success (true membership, rows kept
for measuring) stays with the family's measurement and is never reachable from a task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.ledger import UNLIMITED
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Labels, Rows, Scores

NORMS = {"linf": np.inf, "l2": 2.0, "l1": 1.0, "l0": 0.0}
"""What a declaration calls the norms of changes."""


@dataclass(frozen=True, slots=True)
class EvasionTask:
    """Change rows so little that they stay what they are, yet get another class.

    Candidates: rows ``(samples, features)``, the best that was found for each sample (the row
    itself where nothing was found).
    """

    rows: Rows
    """``(samples, features)``: correctly labelled rows that the model never saw."""
    labels: Labels
    """``(samples,)``: their true classes."""
    classes: int
    starts: Rows
    """Rows of the same kind that the adversary owns; none of them is under attack."""
    start_labels: Labels
    """What the adversary knows the classes of ``starts`` to be."""
    space: Space
    """What a possible row is, and how large a change is."""
    max_change: float
    """Largest change that counts, by ``norm``, in units of ``space.scale`` (for tables standard deviations)."""
    budget: int
    """Queries allowed for one sample; the engine lets no further one pass."""
    norm: float = np.inf
    """Inf, 2, 1 or 0, which counts features or pixels."""
    shape: tuple[int, ...] = ()
    """``(channels, height, width)`` where rows are images; empty for tables."""
    gradients: int = UNLIMITED
    """Gradients allowed for one sample, where the attack may ask for any."""

    def within(self, rows: Rows, sample: NDArray[np.int64], radius: NDArray[np.float64] | None = None) -> Rows:
        """The nearest possible rows whose change from their ``sample`` is at most ``radius``, or what counts."""
        radius = np.full(len(rows), self.max_change) if radius is None else radius
        return self.space.within(rows, self.rows[sample], radius, self.norm)

    def change(self, rows: Rows, sample: NDArray[np.int64]) -> NDArray[np.float64]:
        """``(batch,)``: how far ``rows`` are from their ``sample``."""
        return self.space.change(rows, self.rows[sample], self.norm)


@dataclass(frozen=True, slots=True)
class Bounded:
    """Candidates of an evasion attack that also proves how far away every other row is."""

    rows: Rows
    """``(samples, features)``, as an attack without proof returns them."""
    bound: NDArray[np.float64]
    """``(samples,)``: no possible row whose change is smaller gets another class; 0 where nothing is proven."""


@dataclass(frozen=True, slots=True)
class PoisoningTask:
    """Spoil a share of the training data so that the model trained on it is worse.

    Candidates: a tuple of ``Poison``; the family's measurement trains on each and on the clean data
    and compares them on rows that no training saw.
    """

    rows: Rows
    """``(records, features)``: the training rows."""
    labels: Labels
    """``(records,)``: their labels."""
    classes: int
    rates: tuple[float, ...]
    """Shares of the records that the adversary controls, each between 0 and 1."""
    repeats: int
    """Independent candidates wanted for each rate."""
    positive: int
    """Class whose being missed costs most; the rarest one when none is declared."""
    fits: int
    """Models of the target's own pipeline that the adversary can afford to train while searching."""

    def spoilt(self, rate: float) -> int:
        """Number of records that a share stands for; at least one."""
        return max(1, round(rate * len(self.rows)))


@dataclass(frozen=True, slots=True)
class Poison:
    """A spoilt training set: ``rows`` and ``labels`` replace those of the task."""

    strategy: str
    """How the records were chosen, such as ``random``; results are shown for each."""
    rate: float
    rows: Rows
    labels: Labels
    repeat: int
    """Which of the independent candidates for this strategy and rate it is, from 0."""
    choice: str = ""
    """What the strategy settled on for this rate, for the report."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """One model of the target's own pipeline that the adversary trains on a random half of the records."""

    inside: NDArray[np.bool_]
    """``(records,)``: which records it is to be trained on; drawn without regard to the truth."""
    seed: int


@dataclass(frozen=True, slots=True)
class MembershipTask:
    """Tell which records the model was trained on.

    The standard game of Carlini et al. 2022: the adversary holds the records in question, with
    their true classes, and can train models of the same kind on halves of them.

    Candidates: a ``MembershipResult``. Every model, shadow or victim, is asked about just ``rows``,
    and ``neighbours`` where there are any.
    """

    rows: Rows
    """``(records, features)``: records to decide about, members and others mixed."""
    labels: Labels
    """``(records,)``: their true classes."""
    classes: int
    shadows: tuple[Shadow, ...]
    """Each two in a row train on complementary halves, so that every record is in half of them."""
    neighbours: Rows = field(default_factory=lambda: np.empty((0, 0)))
    """``(views * records, features)``: rows near the records, all of them once for each view; none with scores."""


@dataclass(frozen=True, slots=True)
class MembershipGuess:
    """What one rule says about every record."""

    rule: str
    """``loss_threshold``, ``lira_online`` ..."""
    scores: NDArray[np.float64]
    """``(records,)``: higher where membership is more likely."""
    accused: NDArray[np.bool_]
    """``(records,)``: which records the adversary would call members."""
    headline: bool = False
    """The rule named in advance as the one whose result counts; exactly one has it."""


@dataclass(frozen=True, slots=True)
class MembershipResult:
    """What a membership attack hands back."""

    guesses: tuple[MembershipGuess, ...]
    """One for each rule that was applied."""
    answers: tuple[NDArray[np.float64] | Labels, ...]
    """What each shadow model answered to all that was asked, so that it can play the victim in its turn."""


Teacher = Callable[[Rows, Scores, np.random.Generator], Callable[[Rows], Scores]]
"""Trains on rows ``(batch, features)`` and probabilities ``(batch, classes)``; gives what answers with the latter."""


@dataclass(frozen=True, slots=True)
class ExtractionTask:
    """Copy the model by asking it.

    Candidates: a tuple of ``Substitute``, one for each checkpoint that was reached.
    """

    rows: Rows
    """``(pool, features)``: rows without labels that the adversary owns."""
    classes: int
    space: Space
    """What a possible row is, as far as the adversary can see it from its own rows."""
    budget: int
    """Queries allowed altogether; all are charged to sample 0."""
    checkpoints: tuple[int, ...]
    """Numbers of queries after which a substitute is wanted, rising, the last one at most ``budget``."""
    foreign: Rows | None = None
    """``(rows, features)``: rows of another kind that the adversary owns, such as other pictures; None when it
    has none and must make some up."""
    learner: Teacher | None = None
    """How the adversary trains its copies; None when it chooses among small learners of its own."""


@dataclass(frozen=True, slots=True)
class Substitute:
    """A stolen copy: either a model fitted through the engine, or the adversary's own function."""

    queries: int
    """Queries of the victim that went into it."""
    model: int | None = None
    """Handle answered to a ``Fit``."""
    predict: Callable[[Rows], Labels] | None = None
    """``(batch, features)`` to class indices ``(batch,)``."""
