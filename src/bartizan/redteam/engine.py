"""The engine: drives attacks, batches what they ask, charges it, and keeps the answers.

An attack is a generator (``redteam.attack``). Each round, the engine collects what all running
attacks ask, charges their ledgers, merges the questions about one model into few calls, and sends
the answers back. Measurements of a family are driven in the same way, without a budget.

A request beyond the budget is not asked: ``BudgetError`` is thrown into the generator where it
yielded. An attack that knows better catches it and returns its best candidates so far; one that
does not ends without candidates. Nothing an attack returns is believed here: success is measured by
its family.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError, WorkError
from bartizan.redteam.attack import VICTIM, Approach, Fit, Gradient, Inspect, Query, Request
from bartizan.redteam.journal import Answer, Journal, NoJournal
from bartizan.redteam.ledger import UNLIMITED, Budget, Ledger
from bartizan.targets.protocol import (
    LEAST_CLASSES,
    NEEDS_TARGETS,
    Access,
    Approachable,
    Labels,
    Loss,
    Rows,
    Target,
    TrainsTogether,
    Transparent,
)

MAX_CALL_ROWS = 8192
"""Rows in one call; bounds the memory of a target and the work that a kill can lose."""
KEPT_MODELS = 8
"""Fitted models held ready; an older one is fitted again, to the same result, when it is asked."""
MAX_REFUSALS = 100
"""Requests in a row that may go beyond the budget before the attack is taken for broken."""

Question = Query | Gradient | Approach
"""What a model is asked about rows; the engine waits until all runs have one."""

Progress = Callable[[int, int, str], None]
"""Told what was spent and what is allowed, queries and training runs together, and a note."""


class Watch(Protocol):
    """Sees what an attack asks of the victim and is told, so that the attack need not be believed."""

    def see(self, query: Question, answer: Answer, ordinal: NDArray[np.int64]) -> None:
        """``ordinal`` ``(batch,)``: which query, or which gradient, of its sample each row is, from 1.

        The answer to a ``Gradient`` begins with logits. An ``Approach`` says nothing of classes and is not shown.
        """


class Run:
    """One generator on its way: an attack, or a measurement."""

    def __init__(
        self,
        search: Generator[Request, Any, Any],
        *,
        budget: Budget,
        needs: frozenset[Access] = frozenset({Access.LABELS}),
        watch: Watch | None = None,
    ) -> None:
        self.ledger = Ledger(budget)
        self.candidates: Any = None
        """What the generator returned; None when it gave up without catching ``BudgetError``."""
        self.stopped = ""
        """Why it was stopped before it was done, in one sentence."""
        self.fits: list[Fit] = []
        """Models asked for; the handle of the first is 1."""
        self._search = search
        self._needs = needs
        self._watch = watch
        self._request: Request | None = None

    def measuring(self, measure: Generator[Request, Any, Any]) -> Run:
        """A run of ``measure``, which may ask the models that this run fitted and has no budget."""
        budget = Budget(samples=1, per_sample=UNLIMITED, fits=UNLIMITED)
        run = Run(measure, budget=budget, needs=frozenset(Access))
        run.fits = self.fits
        return run

    def start(self) -> None:
        """Run the generator up to its first question that is no ``Fit``."""
        self.ledger.begin()
        self._advance(partial(next, self._search))

    @property
    def question(self) -> Question | None:
        """The question that is waiting; None when the generator has finished, or wants to inspect the model."""
        return self._request if isinstance(self._request, Query | Gradient | Approach) else None

    def inspect(self, target: Target) -> None:
        """Answer what is asked about the inside of the model, as often as it is asked."""
        while isinstance(self._request, Inspect):
            if Access.WEIGHTS not in self._needs:
                raise WorkError("the attack inspects the model but does not declare that it needs weights")
            if not isinstance(target, Transparent):
                raise WorkError(f"target {target.name!r} does not show what it is made of")
            self._advance(partial(self._search.send, target.structure()))

    def charge(self) -> NDArray[np.int64]:
        """Pay for the waiting query; ``BudgetError`` goes to the generator until it asks what it can pay.

        Returns:
            Ordinals of the query that is now waiting; empty when the generator has finished.
        """
        refusals = 0
        while (query := self.question) is not None:
            try:
                return self._charge(query)
            except BudgetError as error:
                refusals += 1
                if refusals > MAX_REFUSALS:
                    raise WorkError(f"the attack was refused {MAX_REFUSALS} times and asks on: {error}") from error
                self.stopped = error.message
                self._advance(partial(self._search.throw, error))
        return np.zeros(0, dtype=np.int64)

    def answer(self, query: Question, answer: Answer, ordinal: NDArray[np.int64]) -> None:
        """Hand over the answer to the waiting query."""
        if self._watch is not None and query.model == VICTIM and not isinstance(query, Approach):
            self._watch.see(query, answer, ordinal)
        self._advance(partial(self._search.send, answer))

    def _charge(self, query: Question) -> NDArray[np.int64]:
        if query.model == VICTIM:
            if isinstance(query, Approach):
                if Access.ACTIVATIONS not in self._needs:
                    raise WorkError("the attack asks for activations but does not declare that it needs them")
                return self.ledger.charge_gradients(query.sample)
            if isinstance(query, Gradient):
                if Access.GRADIENTS not in self._needs:
                    raise WorkError("the attack asks for gradients but does not declare that it needs them")
                return self.ledger.charge_gradients(query.sample)
            if query.scores and Access.SCORES not in self._needs:
                raise WorkError("the attack asks for scores but declares that it needs labels only")
            return self.ledger.charge(query.sample)
        if not 0 < query.model <= len(self.fits):
            raise WorkError(f"the attack asks model {query.model}, which it never fitted")
        self.ledger.own_queries += len(query.rows)
        return np.zeros(len(query.rows), dtype=np.int64)

    def _advance(self, step: Callable[[], Request]) -> None:
        """Take one step and answer every ``Fit`` at once: training happens when the model is first asked."""
        try:
            self._request = step()
            while isinstance(self._request, Fit):
                self._request = self._answer_fit(self._request)
        except StopIteration as end:
            self._request, self.candidates = None, end.value
        except BudgetError as error:
            self._request, self.stopped = None, error.message

    def _answer_fit(self, fit: Fit) -> Request:
        try:
            self.ledger.charge_fit()
        except BudgetError as error:
            self.stopped = error.message
            return self._search.throw(error)
        self.fits.append(fit)
        return self._search.send(len(self.fits))


@dataclass(slots=True)
class Usage:
    """What an engine has done so far, all runs together."""

    calls: int = 0
    """Calls of a target, of the victim or a fitted model; answers from the journal do not count."""
    rows: int = 0
    """Rows in these calls."""
    replayed: int = 0
    """Calls answered from the journal."""
    fits: int = 0
    target_seconds: float = 0.0
    """Wall time spent waiting for targets."""
    seconds: float = 0.0
    """Wall time altogether."""


class Engine:
    """Drives runs against one target."""

    def __init__(
        self,
        target: Target,
        *,
        journal: Journal | None = None,
        progress: Progress | None = None,
        max_call_rows: int = MAX_CALL_ROWS,
    ) -> None:
        self.usage = Usage()
        self._target = target
        self._journal = journal or NoJournal()
        self._progress = progress or (lambda _done, _total, _note: None)
        self._max_call_rows = max_call_rows
        self._dtype: np.dtype[Any] = getattr(target, "dtype", np.dtype(np.float64))
        self._fitted: OrderedDict[bytes, Target] = OrderedDict()
        self._together = target if isinstance(target, TrainsTogether) else None
        self._begun: set[bytes] = set()
        """Models that were trained at some time."""
        self._runs: Sequence[Run] = ()

    def drive(self, runs: Sequence[Run], note: str = "") -> None:
        """Take all runs to their end, in lock-step. Results are in the runs.

        Raises:
            WorkError: an attack breaks the rules, or the target cannot answer.
        """
        started = time.perf_counter()
        self._runs = runs
        for run in runs:
            run.start()
            run.inspect(self._target)
        while live := [run for run in runs if run.question is not None]:
            self._round(live)
            self._tell(runs, note)
        self.usage.seconds += time.perf_counter() - started

    def _round(self, live: Sequence[Run]) -> None:
        """Answer the waiting query of each run."""
        charged = [(run, run.charge()) for run in live]
        asking = [(run, query, ordinal) for run, ordinal in charged if (query := run.question) is not None]
        groups: dict[tuple[bytes, str], list[int]] = {}
        for place, (run, query, _) in enumerate(asking):
            groups.setdefault((self._model_key(run, query), _kind(query)), []).append(place)
        answers: dict[int, Answer] = {}
        for places in groups.values():
            answers |= self._answer_together(asking, places)
        for place, (run, query, ordinal) in enumerate(asking):
            run.answer(query, answers[place], ordinal)
            run.inspect(self._target)

    def _answer_together(
        self, asking: Sequence[tuple[Run, Question, NDArray[np.int64]]], places: Sequence[int]
    ) -> dict[int, Answer]:
        """Ask one model all that several runs want to know of it."""
        first_run, first, _ = asking[places[0]]
        fit = None if first.model == VICTIM else first_run.fits[first.model - 1]
        rows = [self._checked(asking[place][1]) for place in places]
        joined = _Joined.of([asking[place][1] for place in places], _concatenated(rows))
        answer = self._ask(fit, joined)
        if fit is None:
            for place in places:
                asking[place][0].ledger.calls += -(-len(answer) // self._max_call_rows)
        parts = np.split(answer, np.cumsum([len(part) for part in rows])[:-1])
        return dict(zip(places, parts, strict=True))

    def _ask(self, fit: Fit | None, joined: _Joined) -> Answer:
        """Ask in calls of bounded size, each of them kept in the journal."""
        if not len(joined.rows):
            return _nothing(joined.kind, self._target)
        size = self._max_call_rows
        parts = [self._call(fit, joined.part(at, at + size)) for at in range(0, len(joined.rows), size)]
        return _concatenated(parts)

    def _call(self, fit: Fit | None, asked: _Joined) -> Answer:
        question = _digest(fit, asked) if self._journal.keeps else b""
        recorded = self._journal.recall(question)
        if recorded is not None:
            self.usage.replayed += 1
            return recorded
        model = self._target if fit is None else self._model(fit)
        started = time.perf_counter()
        answer = asked.put_to(model)
        self.usage.target_seconds += time.perf_counter() - started
        self.usage.calls += 1
        self.usage.rows += len(asked.rows)
        self._check_answer(answer, asked)
        self._journal.record(question, answer)
        return answer

    def _check_answer(self, answer: Answer, asked: _Joined) -> None:
        """A target that answers something else must not be mistaken for a robust or a broken one."""
        classes, count = self._target.classes, len(asked.rows)
        if answer.shape != (count, *_nothing(asked.kind, self._target).shape[1:]):
            raise WorkError(f"target {self._target.name!r} answers {count} rows with an array {answer.shape}")
        is_labels = asked.kind == LABELS
        sound = ((answer >= 0) & (answer < classes)).all() if is_labels else np.isfinite(answer).all()
        if not sound:
            raise WorkError(
                f"target {self._target.name!r} answers with something that is no class or no number",
                remedy="mend the model or what stands in front of it: an answer that is NaN, infinite or outside the "
                "declared classes says nothing about robustness.",
            )

    def _model(self, fit: Fit) -> Target:
        """The fitted model, from the few that are held ready or trained now."""
        key = _fit_digest(fit)
        if key not in self._fitted:
            started = time.perf_counter()
            fitted = self._train(key, fit)
            self.usage.target_seconds += time.perf_counter() - started
            self.usage.fits += len(fitted)
            self._fitted |= fitted
        self._fitted.move_to_end(key)
        while len(self._fitted) > (self._together.at_once if self._together else KEPT_MODELS):
            self._fitted.popitem(last=False)
        return self._fitted[key]

    def _train(self, key: bytes, fit: Fit) -> dict[bytes, Target]:
        """The model, and with it, where that is cheap, those that were asked for after it and not yet trained."""
        if self._together is None:
            return {key: self._target.retrain(fit.rows, fit.labels, seed=fit.seed)}
        asked = [(_fit_digest(other), other) for run in self._runs for other in run.fits]
        later = asked[next((place for place, (digest, _) in enumerate(asked) if digest == key), 0) :]
        fresh = [(digest, other) for digest, other in dict(later).items() if digest not in self._begun | {key}]
        chosen = {key: fit} | dict(fresh[: self._together.at_once - 1])
        self._begun |= chosen.keys()
        models = self._together.retrain_many([(one.rows, one.labels, one.seed) for one in chosen.values()])
        return dict(zip(chosen, models, strict=True))

    def _model_key(self, run: Run, query: Question) -> bytes:
        return b"" if query.model == VICTIM else _fit_digest(run.fits[query.model - 1])

    def _checked(self, query: Question) -> Rows:
        """The query's rows, when they are such as the target can be asked."""
        rows = query.rows
        if rows.shape != (len(query.sample), self._target.features):
            raise WorkError(f"the attack asks about an array {rows.shape}; rows have {self._target.features} features")
        if not np.isfinite(rows).all():
            raise WorkError("the attack asks about a row that is not finite")
        return np.ascontiguousarray(rows, dtype=self._dtype)

    def _tell(self, runs: Sequence[Run], note: str) -> None:
        spent = sum(run.ledger.queries + run.ledger.gradients + run.ledger.fits for run in runs)
        allowed = sum(_allowance(run.ledger.budget) for run in runs)
        self._progress(spent, max(allowed, spent), note)


def _allowance(budget: Budget) -> int:
    """Most queries and training runs that a budget allows; 0 when it sets no limit."""
    gradients = 0 if budget.gradients >= UNLIMITED else budget.samples * budget.gradients
    most = min(budget.samples * budget.per_sample, budget.total) + budget.fits + gradients
    return 0 if most >= UNLIMITED else most


def _fit_digest(fit: Fit) -> bytes:
    return _sha256(np.array([*fit.rows.shape, fit.seed]), fit.rows, fit.labels)


LABELS, SCORES, APPROACH = "labels", "scores", "approach"


@dataclass(frozen=True, slots=True)
class _Joined:
    """What several runs ask one model at once."""

    kind: str
    """``labels``, ``scores``, ``approach``, or the loss whose gradient is asked for."""
    rows: Rows
    labels: Labels | None = None
    targets: Labels | None = None
    towards: Rows | None = None

    @classmethod
    def of(cls, questions: Sequence[Question], rows: Rows) -> _Joined:
        kind = _kind(questions[0])
        near = [question.towards for question in questions if isinstance(question, Approach)]
        if near:
            towards = _concatenated(near)
            if towards.shape != rows.shape or not np.isfinite(towards).all():
                raise WorkError("the attack asks how to approach rows of another shape, or such as are not finite")
            return cls(kind, rows, towards=np.ascontiguousarray(towards, dtype=rows.dtype))
        slopes = [question for question in questions if isinstance(question, Gradient)]
        if not slopes:
            return cls(kind, rows)
        labels = _concatenated([question.labels for question in slopes])
        aimed = [question.targets for question in slopes if question.targets is not None]
        targets = _concatenated(aimed) if aimed else None
        if len(labels) != len(rows) or (slopes[0].loss in NEEDS_TARGETS) != (targets is not None):
            raise WorkError(f"the attack asks for gradients of {kind} without a class for each row")
        return cls(kind, rows, labels, targets)

    def part(self, start: int, stop: int) -> _Joined:
        if start == 0 and stop >= len(self.rows):
            return self
        labels = None if self.labels is None else self.labels[start:stop]
        targets = None if self.targets is None else self.targets[start:stop]
        towards = None if self.towards is None else self.towards[start:stop]
        return _Joined(self.kind, self.rows[start:stop], labels, targets, towards)

    def put_to(self, model: Target) -> Answer:
        """Ask the model.

        Raises:
            WorkError: it cannot answer this kind of question.
        """
        if self.towards is not None:
            if not isinstance(model, Approachable):
                raise WorkError(f"target {model.name!r} does not show what its last layer is given")
            return model.approach(self.rows, self.towards)
        if self.labels is None:
            return model.scores(self.rows) if self.kind == SCORES else model.labels(self.rows)
        loss = Loss(self.kind)
        # To ask for the whole protocol takes as long as a small network takes for ten rows.
        gradients: Callable[..., Answer] | None = getattr(model, "gradients", None)
        if gradients is None:
            raise WorkError(f"target {model.name!r} gives no gradients", remedy="use an attack that needs none.")
        if model.classes < LEAST_CLASSES.get(loss, 2):
            raise WorkError(
                f"the loss {loss} needs {LEAST_CLASSES[loss]} classes, and {model.name!r} has {model.classes}"
            )
        return gradients(self.rows, loss, self.labels, self.targets)


def _kind(question: Question) -> str:
    if isinstance(question, Gradient):
        return question.loss.value
    if isinstance(question, Approach):
        return APPROACH
    return SCORES if question.scores else LABELS


def _nothing(kind: str, target: Target) -> Answer:
    """An answer without rows."""
    if kind == LABELS:
        return np.empty(0, dtype=np.int64)
    if kind == APPROACH:
        return np.empty((0, 1 + target.features))
    return np.empty((0, target.classes + (0 if kind == SCORES else target.features)))


def _concatenated(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _digest(fit: Fit | None, asked: _Joined) -> bytes:
    model = b"" if fit is None else _fit_digest(fit)
    more = [array for array in (asked.labels, asked.targets, asked.towards) if array is not None]
    kind = np.frombuffer(asked.kind.encode(), dtype=np.uint8)
    return _sha256(np.frombuffer(model, dtype=np.uint8), kind, np.array(asked.rows.shape), asked.rows, *more)


def _sha256(*arrays: NDArray[Any]) -> bytes:
    state = hashlib.sha256()
    for array in arrays:
        state.update(np.ascontiguousarray(array).data)
    return state.digest()
