"""The pipeline: one request through the guards, and what becomes of it.

Guards look at a request in the order of what they cost, and at the answer in the same order. What each says is
written down; the highest action of those that enforce is what happens. A guard that fails refuses (fail closed),
whether it enforces or not: a protection that is broken is not one that is being tried.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from bartizan.lifecycle.deploy.gateway.audit.record import Ruling
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked, Guard, Numbers, Verdict
from bartizan.lifecycle.deploy.gateway.stacking import Stack, Stacks, joined

_LOG = logging.getLogger("bartizan.gateway")
_NAMES = {action: action.name.lower() for action in Action}


class Placed(msgspec.Struct, frozen=True):
    """A guard in its place."""

    guard: Guard
    enforce: bool = True


class Foresight(NamedTuple):
    """What guards say of the rows of requests that came together."""

    cleared: bool
    """The first guards have nothing to say of any of them."""
    rows: Mapping[int, Mapping[str, Any]]
    """Place of a request among them to what each guard worked out for it."""


_NOTHING_FORESEEN: Mapping[str, Any] = MappingProxyType({})
NOTHING = Foresight(cleared=False, rows={})
Gathered = tuple[Stack[Numbers, Foresight], int]
"""Rows that came together, and the place of a request among them."""
Foretold = Mapping[str, Sequence[Any]]
"""What guards say of answers that came together, by their names."""
Collected = tuple[Stack[Answer, Foretold], int]
"""Answers that came together, and the place of one among them."""
SEVERAL = 8
"""Answers that are looked at together; of fewer, each is looked at as quickly."""


class Passage:
    """What was said of one request so far, and what follows from it."""

    __slots__ = ("action", "reasons", "rulings", "wait")

    def __init__(self) -> None:
        self.action = Action.ALLOW
        self.rulings: list[Ruling] = []
        self.reasons: list[str] = []
        """Of guards that enforce and want more than to let by."""
        self.wait = 0.0
        """Seconds after which a throttled caller may come again."""

    def take(self, placed: Placed, verdict: Verdict) -> None:
        """Write down what a guard says, and let it follow when the guard enforces."""
        name, action = placed.guard.name, verdict.action
        if action or verdict.measures or verdict.labels is not None:
            self.rulings.append(
                Ruling(
                    guard=name,
                    action=_NAMES[action],
                    reason=verdict.reason,
                    measures=verdict.measures,
                    shadow=not placed.enforce,
                )
            )
        if not placed.enforce or not action:
            return
        self.reasons.append(f"{name}: {verdict.reason}")
        self.wait = max(self.wait, verdict.wait)
        self.action = max(self.action, action)

    @property
    def stopped(self) -> bool:
        """Whether the model is not asked, or its answer not given."""
        return self.action >= Action.THROTTLE


class Pipeline:
    """Guards in their order."""

    def __init__(self, placed: Sequence[Placed]) -> None:
        self._placed = tuple(sorted(placed, key=lambda one: one.guard.cost))
        self.wants_scores = any(getattr(one.guard, "wants_scores", False) for one in placed)
        self._clearing = tuple(itertools.takewhile(lambda one: hasattr(one.guard, "clears"), self._placed))
        """The first guards, as far as they can tell of many rows at once that there is nothing to say."""
        self._foreseeing = tuple(one.guard for one in self._placed if hasattr(one.guard, "foresee"))
        self._stacks = Stacks(self._together)
        self._answering = tuple(one for one in self._placed if not getattr(one.guard, "for_requests", False))
        self._foretelling = tuple(one.guard for one in self._answering if getattr(one.guard, "foretells", False))
        self._answers = Stacks(self._foretold)

    @property
    def guards(self) -> tuple[str, ...]:
        """Names, in the order in which they look."""
        return tuple(one.guard.name for one in self._placed)

    def gather(self, rows: Numbers) -> Gathered | None:
        """Have guards look at rows together with those that come before the first ``before``."""
        return self._stacks.add(rows) if self._clearing or self._foreseeing else None

    def _together(self, parts: list[Numbers]) -> Foresight:
        """What can be said of all rows at once, and of each."""
        first = parts[0]
        if any(part.shape[1:] != first.shape[1:] or part.dtype != first.dtype or not len(part) for part in parts):
            return NOTHING
        rows, most = joined(parts), max(len(part) for part in parts)
        foreseen = self._foreseen(rows, parts) if len(parts) > 1 else {}
        return Foresight(cleared=self._cleared(rows, most), rows=foreseen)

    def _cleared(self, rows: Numbers, most: int) -> bool:
        """Whether the first guards have nothing to say of any of these rows."""
        try:
            return all(one.guard.clears(rows, most) for one in self._clearing)  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001 - each request hears of it where the guard looks at it alone
            return False

    def _foreseen(self, rows: Numbers, parts: list[Numbers]) -> dict[int, dict[str, Any]]:
        """What guards work out for each request that has one row, by its place among them."""
        if not self._foreseeing:
            return {}
        alone = [place for place, part in enumerate(parts) if len(part) == 1]
        if len(alone) < len(parts):
            if not alone:
                return {}
            rows = np.concatenate([parts[place] for place in alone])
        found: dict[int, dict[str, Any]] = {place: {} for place in alone}
        for guard in self._foreseeing:
            try:
                for place, each in zip(alone, guard.foresee(rows), strict=True):
                    found[place][guard.name] = each
            except Exception:  # noqa: BLE001 - it is asked for each request then
                _LOG.debug("guard %s foresaw nothing", guard.name, exc_info=True)
        return found

    def before(self, asked: Asked, passage: Passage, gathered: Gathered | None = None) -> None:
        """Let the guards look at a request, which may change ``asked.rows``. ``gathered``: see ``gather``."""
        placed_here, foreseen = self._placed, _NOTHING_FORESEEN
        if gathered is not None:
            stack, place = gathered
            foresight = stack.found()
            foreseen = foresight.rows.get(place, foreseen)
            if foresight.cleared:
                placed_here = placed_here[len(self._clearing) :]
        try:
            asked.foreseen = foreseen
            self._before(placed_here, asked, passage)
        finally:
            asked.foreseen = _NOTHING_FORESEEN  # it holds the rows of others, and a case may be kept for long

    @staticmethod
    def _before(placed_here: Sequence[Placed], asked: Asked, passage: Passage) -> None:
        for placed in placed_here:
            verdict = _said(placed, asked, None)
            if verdict is None:
                continue
            if verdict.measures:
                _measured(asked, placed, verdict)
            if verdict.rows is not None and placed.enforce:
                asked.rows = verdict.rows
            passage.take(placed, verdict)
            if passage.action >= Action.THROTTLE:
                return

    def collect(self, asked: Asked, answer: Answer) -> Collected | None:
        """Have guards look at an answer together with those that come before the first ``after``."""
        scores = answer.scores
        if self._foretelling and scores is not None and len(asked.rows) == len(answer.labels) == len(scores) == 1:
            return self._answers.add(answer)
        return None

    def _foretold(self, answers: list[Answer]) -> Foretold:
        """What guards work out of answers to one row each."""
        if len(answers) < SEVERAL:
            return {}
        found: dict[str, Sequence[Any]] = {}
        try:
            labels = np.concatenate([each.labels for each in answers])
            scores = np.concatenate([each.scores for each in answers])
            for guard in self._foretelling:
                found[guard.name] = guard.foretell(labels, scores)  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001 - each is looked at by itself then
            _LOG.debug("answers that came together could not be looked at", exc_info=True)
            return {}
        return found

    def after(self, asked: Asked, answer: Answer, passage: Passage, collected: Collected | None = None) -> None:
        """Let the guards look at the answer. Changes it when one of them does. ``collected``: see ``collect``."""
        if collected is not None:
            stack, place = collected
            answer.tell_ahead(stack.found(), place)
        for placed in self._answering:
            verdict = _said(placed, asked, answer)
            if verdict is None:
                continue
            if verdict.measures:
                _measured(asked, placed, verdict)
            if placed.enforce:
                _change(answer, verdict)
            passage.take(placed, verdict)
        answer.tell_ahead(None)


def _said(placed: Placed, asked: Asked, answer: Answer | None) -> Verdict | None:
    try:
        if answer is None:
            return placed.guard.on_request(asked)
        return placed.guard.on_response(asked, answer)
    except Exception as error:
        _LOG.exception("guard %s failed", placed.guard.name)
        raise BrokenGuardError(placed.guard.name, type(error).__name__) from error


class BrokenGuardError(Exception):
    """A guard failed: nothing is answered."""

    def __init__(self, guard: str, kind: str) -> None:
        super().__init__(f"guard {guard} failed: {kind}")


def _measured(asked: Asked, placed: Placed, verdict: Verdict) -> None:
    prefix = placed.guard.name
    for name, value in verdict.measures.items():
        asked.measures[f"{prefix}.{name}"] = value


def _change(answer: Answer, verdict: Verdict) -> None:
    if verdict.labels is not None or verdict.scores is not None:
        answer.tell_ahead(None)
    if verdict.labels is not None:
        answer.labels, answer.source = verdict.labels, "rule"
        if verdict.scores is None:
            answer.scores = None
    if verdict.scores is not None:
        answer.scores = verdict.scores


__all__ = ["SEVERAL", "BrokenGuardError", "Collected", "Gathered", "Passage", "Pipeline", "Placed"]
