"""The example that lessons run on: handwritten digits of scikit-learn and a small network, trained in this process.

Nothing is loaded from a file that somebody else wrote: the data come with scikit-learn, the model is
fitted here, in well under a second.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from bartizan.core.errors import WorkError
from bartizan.targets.protocol import Access, Labels, Rows, Scores

SHAPE = (1, 8, 8)
"""Channels, height, width of a picture."""
BRIGHTEST = 16
"""Largest value of a pixel in the source; divided by it, pixels run from 0 to 1."""
TRAINING_SHARE = 0.5


class DigitsTarget:
    """A small network for digits in this process. See ``targets.protocol.Target``."""

    name = "model:digits"
    classes = 10
    features = 64
    class_values: tuple[str, ...] = ()
    offers = frozenset({Access.LABELS, Access.SCORES, Access.TRAINING})

    def __init__(self, estimator: MLPClassifier) -> None:
        self._estimator = estimator

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        known: NDArray[np.int64] = self._estimator.classes_
        labels: Labels = known[self._estimator.predict_proba(rows).argmax(axis=1)]
        return labels

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``; a class that training never saw scores 0."""
        scores = np.zeros((len(rows), self.classes))
        scores[:, self._estimator.classes_] = self._estimator.predict_proba(rows)
        return scores

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> DigitsTarget:
        """See ``Target.retrain``."""
        if not len(rows):
            raise WorkError("there are no rows to train on", remedy="give at least one row of each class.")
        return DigitsTarget(fitted(clone(self._estimator).set_params(random_state=seed % 2**32), rows, labels))


@dataclass(frozen=True, slots=True)
class Digits:
    """The data in two halves, and the model trained on the first."""

    target: DigitsTarget
    training: tuple[Rows, Labels]
    evaluation: tuple[Rows, Labels]


def digits(seed: int) -> Digits:
    """The example; the same seed gives the same model."""
    source = load_digits()
    rows = np.asarray(source.data, dtype=np.float64) / BRIGHTEST
    labels = np.asarray(source.target, dtype=np.int64)
    ours, kept, our_labels, kept_labels = train_test_split(
        rows, labels, train_size=TRAINING_SHARE, stratify=labels, random_state=seed % 2**32
    )
    network = MLPClassifier((64,), alpha=1e-5, max_iter=80, learning_rate_init=3e-3, random_state=seed % 2**32)
    target = DigitsTarget(fitted(network, ours, our_labels))
    return Digits(target, (ours, our_labels), (kept, kept_labels))


def fitted(network: MLPClassifier, rows: Rows, labels: Labels) -> MLPClassifier:
    """The network, trained for its number of rounds; that it could be trained longer is no surprise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        trained: MLPClassifier = network.fit(rows, labels)
    return trained
