"""Evasion of text classifiers: what may be changed, the hard ledger, and success asked again.

The same bargain as for rows: an attack is a generator that asks about texts and is told scores; every
query is charged before it is asked; nothing an attack returns is believed, the closest text that
fooled the target and that the task allows is asked again.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError, InputError, WorkError
from bartizan.redteam.asking import margins
from bartizan.redteam.attack import Facts
from bartizan.redteam.engine import Progress
from bartizan.redteam.homoglyphs import INVISIBLE, LOOKALIKES
from bartizan.redteam.ledger import Budget, Ledger
from bartizan.redteam.statistics import Estimate, proportion
from bartizan.targets.protocol import Labels, Scores
from bartizan.targets.text import TextTarget

MAX_REFUSALS = 100
ASKING = "asking about texts"
"""Note with which progress is told."""
PARTS = re.compile(r"\s+|\S+")
"""Words, and what is between them."""


class Edit(Protocol):
    """What an adversary may do to a text, and how much of it was done."""

    def cost(self, original: str, changed: str) -> float:
        """Size of the change, from 0; infinite when it is none that may be made."""


@dataclass(frozen=True, slots=True)
class Letters:
    """Single characters are inserted, deleted, replaced, or swapped with their neighbour.

    Cost: the least number of such edits (Damerau and Levenshtein, swaps of untouched neighbours) as a
    part of the length of the text; word by word where there are as many words as before.
    """

    def cost(self, original: str, changed: str) -> float:
        """See ``Edit.cost``."""
        return _by_word(original, changed) / max(len(original), 1)


@dataclass(frozen=True, slots=True)
class Words:
    """Words are replaced by those that a table names for them. Cost: share of the words replaced."""

    table: Mapping[str, Sequence[str]]
    """Word in small letters to words that may stand in its place."""

    def cost(self, original: str, changed: str) -> float:
        """See ``Edit.cost``."""
        before, after = original.split(), changed.split()
        if len(before) != len(after):
            return np.inf
        moved = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
        if any(other.lower() not in self.table.get(one.lower(), ()) for one, other in moved):
            return np.inf
        return len(moved) / max(len(before), 1)


@dataclass(frozen=True, slots=True)
class Removals:
    """Words are left out. Cost: share of the words that are gone."""

    def cost(self, original: str, changed: str) -> float:
        """See ``Edit.cost``."""
        before, after = original.split(), changed.split()
        rest = iter(before)
        if not all(word in rest for word in after):
            return np.inf
        return (len(before) - len(after)) / max(len(before), 1)


@dataclass(frozen=True, slots=True)
class Unseen:
    """The text looks the same: characters without width, and letters of other scripts that look alike.

    Cost: characters put in or replaced, as a part of the length of the text.
    """

    def cost(self, original: str, changed: str) -> float:
        """See ``Edit.cost``."""
        if seen(original) != seen(changed):
            return np.inf
        return _by_word(original, changed) / max(len(original), 1)


_FOLDED = {ord(alike): letter for letter, others in LOOKALIKES.items() for alike in others} | dict.fromkeys(
    map(ord, INVISIBLE)
)


def seen(text: str) -> str:
    """What a reader sees: without characters that have no width, look-alikes as the letter they pass for."""
    return unicodedata.normalize("NFC", text).translate(_FOLDED)


def _by_word(original: str, changed: str) -> int:
    """Edits, word by word where both texts have as many parts; that can only be more than over the whole."""
    before, after = PARTS.findall(original), PARTS.findall(changed)
    if len(before) != len(after):
        return edits(original, changed)
    return sum(edits(one, other) for one, other in zip(before, after, strict=True) if one != other)


@lru_cache(maxsize=1 << 14)
def edits(first: str, second: str) -> int:
    """Least number of insertions, deletions, replacements and swaps of neighbours from one text to another."""
    while first and second and first[0] == second[0]:
        first, second = first[1:], second[1:]
    while first and second and first[-1] == second[-1]:
        first, second = first[:-1], second[:-1]
    before: list[int] = []
    line = list(range(len(second) + 1))
    for down, one in enumerate(first, 1):
        earlier, before, line = before, line, [down]
        for across, other in enumerate(second, 1):
            best = min(before[across] + 1, line[across - 1] + 1, before[across - 1] + (one != other))
            if down > 1 and across > 1 and one == second[across - 2] and first[down - 2] == other:
                best = min(best, earlier[across - 2] + 1)
            line.append(best)
    return line[-1]


@dataclass(frozen=True, slots=True)
class TextTask:
    """Change texts so little that they mean what they did, yet get another class.

    Candidates: a list of texts, the best found for each sample, the sample itself where nothing was.
    """

    texts: tuple[str, ...]
    labels: Labels
    """``(samples,)``: their true classes."""
    classes: int
    edit: Edit
    """What may be done to a text."""
    max_change: float
    """Largest cost that counts."""
    budget: int
    """Queries allowed for one sample."""


@dataclass(frozen=True, slots=True)
class TextQuery:
    """Ask about texts. Answer: scores ``(batch, classes)``."""

    texts: tuple[str, ...]
    sample: NDArray[np.int64]
    """``(batch,)``: which sample of the task each text is charged to."""


TextSearch = Generator[TextQuery, Scores, Any]


class TextAttack(Facts, Protocol):
    """One technique against texts. See ``Attack``."""

    most_change: float
    """Largest cost that counts where nothing else is declared."""

    def edit(self, known: Sequence[str]) -> Edit:
        """What it does to texts; ``known`` are texts of the same kind that the adversary owns."""

    def search(self, task: TextTask, rng: np.random.Generator) -> TextSearch:
        """Look for texts."""


class Seeking:
    """What text attacks do between their steps: ask what can be paid, keep the closest text that fooled the target."""

    def __init__(self, task: TextTask) -> None:
        self.task = task
        self.left: NDArray[np.int64] = np.full(len(task.texts), task.budget)
        self.found = list(task.texts)
        self.cost: NDArray[np.float64] = np.full(len(task.texts), np.inf)

    @property
    def open(self) -> list[int]:
        """Samples for which nothing was found and that can pay."""
        return [int(place) for place in np.flatnonzero(np.isinf(self.cost) & (self.left > 0))]

    def margins(self, asked: Sequence[tuple[int, str]]) -> Generator[TextQuery, Scores, NDArray[np.float64]]:
        """Margin of each ``(sample, text)``: negative where it fools; infinite where it could not be paid."""
        margin = np.full(len(asked), np.inf)
        paid, spent = [], np.zeros_like(self.left)
        for place, (sample, _) in enumerate(asked):
            if spent[sample] < self.left[sample]:
                spent[sample] += 1
                paid.append(place)
        if not paid:
            return margin
        payers = np.array([asked[place][0] for place in paid], dtype=np.int64)
        texts = tuple(asked[place][1] for place in paid)
        scores = yield TextQuery(texts, payers)
        self.left -= spent
        margin[paid] = margins(scores, self.task.labels[payers])
        for place in paid:
            if margin[place] < 0:
                self.keep(*asked[place])
        return margin

    def keep(self, sample: int, text: str) -> None:
        """Take over a text that fooled the target, if it may count and is the closest so far."""
        cost = self.task.edit.cost(self.task.texts[sample], text)
        if cost <= self.task.max_change and cost < self.cost[sample]:
            self.found[sample], self.cost[sample] = text, cost


@dataclass(frozen=True)
class TextEvaded:
    """What an attack on texts found, asked again."""

    task: TextTask
    texts: tuple[str, ...]
    """The closest allowed text that fooled the target; the sample where there was none."""
    clean: Labels
    answers: Labels
    """``(samples,)``: what ``texts`` are answered when they are asked again."""
    ledger: Ledger

    @cached_property
    def cost(self) -> NDArray[np.float64]:
        """``(samples,)``: cost of each text; infinite where it did not fool the target again."""
        costs = [self.task.edit.cost(before, after) for before, after in zip(self.task.texts, self.texts, strict=True)]
        return np.where(self.answers != self.task.labels, costs, np.inf)

    @property
    def robust(self) -> NDArray[np.bool_]:
        """``(samples,)``: right, and right under every change found that counts."""
        right: NDArray[np.bool_] = self.clean == self.task.labels
        return right & ~(self.cost <= self.task.max_change)

    @property
    def clean_accuracy(self) -> Estimate:
        """Share of the samples that are answered rightly."""
        return proportion(int((self.clean == self.task.labels).sum()), len(self.clean))

    @property
    def robust_accuracy(self) -> Estimate:
        """Share of the samples that stay right under attack."""
        return proportion(int(self.robust.sum()), len(self.clean))


def play_text(
    target: TextTarget,
    attack: TextAttack,
    task: TextTask,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    seconds: float = math.inf,
) -> TextEvaded:
    """Run an attack on texts and ask again what it found, together with what was seen to succeed on the way.

    ``seconds`` is the wall time after which the search ends with what it has found.

    Raises:
        InputError: there are no texts, or labels do not fit.
        WorkError: the attack breaks the rules, or the target cannot answer.
    """
    _check(target, task)
    ledger = Ledger(Budget(samples=len(task.texts), per_sample=task.budget, seconds=seconds))
    ledger.begin()
    witness = Seeking(task)
    tell = progress or (lambda _done, _total, _note: None)
    search = attack.search(task, np.random.default_rng(seed))
    returned = _drive(target, search, ledger, witness, lambda: tell(ledger.queries, _allowed(task), ASKING))
    texts = _closest(task, witness, returned)
    scores = target.scores([*task.texts, *texts])
    labels = scores.argmax(axis=1).astype(np.int64)
    return TextEvaded(task, texts, labels[: len(texts)], labels[len(texts) :], ledger)


def _check(target: TextTarget, task: TextTask) -> None:
    if not task.texts:
        raise InputError("there are no texts to attack", remedy="give at least one.")
    if task.labels.shape != (len(task.texts),) or not ((task.labels >= 0) & (task.labels < task.classes)).all():
        raise InputError(f"labels must be one class index from 0 to {task.classes - 1} for each text")
    if target.classes != task.classes:
        raise InputError(f"{target.name} knows {target.classes} classes, and the task speaks of {task.classes}")


def _allowed(task: TextTask) -> int:
    return len(task.texts) * task.budget


def _drive(target: TextTarget, search: TextSearch, ledger: Ledger, witness: Seeking, told: Callable[[], None]) -> Any:
    """Answer what the attack asks until it returns; a query beyond the budget is refused."""
    refusals, answer = 0, None
    try:
        query = next(search)
        while True:
            try:
                ledger.charge(query.sample)
            except BudgetError as error:
                refusals += 1
                if refusals > MAX_REFUSALS:
                    raise WorkError(f"the attack was refused {MAX_REFUSALS} times and asks on: {error}") from error
                query = search.throw(error)
                continue
            answer = target.scores(query.texts)
            ledger.calls += 1
            told()
            _see(witness, query, answer)
            query = search.send(answer)
    except StopIteration as end:
        return end.value
    except BudgetError:
        return None


def _see(witness: Seeking, query: TextQuery, scores: Scores) -> None:
    labels = scores.argmax(axis=1)
    for text, sample, label in zip(query.texts, query.sample.tolist(), labels.tolist(), strict=True):
        if label != witness.task.labels[sample]:
            witness.keep(sample, text)


def _closest(task: TextTask, witness: Seeking, returned: Any) -> tuple[str, ...]:
    """What was seen to succeed; what the attack returned only where it may count and nothing was seen."""
    texts = list(witness.found)
    if isinstance(returned, Sequence) and len(returned) == len(texts):
        for sample, text in enumerate(returned):
            unseen = np.isinf(witness.cost[sample]) and isinstance(text, str)
            if unseen and task.edit.cost(task.texts[sample], text) <= task.max_change:
                texts[sample] = text
    return tuple(texts)
