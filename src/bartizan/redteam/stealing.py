"""Play extraction attacks against a target in this process, and tabulate what each detail of output gives away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bartizan.core.errors import InputError, WorkError
from bartizan.redteam.attack import Attack
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.ledger import Budget, Ledger
from bartizan.redteam.statistics import Estimate, proportion
from bartizan.redteam.tasks import ExtractionTask, Substitute, Teacher
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Labels, Rows, Target
from bartizan.targets.tailored import DETAILS, Detail, Tailored


@dataclass(frozen=True, slots=True)
class Stolen:
    """One copy, compared with the model on rows that the adversary never had."""

    queries: int
    fidelity: Estimate
    """Share of rows on which copy and model answer alike."""
    accuracy: Estimate
    """Share of rows on which the copy answers the truth."""
    substitute: Substitute


@dataclass(frozen=True, slots=True)
class Theft:
    """What came of one extraction attack."""

    attack: str
    detail: str
    """How much of its answers the target gave."""
    copies: tuple[Stolen, ...]
    """By rising number of queries."""
    ledger: Ledger

    @property
    def last(self) -> Stolen:
        """The copy made from all answers."""
        return self.copies[-1]


def stealing_task(
    rows: Rows,
    *,
    space: Space,
    classes: int,
    checkpoints: Sequence[int],
    foreign: Rows | None = None,
    learner: Teacher | None = None,
) -> ExtractionTask:
    """A task from arrays: the adversary's own ``rows`` ``(pool, features)``, without labels.

    Raises:
        InputError: there are no rows, or checkpoints do not rise from 1.
    """
    if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():  # noqa: PLR2004 - a matrix
        raise InputError(f"the adversary's rows {rows.shape} are no finite matrix", remedy="give at least one row.")
    marks = tuple(checkpoints)
    if not marks or marks[0] < 1 or any(one >= two for one, two in pairwise(marks)):
        raise InputError(f"checkpoints {marks} do not rise from 1", remedy="give rising numbers of queries.")
    return ExtractionTask(rows, classes, space, marks[-1], marks, foreign, learner)


def steal(
    target: Target, attack: Attack, task: ExtractionTask, kept: tuple[Rows, Labels], *, seed: int = 0, detail: str = ""
) -> Theft:
    """Run an extraction attack and compare its copies with the target on ``kept`` rows and true labels.

    Raises:
        InputError: there are no rows to compare on.
        WorkError: the attack does not apply, breaks the rules, or hands over no copy of its own.
    """
    rows, truth = kept
    if not len(rows) or truth.shape != (len(rows),):
        raise InputError(f"rows {rows.shape} and labels {truth.shape} to compare copies on do not fit each other")
    if missing := sorted(attack.needs - target.offers):
        raise WorkError(f"{attack.name} needs {' and '.join(missing)}, which {target.name} does not offer")
    run = Run(
        attack.search(task, np.random.default_rng(seed)),
        budget=Budget(samples=1, per_sample=task.budget),
        needs=attack.needs,
    )
    Engine(target).drive([run], note=attack.name)
    copies = run.candidates if isinstance(run.candidates, tuple) else ()
    if not copies or any(copy.predict is None for copy in copies):
        raise WorkError(f"{attack.name} handed over no copy of its own: {run.stopped or 'no candidates'}")
    labels = target.labels(rows)
    stolen = tuple(_compared(copy, rows, labels, truth) for copy in copies)
    return Theft(attack.name, detail, stolen, run.ledger)


def _compared(copy: Substitute, rows: Rows, labels: Labels, truth: Labels) -> Stolen:
    answer = copy.predict(rows) if copy.predict else labels[:0]
    if answer.shape != labels.shape:
        raise WorkError(f"a copy answers {len(rows)} rows with an array {answer.shape}")
    alike, right = int((answer == labels).sum()), int((answer == truth).sum())
    return Stolen(copy.queries, proportion(alike, len(rows)), proportion(right, len(rows)), copy)


def by_detail(
    target: Target,
    attacks: Sequence[Attack],
    task: ExtractionTask,
    kept: tuple[Rows, Labels],
    *,
    details: Sequence[Detail] = DETAILS,
    seed: int = 0,
) -> tuple[Theft, ...]:
    """Run, at each detail of output, the first attack that applies to it.

    Raises:
        WorkError: none applies.
    """
    thefts = []
    for detail in details:
        shown = Tailored(target, detail)
        fitting = [attack for attack in attacks if attack.needs <= shown.offers]
        if not fitting:
            raise WorkError(f"no attack applies to {detail.name}", remedy="give one that needs labels only.")
        thefts.append(steal(shown, fitting[0], task, kept, seed=seed, detail=detail.name))
    return tuple(thefts)


def table(thefts: Sequence[Theft]) -> list[Mapping[str, object]]:
    """Fidelity and accuracy over queries with their intervals, one plain record for each copy."""
    return [
        {
            "attack": theft.attack,
            "output": theft.detail,
            "queries": copy.queries,
            "fidelity": copy.fidelity.plain(),
            "accuracy": copy.accuracy.plain(),
        }
        for theft in thefts
        for copy in theft.copies
    ]
