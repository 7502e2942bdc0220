"""Hosts: the model as the pipeline asks it. On the loop when it is quick, else on a thread, many requests at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from bartizan.core.errors import SandboxError, WorkError
from bartizan.lifecycle.deploy.gateway.guard import Answer, Numbers
from bartizan.lifecycle.deploy.gateway.stacking import MOST_ROWS as MOST_TOGETHER
from bartizan.lifecycle.deploy.gateway.stacking import Stacks, joined

ALIKE = 1e-5
"""Scores that are closer than this are the same but for rounding."""
HUGE = 1e4
"""Times the numbers of a row, for one that would change a scale that rows share."""
QUICK_MICROSECONDS = 300.0
"""A model that answers one row in less is asked on the loop: handing it to a thread costs as much."""


class Host(Protocol):
    """A model that can be asked."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """In which rows are given."""

    @property
    def features(self) -> int:
        """Number of features."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    @property
    def scored(self) -> bool:
        """Whether it has scores."""

    @property
    def alive(self) -> bool:
        """Whether there is anything left that could answer. Costs next to nothing."""

    def answer(self, rows: Numbers, *, scores: bool) -> Answer | Awaitable[Answer]:
        """Labels of rows ``(batch, features)``, and scores when they are wanted.

        Raises:
            WorkError: it cannot answer these rows.
            SandboxError: its process is gone.
        """

    def close(self) -> None:
        """Let go of it. Blocks."""


class Asking(Protocol):
    """A model that blocks while it answers, and is asked by one thread at a time."""

    dtype: np.dtype[Any]
    features: int
    classes: int
    scored: bool

    def ask(self, rows: Numbers, *, scores: bool) -> Answer:
        """See ``Host.answer``."""

    def close(self) -> None:
        """See ``Host.close``."""


class Direct:
    """A quick model, asked where the request is. See ``Host``."""

    alive = True

    def __init__(self, model: Asking, *, row_wise: bool) -> None:
        """``row_wise``: see ``is_row_wise``."""
        self._model = model
        self.dtype, self.features, self.classes, self.scored = model.dtype, model.features, model.classes, model.scored
        self.answer: Callable[..., Answer] = model.ask
        self._stacks = Stacks(self._asked)
        self.gather = self._gathered if row_wise else None
        """How rows of several requests are put to it in one call; None where that may change an answer."""

    def _gathered(self, rows: Numbers) -> Callable[[], Answer]:
        """Put rows to the model together with those that are gathered before the first answer is asked for.

        Gives what gives the answer, once, or raises as ``answer`` does. Scores come with it.
        """
        stack, place = self._stacks.add(rows)

        def answer() -> Answer:
            outcomes = stack.found()
            # given once: an exception that is kept keeps everything that was on its way
            outcome, outcomes[place] = outcomes[place], None
            if isinstance(outcome, Answer):
                return outcome
            try:
                raise outcome or WorkError("this answer was given already")
            finally:
                del outcome

        return answer

    def _asked(self, parts: list[Numbers]) -> list[Answer | Exception | None]:
        """The answer to each. Rows that the model cannot answer cost nobody else the answer."""
        # the model has the thread to itself; to ask for processor time may cost more than it does
        began = time.perf_counter_ns()
        try:
            whole = self._model.ask(joined(parts), scores=True)
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            return [error] if len(parts) == 1 else [found for part in parts for found in self._asked([part])]
        heights = [len(part) for part in parts]
        answers = _parts(whole, heights)
        each_row = (time.perf_counter_ns() - began) / (1000 * sum(heights))
        for answer, height in zip(answers, heights, strict=True):
            answer.microseconds = math.ceil(each_row * height)
        return list(answers)

    def close(self) -> None:
        """See ``Host.close``."""
        self._model.close()


class _Waiting:
    """One request in front of the model."""

    __slots__ = ("future", "rows", "scores")

    def __init__(self, rows: Numbers, scores: bool, future: asyncio.Future[Answer]) -> None:
        self.rows, self.scores, self.future = rows, scores, future


class Together:
    """A model on a thread of its own. What comes while it is busy is put to it in one call. See ``Host``."""

    def __init__(self, model: Asking, thread: ThreadPoolExecutor, *, row_wise: bool) -> None:
        """``row_wise``: see ``is_row_wise``."""
        self._model, self._thread = model, thread
        self._most = MOST_TOGETHER if row_wise else 0
        self.dtype, self.features, self.classes, self.scored = model.dtype, model.features, model.classes, model.scored
        self._waiting: list[_Waiting] = []
        self._busy: asyncio.Task[None] | None = None

    async def answer(self, rows: Numbers, *, scores: bool) -> Answer:
        """See ``Host.answer``."""
        loop = asyncio.get_running_loop()
        one = _Waiting(rows, scores, loop.create_future())
        self._waiting.append(one)
        if self._busy is None:
            self._busy = loop.create_task(self._work())
        return await one.future

    @property
    def alive(self) -> bool:
        """See ``Host.alive``."""
        alive = getattr(self._model, "alive", None)
        return True if alive is None else bool(alive())

    def close(self) -> None:
        """See ``Host.close``."""
        self._model.close()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = self._next()
                for one, outcome in await loop.run_in_executor(self._thread, self._asked, batch):
                    _settle(one, outcome)
        except BaseException as error:
            for one in self._waiting:
                _settle(one, error if isinstance(error, Exception) else WorkError("the gateway is ending"))
            self._waiting.clear()
            raise
        finally:
            self._busy = None

    def _next(self) -> list[_Waiting]:
        """As many of those that wait as fit into one call; whose sender has gone is not asked for."""
        batch: list[_Waiting] = []
        rows = 0
        while self._waiting and (not batch or rows + len(self._waiting[0].rows) <= self._most):
            one = self._waiting.pop(0)
            if not one.future.cancelled():
                batch.append(one)
                rows += len(one.rows)
        return batch

    def _asked(self, batch: list[_Waiting]) -> list[tuple[_Waiting, Answer | Exception]]:
        """On the thread. A row that the model cannot answer costs nobody else the answer."""
        if not batch:
            return []
        try:
            rows = joined([one.rows for one in batch])
            began = self._clock()
            whole = self._model.ask(rows, scores=any(one.scores for one in batch))
            spent = self._clock() - began
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            if len(batch) == 1 or not isinstance(error, WorkError) or type(error) is not WorkError:
                return [(one, error) for one in batch]
            return [pair for one in batch for pair in self._asked([one])]
        parts = _parts(whole, [len(one.rows) for one in batch])
        for one, part in zip(batch, parts, strict=True):
            part.microseconds = int(1e6 * spent * len(one.rows) / len(rows))
        return list(zip(batch, parts, strict=True))

    def _clock(self) -> float:
        """Seconds of processor time of the model's own process where that is known, else of this thread."""
        clock = getattr(self._model, "clock", None)
        return time.thread_time() + (clock() if clock is not None else 0.0)


def is_row_wise(model: Asking, rows: Numbers) -> bool:
    """Whether the answer to a row stays the same whatever stands beside it, as far as a few ``rows`` show it.

    Models may mix the rows of a call: dynamic quantisation has one scale for all of them, a reduction may go over the
    batch. Then one caller's rows would change the answer to another. Each row is asked alone, and beside others, huge
    ones among them; where huge ones are refused, they are refused beside others too, and each is asked alone.

    Raises:
        SandboxError: its process is gone.
    """
    try:
        alone = [model.ask(rows[at : at + 1], scores=True) for at in range(len(rows))]
    except SandboxError:
        raise
    except WorkError:
        return False
    for times in (1.0, HUGE, -HUGE):
        beside = (rows * times).astype(rows.dtype)
        try:
            whole = model.ask(np.concatenate([beside, rows, beside]), scores=True)
        except SandboxError:
            raise
        except WorkError:
            if times == 1.0:
                return False
            continue
        parts = _parts(whole, [len(rows), *([1] * len(rows)), len(rows)])[1:-1]
        if not all(_alike(one, other) for one, other in zip(alone, parts, strict=True)):
            return False
    return True


def _alike(one: Answer, other: Answer) -> bool:
    """But for rounding, which may turn a label where two scores are equal."""
    if one.scores is not None and other.scores is not None:
        return bool(np.allclose(one.scores, other.scores, rtol=0, atol=ALIKE))
    return bool((one.labels == other.labels).all())


def _settle(one: _Waiting, outcome: Answer | Exception) -> None:
    if one.future.done():
        return
    if isinstance(outcome, Exception):
        one.future.set_exception(outcome)
    else:
        one.future.set_result(outcome)


def _parts(whole: Answer, heights: list[int]) -> list[Answer]:
    if len(heights) == 1:
        return [whole]
    answers, start, labels, scores = [], 0, whole.labels, whole.scores
    for height in heights:
        end = start + height
        answers.append(Answer(labels[start:end], None if scores is None else scores[start:end]))
        start = end
    return answers


__all__ = ["MOST_TOGETHER", "QUICK_MICROSECONDS", "Asking", "Direct", "Host", "Together", "is_row_wise"]
