"""The process that holds an ONNX model: answers by ONNX Runtime, gradients by a network of ours that must agree.

Both are asked about the same rows before a gradient is told: where their logits are further apart than rounding
explains, there is none.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.targets.host import (
    PROBES,
    TINY,
    Question,
    are_probabilities,
    labels_of,
    library,
    numbers,
    packed,
    probes,
    rows_of,
)
from bartizan.targets.hosted import BATCH
from bartizan.targets.hosting import Answer, Command, Refusal
from bartizan.targets.protocol import Loss

APART = 1e-3
"""Largest difference of logits that is taken for rounding, for each unit of the largest logit, and at least once."""
COMPARED = 16
"""Rows of each question for gradients that are compared."""
_MATRIX = 2
WITHOUT_TORCH = "Gradients of ONNX models need torch, which is not installed here: pip install 'bartizan[torch]'"
NO_SCORES = "It answers labels, and no probabilities beside them"


class Host:
    """One session."""

    def __init__(self) -> None:
        self.file = bytearray()
        self.session: Any = None
        self.graph: Any = None
        self.answers: Any = None
        self.feed: Any = None
        self.classes = self.features = 0
        self.kind = "<f4"
        self.probable = False
        self.network: Any = None
        self.apart = 0.0

    def keep(self, question: Question) -> Answer:
        """Take the model file. It is loaded only when the other side has seen that it is the right one."""
        self.file = question.data
        return {}

    def load(self, question: Question) -> Answer:
        """Load the model file and say what is in it."""
        reader = library("bartizan.adapters.onnx.graph", "bartizan[onnx]")
        feeding = library("bartizan.adapters.onnx.feeding", "bartizan[onnx]")
        data, self.file = bytes(self.file), bytearray()
        self.graph = reader.Graph(reader.read(data))
        self.feed = feeding.feed_of(self.graph, question.features, tuple(question.shape))
        self.features, self.kind = question.features, "<f8" if self.feed.double else "<f4"
        self.answers = self.graph.answers(question.classes)
        self.session = _session(self.graph.exposed(self.answers.before, self.answers.layer))
        self.classes = len(self.answers.values) or question.classes
        self._look()
        return {"facts": self._facts()}

    def _facts(self) -> dict[str, Any]:
        lacks = {"training": "An ONNX file does not say how the model was trained"}
        if not self.answers.numbers:
            lacks |= dict.fromkeys(("scores", "logits", "gradients"), NO_SCORES)
        elif fault := self._why_no_gradients():
            lacks["gradients"] = fault
        return {
            "features": self.features,
            "classes": self.classes,
            "values": [str(value)[:200] for value in self.answers.values],
            "scores": bool(self.answers.numbers),
            "names": self.feed.names,
            "logits": bool(self.answers.numbers),
            "gradients": "gradients" not in lacks,
            "width": self._width(),
            "single": not self.feed.double,
            "shape": self.feed.shape,
            "lacks": lacks,
        }

    def _look(self) -> None:
        """Ask about a few rows, to see what the answers look like."""
        answers, rows = self.answers, probes(self.features)
        if not answers.numbers:
            return
        found = self._run([answers.numbers], rows)[answers.numbers]
        found = found.reshape(len(found), -1)
        self.probable = answers.last == "Softmax" or (not answers.last and are_probabilities(found))
        if found.shape[1] == 1 and answers.last == "Sigmoid" and self.classes == 2:  # noqa: PLR2004 - yes or no
            return
        if not answers.labels and found.shape[1] == 1:
            raise Refusal(
                "it answers one number for each row, and it is not said where one class ends; end in a Sigmoid"
            )
        if not answers.labels and answers.last == "Sigmoid":
            raise Refusal("its answers end in a Sigmoid for each class, which are no probabilities of one class")
        if found.shape[1] != self.classes and not answers.labels:
            raise Refusal(f"it answers {found.shape[1]} numbers for each row, and {self.classes} classes are declared")
        # Numbers beside labels are scores only when they are probabilities; alone they are logits.
        if answers.labels and (found.shape[1] != self.classes or not (self.probable or answers.last == "LogSoftmax")):
            self.answers = type(answers)(answers.labels, answers.values, "", "", "", "")

    def _why_no_gradients(self) -> str:
        slopes = library("bartizan.adapters.onnx.slopes", "bartizan[onnx]")
        fault: str = slopes.why_none(self.graph.model, self._source())
        return fault or ("" if find_spec("torch") else WITHOUT_TORCH)

    def _source(self) -> str:
        """The tensor that logits are made of."""
        answers = self.answers
        return str(answers.before if answers.last in {"Softmax", "Sigmoid"} else answers.numbers)

    def _width(self) -> int:
        if not self.answers.layer:
            return 0
        found = self._run([self.answers.layer], probes(self.features))[self.answers.layer]
        return int(found.shape[1]) if found.ndim == _MATRIX and len(found) == PROBES else 0

    # ---- answers

    def labels(self, question: Question) -> Answer:
        """Class indices, ``(rows,)``."""
        rows, answers = rows_of(question, self.features, self.kind), self.answers
        if not answers.labels:
            return packed(self._logits(rows).argmax(axis=1), "<i8")
        found = self._run([answers.labels], rows)[answers.labels].reshape(-1)
        return packed(self._places(found, len(rows)), "<i8")

    def scores(self, question: Question) -> Answer:
        """Probabilities, ``(rows, classes)``."""
        rows, answers = rows_of(question, self.features, self.kind), self.answers
        if self.probable:
            found = self._run([answers.numbers], rows)[answers.numbers].astype(np.float64)
        else:
            logits = self._logits(rows).astype(np.float64)
            powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
            found = powers / powers.sum(axis=1, keepdims=True)
        return packed(numbers(found), "<f8")

    def logits(self, question: Question) -> Answer:
        """Scores before the softmax, ``(rows, classes)``."""
        return packed(self._logits(rows_of(question, self.features, self.kind)), self.kind)

    def activations(self, question: Question) -> Answer:
        """What the last linear layer is given, ``(rows, width)``."""
        layer = self.answers.layer
        found = self._run([layer], rows_of(question, self.features, self.kind))[layer]
        return packed(numbers(found), self.kind)

    def gradients(self, question: Question) -> Answer:
        """Logits, and behind them the gradient of each row's loss, ``(rows, classes + features)``."""
        if self.network is None:
            self.network = self._network()
        rows = rows_of(question, self.features, self.kind)
        labels = labels_of(question, self.features, self.kind)
        aimed = labels_of(question, self.features, self.kind, 1) if question.aimed else None
        answer = self.network.gradients(rows, Loss(question.loss), labels, aimed)
        self._compare(answer[:COMPARED, : self.classes], rows[:COMPARED])
        return packed(numbers(answer), self.kind)

    def disagreement(self, _: Question) -> Answer:
        """Largest difference seen between logits of the network and of ONNX Runtime."""
        return {"facts": self.apart}

    def _logits(self, rows: NDArray[np.floating]) -> NDArray[np.floating]:
        source = self._source()
        return numbers(_finished(self._run([source], rows)[source], self.probable, self.answers.last, np))

    def _compare(self, ours: NDArray[Any], rows: NDArray[np.floating]) -> None:
        if not len(rows):
            return
        theirs = self._logits(rows)
        size = 1.0 if self.probable and not self.answers.last else max(1.0, float(np.abs(theirs).max()))
        if self.probable and not self.answers.last:
            ours, theirs = np.exp(ours), np.exp(theirs)
        apart = float(np.abs(ours - theirs).max())
        if not apart <= APART * size:
            raise Refusal(
                f"its gradients are not known: what torch computes from its graph is {apart:.3g} away from what ONNX "
                "Runtime answers"
            )
        self.apart = max(self.apart, apart)

    def _places(self, found: NDArray[Any], count: int) -> NDArray[np.int64]:
        """Class indices of labels as the model calls them."""
        if len(found) != count:
            raise Refusal(f"it answers {count} rows with {len(found)} labels")
        values = self.answers.values
        if not values:
            return found.astype(np.int64)
        known = {value: place for place, value in enumerate(values)}
        names, inverse = np.unique(found, return_inverse=True)
        if odd := [name for name in names.tolist() if name not in known]:
            raise Refusal(f"it answers with a class {str(odd[0])[:60]!r} that it does not name")
        return np.array([known[name] for name in names.tolist()], dtype=np.int64)[inverse]

    def _run(self, names: list[str], rows: NDArray[np.floating]) -> dict[str, NDArray[Any]]:
        """Tensors by name, for all rows."""
        parts: list[list[NDArray[Any]]] = []
        size = self.feed.batch or BATCH
        for start in range(0, max(len(rows), 1), size):
            part = rows[start : start + size]
            found = self.session.run(names, self.feed.arrays(part))
            if any(array.ndim == 0 or len(array) < len(part) for array in found):
                raise Refusal(f"it answers {len(part)} rows with something else than one answer for each")
            parts.append([array[: len(part)] for array in found])
        return {name: np.concatenate([part[place] for part in parts]) for place, name in enumerate(names)}

    def _network(self) -> Any:
        """The graph as a target that torch differentiates."""
        torch = library("torch", "bartizan[torch]")
        torch.set_num_threads(1)
        network = library("bartizan.adapters.onnx.network", "bartizan[torch]")
        probable, last = self.probable, self.answers.last
        module = network.Network(
            self.graph,
            self._source(),
            self.feed.tensors,
            lambda found: _finished(found, probable, last, torch),
            self.feed.batch,
        )
        return network.target_of(module, self.features, self.classes)


def _finished(found: Any, probable: bool, last: str, library: Any) -> Any:
    """Logits of what stands before the last step, or of probabilities where no last step is known."""
    found = found.reshape(len(found), math.prod(found.shape[1:]))
    if last == "Sigmoid":
        return library.concatenate([library.zeros_like(found), found], 1)
    if probable and not last:
        return library.log(found.clip(TINY, math.inf))
    return found


def _session(data: bytes) -> Any:
    runtime = library("onnxruntime", "bartizan[onnx]")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    try:
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        said = str(error).split("\n", 1)[0][:300]
        raise Refusal(f"ONNX Runtime does not load it ({said})") from error


def commands() -> dict[str, Command[Question]]:
    """What this host can be asked; see ``bartizan.targets.hosting``."""
    host = Host()
    return {
        "keep": host.keep,
        "load": host.load,
        "labels": host.labels,
        "scores": host.scores,
        "logits": host.logits,
        "activations": host.activations,
        "gradients": host.gradients,
        "disagreement": host.disagreement,
    }
