"""Randomised smoothing: the answer that wins under Gaussian noise, with a radius in which it provably stands.

Cohen et al. 2019, Certified adversarial robustness via randomized smoothing, arXiv:1902.02918. Noise has
the same size in standard deviations for each feature, and so have the radii (L2). The base model is
trained on noisy rows, as there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.lifecycle.develop.choose.trial import Part, Trial
from bartizan.lifecycle.develop.harden.defence import Wrapped
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.family import Material, Point
from bartizan.redteam.play import play, task_of
from bartizan.redteam.statistics import clopper_pearson, proportion
from bartizan.targets.feasible import TOLERANCE
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target

NOISE = 0.5
"""Standard deviation of the noise, in standard deviations of the features."""
COPIES = 32
"""Noisy copies behind an everyday answer."""
TRAINING_COPIES = 8
"""Noisy copies of each training row."""
CHOOSING, PROVING, FAILURE = 64, 1_000, 0.001
"""Copies that choose the class and that prove it (Cohen: 100, 100000), and the chance that a certificate is wrong."""
MOST_ROWS = 100
MARKS = 11
MOST_AT_ONCE = 1 << 16
"""Noisy rows asked in one call."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is proved about rows, ``(batch,)`` each."""

    labels: Labels
    """The class that is proved; -1 where the vote was too close to say."""
    radius: NDArray[np.float64]
    """L2, in standard deviations; 0 where nothing is proved."""


class Smoothed(Wrapped):
    """The vote of a model over noisy copies of a row. The noise of a row depends on the row and the seed alone."""

    def __init__(self, inner: Target, scale: Rows, seed: int, noise: float = NOISE) -> None:
        super().__init__(inner)
        self._scale, self._seed, self.noise = scale, seed, noise

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``: shares of votes are scores."""
        return (self.inner.offers & {Access.TRAINING}) | {Access.LABELS, Access.SCORES}

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        labels: Labels = self.votes(rows, COPIES).argmax(axis=1).astype(np.int64)
        return labels

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``: shares of the votes."""
        scores: Scores = self.votes(rows, COPIES) / COPIES
        return scores

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``: on noisy rows."""
        rng = np.random.default_rng(seed)
        noisy = np.repeat(rows, TRAINING_COPIES, axis=0)
        noisy = noisy + rng.normal(0, self.noise, noisy.shape) * self._scale
        inner = self.inner.retrain(noisy, np.repeat(labels, TRAINING_COPIES), seed=seed)
        return Smoothed(inner, self._scale, self._seed, self.noise)

    def votes(self, rows: Rows, copies: int, purpose: str = "answer") -> NDArray[np.int64]:
        """How many of the noisy copies get each class, ``(batch, classes)``."""
        counts = np.zeros((len(rows), self.classes), np.int64)
        together = max(1, MOST_AT_ONCE // copies)
        for start in range(0, len(rows), together):
            part = rows[start : start + together]
            noise = np.concatenate([self._draw(row, copies, purpose) for row in part])
            noisy = np.repeat(part, copies, axis=0) + noise * self._scale
            answers = self.inner.labels(noisy).reshape(len(part), copies)
            for kind in range(self.classes):
                counts[start : start + together, kind] = (answers == kind).sum(axis=1)
        return counts

    def _draw(self, row: Rows, copies: int, purpose: str) -> NDArray[np.float64]:
        """Noise ``(copies, features)`` of one row: others for other rows, so that nobody can learn it."""
        said = hashlib.sha256(f"{self._seed} {purpose} ".encode() + np.ascontiguousarray(row).tobytes()).digest()
        return np.random.default_rng(np.frombuffer(said, np.uint32)).normal(0, self.noise, (copies, len(row)))

    def certify(self, rows: Rows) -> Certificate:
        """Classes and radii that hold with probability ``1 - FAILURE`` for each row (Cohen et al. 2019, CERTIFY)."""
        chosen = self.votes(rows, CHOOSING, "choose").argmax(axis=1)
        hits = self.votes(rows, PROVING, "prove")[np.arange(len(rows)), chosen]
        # One-sided at FAILURE is the lower end of a two-sided interval at 1 - 2 FAILURE.
        least = np.array([clopper_pearson(int(count), PROVING, 1 - 2 * FAILURE).low for count in hits])
        sure = least > 0.5  # noqa: PLR2004 - a majority
        radius = np.where(sure, self.noise * scipy.stats.norm.ppf(np.where(sure, least, 0.5)), 0.0)
        return Certificate(np.where(sure, chosen, -1).astype(np.int64), radius)


class Smoothing:
    """See the file's own words."""

    name, title, kind, credit = "smoothing", f"Randomised smoothing (noise {NOISE:g})", "input", True
    references: tuple[str, ...] = (
        "Cohen et al. 2019, Certified adversarial robustness via randomized smoothing, arXiv:1902.02918",
    )

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {"noise": NOISE, "copies": COPIES, "proving_copies": PROVING, "failure": FAILURE}

    def why_not(self, base: Target, material: Material) -> str:
        """See ``Defence.why_not``."""
        if Access.TRAINING not in base.offers:
            return "the model cannot be trained again on noisy rows."
        space = material.space
        if space.categorical.any() or space.integer.any():
            return "some columns hold categories or whole numbers, which Gaussian noise makes impossible."
        return ""

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        training = material.training
        unfitted = Smoothed(base, material.space.scale, int(rng.integers(2**31)))
        return unfitted.retrain(training.rows, training.labels, seed=int(rng.integers(2**31)))


class Certified:
    """The proved share of right answers over the radius, beside the share that an attack left. See ``Column``."""

    name = "certified"
    version = "1"
    title = "Certified against attacked accuracy (L2)"

    def measure(self, trial: Trial) -> Part:
        """See ``Column.measure``."""
        if not isinstance(trial.target, Smoothed):
            return Part(missing="nothing is proved about this model.")
        evaluation = trial.material.evaluation
        chosen = np.sort(trial.rng("certified").permutation(len(evaluation))[:MOST_ROWS])
        rows, labels = evaluation.rows[chosen], evaluation.labels[chosen]
        proof = trial.target.certify(rows)
        proved = np.where(proof.labels == labels, proof.radius, -1.0)
        attacked = _least_change(trial, rows, labels)
        marks = np.linspace(0, max(float(proved.max()), TOLERANCE), MARKS)
        headline = proportion(int((proved >= marks[MARKS // 2]).sum()), len(proved)).metric("share")
        return Part(
            metrics={"certified_accuracy": headline},
            curves={
                "certified_accuracy_by_radius": _curve(marks, [proved >= mark for mark in marks]),
                "attacked_accuracy_by_change": _curve(marks, [attacked > mark for mark in marks]),
            },
            details={
                "radius": float(f"{marks[MARKS // 2]:.4g}"),
                "chance_that_a_certificate_is_wrong": FAILURE,
                "abstained": int((proof.labels < 0).sum()),
                "certified_but_broken": int(((proved > 0) & (attacked < proved)).sum()),
                "linf": "a radius r in L2 covers changes of r / sqrt(features) in each feature",
            },
        )


def _least_change(trial: Trial, rows: Rows, labels: Labels) -> NDArray[np.float64]:
    """``(rows,)``: smallest L2 change that an attack found; 0 for rows answered wrongly from the start."""
    material = trial.material
    task = task_of(
        rows,
        labels,
        space=material.space,
        classes=trial.target.classes,
        max_change=np.inf,
        norm=2,
        budget=material.settings.query_budget,
        starts=(material.training.rows, material.training.labels),
    )
    found = play(trial.target, HopSkipJump(), task, seed=material.settings.seed, progress=trial.tell)
    least: NDArray[np.float64] = np.where(found.clean == labels, found.change, 0.0)
    return least


def _curve(marks: NDArray[np.float64], flags: Sequence[NDArray[np.bool_]]) -> tuple[Point, ...]:
    points = []
    for mark, each in zip(marks.tolist(), flags, strict=True):
        share = proportion(int(each.sum()), len(each)).metric()
        points.append(Point(float(f"{mark:.6g}"), share.value, share.low, share.high))
    return tuple(points)
