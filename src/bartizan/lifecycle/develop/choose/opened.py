"""Models that were made elsewhere, as candidates: asked in their isolated process, read as far as they can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bartizan.core.errors import WorkError
from bartizan.lifecycle.develop.choose.candidate import Axis, Facts, Interpretability, Supply
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target, Transparent
from bartizan.targets.structure import LEAF, LinearModel, TreeEnsemble

READABLE_WEIGHTS = 100
READABLE_LEAVES = 32


class Opened:
    """A target beside what could be read of it. See ``Fitted``."""

    def __init__(self, target: Target, size_bytes: int) -> None:
        self._target, self._size = target, size_bytes
        self.name = target.name
        self.classes = target.classes
        self.class_values = target.class_values
        self.features = target.features

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        return self._target.offers

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        return self._target.labels(rows)

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        return self._target.scores(rows)

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``."""
        return self._target.retrain(rows, labels, seed=seed)

    def structure(self) -> Any:
        """See ``Transparent.structure``."""
        if not isinstance(self._target, Transparent):
            raise WorkError(f"{self.name} does not show what it is made of")
        return self._target.structure()

    @property
    def facts(self) -> Facts:
        """See ``Fitted.facts``."""
        try:
            structure = self.structure()
        except WorkError:
            structure = None
        return facts_of_structure(structure, self._size)


def facts_of_structure(structure: Any, size_bytes: int) -> Facts:
    """What a structure tells; a model that cannot be read is a black box."""
    if isinstance(structure, LinearModel):
        count = int(np.count_nonzero(structure.weights)) + structure.bias.size
        few = count <= READABLE_WEIGHTS
        openness = Interpretability.GLASS_BOX if few else Interpretability.GREY_BOX
        return Facts(count, size_bytes, openness, f"{count} weights")
    if isinstance(structure, TreeEnsemble):
        return _trees(structure, size_bytes)
    return Facts(None, size_bytes, Interpretability.BLACK_BOX, "it could not be looked into")


def _trees(structure: TreeEnsemble, size_bytes: int) -> Facts:
    leaves, trees = int((structure.feature == LEAF).sum()), len(structure.roots)
    count = 2 * (len(structure.feature) - leaves) + leaves * max(1, structure.value.shape[1] - 1)
    if trees > 1:
        return Facts(count, size_bytes, Interpretability.BLACK_BOX, f"{trees} trees of {leaves} leaves together")
    openness = Interpretability.GLASS_BOX if leaves <= READABLE_LEAVES else Interpretability.GREY_BOX
    return Facts(count, size_bytes, openness, f"a tree of {leaves} leaves")


class GivenCandidate:
    """A model file as a candidate: it is taken as it is, and not tuned. See ``Candidate``."""

    axes: tuple[Axis, ...] = ()
    is_floor = False

    def __init__(self, name: str, title: str, supply: Supply, digest: str, opener: Callable[[], Opened]) -> None:
        self.name, self.title, self.supply = name, title, supply
        self._digest, self._opener = digest, opener
        self._opened: Opened | None = None

    def fingerprint(self) -> Any:
        """See ``Candidate.fingerprint``."""
        return self._digest

    def fit(self, rows: Rows, labels: Labels, *, classes: int, seed: int, settings: dict[str, Any]) -> Target:  # noqa: ARG002 - it was trained elsewhere
        """See ``Candidate.fit``: the model as it came."""
        if self._opened is None:
            self._opened = self._opener()
        if (self._opened.features, self._opened.classes) != (rows.shape[1], classes):
            raise WorkError(
                f"candidate {self.name!r} takes {self._opened.features} features and knows {self._opened.classes} "
                f"classes; the data have {rows.shape[1]} and {classes}",
                remedy="give a model that was made for these data.",
            )
        return self._opened
