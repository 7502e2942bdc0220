"""What a configuration of the gateway is worth: the same attacks without it, with each guard alone, and with all of it.

A row counts as lost when the attacker has sent a possible one within the allowed change, was answered, and the model
itself gives it another class. The last is asked of the model, not believed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bartizan.core.digest import Digest
from bartizan.core.errors import WorkError
from bartizan.lifecycle.deploy.gateway.budgets.settings import BudgetSettings
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.evaluation.allowance import allowances
from bartizan.lifecycle.deploy.gateway.evaluation.guarded import MANNERS, Guarded, Manner
from bartizan.lifecycle.deploy.gateway.evaluation.remembered import Remembered, answer_of
from bartizan.lifecycle.deploy.gateway.evaluation.toll import FirstFall
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked
from bartizan.lifecycle.deploy.gateway.pipeline import Passage, Pipeline
from bartizan.redteam.attack import Attack
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.ledger import Budget
from bartizan.redteam.statistics import Estimate, proportion
from bartizan.redteam.tasks import EvasionTask
from bartizan.targets.detail import Detail
from bartizan.targets.protocol import Access, Rows, Target


@dataclass(frozen=True)
class Variant:
    """One way of serving the model."""

    name: str
    make: Callable[[], Pipeline]
    detail: Detail
    budgets: tuple[BudgetSettings, ...] = ()
    manners: tuple[Manner, ...] = MANNERS[:1]


@dataclass(frozen=True)
class Cell:
    """One attack against one variant."""

    variant: str
    attack: str
    manner: str
    lost: int
    of: int
    queries: float
    """Median queries until a row was lost; infinite when fewer than half were."""
    answered: float
    """Share of the queries that were answered; NaN: the attack needs what is not told, so that it cannot begin."""

    @property
    def robust(self) -> Estimate:
        """Share of rows that stood, with its interval."""
        return proportion(self.of - self.lost, self.of)


@dataclass(frozen=True)
class Price:
    """What a variant costs honest callers."""

    variant: str
    stopped: int
    coarsened: int
    right: int
    of: int


@dataclass
class Table:
    """Everything that was measured."""

    cells: list[Cell] = field(default_factory=list)
    prices: list[Price] = field(default_factory=list)


def measure(
    target: Target,
    variants: Sequence[Variant],
    attacks: Sequence[Attack],
    task: EvasionTask,
    honest: tuple[Rows, NDArray[np.int64]],
    *,
    seed: int,
    progress: Callable[[int, int, str], None] = lambda _done, _total, _note: None,
) -> Table:
    """Run every attack on every row against every variant. ``task`` has rows that the model answers rightly."""
    table, memory = Table(), Remembered(target)
    jobs = [(variant, attack, manner) for variant in variants for attack in attacks for manner in variant.manners]
    for done, (variant, attack, manner) in enumerate(jobs):
        progress(done, len(jobs), f"{variant.name}: {attack.name}, {manner.name}")
        table.cells.append(_cell(target, variant, attack, manner=manner, task=task, seed=seed, memory=memory))
    for variant in variants:
        table.prices.append(_price(target, variant, *honest))
    progress(len(jobs), len(jobs), "")
    return table


def _cell(
    target: Target,
    variant: Variant,
    attack: Attack,
    *,
    manner: Manner,
    task: EvasionTask,
    seed: int,
    memory: Remembered,
) -> Cell:
    """One attack, row by row: each by somebody new."""
    spent, asked, shown = [], 0, 0
    known = Access.SCORES if variant.detail.scores else Access.LABELS
    if attack.needs - {Access.LABELS, known} or attack.needs - target.offers:
        return Cell(variant.name, attack.name, manner.name, 0, len(task.rows), float("inf"), float("nan"))
    for place in range(len(task.rows)):
        one = replace(task, rows=task.rows[place : place + 1], labels=task.labels[place : place + 1])
        front = Guarded(
            target,
            variant.make,
            variant.detail,
            manner=manner,
            budgets=allowances(variant.budgets),
            space=task.space,
            seed=seed + place,
            memory=memory,
        )
        spent.append(_spent(target, front, attack, one, np.random.default_rng([seed, place])))
        asked, shown = asked + front.asked, shown + front.shown
    lost = [queries for queries in spent if np.isfinite(queries)]
    return Cell(
        variant.name,
        attack.name,
        manner.name,
        len(lost),
        len(spent),
        float(np.median(spent)) if spent else float("inf"),
        shown / asked if asked else 0.0,
    )


def _spent(target: Target, front: Guarded, attack: Attack, task: EvasionTask, rng: np.random.Generator) -> float:
    """Queries until the row was lost; infinite when it was not."""
    front.labels(task.rows)
    watch = FirstFall(task)
    budget = Budget(samples=1, per_sample=task.budget)
    run = Run(attack.search(task, rng), budget=budget, needs=attack.needs, watch=watch)
    try:
        Engine(front).drive([run], note=attack.name)
    except WorkError:
        return float("inf")
    if not np.isfinite(watch.first[0]):
        return float("inf")
    turned = target.labels(watch.within.rows)[0] != task.labels[0]
    return float(watch.first[0]) if turned else float("inf")


def _price(target: Target, variant: Variant, rows: Rows, labels: NDArray[np.int64]) -> Price:
    """Send honest rows of many callers through it, one after the other."""
    pipeline, stopped, coarsened, right = variant.make(), 0, 0, 0
    whole = answer_of(target, rows)
    for place, row in enumerate(rows):
        passage = Passage()
        asked = Asked(
            request=f"honest{place}",
            caller=Caller(id=f"key:honest{place % 20}", role="user", method="key"),
            model=target.name.removeprefix("model:"),
            digest=_NO_DIGEST,
            rows=np.ascontiguousarray(row[None]),
            now=1_700_000_000.0 + 5.0 * place,
        )
        given = whole.scores
        answer = Answer(whole.labels[place : place + 1], None if given is None else given[place : place + 1])
        pipeline.before(asked, passage)
        if not passage.stopped:
            if asked.rows is not asked.given:
                answer = answer_of(target, asked.rows)
            pipeline.after(asked, answer, passage)
        kept = passage.stopped or passage.action == Action.HOLD
        stopped += kept
        coarsened += passage.action == Action.COARSEN
        right += not kept and int(answer.labels[0]) == int(labels[place])
    return Price(variant.name, stopped, coarsened, right, len(rows))


_NO_DIGEST = Digest("")


__all__ = ["Cell", "Price", "Table", "Variant", "measure"]
