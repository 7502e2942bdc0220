"""Greedy search over words: find the words that matter, then change them one after the other.

The frame that DeepWordBug, PWWS and TextFooler share; they differ in what may take the place of a
word. All texts go in lock-step: one call ranks the words of all of them, and each further call tries
all changes of one word of each.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.text import PARTS, Seeking, TextQuery, TextTask
from bartizan.targets.protocol import Scores

Choices = Callable[[str], Sequence[str]]
"""A word to what may take its place; an empty string leaves it out."""
RANKING_SHARE = 0.5
"""Of the budget at most, for finding out which words matter; of longer texts a spread of words is ranked."""


def greedy(task: TextTask, choices: Choices) -> Generator[TextQuery, Scores, list[str]]:
    """Change words in the order of what leaving them out costs the true class, as long as the task allows."""
    seeking = Seeking(task)
    here = [PARTS.findall(text) for text in task.texts]
    margin = yield from seeking.margins(list(enumerate(task.texts)))
    order = yield from _ranked(seeking, here)
    for turn in range(max((len(places) for places in order.values()), default=0)):
        live = [sample for sample in seeking.open if turn < len(order.get(sample, ()))]
        if live:
            yield from _change(seeking, here, margin, {sample: order[sample][turn] for sample in live}, choices)
    return seeking.found


def _ranked(seeking: Seeking, here: list[list[str]]) -> Generator[TextQuery, Scores, dict[int, list[int]]]:
    """Places of the words of each open sample, that which matters most first."""
    places = {sample: _places(here[sample], int(seeking.left[sample] * RANKING_SHARE)) for sample in seeking.open}
    asked = [
        (sample, "".join([*here[sample][:place], *here[sample][place + 1 :]]))
        for sample, some in places.items()
        for place in some
    ]
    margin = yield from seeking.margins(asked)
    ranked: dict[int, list[int]] = {}
    start = 0
    for sample, some in places.items():
        order = np.argsort(margin[start : start + len(some)], kind="stable")
        ranked[sample] = [some[place] for place in order.tolist()]
        start += len(some)
    return ranked


def _places(parts: list[str], most: int) -> list[int]:
    """Where the words are; evenly spread ones when they are more than can be ranked."""
    words = [place for place, part in enumerate(parts) if not part.isspace()]
    if len(words) <= most:
        return words
    return [words[int(place)] for place in np.linspace(0, len(words) - 1, max(most, 0))]


def _change(
    seeking: Seeking,
    here: list[list[str]],
    margin: NDArray[np.float64],
    place: dict[int, int],
    choices: Choices,
) -> Generator[TextQuery, Scores, None]:
    """Try every change of one word of each sample; the best stays if it helps and the task allows it."""
    tried: list[tuple[int, list[str], str]] = []
    for sample, at in place.items():
        for choice in choices(here[sample][at]):
            parts = [*here[sample][:at], choice, *here[sample][at + 1 :]]
            text = "".join(parts)
            if seeking.task.edit.cost(seeking.task.texts[sample], text) <= seeking.task.max_change:
                tried.append((sample, parts, text))
    answers = yield from seeking.margins([(sample, text) for sample, _, text in tried])
    for (sample, parts, _), answer in zip(tried, answers.tolist(), strict=True):
        if answer < margin[sample]:
            margin[sample] = answer
            here[sample] = parts
