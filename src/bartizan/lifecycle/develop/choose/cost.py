"""Cost: size, parameters, how open the model is, and processor time for an answer."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from bartizan.core.predicates import Metric
from bartizan.lifecycle.develop.choose.candidate import Facts, Fitted, Interpretability
from bartizan.lifecycle.develop.choose.trial import Part, Trial
from bartizan.redteam.statistics import Interval, bootstrap, metric
from bartizan.targets.protocol import Rows, Target

REPEATS = 21
BATCH_ROWS = 1_000
ALONE_CALLS = 5
"""Calls timed together for a single row; the clock of a process is too coarse for one."""
MICRO = 1e6


class Cost:
    """See ``Column``. Times are of this machine and differ a little from run to run."""

    name = "cost"
    version = "1"
    title = "Size, parameters, interpretability, processor time"

    def measure(self, trial: Trial) -> Part:
        """See ``Column.measure``."""
        facts = facts_of(trial.target)
        rng, rows = trial.rng("cost"), trial.material.evaluation.rows
        batch = np.resize(rows, (min(BATCH_ROWS, max(len(rows), 100)), rows.shape[1]))
        metrics = {
            "microseconds_in_batch": _timed(trial.target, batch, len(batch), 1, rng),
            "microseconds_alone": _timed(trial.target, rows[:1], 1, ALONE_CALLS, rng),
        }
        if facts is None:
            return Part(metrics=metrics, details={"interpretability": Interpretability.BLACK_BOX, "why": UNREAD})
        exact = {"size_bytes": (facts.size_bytes, "bytes"), "parameters": (facts.parameters, "parameters")}
        for name, (value, unit) in exact.items():
            if value is not None:
                metrics[name] = metric(float(value), Interval(float(value), float(value)), 1, "counted", unit=unit)
        return Part(metrics=metrics, details={"interpretability": facts.interpretability, "why": facts.why})


UNREAD = "the model could not be looked into"


def facts_of(target: Target) -> Facts | None:
    """What there is to know of a target; None when it cannot be looked into."""
    return target.facts if isinstance(target, Fitted) else None


def _timed(target: Target, rows: Rows, answers: int, calls: int, rng: np.random.Generator) -> Metric:
    """Processor microseconds of this process for one answer: median over repeats.

    A model in another process costs its own time there; then what is seen here is what waiting costs.
    """
    target.labels(rows)
    spent = []
    for _ in range(REPEATS):
        began = time.process_time()
        for _ in range(calls):
            target.labels(rows)
        spent.append((time.process_time() - began) / (answers * calls) * MICRO)
    values = np.array(spent)
    return metric(_median(values), bootstrap(values, _median, rng), REPEATS, "bootstrap", unit="microseconds")


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values))
