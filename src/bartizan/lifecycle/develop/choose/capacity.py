"""Capacity against data: parameters against records, rules of thumb, and a learning curve.

Rules of thumb are stated as such: they say where to look, not what is so. Ten records for each
parameter comes from regression (Peduzzi et al. 1996, doi:10.1016/S0895-4356(96)00236-3, events for each
variable); a thousand records of each class comes from image classification.
"""

from __future__ import annotations

import numpy as np

from bartizan.lifecycle.develop.choose.cost import facts_of
from bartizan.lifecycle.develop.choose.trial import Part, Trial
from bartizan.redteam.family import Point
from bartizan.redteam.statistics import Interval, crossed, metric
from bartizan.targets.protocol import Access, Labels

SHARES = (0.125, 0.25, 0.5, 1.0)
REPEATS, QUICK_REPEATS = 5, 3
RECORDS_PER_PARAMETER = 10.0
RECORDS_PER_CLASS = 1_000


class Capacity:
    """See ``Column``."""

    name = "capacity"
    version = "1"
    title = "Capacity against data size, with a learning curve"

    def measure(self, trial: Trial) -> Part:
        """See ``Column.measure``."""
        training, facts = trial.material.training, facts_of(trial.target)
        counts = np.bincount(training.labels, minlength=trial.target.classes)
        metrics, rules = {}, [_rule("1,000 records of each class", RECORDS_PER_CLASS, float(counts.min()))]
        if facts is not None and facts.parameters is not None:
            ratio = len(training) / max(1, facts.parameters)
            metrics["records_per_parameter"] = metric(ratio, Interval(ratio, ratio), len(training), "counted")
            rules.append(_rule("10 records for each parameter (1 in 10)", RECORDS_PER_PARAMETER, ratio))
        if Access.TRAINING not in trial.target.offers:
            return Part(metrics=metrics, details={"rules_of_thumb": rules, "records": len(training)})
        curve = learning_curve(trial)
        details = {"rules_of_thumb": rules, "records": len(training), "still_rising": _rising(curve)}
        return Part(metrics=metrics, curves={"accuracy_by_records": curve}, details=details)


def _rule(rule: str, needed: float, found: float) -> dict[str, object]:
    return {"rule": rule, "needed": needed, "found": float(f"{found:.3g}"), "met": found >= needed}


def learning_curve(trial: Trial) -> tuple[Point, ...]:
    """Accuracy on the evaluation records after learning from growing shares of the training records.

    Intervals cover other draws of the shares as well as other evaluation records.
    """
    rng, points = trial.rng("learning-curve"), []
    repeats = QUICK_REPEATS if trial.quick else REPEATS
    for step, share in enumerate(SHARES):
        right = [_learnt(trial, share, rng) for _ in range(1 if share == 1 else repeats)]
        accuracy = crossed(np.array(right), (0.0, 1.0)).metric()
        trial.tell(step + 1, len(SHARES), "learning curve")
        records = round(share * len(trial.material.training))
        points.append(Point(float(records), accuracy.value, accuracy.low, accuracy.high))
    return tuple(points)


def _learnt(trial: Trial, share: float, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    training, evaluation = trial.material.training, trial.material.evaluation
    chosen = some_of_each(training.labels, share, rng)
    seed = int(rng.integers(2**31))
    model = trial.target.retrain(training.rows[chosen], training.labels[chosen], seed=seed)
    right: np.ndarray[tuple[int], np.dtype[np.float64]] = (model.labels(evaluation.rows) == evaluation.labels) * 1.0
    return right


def some_of_each(labels: Labels, share: float, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Places of a random share of each class, at least two records of each that has them."""
    chosen = []
    for kind in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == kind))
        chosen.append(places[: max(2, round(share * len(places)))])
    return np.sort(np.concatenate(chosen))


def _rising(curve: tuple[Point, ...]) -> bool:
    """Whether the last doubling of the data surely helped: the intervals do not even touch."""
    return curve[-1].low > curve[-2].high
