"""Defences that make the model smaller: fewer features, a pruned model, a smaller one that imitates it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.develop.choose.candidate import Facts, Interpretability
from bartizan.lifecycle.develop.harden.defence import Wrapped
from bartizan.redteam import learners
from bartizan.redteam.family import Material
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target

KEPT_FEATURES = 0.5
"""Share of the features that stays."""
SHUFFLES = 5
"""Times that a feature is shuffled to see how much the model needs it."""
STUDENT = learners.Learner("linear", 1e-3)
READABLE_WEIGHTS = 100
_BYTES = 8


@runtime_checkable
class Prunable(Target, Protocol):
    """A target that knows how to be pruned."""

    def why_not_pruned(self) -> str:
        """Why it cannot be, in one sentence; empty when it can."""

    def pruned(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """The same, pruned; ``rows`` and ``labels`` are the training data. Its ``retrain`` prunes too."""


class Prune:
    """Prune: cost-complexity for a tree, fewer and shallower trees for a forest, small weights of a network."""

    name, title, kind, credit = "prune", "Pruned", "pruning", True
    references: tuple[str, ...] = (
        "Breiman et al. 1984, Classification and Regression Trees",
        "Han et al. 2015, Learning both weights and connections, arXiv:1506.02626",
    )

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {}

    def why_not(self, base: Target, material: Material) -> str:
        """See ``Defence.why_not``."""
        del material
        if not isinstance(base, Prunable):
            return "the model could not be looked into; name a family with --base."
        return base.why_not_pruned()

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        assert isinstance(base, Prunable)  # noqa: S101 - why_not was asked
        return base.pruned(material.training.rows, material.training.labels, seed=int(rng.integers(2**31)))


class FewerColumns(Wrapped):
    """A model that is given some of the columns only."""

    def __init__(self, inner: Target, columns: NDArray[np.int64], features: int) -> None:
        super().__init__(inner)
        self.columns = columns
        self.features = features

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        return self.inner.labels(rows[:, self.columns])

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        return self.inner.scores(rows[:, self.columns])

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``: the columns stay those that were chosen."""
        return FewerColumns(self.inner.retrain(rows[:, self.columns], labels, seed=seed), self.columns, self.features)


class Features:
    """Keep the features that the model needs most; what it does not see cannot be used against it."""

    name, title, kind, credit = "features", f"The {KEPT_FEATURES:.0%} of features it needs most", "pruning", True
    references: tuple[str, ...] = ("Breiman 2001, Random forests, section 10 (permutation importance)",)

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {"kept": KEPT_FEATURES}

    def why_not(self, base: Target, material: Material) -> str:
        """See ``Defence.why_not``."""
        if Access.TRAINING not in base.offers or not isinstance(base, Prunable):
            return "the model cannot be trained on other columns; name a family with --base."
        return "there is one feature only." if len(material.training.columns) == 1 else ""

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        training = material.training
        need = importance(base, training.rows, training.labels, rng)
        count = max(1, round(KEPT_FEATURES * len(need)))
        columns = np.sort(np.argsort(-need, kind="stable")[:count])
        inner = base.retrain(training.rows[:, columns], training.labels, seed=int(rng.integers(2**31)))
        return FewerColumns(inner, columns, len(need))


def importance(base: Target, rows: Rows, labels: Labels, rng: np.random.Generator) -> NDArray[np.float64]:
    """``(features,)``: accuracy lost on held-out training records when a feature is shuffled."""
    order = rng.permutation(len(rows))
    held, kept = order[: max(2, len(rows) // 3)], order[max(2, len(rows) // 3) :]
    model = base.retrain(rows[kept], labels[kept], seed=int(rng.integers(2**31)))
    right = float((model.labels(rows[held]) == labels[held]).mean())
    lost = np.zeros(rows.shape[1])
    for feature in range(rows.shape[1]):
        shuffled = rows[held].copy()
        for _ in range(SHUFFLES):
            shuffled[:, feature] = rng.permutation(shuffled[:, feature])
            lost[feature] += (right - float((model.labels(shuffled) == labels[held]).mean())) / SHUFFLES
    return lost


class Imitation(Wrapped):
    """A small model that answers like a larger one that nobody needs any longer."""

    def __init__(self, teacher: Target, student: learners.Model, numbers: int) -> None:
        super().__init__(teacher)
        self._student, self._numbers = student, numbers

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        return frozenset({Access.LABELS, Access.SCORES, Access.TRAINING})

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        labels: Labels = self.scores(rows).argmax(axis=1).astype(np.int64)
        return labels

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        return self._student(rows)

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``: teacher, then student."""
        return imitated(self.inner.retrain(rows, labels, seed=seed), rows, np.random.default_rng(seed))

    @property
    def facts(self) -> Facts:
        """See ``Fitted.facts``: those of the student."""
        glass = self._numbers <= READABLE_WEIGHTS
        openness = Interpretability.GLASS_BOX if glass else Interpretability.GREY_BOX
        return Facts(self._numbers, _BYTES * self._numbers, openness, f"{self._numbers} weights")


def imitated(teacher: Target, rows: Rows, rng: np.random.Generator) -> Imitation:
    """A linear student of the teacher's probabilities on its training rows."""
    student = STUDENT.fit(rows, teacher.scores(rows), rng)
    return Imitation(teacher, student, (rows.shape[1] + 1) * teacher.classes)


class Distil:
    """Distil the model into a linear one that learns from its probabilities.

    It makes the model smaller and easier to read. It is no defence against evasion: Carlini and
    Wagner 2017 (arXiv:1608.04644) broke defensive distillation.
    """

    name, title, kind, credit = "distil", "Distilled into a linear model", "pruning", True
    references: tuple[str, ...] = ("Hinton et al. 2015, Distilling the knowledge in a network, arXiv:1503.02531",)

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {"student": STUDENT.kind, "penalty": STUDENT.penalty}

    def why_not(self, base: Target, material: Material) -> str:
        """See ``Defence.why_not``."""
        del material
        missing = {Access.SCORES, Access.TRAINING} - base.offers
        return f"the model does not offer {', '.join(sorted(missing))}." if missing else ""

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        return imitated(base, material.training.rows, rng)
