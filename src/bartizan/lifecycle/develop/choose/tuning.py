"""Tuning: the settings of a family, each chosen among stated alternatives on the training data alone.

One setting is varied at a time, in the order of the family's axes, by cross-validation. Of the
alternatives that come within one standard error of the best, the simplest is taken (Breiman et al.
1984, Classification and Regression Trees, section 3.4.3): more capacity needs a visible gain.
"""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.predicates import Metric
from bartizan.lifecycle.develop.choose.candidate import Aspect, Axis, Candidate
from bartizan.lifecycle.develop.choose.trial import Tell, stream
from bartizan.redteam.statistics import proportion
from bartizan.targets.table import Table

FOLDS, QUICK_FOLDS = 5, 3
MOST_RECORDS, QUICK_RECORDS = 5_000, 1_000
"""Records that settings are chosen with; more would change no choice that matters."""


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """One value that a setting could have."""

    value: Any
    accuracy: Metric
    """Out of fold, on the training records."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as it was chosen, with what else it could be."""

    aspect: Aspect
    setting: str
    chosen: Any
    alternatives: tuple[Alternative, ...]
    why: str


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a candidate and how they came about."""

    settings: dict[str, Any]
    choices: tuple[Choice, ...]


def tune(candidate: Candidate, training: Table, *, seed: int, quick: bool, tell: Tell) -> Tuned:
    """Choose every setting of a candidate."""
    rng = stream(seed, "tuning")
    used = np.sort(rng.permutation(len(training))[: QUICK_RECORDS if quick else MOST_RECORDS])
    table = training.take(used)
    folds = _folds(table.labels, QUICK_FOLDS if quick else FOLDS, rng)
    settings: dict[str, Any] = {axis.setting: axis.values[0] for axis in candidate.axes}
    choices, steps = [], itertools.count(1)
    total = sum(len(axis.values) for axis in candidate.axes)
    for axis in candidate.axes:
        right = []
        for value in axis.values:
            tell(next(steps), total, f"choosing {axis.setting}")
            right.append(_out_of_fold(candidate, table, folds, {**settings, axis.setting: value}, seed))
        choice = _chosen(axis, right, len(table))
        settings[axis.setting] = choice.chosen
        choices.append(choice)
    return Tuned(settings=settings, choices=tuple(choices))


def _folds(labels: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``(records,)``: fold of each record, with the same mixture of classes in each."""
    order = np.lexsort((rng.random(len(labels)), labels))
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % count
    return folds


def _out_of_fold(
    candidate: Candidate, table: Table, folds: NDArray[np.int64], settings: dict[str, Any], seed: int
) -> int:
    """Records answered rightly by a model that did not learn from their fold."""
    right = 0
    for fold in np.unique(folds):
        held = folds == fold
        if held.all():
            continue
        model = candidate.fit(
            table.rows[~held], table.labels[~held], classes=len(table.label_values), seed=seed, settings=settings
        )
        right += int((model.labels(table.rows[held]) == table.labels[held]).sum())
    return right


def _chosen(axis: Axis, right: list[int], count: int) -> Choice:
    shares = np.array(right) / count
    best = int(shares.argmax())
    error = float(np.sqrt(shares[best] * (1 - shares[best]) / count))
    taken = int(np.flatnonzero(shares >= shares[best] - error)[0])
    measured = tuple(
        Alternative(value=value, accuracy=proportion(hits, count).metric("share"))
        for value, hits in zip(axis.values, right, strict=True)
    )
    why = (
        f"best out of fold ({shares[taken]:.3f})"
        if taken == best
        else f"simplest within one standard error ({error:.3f}) of the best, {axis.values[best]} ({shares[best]:.3f})"
    )
    return Choice(aspect=axis.aspect, setting=axis.setting, chosen=axis.values[taken], alternatives=measured, why=why)
