"""The process that holds a scikit-learn model: reads commands from a socket, answers with numbers.

Started by ``bartizan.adapters.sklearn`` through ``bartizan.targets.isolated``, which defines the
protocol. It is the only place where a model file is unpickled.
"""

from __future__ import annotations

import importlib
import io
import os
import resource
import socket
import sys
import warnings
from collections.abc import Callable
from typing import Any

import joblib
import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from sklearn.exceptions import InconsistentVersionWarning

LENGTH = 4
MAX_FILES = 64


MAX_VALUE = 200
"""Longest text of one class value that is told."""


class Refusal(Exception):  # noqa: N818 - it becomes an answer, not an error of this process
    """What was asked cannot be done; the message goes back."""


class Question(msgspec.Struct, kw_only=True):
    """One command."""

    do: str
    bytes: int
    """How much follows."""
    rows: int = 0
    model: int = 0
    """Handle: 0 is the declared model."""
    seed: int = 0
    drop: tuple[int, ...] = ()
    """Handles that are no longer needed."""
    data: bytearray = msgspec.field(default_factory=bytearray)
    """What followed: rows, then labels; or a file."""


Answer = dict[str, Any] | NDArray[Any]


class Host:
    """The model, and those that were fitted like it."""

    def __init__(self) -> None:
        self.model: Any = None
        self.classes: NDArray[Any] = np.empty(0)
        self.models: dict[int, Any] = {}
        self.file = bytearray()

    def keep(self, question: Question) -> Answer:
        """Take the model file. It is loaded only when the other side has seen that it is the right one."""
        self.file = question.data
        return {}

    def load(self, _: Question) -> Answer:
        """Unpickle the model file and say what is in it."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = joblib.load(io.BytesIO(self.file))
        self.file = bytearray()
        _check_version(caught)
        if not is_classifier(model) or not hasattr(model, "classes_"):
            raise Refusal(f"it holds a {type(model).__name__}, which is no fitted scikit-learn classifier")
        if np.ndim(model.classes_) != 1 or not hasattr(model, "n_features_in_"):
            raise Refusal(f"its {type(model).__name__} does not say its one list of classes and number of features")
        self.model, self.classes = _single_threaded(model), np.asarray(model.classes_)
        self.models[0] = self.model
        facts = {
            "features": int(model.n_features_in_),
            "classes": len(self.classes),
            "values": [str(value)[:MAX_VALUE] for value in self.classes.tolist()],
            "scores": hasattr(model, "predict_proba"),
            "names": [str(name) for name in getattr(model, "feature_names_in_", ())],
        }
        return {"facts": facts}

    def labels(self, question: Question) -> Answer:
        """Class indices, ``(rows,)``."""
        return _places(self.classes, self.models[question.model].predict(self._rows(question)))

    def scores(self, question: Question) -> Answer:
        """Probabilities, ``(rows, classes)``; 0 for classes that a model fitted later never saw."""
        model = self.models[question.model]
        answers = np.asarray(model.predict_proba(self._rows(question)), dtype=np.float64)
        scores = np.zeros((len(answers), len(self.classes)))
        scores[:, _places(self.classes, model.classes_)] = answers
        return scores

    def fit(self, question: Question) -> Answer:
        """Fit a clone of the pipeline to other data and keep it under the handle given."""
        labels = np.frombuffer(question.data, dtype="<i8", offset=len(question.data) - 8 * question.rows)
        model = clone(self.model)
        random = [name for name in model.get_params() if name.split("__")[-1] == "random_state"]
        model.set_params(**dict.fromkeys(random, question.seed))
        np.random.seed(question.seed)  # noqa: NPY002 - parts without a random_state draw from here
        self.models[question.model] = model.fit(self._rows(question), self.classes[labels])
        return {}

    def _rows(self, question: Question) -> Any:
        """The rows as an array, or as a table when the model was fitted to one with named columns."""
        shape = question.rows, int(self.model.n_features_in_)
        rows = np.frombuffer(question.data, dtype="<f8", count=shape[0] * shape[1]).reshape(shape)
        names = getattr(self.model, "feature_names_in_", None)
        if names is None:
            return rows
        try:
            return importlib.import_module("pandas").DataFrame(rows, columns=names)
        except ImportError:
            return rows


def _check_version(caught: list[warnings.WarningMessage]) -> None:
    """Refuse a model that another minor version wrote: it may load and then answer wrongly."""
    for warning in caught:
        if isinstance(warning.message, InconsistentVersionWarning):
            theirs, ours = warning.message.original_sklearn_version, warning.message.current_sklearn_version
            if theirs.split(".")[:2] != ours.split(".")[:2]:
                raise Refusal(f"it was written by scikit-learn {theirs}, and {ours} is installed")


def _single_threaded(model: Any) -> Any:
    """The model with one thread: this process may start no other."""
    names = [name for name in model.get_params() if name.split("__")[-1] == "n_jobs"]
    return model.set_params(**dict.fromkeys(names, 1))


def _places(classes: NDArray[Any], values: NDArray[Any]) -> NDArray[np.int64]:
    """Index in ``classes``, which are sorted, of each value."""
    places = np.minimum(np.searchsorted(classes, values), len(classes) - 1)
    if not (classes[places] == values).all():
        raise Refusal("the model answers with a class that it does not know")
    return places.astype("<i8")


def serve(channel: socket.socket) -> None:
    """Answer until the other side hangs up."""
    host = Host()
    commands = {"keep": host.keep, "load": host.load, "labels": host.labels, "scores": host.scores, "fit": host.fit}
    decoder = msgspec.msgpack.Decoder(Question)
    while head := _read(channel, LENGTH):
        question = decoder.decode(_read(channel, int.from_bytes(head, "big")))
        question.data = _read(channel, question.bytes)
        for handle in question.drop:
            host.models.pop(handle, None)
        reply, body = _answer(commands[question.do], question)
        packed = msgspec.msgpack.encode(reply)
        channel.sendall(len(packed).to_bytes(LENGTH, "big") + packed)
        channel.sendall(body)


def _answer(command: Callable[[Question], Answer], question: Question) -> tuple[dict[str, Any], bytes]:
    try:
        answer = command(question)
    except MemoryError:
        return {"error": "memory"}, b""
    except Refusal as refusal:
        return {"error": "refused", "what": str(refusal)}, b""
    except Exception as error:  # noqa: BLE001 - whatever a model raises is an answer
        return {"error": "failed", "what": f"{type(error).__name__}: {error}"}, b""
    return (answer, b"") if isinstance(answer, dict) else ({}, answer.tobytes())


def _read(channel: socket.socket, size: int) -> bytearray:
    """So many bytes; none when the other side has hung up."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = channel.recv_into(view)
        if not count:
            return bytearray()
        view = view[count:]
    return data


def main(memory: int, seconds: int) -> None:
    """Take over the socket, accept the limits, and serve."""
    channel = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    for kind, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, MAX_FILES),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    warnings.simplefilter("ignore")
    serve(channel)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
