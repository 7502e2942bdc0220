"""Whether a model answers the same question twice in the same way, and what counts when it does not.

An attack on a model that answers at random stops at the first lucky answer, and what it found then fools nobody when
it is asked again: noise would pass for robustness. So rows that count are asked twice, and where the answers differ
many times; one wrong answer is enough, since an adversary can ask again as well.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.attack import Request
from bartizan.redteam.family import ask
from bartizan.targets.protocol import Labels, Rows

TIMES = 20
"""How often a model that answers at random is asked about each row: what is wrong one time in ten is seen by 88 %."""
AT_RANDOM = "the model answers at random, and this attack does not allow for it"


def asked_again(rows: Rows) -> Generator[Request, Any, NDArray[np.int64]]:
    """Labels ``(times, rows)``: asked twice, and ``TIMES`` times when any of the two answers differ."""
    answers = [(yield ask(rows)), (yield ask(rows))]
    if (answers[0] == answers[1]).all():
        return np.array(answers[:1])
    for _ in range(TIMES - len(answers)):
        answers.append((yield ask(rows)))  # noqa: PERF401 - a comprehension cannot yield
    return np.array(answers)


def worst(answers: NDArray[np.int64], labels: Labels) -> Labels:
    """``(rows,)``: of several answers to each row ``(times, rows)``, the first that is wrong, if any is."""
    wrong = answers != labels
    chosen: Labels = answers[wrong.argmax(axis=0), np.arange(answers.shape[1])]
    return chosen
