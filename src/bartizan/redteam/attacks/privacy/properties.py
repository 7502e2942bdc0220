"""Property inference: a classifier that reads a property of the training data from a model's answers.

The adversary trains models on own records, some with the property rare and some with it common,
asks all of them the same probes, and learns to tell the answers apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam import learners
from bartizan.redteam.attack import Fit, Query, Search
from bartizan.redteam.privacy_tasks import PropertyGuesser, PropertyTask
from bartizan.redteam.properties import draw
from bartizan.targets.protocol import Access, Scores

LEAST_CHANCE = 1e-4
READERS = tuple(learners.Learner("linear", penalty) for penalty in (1e-2, 1e-1, 1.0))


Floats = NDArray[np.float64]


class PropertyByShadows:
    """See ``PropertyTask``. Stateless."""

    name = "privacy.property"
    title = "Property inference with shadow models"
    family = "privacy"
    tables = True
    technique = "T37"
    atlas: tuple[str, ...] = ("AML.T0024",)
    needs = frozenset({Access.SCORES, Access.TRAINING})
    position = "user"
    references: tuple[str, ...] = (
        "Ateniese et al. 2015, Hacking smart machines with smarter ones, arXiv:1306.4447",
        "Ganju et al. 2018, Property inference attacks on fully connected neural networks, CCS",
        "Zhang et al. 2021, Leakage of dataset properties in multi-party machine learning, arXiv:2006.07267",
    )

    def search(self, task: PropertyTask, rng: np.random.Generator) -> Search:
        """Train the models, ask them the probes, learn to read the answers."""
        common = np.arange(task.fits) % 2 == 1
        models, answers, everyone = [], [], np.zeros(len(task.probes), np.int64)
        for coin in common:
            drawn = draw(task.holds, task.labels, task.shares[int(coin)], task.size, rng)
            models.append((yield Fit(task.rows[drawn], task.labels[drawn], int(rng.integers(2**31)))))
        for model in models:
            answers.append((yield Query(task.probes, everyone, scores=True, model=model)))  # noqa: PERF401 - a comprehension cannot yield
        return PropertyGuesser(_reader(answers, common, rng))


def _reader(
    answers: Sequence[Scores], common: NDArray[np.bool_], rng: np.random.Generator
) -> Callable[[Scores], float]:
    """What tells the answers of the own models apart, by the features that do so best on models left out."""
    targets = learners.one_hot(common.astype(np.int64), 2)
    parts = learners.folds(common, rng)
    losses, readings = [], [(see, learner) for see in (_each, _summary) for learner in READERS]
    for see, learner in readings:
        seen = np.array([see(answer) for answer in answers])
        chances = learners.out_of_fold(learner, seen, targets, parts, rng)
        losses.append(float(-np.log(np.maximum(chances[targets == 1], LEAST_CHANCE)).mean()))
    see, learner = readings[int(np.argmin(losses))]
    read = learner.fit(np.array([see(answer) for answer in answers]), targets, rng)
    return lambda scores: float(read(see(scores)[None])[0, 1]) - 0.5


def _each(scores: Scores) -> Floats:
    """``(probes * classes,)``: every answer."""
    features: Floats = np.log(np.maximum(scores, LEAST_CHANCE)).ravel()
    return features


def _summary(scores: Scores) -> Floats:
    """``(4 * classes,)``: how much each class gets on average and how it is spread, whichever probe gets it."""
    return np.concatenate([scores.mean(axis=0), *np.quantile(scores, (0.25, 0.5, 0.75), axis=0)])
