"""Targets that classify strings: what an attack on a text filter can ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from bartizan.core.errors import WorkError
from bartizan.core.system import Artefact, System
from bartizan.targets.protocol import Scores


class TextTarget(Protocol):
    """A classifier of strings, in this process or behind a server."""

    @property
    def name(self) -> str:
        """Artefact id of the model."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    def scores(self, texts: Sequence[str]) -> Scores:
        """Probabilities of each text, ``(batch, classes)``; an interface that tells labels only answers 0 and 1."""


class TextTargets(Protocol):
    """Service that opens declared models of texts for use; see ``Targets``."""

    def open(self, system: System, model: Artefact) -> AbstractContextManager[TextTarget]:
        """Load the model in an isolated process, if its digest has a clean scan. Closed on exit."""


class CallableText:
    """Any function from a list of texts to scores ``(batch, classes)``, such as a pipeline's ``predict_proba``."""

    def __init__(self, function: Callable[[list[str]], Any], *, classes: int, name: str = "model:text") -> None:
        self._function, self.classes, self.name = function, classes, name

    def scores(self, texts: Sequence[str]) -> Scores:
        """See ``TextTarget.scores``.

        Raises:
            WorkError: the function answers something else.
        """
        if not texts:
            return np.empty((0, self.classes))
        answer = np.asarray(self._function(list(texts)), dtype=np.float64)
        if answer.shape != (len(texts), self.classes) or not np.isfinite(answer).all():
            raise WorkError(
                f"{self.name} answers {answer.shape} where finite scores ({len(texts)}, {self.classes}) are due",
                remedy="give a function that returns one row of class scores for each text.",
            )
        return answer
