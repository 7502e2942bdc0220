"""AutoAttack: evasion by several attacks in turn, each on the samples that still stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError
from bartizan.redteam.attack import VICTIM, Attack, Fit, Gradient, Inspect, Query, Request, Search
from bartizan.redteam.attacks.evasion.apgd import APGD
from bartizan.redteam.attacks.evasion.fab import FAB
from bartizan.redteam.attacks.evasion.square import Square
from bartizan.redteam.ball import STEPPED
from bartizan.redteam.closest import Closest
from bartizan.redteam.tasks import EvasionTask
from bartizan.redteam.windows import is_picture
from bartizan.targets.feasible import TOLERANCE
from bartizan.targets.protocol import Access, Loss

Samples = NDArray[np.int64]

SQUARE_QUERIES = 5000
"""Queries that the last member may ask for one sample."""
MANHATTAN = 1
TARGETS, FEW_TARGETS = 9, 5
"""Classes that a sample is driven towards; under L1 fewer, but from more restarts."""
KEPT = 0.8
"""Share of the queries that is kept for the last member, which has nothing else, where they are few."""
DRAWS = 20
"""Gradients averaged for a step where the victim answers at random."""


class AutoAttack:
    """APGD on cross-entropy, APGD and FAB towards other classes, and Square, which needs no gradients.

    The standard ensemble of its paper; no setting is left to choose. A sample that one member fools is
    not given to the next. Costs up to 100 + 900 + 900 gradients and 5900 queries for a sample that stands to
    the end; with fewer queries, four of five are kept for the last member.

    Against the paper: see ``evasion.apgd``, ``evasion.fab`` and ``evasion.square``. Where Square is not
    defined (L1; tables under L2) the ensemble has no member without gradients.
    """

    name = "evasion.autoattack"
    title = "AutoAttack: four attacks in turn, with gradients and without, nothing to choose"
    family = "evasion"
    technique = "T06"
    atlas: tuple[str, ...] = ("AML.T0043.000", "AML.T0043.001", "AML.T0042", "AML.T0015")
    needs: frozenset[Access] = frozenset({Access.LABELS, Access.SCORES, Access.GRADIENTS})
    norms = STEPPED
    position = "user"
    least = 200
    references: tuple[str, ...] = (
        "Croce, Hein: Reliable evaluation of adversarial robustness. ICML 2020, arXiv:2003.01690",
    )

    def __init__(self, members: Sequence[Attack] | None = None, *, random: bool = False) -> None:
        self.members = members
        """Other attacks to run in turn; none for the standard ones."""
        self.random = random
        """Whether the victim answers at random: then two APGD that average over draws take the place of all."""

    def search(self, task: EvasionTask, rng: np.random.Generator) -> Search:
        """See ``Attack.search``."""
        closest = Closest(task)
        everyone = np.arange(len(task.rows))
        labels = yield from _first(everyone, task)
        wrong = labels != task.labels
        closest.offer(everyone[wrong], task.rows[wrong])
        purse = _Purse(np.bincount(everyone), task.budget)
        members = self.members or self.standard(task)
        for place, member in enumerate(members):
            standing = np.flatnonzero(~(closest.change <= task.max_change * (1 + TOLERANCE)))
            if standing.size:
                later = any(isinstance(other, Square) for other in members[place + 1 :])
                purse.kept = min(SQUARE_QUERIES, int(KEPT * task.budget)) if later else 0
                part = _narrowed(task, standing, purse.left(standing), member)
                yield from _relayed(member.search(part, rng), standing, task, closest, purse)
        return closest.rows

    def standard(self, task: EvasionTask) -> tuple[Attack, ...]:
        """The members for a norm and a kind of rows."""
        if self.random:
            return (APGD(draws=DRAWS), APGD(loss=Loss.DLR, draws=DRAWS))
        sparse = task.norm == MANHATTAN
        members: list[Attack] = [
            APGD(restarts=5 if sparse else 1),
            APGD(loss=Loss.DLR_TOWARDS, targets=FEW_TARGETS if sparse else TARGETS),
            FAB(targets=TARGETS, settle=True),
        ]
        if task.norm == np.inf or (is_picture(task.shape) and not sparse):
            members.append(Square())
        return tuple(members)


class RandomAutoAttack(AutoAttack):
    """The ensemble for models that answer at random: two APGD that climb the mean of some draws (paper, section 6).

    Costs up to 4,000 gradients for a sample that stands to the end.
    """

    name = "evasion.autoattack-random"
    title = "AutoAttack for models that answer at random: gradients averaged over draws"
    averages = True
    """What it does not find is not hidden by noise."""

    def __init__(self) -> None:
        super().__init__(random=True)


def _first(everyone: Samples, task: EvasionTask) -> Generator[Request, Any, NDArray[np.int64]]:
    """What the untouched samples are answered; their own labels when not even that can be paid."""
    try:
        labels: NDArray[np.int64] = yield Query(task.rows, everyone)
    except BudgetError:
        return task.labels
    return labels


@dataclasses.dataclass(slots=True)
class _Purse:
    """What each sample has spent in queries, so that no member spends what a later one lives on."""

    spent: Samples
    """``(samples,)``"""
    budget: int
    kept: int = 0
    """Queries that are kept for a later member."""

    def left(self, sample: Samples) -> int:
        """Queries that every one of these samples may still spend now."""
        return max(self.budget - self.kept - int(self.spent[sample].max()), 1)

    def pay(self, request: Request) -> None:
        """Pay for what is asked of the victim. Raises BudgetError when a sample has too little left."""
        if not isinstance(request, Query) or request.model != VICTIM:
            return
        asked = np.bincount(request.sample, minlength=len(self.spent))
        if (self.spent + asked > self.budget - self.kept)[asked > 0].any():
            raise BudgetError("the queries that are left are kept for the member that lives on them")
        self.spent += asked


def _narrowed(task: EvasionTask, standing: Samples, left: int, member: Attack) -> EvasionTask:
    """The task with only some of its samples, and with what they may still ask."""
    few = min(left, SQUARE_QUERIES) if isinstance(member, Square) else left
    return dataclasses.replace(task, rows=task.rows[standing], labels=task.labels[standing], budget=few)


def _relayed(search: Search, standing: Samples, task: EvasionTask, closest: Closest, purse: _Purse) -> Search:
    """Run a member, whose sample ``i`` is our ``standing[i]``, and keep what fools the victim."""
    try:
        request = next(search)
        while True:
            ours = _renamed(request, standing)
            try:
                purse.pay(ours)
                answer = yield ours
            except BudgetError as error:
                request = search.throw(error)
                continue
            if isinstance(ours, Query | Gradient) and ours.model == VICTIM:
                labels = answer if answer.ndim == 1 else answer[:, : task.classes].argmax(axis=1)
                fooled = labels != task.labels[ours.sample]
                closest.offer(ours.sample[fooled], ours.rows[fooled])
            request = search.send(answer)
    except StopIteration:
        return None
    except BudgetError:
        return None


def _renamed(request: Request, standing: Samples) -> Request:
    if isinstance(request, Fit | Inspect):
        return request
    return dataclasses.replace(request, sample=standing[request.sample])
