"""A model behind a configuration of the gateway, as an attacker meets it: guards, detail and budget, without the wire.

What is refused, held or throttled tells the attacker nothing: it is taken for the answer that the row had before the
attack. A throttled attacker waits and asks again. Each sample is attacked by somebody new, with guards that know of
nothing but honest traffic; that is the attacker's best case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bartizan.core.digest import Digest
from bartizan.core.errors import WorkError
from bartizan.lifecycle.deploy.gateway.caller import Caller
from bartizan.lifecycle.deploy.gateway.evaluation.allowance import Allowance
from bartizan.lifecycle.deploy.gateway.evaluation.remembered import Remembered
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked
from bartizan.lifecycle.deploy.gateway.pipeline import Passage, Pipeline
from bartizan.targets.detail import Detail
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target
from bartizan.targets.tailored import Tailored

BEGIN = 1_700_000_000.0
PATIENCE = 3
"""Times that a throttled attacker waits and asks again."""
SHOWN = frozenset({Action.ALLOW, Action.FLAG, Action.COARSEN})
ATTACKER = "attacker"


@dataclass(frozen=True, slots=True)
class Manner:
    """How an attacker asks, who knows of the guards."""

    name: str = "plain"
    noise: float = 0.0
    """Added to every query, in standard deviations of each column, or parts of the range of a pixel."""
    accounts: int = 1
    """Accounts that queries go round; 0: a new one for each."""
    seconds: float = 1.0
    """Between two queries."""


MANNERS = (Manner(), Manner("noise", noise=0.02), Manner("accounts", accounts=0), Manner("drip", seconds=3600.0))


class Guarded:
    """See the module, and ``Target``.

    Args:
        make: a new pipeline that has seen honest traffic.
        budgets: what the attacker's accounts may ask; nothing of it is spent.
        space: what a possible row is, for noise.
        memory: what ``target`` was asked before.
    """

    def __init__(
        self,
        target: Target,
        make: Callable[[], Pipeline],
        detail: Detail,
        *,
        manner: Manner | None = None,
        budgets: Sequence[Allowance] = (),
        space: Space | None = None,
        seed: int = 0,
        memory: Remembered | None = None,
    ) -> None:
        self._target, self._pipeline = target, make()
        self._model = memory or Remembered(target)
        self._told = Tailored(target, detail)
        self._manner, self._budgets = manner or Manner(), tuple(budgets)
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._now, self.asked, self.shown = BEGIN, 0, 0
        self._innocent: int | None = None
        self._wait = 0.0

    @property
    def name(self) -> str:
        """See ``Target.name``."""
        return self._target.name

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        return self._told.offers & {Access.LABELS, Access.SCORES}

    @property
    def classes(self) -> int:
        """See ``Target.classes``."""
        return self._target.classes

    @property
    def class_values(self) -> tuple[str, ...]:
        """See ``Target.class_values``."""
        return self._target.class_values

    @property
    def features(self) -> int:
        """See ``Target.features``."""
        return self._target.features

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        labels = [self._hidden() if label is None else label for _, label, _ in self._each(rows)]
        return np.array(labels, dtype=np.int64)

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``. Where the label alone comes back, it stands for certainty."""
        if Access.SCORES not in self.offers:
            raise WorkError(f"{self.name} answers labels only")
        certain = np.eye(self.classes)
        found = []
        for action, label, scores in self._each(rows):
            if label is None:
                found.append(certain[self._hidden()])
            elif action is Action.COARSEN or scores is None:
                found.append(certain[label])
            else:
                found.append(scores)
        return np.array(found).reshape(len(rows), self.classes)

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``."""
        del rows, labels, seed
        raise WorkError(f"{self.name} is served, not trained")

    def _hidden(self) -> int:
        """What an attacker makes of no answer: that nothing was won."""
        return 0 if self._innocent is None else self._innocent

    def _each(self, rows: Rows) -> Iterator[tuple[Action, int | None, Scores | None]]:
        """Query by query: what was done with it, and the label and the scores that came back.

        The model is asked about all of them at once, which costs far less, and again where a guard changes a row.
        """
        if not len(rows):
            return
        sent = np.stack([self._changed(row) for row in rows])
        whole = self._model.answer(sent)
        for place, row in enumerate(sent):  # one at a time: guards remember, and time passes
            scores = None if whole.scores is None else whole.scores[place : place + 1]
            action, answer = self._one(row, Answer(whole.labels[place : place + 1], scores))
            if answer is None:
                yield action, None, None
            elif answer.scores is None or Access.SCORES not in self.offers:
                yield action, int(answer.labels[0]), None
            else:
                yield action, int(answer.labels[0]), self._told.told(row[None], np.asarray(answer.scores))[0]

    def _one(self, row: Rows, known: Answer) -> tuple[Action, Answer | None]:
        """One query: what was done with it, and what came back. ``known`` is what the model answers to the row."""
        number = self.asked % self._manner.accounts if self._manner.accounts else self.asked
        action, answer = self._allowed(row, known, f"key:{ATTACKER}{number}")
        self.asked += 1
        self._now += self._manner.seconds
        if action not in SHOWN or answer is None:
            return action, None
        if self._innocent is None:
            self._innocent = int(answer.labels[0])
        self.shown += 1
        return action, answer

    def _allowed(self, row: Rows, known: Answer, account: str) -> tuple[Action, Answer | None]:
        """What becomes of the query that is to be sent, when whoever is throttled waits. What is answered is paid."""
        for _ in range(PATIENCE):
            if not all(budget.lets(account, self._now) for budget in self._budgets):
                return Action.REFUSE, None
            action, answer = self._through(row, known, account)
            if action is not Action.THROTTLE:
                break
            self._now += self._wait + 1
        if action in SHOWN:
            for budget in self._budgets:
                budget.take(account, self._now)
        return action, answer

    def _changed(self, row: Rows) -> Rows:
        """With noise, as far as a row stays one that can be."""
        if not self._manner.noise or self._space is None:
            return row
        moved = row + self._manner.noise * self._space.scale * self._rng.standard_normal(row.shape)
        return np.clip(moved, self._space.low, self._space.high).astype(row.dtype)

    def _through(self, row: Rows, known: Answer, account: str) -> tuple[Action, Answer | None]:
        passage = Passage()
        asked = Asked(
            request=str(self.asked),
            caller=Caller(id=account, role="user", method="key"),
            model=self.name.removeprefix("model:"),
            digest=Digest(""),
            rows=np.ascontiguousarray(row[None]),
            now=self._now,
        )
        self._pipeline.before(asked, passage)
        self._wait = passage.wait
        if passage.stopped:
            return passage.action, None
        answer = _copy(known) if asked.rows is asked.given else self._model.answer(asked.rows)
        self._pipeline.after(asked, answer, passage)
        self._wait = passage.wait
        return passage.action, answer


def _copy(answer: Answer) -> Answer:
    """The pipeline writes to answers."""
    return Answer(answer.labels.copy(), None if answer.scores is None else answer.scores.copy())


__all__ = ["MANNERS", "Guarded", "Manner"]
