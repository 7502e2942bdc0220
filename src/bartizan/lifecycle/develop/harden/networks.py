"""Adversarial training of networks: defences for a base that knows how to train itself so.

Madry et al. 2018 (arXiv:1706.06083), TRADES (Zhang et al. 2019, arXiv:1901.08573), single-step training from a
random start (Wong et al. 2020, arXiv:2001.03994) or with the gradients of training itself (Shafahi et al. 2019,
arXiv:1904.12843), and label smoothing (Szegedy et al. 2016, arXiv:1512.00567),
which is regularisation: what looks like robustness after it is mostly masked gradients.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from bartizan.redteam.family import Material
from bartizan.targets.protocol import Labels, Rows, Target

SMOOTHING = 0.1
EPSILON = 1.0
DELTA = 1e-5
"""Chance with which the promise of DP-SGD may fail; far below one over the number of records."""
WORDS = {
    "pgd": ("Madry's adversarial training", "Madry et al. 2018, arXiv:1706.06083"),
    "trades": ("TRADES", "Zhang et al. 2019, arXiv:1901.08573"),
    "fast": ("Fast adversarial training (FGSM, random start)", "Wong et al. 2020, arXiv:2001.03994"),
    "free": ("Free adversarial training", "Shafahi et al. 2019, arXiv:1904.12843"),
    "smooth-labels": ("Label smoothing", "Szegedy et al. 2016, arXiv:1512.00567"),
}
"""Way of training to its title and source."""


@runtime_checkable
class TrainsItself(Target, Protocol):
    """A target that can be trained in several ways."""

    def trained_by(self, way: str, rows: Rows, labels: Labels, *, max_change: float, seed: int) -> Target:
        """The same network, trained by a way of ``WORDS`` against changes of standard deviations (Linf)."""

    def why_not_privately(self) -> str:
        """Why it cannot be trained privately, in one sentence; empty when it can."""

    def trained_privately(
        self, rows: Rows, labels: Labels, *, ranges: tuple[Rows, Rows], epsilon: float, seed: int
    ) -> Target:
        """The same network, trained with differential privacy; ``Promising``."""


class NetworkTraining:
    """One way to train the network. See ``Defence``."""

    kind, credit = "training", True

    def __init__(self, way: str) -> None:
        self.way = self.name = way
        self.title, source = WORDS[way]
        self.references: tuple[str, ...] = (source,)

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {"way": self.way}

    def why_not(self, base: Target, material: Material) -> str:
        """See ``Defence.why_not``."""
        del material
        return "" if isinstance(base, TrainsItself) else "the model is no torch network; use --base torch."

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        assert isinstance(base, TrainsItself)  # noqa: S101 - why_not was asked
        training, change = material.training, material.settings.max_change
        return base.trained_by(
            self.way, training.rows, training.labels, max_change=change, seed=int(rng.integers(2**31))
        )


class PrivateTraining:
    """Train the network with differential privacy (DP-SGD). See ``Defence``."""

    kind, credit = "training", True
    references: tuple[str, ...] = (
        "Abadi et al. 2016, Deep learning with differential privacy, arXiv:1607.00133",
        "Yousefpour et al. 2021, Opacus, arXiv:2109.12298",
    )

    def __init__(self, epsilon: float = EPSILON) -> None:
        self.epsilon = epsilon
        self.name = "dp-sgd" if epsilon == EPSILON else f"dp-sgd-{epsilon:g}"
        self.title = f"DP-SGD (epsilon {epsilon:g})"

    def settings(self) -> dict[str, Any]:
        """See ``Defence.settings``."""
        return {"epsilon": self.epsilon, "delta": DELTA, "mechanism": "DP-SGD"}

    def why_not(self, base: Target, material: Material) -> str:
        """See ``Defence.why_not``."""
        if not isinstance(base, TrainsItself):
            return "the model is no torch network; use --base torch."
        if len(material.training) * DELTA >= 1:
            return f"of {len(material.training)} records, a delta of {DELTA:g} may give some away."
        return base.why_not_privately()

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """See ``Defence.apply``."""
        assert isinstance(base, TrainsItself)  # noqa: S101 - why_not was asked
        training, ranges = material.training, (material.space.low, material.space.high)
        seed = int(rng.integers(2**31))
        return base.trained_privately(training.rows, training.labels, ranges=ranges, epsilon=self.epsilon, seed=seed)
