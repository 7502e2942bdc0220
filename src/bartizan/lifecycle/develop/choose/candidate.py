"""The Candidate shape: a way to make a model from the declared training data, and what there is to know of it."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import msgspec

from bartizan.targets.protocol import Labels, Rows, Target


class Interpretability(enum.StrEnum):
    """How far a person can follow how a model comes to its answer (Lipton 2018, arXiv:1606.03490; Rudin 2019)."""

    GLASS_BOX = "glass-box"
    """The whole model can be read: few weights, or a tree that fits a page."""
    GREY_BOX = "grey-box"
    """Each answer can be traced to its parts, but nobody reads the whole."""
    BLACK_BOX = "black-box"
    """Answers can only be explained from outside, by approximation; also what could not be looked into."""

    @property
    def rank(self) -> int:
        """0 for the most open."""
        return list(Interpretability).index(self)


class Aspect(enum.StrEnum):
    """What is chosen when a model is made (each is recorded with its alternatives)."""

    ALGORITHM = "algorithm"
    """How it learns: the family, and where there are several, the solver or criterion."""
    ARCHITECTURE = "architecture"
    """Its shape: depth, number of trees, neighbours or units."""
    CONFIGURATION = "configuration"
    """How rows are prepared."""
    DATA = "data"
    """How many of the records it learns from."""
    HYPERPARAMETERS = "hyper-parameters"
    """The remaining dials, such as the strength of regularisation."""


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of a family with its alternatives, the simplest first."""

    aspect: Aspect
    setting: str
    """Name inside the family, such as ``tree.max_depth``."""
    values: tuple[Any, ...]
    """What it can be: numbers, text, or null for no limit."""


class Supply(msgspec.Struct, frozen=True, kw_only=True):
    """Where code and weights come from: what else has to be trusted when this model is used."""

    code: str
    """Packages with versions."""
    weights: str
    """Who made the weights from what."""
    kind: str = "trained here"
    """``trained here``, ``declared model``, ``file``."""
    risk: str = ""
    """What that brings with it, in one sentence."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What can be counted in a fitted model."""

    parameters: int | None
    """Numbers learnt from the data; None when the model could not be looked into."""
    size_bytes: int
    """Of its file, uncompressed."""
    interpretability: Interpretability
    why: str
    """Why it is of that class, in a few words."""


@runtime_checkable
class Fitted(Target, Protocol):
    """A target that was fitted here, or can otherwise be looked into."""

    @property
    def facts(self) -> Facts:
        """What there is to know of it."""


class Candidate(Protocol):
    """One way to make a model. Stateless."""

    @property
    def name(self) -> str:
        """Short and unique: ``logistic``, ``tree``."""

    @property
    def title(self) -> str:
        """For people."""

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Settings that are chosen on the training data; empty when nothing can be chosen."""

    @property
    def supply(self) -> Supply:
        """Where its code and weights come from."""

    @property
    def is_floor(self) -> bool:
        """Whether it learns nothing but the mixture of classes: what every model has to beat."""

    def fingerprint(self) -> Any:
        """What the model depends on beside data, settings and seed: versions, digest of a file."""

    def fit(self, rows: Rows, labels: Labels, *, classes: int, seed: int, settings: dict[str, Any]) -> Target:
        """A model from training rows ``(records, features)``; ``Fitted`` where it can be looked into."""


class Families(Protocol):
    """Service that names the families which the installed frameworks provide."""

    def candidates(self) -> Sequence[Candidate]:
        """All of them, the floor first and then by rising capacity."""
