"""The process that holds a scikit-learn model: reads commands from a socket, answers with numbers.

Started by ``bartizan.adapters.sklearn`` through ``bartizan.targets.isolated``, which defines the
protocol; confined before this module is imported.
"""

from __future__ import annotations

import importlib
import io
import warnings
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from sklearn.exceptions import InconsistentVersionWarning

from bartizan.adapters import sklearn_structure
from bartizan.targets import slopes, structure
from bartizan.targets.host import Question, labels_of, rows_of
from bartizan.targets.hosting import Answer, Command, Refusal
from bartizan.targets.protocol import Loss
from bartizan.targets.structure import Structure

MAX_VALUE = 200
"""Longest text of one class value that is told."""


class Host:
    """The model, and those that were fitted like it."""

    def __init__(self) -> None:
        self.model: Any = None
        self.classes: NDArray[Any] = np.empty(0)
        self.models: dict[int, Any] = {}
        self.known: dict[int, Structure] = {}
        """What models are made of, for their slopes."""
        self.file = bytearray()
        self.arrays_of_structure = b""

    def dropping(self, command: Command[Question]) -> Command[Question]:
        """The command, after models that nobody needs any longer have been let go."""

        def answer(question: Question) -> Answer:
            for handle in question.drop:
                self.models.pop(handle, None)
                self.known.pop(handle, None)
            return command(question)

        return answer

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
        unread, smooth = sklearn_structure.readable(model), sklearn_structure.has_slopes(model)
        no_slopes = unread or "it is made of trees, which have no slopes to follow"
        self.model, self.classes = _single_threaded(model), np.asarray(model.classes_)
        self.models[0] = self.model
        facts = {
            "features": int(model.n_features_in_),
            "classes": len(self.classes),
            "values": [str(value)[:MAX_VALUE] for value in self.classes.tolist()],
            "scores": hasattr(model, "predict_proba"),
            "names": [str(name) for name in getattr(model, "feature_names_in_", ())],
            "training": True,
            "weights": not unread,
            "logits": smooth,
            "gradients": smooth,
            "lacks": {} if smooth else {"logits": no_slopes, "gradients": no_slopes},
        }
        return {"facts": facts}

    def labels(self, question: Question) -> Answer:
        """Class indices, ``(rows,)``."""
        return _places(self.classes, self.models[question.model].predict(self._rows(question))).tobytes()

    def scores(self, question: Question) -> Answer:
        """Probabilities, ``(rows, classes)``; 0 for classes that a model fitted later never saw."""
        model = self.models[question.model]
        answers = np.asarray(model.predict_proba(self._rows(question)), dtype=np.float64)
        scores = np.zeros((len(answers), len(self.classes)))
        scores[:, _places(self.classes, model.classes_)] = answers
        return scores.tobytes()

    def fit(self, question: Question) -> Answer:
        """Fit a clone of the pipeline to other data and keep it under the handle given."""
        labels = np.frombuffer(question.data, dtype="<i8", offset=len(question.data) - 8 * question.rows)
        model = clone(self.model)
        random = [name for name in model.get_params() if name.split("__")[-1] == "random_state"]
        model.set_params(**dict.fromkeys(random, question.seed))
        np.random.seed(question.seed)  # noqa: NPY002 - parts without a random_state draw from here
        self.models[question.model] = model.fit(self._rows(question), self.classes[labels])
        return {}

    def logits(self, question: Question) -> Answer:
        """Scores before the softmax, ``(rows, classes)``, of a model that is known as numbers."""
        known = self._known(question)
        return slopes.logits(known, rows_of(question, known.features)).tobytes()

    def gradients(self, question: Question) -> Answer:
        """Logits, and behind them the gradient of each row's loss, ``(rows, classes + features)``."""
        known = self._known(question)
        labels = labels_of(question, known.features)
        aimed = labels_of(question, known.features, place=1) if question.aimed else None
        rows = rows_of(question, known.features)
        return slopes.gradients(known, rows, Loss(question.loss), labels, aimed).tobytes()

    def structure(self, question: Question) -> Answer:
        """Read what a model is made of; its plan. The arrays are fetched next, with ``arrays``."""
        try:
            read = sklearn_structure.read(self.models[question.model])
        except sklearn_structure.Unreadable as reason:
            raise Refusal(str(reason)) from reason
        plan, self.arrays_of_structure = structure.pack(read)
        return {"facts": plan}

    def arrays(self, _: Question) -> Answer:
        """The arrays of the structure that was read last."""
        packed, self.arrays_of_structure = self.arrays_of_structure, b""
        return packed

    def _known(self, question: Question) -> Structure:
        if question.model not in self.known:
            self.known[question.model] = sklearn_structure.read(self.models[question.model])
        return self.known[question.model]

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


def commands() -> dict[str, Command[Question]]:
    """What this host can be asked; see ``bartizan.targets.hosting``."""
    host = Host()
    named: dict[str, Command[Question]] = {
        "keep": host.keep,
        "load": host.load,
        "labels": host.labels,
        "scores": host.scores,
        "fit": host.fit,
        "logits": host.logits,
        "gradients": host.gradients,
        "structure": host.structure,
        "arrays": host.arrays,
    }
    return {name: host.dropping(command) for name, command in named.items()}
