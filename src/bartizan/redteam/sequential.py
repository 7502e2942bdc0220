"""Early stop: attack samples block by block, in random order, until every gate that asks is decided.

A gate asks for the unfavourable end of an interval, ``metrics.robust_accuracy.low at_least 0.7``. It is decided

- *met*, when an interval that may be looked at after every sample (``planning.anytime``) lies above the bound;
- *missed*, when such an interval lies below it, or when even if every sample still to come withstood, the interval
  over all of them would not reach it.

Looking costs: of the error that a statement of 95 % may have, 1 % goes to the looks and 4 % to the interval over all
samples, so that what is stated holds at 95 % however the run ended. A naive interval, looked at after every block,
would be wrong far more often than it says (``tests/unit/redteam/test_sequential.py`` counts it).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bartizan.core.system import Condition, Declaration, Rule
from bartizan.redteam.attack import Attack, Gradient, Query, Request
from bartizan.redteam.closest import Closest
from bartizan.redteam.engine import Engine, Run
from bartizan.redteam.evasion import Truth, Witness
from bartizan.redteam.family import Case, ask
from bartizan.redteam.ledger import Ledger
from bartizan.redteam.planning import Decided, Threshold, anytime
from bartizan.redteam.statistics import CONFIDENCE, Estimate, Interval, wilson
from bartizan.redteam.tasks import Bounded, EvasionTask
from bartizan.targets.feasible import TOLERANCE
from bartizan.targets.protocol import Labels, Rows

LOOKING, LAST = 0.99, 0.96
"""Confidence of the interval that is looked at all along, and of the one over all samples: errors add up to 5 %."""
BLOCKS = 12
"""Looks of a campaign at most; each costs a few more calls of the model."""
LEAST_BLOCK = 5
ON_SAMPLES: dict[str, str] = {
    "metrics.robust_accuracy.low": "robust_accuracy",
    "metrics.robust_recall.low": "robust_recall",
}
"""Fields by which a run can be stopped, and what they count."""
BEFORE = frozenset({"result", "family", "method"})
"""Fields that do not depend on which samples were attacked, beside accuracy without an attack."""
CLEAN = ("metrics.clean_accuracy.", "metrics.clean_recall.")


@dataclass(frozen=True, slots=True)
class Demand:
    """What a rule asks of the samples."""

    what: Literal["robust_accuracy", "robust_recall"]
    at_least: float

    def decided(self, robust: int, seen: int, every: int, *, finished: bool = False) -> Decided:
        """Whether it is met or missed whatever is still to come; empty while it is open.

        Args:
            robust: samples among those ``seen`` that withstood.
            seen: samples that were attacked, of those that it is about.
            every: samples that it is about.
            finished: whether the whole run is over, so that the last interval is the one that is stated.
        """
        if finished:
            return "met" if wilson(robust, every, LAST).low >= self.at_least else "missed"
        if wilson(robust + every - seen, every, LAST).low < self.at_least:
            return "missed"
        return Threshold(self.at_least, LOOKING).decided(robust, seen)


def demands(declaration: Declaration, check: str) -> tuple[tuple[Demand, ...], ...]:
    """What the rules of all gates ask of the samples of a check, rule by rule.

    Empty when there is no such rule, or one asks for something that only all samples can tell.
    """
    rules = [rule for gate in declaration.gate.values() for rule in gate.rule if rule.check == check]
    found = [_demands(rule) for rule in rules]
    return () if None in found else tuple(each for each in found if each)


def _demands(rule: Rule) -> tuple[Demand, ...] | None:
    """None when the rule cannot be decided early."""
    asked = [_demand(condition) for condition in rule.where if not _settled_before(condition)]
    return None if None in asked else tuple(each for each in asked if each)


def _settled_before(condition: Condition) -> bool:
    return condition.field in BEFORE or condition.field.startswith(CLEAN)


def _demand(condition: Condition) -> Demand | None:
    what = ON_SAMPLES.get(condition.field)
    if what is None or condition.at_least is None:
        return None
    return Demand("robust_recall" if what == "robust_recall" else "robust_accuracy", condition.at_least)


def stated(robust: int, n: int, *, early: bool) -> Estimate:
    """A share of a run that was looked at on the way, with the interval that allows for it."""
    value = robust / n if n else 0.0
    if early:
        return Estimate(value, anytime(robust, n, LOOKING), n, "anytime valid, stopped early", CONFIDENCE)
    interval: Interval = wilson(robust, n, LAST)
    return Estimate(value, interval, n, "wilson, allowing for looks", CONFIDENCE)


@dataclass(frozen=True, slots=True)
class Stop:
    """How a run ended that was looked at on the way."""

    case: Case
    """The case, cut down to the samples that were attacked."""
    run: Run
    seen: int
    every: int
    decided: tuple[Decided, ...]
    """Rule by rule."""

    @property
    def early(self) -> bool:
        """Whether samples were left out."""
        return self.seen < self.every

    @property
    def words(self) -> str:
        """What the statement says of it; empty when nothing was left out."""
        if not self.early:
            return ""
        verdict = "missed" if "missed" in self.decided else "met"
        return (
            f"Stopped after {self.seen} of {self.every} samples because what gates ask for is decided: {verdict}. "
            "The intervals allow for having looked."
        )


def drive(
    engine: Engine,
    attack: Attack,
    case: Case,
    rules: Sequence[Sequence[Demand]],
    *,
    positive: int | None,
    rng: Callable[[str], np.random.Generator],
) -> Stop:
    """Attack block after block until every rule is decided or no sample is left.

    ``rng`` gives the random numbers for a purpose. The order of the samples is the same for all attacks.
    """
    task: EvasionTask = case.task
    every = len(task.rows)
    order = rng("order").permutation(every)
    book = _Book(task, positive)
    ledger, fits, found = Ledger(case.budget), [], task.rows.copy()  # type: ignore[var-annotated]  # filled by runs
    bound, run, seen = np.zeros(every), None, 0
    proven = False
    size = max(LEAST_BLOCK, -(-every // BLOCKS))
    decided: tuple[Decided, ...] = tuple("" for _ in rules)
    while seen < every and not all(decided):
        block = np.sort(order[seen : seen + size])
        run = Run(
            _placed(attack.search(_part(task, block), rng(f"block {seen}")), block),
            budget=case.budget,
            needs=attack.needs,
            watch=case.watch,
        )
        run.ledger, run.fits = ledger, fits
        engine.drive([run], note=attack.name)
        proven |= _gather(run.candidates, block, found, bound)
        book.add(block, _asked(engine, run, case.truth.witness, block, found))
        seen += len(block)
        decided = book.decided(rules)
    assert run is not None  # noqa: S101 - a case has samples
    kept = np.sort(order[:seen])
    run.candidates = Bounded(found[kept], bound[kept]) if proven else found[kept]
    run.ledger = _ledger(ledger, kept)
    return Stop(_cut(case, kept, early=seen < every), run, seen, every, decided)


def _part(task: EvasionTask, block: NDArray[np.int64]) -> EvasionTask:
    return replace(task, rows=task.rows[block], labels=task.labels[block])


def _placed(search: Generator[Request, Any, Any], block: NDArray[np.int64]) -> Generator[Request, Any, Any]:
    """The same search, its samples called by their places among all."""
    step: Callable[[], Request] = lambda: next(search)  # noqa: E731 - replaced in the loop
    while True:
        try:
            request = step()
        except StopIteration as end:
            return end.value
        if isinstance(request, Query | Gradient):
            request = replace(request, sample=block[request.sample])
        try:
            answer = yield request
        except Exception as error:  # noqa: BLE001 - the engine throws into the search, whatever it is
            step = _throwing(search, error)
        else:
            step = _sending(search, answer)


def _throwing(search: Generator[Request, Any, Any], error: Exception) -> Callable[[], Request]:
    return lambda: search.throw(error)


def _sending(search: Generator[Request, Any, Any], answer: object) -> Callable[[], Request]:
    return lambda: search.send(answer)


def _gather(candidates: Any, block: NDArray[np.int64], found: Rows, bound: NDArray[np.float64]) -> bool:
    """Put what a search returned where it belongs. Returns whether it proved anything."""
    proven = isinstance(candidates, Bounded)
    if isinstance(candidates, Bounded):
        if candidates.bound.shape == (len(block),):
            bound[block] = candidates.bound
        candidates = candidates.rows
    if isinstance(candidates, np.ndarray) and candidates.shape == found[block].shape and np.isfinite(candidates).all():
        found[block] = candidates
    return proven


def _asked(
    engine: Engine, run: Run, witness: Witness, block: NDArray[np.int64], found: Rows
) -> tuple[Labels, list[tuple[Rows, Labels]]]:
    """What the untouched samples are answered, and what became of the rows that were found for them."""
    rows = [witness.found.rows[block], found[block]]

    def measure() -> Generator[Request, Any, Labels]:
        answers: Labels = yield ask(np.concatenate([witness.task.rows[block], *rows]))
        return answers

    asking = run.measuring(measure())
    engine.drive([asking], note="looking")
    clean, *answers = np.split(asking.candidates, 1 + len(rows))
    return clean, list(zip(rows, answers, strict=True))


class _Book:
    """Counts of the samples seen so far."""

    def __init__(self, task: EvasionTask, positive: int | None) -> None:
        self._task, self._positive = task, positive
        self._seen = np.zeros(len(task.rows), dtype=bool)
        self._robust = np.zeros(len(task.rows), dtype=bool)

    def add(self, block: NDArray[np.int64], asked: tuple[Labels, list[tuple[Rows, Labels]]]) -> None:
        """Count a block."""
        task, (clean, tried) = self._task, asked
        labels, robust = task.labels[block], clean == task.labels[block]
        for rows, answers in tried:
            possible = task.space.project(rows, task.rows[block])
            change = task.space.change(possible, task.rows[block], task.norm)
            robust &= ~((answers != labels) & (change <= task.max_change * (1 + TOLERANCE)))
        self._seen[block], self._robust[block] = True, robust

    def decided(self, rules: Sequence[Sequence[Demand]]) -> tuple[Decided, ...]:
        """Rule by rule: missed when one of its demands is, met when all are."""
        return tuple(self._rule([self._demand(demand) for demand in rule]) for rule in rules)

    @staticmethod
    def _rule(said: Sequence[Decided]) -> Decided:
        if "missed" in said:
            return "missed"
        return "met" if all(each == "met" for each in said) else ""

    def _demand(self, demand: Demand) -> Decided:
        counted = np.ones_like(self._seen)
        if demand.what == "robust_recall":
            if self._positive is None:
                return "missed"
            counted = self._task.labels == self._positive
        seen = counted & self._seen
        robust, finished = int((seen & self._robust).sum()), bool(self._seen.all())
        return demand.decided(robust, int(seen.sum()), int(counted.sum()), finished=finished)


def _ledger(whole: Ledger, kept: NDArray[np.int64]) -> Ledger:
    """What was spent, on the samples that are left."""
    ledger = Ledger(replace(whole.budget, samples=len(kept)))
    ledger.spent, ledger.slopes = whole.spent[kept], whole.slopes[kept]
    ledger.own_queries, ledger.fits, ledger.calls = whole.own_queries, whole.fits, whole.calls
    ledger.late = whole.late
    return ledger


def _cut(case: Case, kept: NDArray[np.int64], *, early: bool) -> Case:
    """The case with the samples that were attacked, and no others."""
    truth: Truth = case.truth
    task = _part(case.task, kept)
    witness = Witness(task)
    for mark, closest in witness.by_budget.items():
        _take(closest, truth.witness.by_budget[mark], kept)

    def share(successes: int, n: int) -> Estimate:
        return stated(successes, n, early=early)

    settings = {**case.settings, "samples": len(kept), "stopping": "when gates are decided"}
    if early:
        settings["stopped_after"], settings["samples_planned"] = len(kept), len(case.task.rows)
    return replace(
        case,
        task=task,
        budget=replace(case.budget, samples=len(kept)),
        truth=replace(truth, places=truth.places[kept], witness=witness, share=share, early=early),
        watch=witness,
        settings=settings,
    )


def _take(closest: Closest, whole: Closest, kept: NDArray[np.int64]) -> None:
    closest.rows, closest.change = whole.rows[kept], whole.change[kept]
