"""The audit: a lower bound of the epsilon that training really has, beside the one that it promises.

Canaries are mixed into the training data by fair coins; how many coins can be guessed from the models refutes every
epsilon that would not allow it (Steinke et al. 2023, arXiv:2305.08846). A bound above the promise says that the
mechanism is broken. A bound below it proves nothing: a better attack may raise it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from bartizan.core.errors import ArtefactError
from bartizan.lifecycle.develop.choose.contest import contest
from bartizan.lifecycle.develop.choose.trial import Part, Trial
from bartizan.redteam.attacks.privacy.canaries import Mislabelled, MislabelledFromLabels
from bartizan.redteam.canaries import Memorisation
from bartizan.targets.protocol import Access, Target


@dataclass(frozen=True, slots=True)
class Promise:
    """What training promises: (epsilon, delta)-differential privacy for one record."""

    epsilon: float
    delta: float = 0.0


@runtime_checkable
class Promising(Target, Protocol):
    """A target whose training promises differential privacy."""

    @property
    def promise(self) -> Promise:
        """What is promised."""


class Audit:
    """See ``Column``."""

    name = "audit"
    version = "1"
    title = "Epsilon that training was seen to give away"

    def measure(self, trial: Trial) -> Part:
        """See ``Column.measure``."""
        if Access.TRAINING not in trial.target.offers:
            return Part(missing="the model cannot be trained again with canaries.")
        promise = trial.target.promise if isinstance(trial.target, Promising) else None
        family = Memorisation(
            claimed_epsilon=promise.epsilon if promise else None, delta=promise.delta if promise else 0.0, copies=(1,)
        )
        try:
            played = contest(trial.target, family, [Mislabelled(), MislabelledFromLabels()], trial.material, trial.tell)
        except ArtefactError as error:
            return Part(missing=error.message)
        measured = played.measured
        bound = measured.metrics["epsilon_lower_bound"]
        said = {"epsilon": promise.epsilon, "delta": promise.delta} if promise else None
        return Part(
            metrics={name: measured.metrics[name] for name in ("epsilon_lower_bound", "exposure_bits")},
            details={"promised": said, "kept": bound.value <= promise.epsilon if promise else None},
        )
