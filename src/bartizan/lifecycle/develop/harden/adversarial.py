"""Adversarial training for any model that can be trained again: learn from the rows that fooled it.

In each round the model is attacked on training rows, and what fooled it is added with the true labels
(Szegedy et al. 2014, arXiv:1312.6199; for trees Kantchelian et al. 2016, arXiv:1509.07892). The attack
needs labels only, so that no gradient has to be had and none can be masked.

It helps some models (boosted trees, forests a little) and harms others: a single tree, which has no room
for both the rows and what fooled it, comes out weaker more often than not. Hence the measurements after it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bartizan.lifecycle.develop.harden.defence import Wrapped
from bartizan.redteam.attacks.evasion.hopskipjump import HopSkipJump
from bartizan.redteam.family import Material
from bartizan.redteam.play import play, task_of
from bartizan.targets.feasible import Space
from bartizan.targets.protocol import Access, Labels, Rows, Target

ROUNDS = 2
QUERIES = 200
"""For each row."""
MOST_ROWS = 300
"""Rows attacked in a round."""


class Adversarial(Wrapped):
    """A model trained with the rows that fooled its predecessors."""

    def __init__(self, inner: Target, space: Space, max_change: float) -> None:
        super().__init__(inner)
        self._space, self._max_change = space, max_change

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``: with attacks of its own."""
        trained = trained_with_attacks(
            self.inner, rows, labels, space=self._space, max_change=self._max_change, seed=seed
        )
        return Adversarial(trained, self._space, self._max_change)


def trained_with_attacks(
    base: Target, rows: Rows, labels: Labels, *, space: Space, max_change: float, seed: int
) -> Target:
    """A model of the same kind on the rows and on what fooled it, over some rounds."""
    rng = np.random.default_rng(seed)
    model = base.retrain(rows, labels, seed=seed)
    more_rows, more_labels = [rows], [labels]
    for _ in range(ROUNDS):
        chosen = rng.permutation(len(rows))[:MOST_ROWS]
        task = task_of(
            rows[chosen],
            labels[chosen],
            space=space,
            classes=base.classes,
            max_change=max_change,
            budget=QUERIES,
            starts=(rows, labels),
        )
        found = play(model, HopSkipJump(), task, seed=int(rng.integers(2**31)))
        # The closest row that fools lies on the boundary; a step out to what an adversary may do teaches more.
        direction = found.rows - task.rows
        reach = np.where(found.change > 0, max_change / np.maximum(found.change, 1e-12), 1.0)
        fooled = np.isfinite(found.change) & (found.change <= max_change)
        outermost = space.project(task.rows + direction * reach[:, None], task.rows, np.full(len(chosen), max_change))
        more_rows.append(outermost[fooled])
        more_labels.append(task.labels[fooled])
        model = base.retrain(np.concatenate(more_rows), np.concatenate(more_labels), seed=seed)
    return model


class AdversarialTraining:
    """See the file's own words."""

    name, title, kind, credit = "adversarial", "Trained with rows that fooled it", "training", True
    references: tuple[str, ...] = (
        "Szegedy et al. 2014, Intriguing properties of neural networks, arXiv:1312.6199",
        "Kantchelian et al. 2016, Evasion and hardening of tree ensemble classifiers, arXiv:1509.07892",
    )

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {"rounds": ROUNDS, "queries": QUERIES, "rows": MOST_ROWS}

    def why_not(self, base: Target, material: Material) -> str:
        """See ``Defence.why_not``."""
        del material
        return "" if Access.TRAINING in base.offers else "the model cannot be trained again."

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        training, space, change = material.training, material.space, material.settings.max_change
        unfitted = Adversarial(base, space, change)
        return unfitted.retrain(training.rows, training.labels, seed=int(rng.integers(2**31)))
