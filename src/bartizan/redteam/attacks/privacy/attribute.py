"""Attribute inference: the value under which the model is surest of the true class, weighed against statistics.

The adversary learns from other people's records how likely each value is, asks the model about the
person with each value, and adds the two. How much the model counts is settled on a model of its
own, for people that this one was trained on.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.redteam.attack import VICTIM, Fit, Query, Request, Search
from bartizan.redteam.attribute import LEAST_CHANCE, impute
from bartizan.redteam.membership import chance_of
from bartizan.redteam.privacy_tasks import Attribute, AttributeGuess, AttributeTask
from bartizan.targets.protocol import Access, Labels, Rows

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the model's log probability beside that of the statistics; the least of equally good ones is taken."""

Floats = NDArray[np.float64]


class AttributeByScores:
    """See ``AttributeTask``. Stateless."""

    name = "privacy.attribute"
    title = "Attribute inference, corrected by what is guessed without the model"
    family = "privacy"
    tables = True
    technique = "T37"
    atlas: tuple[str, ...] = ("AML.T0024",)
    needs = frozenset({Access.SCORES, Access.TRAINING})
    position = "user"
    references: tuple[str, ...] = (
        "Yeom et al. 2018, Privacy risk in machine learning, arXiv:1709.01604",
        "Mehnaz et al. 2022, Are your sensitive attributes private?, arXiv:2201.09370",
        "Jayaraman and Evans 2022, Are attribute inference attacks just imputation?, arXiv:2209.01292",
    )

    def search(self, task: AttributeTask, rng: np.random.Generator) -> Search:
        """Train one model, settle the weights on it, then ask the target about each value of each person."""
        half = np.zeros(len(task.known), np.bool_)
        half[np.lexsort((rng.random(len(half)), task.known_labels))[::2]] = True
        own = yield Fit(task.known[half], task.known_labels[half], task.seed)
        values, weights = np.zeros(len(task.asked), np.int64), []
        for place, attribute in enumerate(task.attributes):
            weight = yield from self._weight(task, attribute, half, own, rng)
            weights.append(weight)
            people = np.flatnonzero(task.asked == place)
            evidence = yield from self._ask(attribute, task.rows[people], task.labels[people], people, VICTIM)
            known, asked = (task.known, task.known_labels), (task.rows[people], task.labels[people])
            usual = np.log(impute(attribute, known, asked, task.classes, rng))
            values[people] = (usual + weight * evidence).argmax(axis=1)
        return AttributeGuess(values, tuple(weights))

    def _weight(
        self, task: AttributeTask, attribute: Attribute, half: NDArray[np.bool_], own: int, rng: np.random.Generator
    ) -> Generator[Request, Any, float]:
        """How much a model of this kind says about people it was trained on."""
        inside, rest = (task.known[half], task.known_labels[half]), (task.known[~half], task.known_labels[~half])
        truth = attribute.of(inside[0])
        evidence = yield from self._ask(attribute, *inside, np.zeros(len(truth), np.int64), own)
        usual = np.log(impute(attribute, rest, inside, task.classes, rng))
        right = [((usual + weight * evidence).argmax(axis=1) == truth).mean() for weight in WEIGHTS]
        return WEIGHTS[int(np.argmax(right))]

    def _ask(
        self, attribute: Attribute, rows: Rows, labels: Labels, sample: NDArray[np.int64], model: int
    ) -> Generator[Request, Any, Floats]:
        """``(people, values)``: log probability of the true class with each value."""
        tries = np.concatenate([attribute.filled(rows, value) for value in range(len(attribute.values))])
        count = len(attribute.values)
        answer = yield Query(tries, np.tile(sample, count), scores=Access.SCORES in self.needs, model=model)
        chance = chance_of(answer, np.tile(labels, count)).reshape(count, -1).T
        evidence: Floats = np.log(np.maximum(chance, LEAST_CHANCE))
        return evidence


class AttributeByLabels(AttributeByScores):
    """The same where only labels are answered: a value either keeps the true class or does not."""

    name = "privacy.attribute-labels"
    title = "Attribute inference from labels alone"
    needs = frozenset({Access.LABELS, Access.TRAINING})
