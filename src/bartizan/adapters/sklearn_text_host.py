"""The process that holds a scikit-learn pipeline of texts: reads commands from a socket, answers with numbers.

Started by ``bartizan.adapters.sklearn_text`` through ``bartizan.targets.isolated``, which defines the
protocol; confined before this module is imported. Texts come as msgpack, a list of strings.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import joblib
import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import InconsistentVersionWarning

from bartizan.targets.hosting import Answer, Command, Refusal
from bartizan.targets.hosting import Question as AnyQuestion

MAX_VALUE = 200
"""Longest text of one class value that is told."""
PROBES = ["", "a", "hello, this is a text"]
_MATRIX = 2


class Question(AnyQuestion, kw_only=True):
    """One command. What follows it are texts, or a file."""

    texts: int = 0


class Host:
    """The pipeline."""

    def __init__(self) -> None:
        self.model: Any = None
        self.classes: NDArray[Any] = np.empty(0)
        self.file = bytearray()

    def keep(self, question: Question) -> Answer:
        """Take the model file. It is loaded only when the other side has seen that it is the right one."""
        self.file = question.data
        return {}

    def load(self, _: Question) -> Answer:
        """Unpickle the model file and say what is in it."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.model = joblib.load(io.BytesIO(self.file))
        self.file = bytearray()
        for warning in caught:
            if isinstance(warning.message, InconsistentVersionWarning):
                theirs, ours = warning.message.original_sklearn_version, warning.message.current_sklearn_version
                if theirs.split(".")[:2] != ours.split(".")[:2]:
                    raise Refusal(f"it was written by scikit-learn {theirs}, and {ours} is installed")
        self.classes = np.asarray(getattr(self.model, "classes_", ()))
        if self.classes.ndim != 1 or len(self.classes) < 2:  # noqa: PLR2004 - one class is no choice
            raise Refusal(
                f"it holds a {type(self.model).__name__}, which is no fitted classifier of one list of classes"
            )
        try:
            self._scores(PROBES)
        except Refusal:
            raise
        except Exception as error:
            raise Refusal(f"it does not take texts: {type(error).__name__}: {error}") from error
        values = [str(value)[:MAX_VALUE] for value in self.classes.tolist()]
        return {"facts": {"values": values, "scores": hasattr(self.model, "predict_proba")}}

    def scores(self, question: Question) -> Answer:
        """Scores ``(texts, classes)``; 0 and 1 where the pipeline tells classes only."""
        texts = msgspec.msgpack.decode(question.data, type=list[str])
        return self._scores(texts).tobytes()

    def _scores(self, texts: list[str]) -> NDArray[np.float64]:
        if hasattr(self.model, "predict_proba"):
            scores = np.asarray(self.model.predict_proba(texts), dtype="<f8")
        else:
            answers = np.asarray(self.model.predict(texts))
            scores = (answers[:, None] == self.classes[None, :]).astype("<f8")
        if scores.ndim != _MATRIX or scores.shape != (len(texts), len(self.classes)):
            raise Refusal(f"it answers {len(texts)} texts with {scores.shape}")
        return scores


def commands() -> dict[str, Command[Question]]:
    """What this host can be asked; see ``bartizan.targets.hosting``."""
    host = Host()
    return {"keep": host.keep, "load": host.load, "scores": host.scores}
