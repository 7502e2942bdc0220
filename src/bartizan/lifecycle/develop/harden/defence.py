"""The Defence shape, and a defended model as a candidate that is measured like any other."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from bartizan.lifecycle.develop.choose.candidate import Axis, Candidate, Facts, Fitted, Interpretability, Supply
from bartizan.redteam.family import Material
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target


class Defence(Protocol):
    """One way to harden a model. Stateless: what it needs comes with ``apply``."""

    name: str
    """Short and unique: ``quantise``, ``private``."""
    title: str
    kind: str
    """``pruning``, ``training``, ``input``, ``output``, ``data``, ``redundancy``."""
    credit: bool
    """Whether it may count as preventing anything at all, if the measurements say so."""
    references: tuple[str, ...]

    def settings(self) -> dict[str, Any]:
        """Its dials, for the statement and for what a kept measurement rests on."""

    def why_not(self, base: Target, material: Material) -> str:
        """Why it does not apply, in one sentence; empty when it does."""

    def apply(self, base: Target, material: Material, rng: np.random.Generator) -> Target:
        """The defended model. ``base`` was fitted to the training data; ``retrain`` gives others like it."""


class Wrapped:
    """A target around another one; subclasses change what goes in, what comes out, or how it is trained."""

    def __init__(self, inner: Target) -> None:
        self.inner = inner
        self.name = inner.name
        self.classes = inner.classes
        self.class_values = inner.class_values
        self.features = inner.features

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``: no more than labels, scores and training come through."""
        return self.inner.offers & {Access.LABELS, Access.SCORES, Access.TRAINING}

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        return self.inner.labels(rows)

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        return self.inner.scores(rows)

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``: the defence is trained along."""
        return type(self)(self.inner.retrain(rows, labels, seed=seed))

    @property
    def facts(self) -> Facts:
        """See ``Fitted.facts``: those of the model inside."""
        return facts_of_inner(self.inner)


def facts_of_inner(inner: Target) -> Facts:
    """Facts of a target, as far as there are any."""
    if isinstance(inner, Fitted):
        return inner.facts
    return Facts(None, 0, Interpretability.BLACK_BOX, "it could not be looked into")


class Defended:
    """A base candidate with a defence. See ``Candidate``."""

    axes: tuple[Axis, ...] = ()
    is_floor = False

    def __init__(self, base: Base, defence: Defence) -> None:
        self.base, self.defence = base, defence
        self.name = f"{base.name}+{defence.name}"
        self.title = defence.title

    @property
    def supply(self) -> Supply:
        """See ``Candidate.supply``."""
        return self.base.supply

    def fingerprint(self) -> Any:
        """See ``Candidate.fingerprint``."""
        return [self.base.fingerprint(), self.defence.name, self.defence.settings()]

    def fit(self, rows: Rows, labels: Labels, *, classes: int, seed: int, settings: dict[str, Any]) -> Target:
        """See ``Candidate.fit``."""
        inner = self.base.fit(rows, labels, classes=classes, seed=seed, settings=settings)
        return self.defence.apply(inner, self.base.material, np.random.default_rng(seed))


class Base:
    """What is hardened: a candidate with the settings that were chosen for it, fitted once. See ``Candidate``."""

    axes: tuple[Axis, ...] = ()
    is_floor = False

    def __init__(self, candidate: Candidate, material: Material, settings: dict[str, Any]) -> None:
        self.candidate, self.material, self._settings = candidate, material, settings
        self.name, self.title = candidate.name, f"{candidate.title}, undefended"
        self._fitted: Target | None = None

    @property
    def supply(self) -> Supply:
        """See ``Candidate.supply``."""
        return self.candidate.supply

    def fingerprint(self) -> Any:
        """See ``Candidate.fingerprint``."""
        return [self.candidate.fingerprint(), self._settings]

    def fit(self, rows: Rows, labels: Labels, *, classes: int, seed: int, settings: dict[str, Any]) -> Target:
        """See ``Candidate.fit``."""
        del settings
        if self._fitted is None:
            self._fitted = self.candidate.fit(rows, labels, classes=classes, seed=seed, settings=self._settings)
        return self._fitted

    def target(self) -> Target:
        """The undefended model."""
        training, material = self.material.training, self.material
        seed = material.settings.seed % 2**32
        return self.fit(training.rows, training.labels, classes=len(material.model.classes), seed=seed, settings={})
