"""Memorisation: whether training leaves canaries behind, measured as exposure and as a lower bound of epsilon.

The attack designs the canaries; this family tosses the coins that decide which are trained on,
trains models with them, and asks. What was left out is the yardstick, drawn like what was put in.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.core.finding import Finding, Severity
from bartizan.redteam import audit, statistics
from bartizan.redteam.attack import Attack, Fit, Request
from bartizan.redteam.engine import Run
from bartizan.redteam.family import Case, Material, Measurement, Measuring, Point, ask
from bartizan.redteam.ledger import Budget
from bartizan.redteam.membership import HEADLINE, RULES, Shadows, chance_of, edge_of, logits
from bartizan.redteam.privacy_tasks import Canaries, CanaryTask
from bartizan.redteam.statistics import Estimate
from bartizan.targets.protocol import Access

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

COUNT = 128
"""Canaries; with fewer, exposure ends at fewer bits."""
LEAST_RUNS = 8
"""Models for each number of copies."""
COPIES = (1, 4, 16)
"""How often a canary is put in; once is what the privacy of one record speaks of."""
MAX_RECORDS = 4_000
"""Training records that canaries are mixed into; more are thinned out."""
GUESSED = (0.05, 0.15, 0.4, 1.0)
"""Shares of the canaries on which the audit guesses, settled in advance."""
UNINFORMED = 1 / np.log(2)
"""Bits of exposure that a canary has on average when nothing was learnt: the mean of ``-log2`` of a uniform number."""
SEVERITIES = ((4.0, Severity.HIGH), (1.0, Severity.MEDIUM), (0.3, Severity.LOW))
"""Bits of exposure of single records above chance, at the lower end of the interval."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What must be drawn after the canaries are designed."""

    attack: Attack
    runs: int
    """Models for each number of copies; half of them calibrate the audit."""
    model: str


class Memorisation:
    """See ``Family``."""

    name = "privacy"
    settings: tuple[str, ...] = ("seed", "shadow_models")

    def __init__(
        self,
        *,
        claimed_epsilon: float | None = None,
        delta: float = 0.0,
        copies: Sequence[int] = COPIES,
        count: int = COUNT,
    ) -> None:
        """``claimed_epsilon`` and ``delta``: what training promises; a bound above them is a finding."""
        self.claimed_epsilon, self.delta, self.count = claimed_epsilon, delta, count
        self.copies = tuple(dict.fromkeys((1, *copies)))

    def case(self, attack: Attack, material: Material, rng: np.random.Generator) -> Case:
        """The training records, thinned out, to design canaries for.

        Raises:
            ArtefactError: there are fewer records than canaries.
        """
        table = material.training.take(np.sort(rng.permutation(len(material.training))[:MAX_RECORDS]))
        if len(table) < self.count:
            raise ArtefactError(
                f"{len(table)} training records are too few for {self.count} canaries",
                remedy="give more training records, or measure with fewer canaries.",
            )
        task = CanaryTask(table.rows, table.labels, len(material.model.classes), material.space, self.count)
        runs = max(LEAST_RUNS, material.settings.shadow_models // 4 * 2)
        return Case(
            task=task,
            budget=Budget(samples=1, per_sample=0),
            truth=Trial(attack, runs, material.model.name),
            knowledge="puts own records among the training data, and asks the model about them afterwards",
            settings={
                "canaries": self.count,
                "models_for_each_number_of_copies": runs,
                "training_records": len(table),
                "delta": self.delta,
            },
        )

    def measure(self, case: Case, run: Run, rng: np.random.Generator) -> Measuring:
        """Exposure for each number of copies, and the audit for single records."""
        trial: Trial = case.truth
        canaries = _checked(trial, case.task, run)
        exposures: dict[int, Estimate] = {}
        bound = (0.0, 0, 0)
        for copies in self.copies:
            inside = _coins(trial.runs, len(canaries.labels), rng)
            fits = [_with(case.task, canaries, put, copies, int(rng.integers(2**31))) for put in inside]
            confidence = yield from _learnt(trial, canaries, fits)
            exposures[copies] = _exposure(confidence, inside)
            if copies == 1:
                bound = _audit(confidence, inside, self.delta)
        return self._measurement(trial, exposures, bound)

    def _measurement(self, trial: Trial, exposures: dict[int, Estimate], bound: tuple[float, int, int]) -> Measurement:
        epsilon, right, guesses = bound
        share = statistics.proportion(right, guesses)
        low = statistics.Interval(epsilon, audit.LARGEST_EPSILON)
        metrics = {
            "exposure_bits": exposures[1].metric("bit"),
            "epsilon_lower_bound": statistics.metric(epsilon, low, guesses, "Steinke et al. 2023, one-sided"),
            "canary_guesses_right": share.metric(),
        }
        curve = tuple(Point(c, e.value, e.interval.low, e.interval.high) for c, e in sorted(exposures.items()))
        return Measurement(
            summary=f"A record put into the training data once is exposed by {_words(exposures[1])}, of which "
            f"{UNINFORMED:.2f} come by chance; training gives away epsilon of at least {epsilon:.2f} (95 %).",
            metrics=metrics,
            curves={"exposure_by_copies": curve},
            tables={"audit": {"right": right, "guesses": guesses, "claimed_epsilon": self.claimed_epsilon}},
            findings=(*_remembered(trial, exposures[1]), *self._broken(trial, epsilon)),
        )

    def _broken(self, trial: Trial, epsilon: float) -> tuple[Finding, ...]:
        """A finding when the claim is refuted."""
        if self.claimed_epsilon is None or epsilon <= self.claimed_epsilon:
            return ()
        return (
            Finding(
                rule="redteam/privacy-claim-refuted",
                severity=Severity.CRITICAL,
                title=f"training promises epsilon {self.claimed_epsilon:g} and gives away at least {epsilon:.2f}",
                where=trial.model,
                detail="Canaries were recognised more often than the promise allows, at 95 % confidence.",
                remedy="look for noise that is not added, clipping that is not done by record, "
                "a data pass that the accountant does not know, or a seed that is known.",
            ),
        )


def _checked(trial: Trial, task: CanaryTask, run: Run) -> Canaries:
    """The canaries, when they are what was asked for."""
    canaries = run.candidates
    if not isinstance(canaries, Canaries):
        raise WorkError(f"{trial.attack.name} stopped before it was done: {run.stopped or 'no candidates'}")
    fits = canaries.rows.shape == (task.count, task.rows.shape[1]) and canaries.labels.shape == (task.count,)
    if not fits or not np.isfinite(canaries.rows).all() or not np.isin(canaries.labels, np.arange(task.classes)).all():
        raise WorkError(f"{trial.attack.name} designed canaries that are no labelled rows")
    return canaries


def _coins(runs: int, count: int, rng: np.random.Generator) -> Flags:
    """``(runs, count)``: complementary halves in the first half of the runs, fair coins in the audited second."""
    pairs = _calibrating(runs) // 2
    halves = rng.permuted(np.tile(np.arange(count) % 2 == 0, (pairs, 1)), axis=1)
    coins = rng.random((runs - 2 * pairs, count)) < 0.5  # noqa: PLR2004 - fair
    return np.concatenate([np.stack([halves, ~halves], axis=1).reshape(2 * pairs, count), coins])


def _learnt(trial: Trial, canaries: Canaries, fits: Sequence[Fit]) -> Generator[Request, Any, Floats]:
    """``(runs, count)``: how sure each model is of the label of each canary, as logits.

    What draws them in is learnt from the models that calibrate: the scores of one audited model must not
    rest on another.
    """
    models, chances = [], []
    for fit in fits:
        models.append((yield fit))  # noqa: PERF401 - a comprehension cannot yield
    for model in models:
        answer = yield ask(canaries.rows, model=model, scores=Access.SCORES in trial.attack.needs)
        chances.append(chance_of(answer, canaries.labels))
    chance = np.array(chances)
    return logits(chance, edge_of(chance[: _calibrating(len(chance))]))


def _calibrating(runs: int) -> int:
    """How many models, the first ones, calibrate the audit of the others."""
    return runs // 4 * 2


def _with(task: CanaryTask, canaries: Canaries, put: Flags, copies: int, seed: int) -> Fit:
    """The training records, and so many copies of the canaries that were put in."""
    rows = np.concatenate([task.rows, np.repeat(canaries.rows[put], copies, axis=0)])
    return Fit(rows, np.concatenate([task.labels, np.repeat(canaries.labels[put], copies)]), seed)


def _exposure(confidence: Floats, inside: Flags) -> Estimate:
    """Mean bits of exposure of what was put in (Carlini et al. 2019); the runs are what was drawn.

    Exposure is ``log2`` of the number of ranks over the rank among the canaries left out of the same
    model. Ties take the middle of their ranks.
    """
    means = []
    for sure, put in zip(confidence, inside, strict=True):
        if put.all() or not put.any():
            continue
        others = np.sort(sure[~put])
        above = len(others) - np.searchsorted(others, sure[put], side="right")
        equal = np.searchsorted(others, sure[put], side="right") - np.searchsorted(others, sure[put], side="left")
        means.append(float(np.mean(np.log2((len(others) + 1) / (1 + above + equal / 2)))))
    return _mean_over_runs(np.array(means))


def _mean_over_runs(values: Floats) -> Estimate:
    without = (values.sum() - values) / max(1, len(values) - 1)
    interval = statistics.jackknife(float(values.mean()), without)
    return Estimate(float(values.mean()), interval, len(values), "jackknife over models")


def _audit(confidence: Floats, inside: Flags, delta: float) -> tuple[float, int, int]:
    """The bound from the second half of the runs, with rules learnt from the first half."""
    half = _calibrating(len(inside))
    known = Shadows(confidence[:half], inside[:half])
    scores = np.array([RULES[HEADLINE](known, sure) for sure in confidence[half:]])
    return audit.best_bound(scores, inside[half:], GUESSED, delta)


def _words(exposure: Estimate) -> str:
    return f"{exposure.value:.2f} bits ({exposure.interval.low:.2f} to {exposure.interval.high:.2f})"


def _remembered(trial: Trial, exposure: Estimate) -> tuple[Finding, ...]:
    """A finding when single records are surely learnt by heart."""
    above = exposure.interval.low - UNINFORMED
    severity = next((level for least, level in SEVERITIES if above >= least), None)
    if severity is None:
        return ()
    return (
        Finding(
            rule="redteam/memorisation",
            severity=severity,
            title=f"a record seen once is exposed by {exposure.value:.1f} bits",
            where=trial.model,
            detail=f"{_words(exposure)} over {exposure.n} models; {UNINFORMED:.2f} bits come by chance.",
            remedy="regularise, remove duplicates, stop earlier, or train with differential privacy.",
        ),
    )
