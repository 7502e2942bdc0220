"""What upstreams that classify are asked, and what of their answers can be true.

Open Inference Protocol v2 with JSON or binary tensors (https://github.com/kserve/open-inference-protocol), and the
scoring protocol of MLflow. An answer is hostile input: wrong shapes, numbers that are none, classes that there are
not, and scores that contradict the label beside them are failures with a name, never a result (CWE-20).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.lifecycle.deploy.gateway.guard import Answer, Numbers
from bartizan.lifecycle.deploy.gateway.upstream.port import UpstreamError
from bartizan.lifecycle.deploy.gateway.upstream.settings import UpstreamSettings

LABEL_NAMES = ("label", "labels", "class", "predict", "prediction", "output_label")
SCORE_NAMES = ("scores", "probabilities", "probability", "predict_proba", "output_probability")
DTYPES = {
    "FP64": "<f8",
    "FP32": "<f4",
    "FP16": "<f2",
    "INT64": "<i8",
    "INT32": "<i4",
    "INT16": "<i2",
    "INT8": "i1",
    "UINT64": "<u8",
    "UINT32": "<u4",
    "UINT16": "<u2",
    "UINT8": "u1",
}
SLACK = 0.01
"""How far a row of probabilities may be from summing to 1, for each class: what rounding does."""
MOST_SIDES = 2
NOISE = 1e-6
"""What single precision leaves of a 0."""
_UNREADABLE = (msgspec.DecodeError, RecursionError, ValueError, OverflowError, TypeError, LookupError)


class _Output(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw = msgspec.Raw()
    parameters: dict[str, Any] = {}


class _Response(msgspec.Struct, frozen=True):
    outputs: list[_Output]


class _Input(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: list[int] = []


class _Metadata(msgspec.Struct, frozen=True):
    inputs: list[_Input]


class _Predictions(msgspec.Struct, frozen=True):
    predictions: msgspec.Raw


_RESPONSE = msgspec.json.Decoder(_Response)
_METADATA = msgspec.json.Decoder(_Metadata)
_PREDICTIONS = msgspec.json.Decoder(_Predictions)
_FLOATS = msgspec.json.Decoder(list[float])
_FLOAT_ROWS = msgspec.json.Decoder(list[list[float]])
_NAMED = msgspec.json.Decoder(list[dict[str, float]])
_PLAIN = msgspec.json.Decoder(list[str | int | float])
_PLAIN_ROWS = msgspec.json.Decoder(list[list[str | int | float]])
_ENCODER = msgspec.json.Encoder()


# ---- what is asked


def takes(metadata: bytes, settings: UpstreamSettings) -> tuple[str, str]:
    """Name and datatype of the input, as declared or else as the model's metadata says.

    Raises:
        UpstreamError: it is no metadata, or the model takes something else than one tensor of real numbers.
    """
    try:
        inputs = _METADATA.decode(metadata).inputs
    except _UNREADABLE as error:
        raise UpstreamError("wrong", "its metadata is not that of a model") from error
    fitting = [item for item in inputs[:16] if settings.input in {"", item.name}]
    if len(fitting) != 1 or not 0 < len(fitting[0].name) <= 255:  # noqa: PLR2004 - as long as a declared one may be
        raise UpstreamError("wrong", "it does not take exactly one such input: name it")
    datatype = settings.datatype or fitting[0].datatype
    if datatype not in {"FP32", "FP64"}:
        raise UpstreamError("wrong", "its input is neither FP32 nor FP64: declare which to send")
    return fitting[0].name, datatype


def question(rows: Numbers, name: str, datatype: str, *, binary: bool) -> tuple[bytes, int]:
    """An inference request and the length of its JSON; 0 when it is nothing but JSON."""
    tensor: dict[str, Any] = {"name": name, "shape": list(rows.shape), "datatype": datatype}
    if not binary:
        return _ENCODER.encode({"inputs": [{**tensor, "data": rows.ravel().tolist()}]}), 0
    data = np.ascontiguousarray(rows, dtype=DTYPES[datatype]).tobytes()
    head = _ENCODER.encode(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}],
            "parameters": {"binary_data_output": True},
        }
    )
    return head + data, len(head)


def scoring(rows: Numbers, columns: Sequence[str]) -> bytes:
    """A request to ``/invocations``: a table with named columns, or a bare tensor."""
    if columns:
        return _ENCODER.encode({"dataframe_split": {"columns": columns, "data": rows.tolist()}})
    return _ENCODER.encode({"inputs": rows.tolist()})


# ---- what is answered


class AnswerReader:
    """Reads answers of one upstream about one set of classes."""

    def __init__(self, settings: UpstreamSettings, classes: Sequence[str]) -> None:
        self._settings, self._count = settings, len(classes)
        self._classes = tuple(classes)
        self._known = {name: index for index, name in enumerate(classes)}
        self._numeric = all(name.lstrip("-").isdigit() for name in classes)
        self._label_names = (settings.labels,) if settings.labels else LABEL_NAMES
        self._score_names = (settings.scores,) if settings.scores else SCORE_NAMES

    def tensors(self, body: bytes, head: int, rows: int) -> Answer:
        """An inference response; ``head`` is the length of its JSON, 0 when there is nothing else.

        Raises:
            UpstreamError: it cannot be true.
        """
        try:
            outputs = _RESPONSE.decode(body[:head] if head else body).outputs
        except _UNREADABLE as error:
            raise UpstreamError("wrong", "its answer is no inference response") from error
        if not 0 < len(outputs) <= 64:  # noqa: PLR2004 - no classifier has more
            raise UpstreamError("wrong", "its answer has no outputs, or too many")
        arrays = _Arrays(outputs, body[head:] if head else b"", rows)
        scores, labels = arrays.first(self._score_names), arrays.first(self._label_names)
        if scores is None and labels is None and not (self._settings.scores or self._settings.labels):
            labels, scores = self._by_form(arrays.any())
        return self._answer(labels, scores, rows)

    def predictions(self, body: bytes, rows: int) -> Answer:
        """An answer of ``/invocations``.

        Raises:
            UpstreamError: it cannot be true.
        """
        try:
            data = _PREDICTIONS.decode(body).predictions
            labels, scores = self._plain(data)
        except _UNREADABLE as error:
            raise UpstreamError("wrong", "its answer has no predictions of one kind") from error
        return self._answer(labels, scores, rows)

    def _plain(self, data: msgspec.Raw) -> tuple[Any, Any]:
        inner = bytes(data)[1:].lstrip()[:1]
        if inner == b"{":
            return None, self._spread(_NAMED.decode(data))
        if inner != b"[":
            return self._by_form(np.array(_PLAIN.decode(data), dtype=object))
        try:
            return self._by_form(np.array(_FLOAT_ROWS.decode(data), dtype=np.float64))
        except msgspec.ValidationError:
            return self._by_form(np.array(_PLAIN_ROWS.decode(data), dtype=object))

    def _spread(self, listed: list[dict[str, float]]) -> NDArray[np.float64]:
        """Scores by name of class: every class in every row."""
        if any(row.keys() != self._known.keys() for row in listed):
            raise UpstreamError("wrong", "its predictions do not score exactly the declared classes")
        return np.array([[row[name] for name in self._classes] for row in listed], dtype=np.float64)

    def _by_form(self, array: NDArray[Any]) -> tuple[Any, Any]:
        """Whether an array holds classes or scores: whole numbers and names are classes."""
        if array.ndim == MOST_SIDES and array.shape[1] == self._count and array.dtype.kind == "f":
            return None, array
        flat = array.ravel() if array.ndim < MOST_SIDES or array.shape[1] == 1 else array
        if array.dtype.kind == "f" and not np.equal(np.floor(flat), flat).all():
            return None, flat.reshape(-1, 1)
        return flat, None

    def _answer(self, labels: Any, scores: Any, rows: int) -> Answer:
        sound = None if scores is None else self._scores(np.asarray(scores), rows)
        if labels is None:
            if sound is None:
                raise UpstreamError("wrong", "its answer has neither labels nor scores by a known name")
            return Answer(sound.argmax(axis=1), sound, "upstream")
        found = self._labels(np.asarray(labels), rows)
        if sound is not None and (sound[np.arange(rows), found] + NOISE < sound.max(axis=1)).any():
            raise UpstreamError("wrong", "its scores contradict the label beside them")
        return Answer(found, sound, "upstream")

    def _labels(self, given: NDArray[Any], rows: int) -> NDArray[np.int64]:
        if given.size != rows or given.ndim > MOST_SIDES:
            raise UpstreamError("wrong", f"it answers {rows} rows with {given.size} labels")
        return np.fromiter((self._index(item) for item in given.ravel().tolist()), dtype=np.int64, count=rows)

    def _index(self, label: Any) -> int:
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        named = self._known.get(label if isinstance(label, str) else str(label))
        if named is not None:
            return named
        if self._numeric or not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < self._count:
            raise UpstreamError("wrong", "it answers a class that is not declared")
        return label

    def _scores(self, given: NDArray[Any], rows: int) -> NDArray[np.float64]:
        scores = _pairs(given.astype(np.float64), self._count, logits=self._settings.logits)
        if scores.shape != (rows, self._count):
            raise UpstreamError("wrong", f"it answers scores {scores.shape} where ({rows}, {self._count}) are due")
        if not np.isfinite(scores).all():
            raise UpstreamError("wrong", "it answers scores that are no finite numbers")
        if self._settings.logits:
            return _softmax(scores)
        off = np.abs(scores.sum(axis=1) - 1) > SLACK * self._count
        if (scores < -NOISE).any() or (scores > 1 + NOISE).any() or off.any():
            raise UpstreamError("wrong", "it answers scores that are no probabilities")
        return scores.clip(0.0, 1.0)


def _pairs(scores: NDArray[np.float64], classes: int, *, logits: bool) -> NDArray[np.float64]:
    """Scores of both of two classes where only the second one's is given."""
    if classes != 2 or scores.size == 0 or (scores.ndim == MOST_SIDES and scores.shape[1] != 1):  # noqa: PLR2004
        return scores
    second = scores.reshape(-1)
    return np.stack([np.zeros_like(second) if logits else 1 - second, second], axis=1)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return scores


class _Arrays:
    """The tensors of one response; those that nobody asks for are never decoded, only measured."""

    def __init__(self, outputs: Sequence[_Output], tail: bytes, rows: int) -> None:
        self._tail, self._rows = tail, rows
        self._places: dict[str, tuple[_Output, int, int]] = {}
        at = 0
        for output in outputs:
            size = output.parameters.get("binary_data_size", 0)
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(tail) - at:
                raise UpstreamError("wrong", "a tensor of its answer lies outside of the answer")
            if output.name in self._places:
                raise UpstreamError("wrong", "two tensors of its answer have one name")
            self._places[output.name] = (output, at, size)
            at += size
        if at != len(tail):
            raise UpstreamError("wrong", "its answer has bytes that belong to no tensor")

    def first(self, names: Sequence[str]) -> NDArray[Any] | None:
        """The first tensor of these names that is there."""
        return next((self._read(name) for name in names if name in self._places), None)

    def any(self) -> NDArray[Any]:
        """The only tensor; which of several is meant would be a guess."""
        if len(self._places) != 1:
            raise UpstreamError("wrong", "none of its tensors has a known name: declare which holds labels or scores")
        return self._read(next(iter(self._places)))

    def _read(self, name: str) -> NDArray[Any]:
        output, at, size = self._places[name]
        shape = output.shape
        if not 1 <= len(shape) <= MOST_SIDES or shape[0] != self._rows or any(side < 1 for side in shape):
            raise UpstreamError("wrong", f"it answers {self._rows} rows with a tensor of another shape")
        count = math.prod(shape)
        try:
            flat = _binary(output, self._tail[at : at + size], count) if size else _listed(output)
        except _UNREADABLE as error:
            raise UpstreamError("wrong", "a tensor of its answer cannot be read") from error
        if flat.size != count:
            raise UpstreamError("wrong", "a tensor of its answer does not fill its shape")
        return flat.reshape(shape)


def _binary(output: _Output, data: bytes, count: int) -> NDArray[Any]:
    if output.datatype != "BYTES":
        return np.frombuffer(data, dtype=DTYPES[output.datatype])
    found: list[str] = []
    at = 0
    while at < len(data) and len(found) <= count:
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if end > len(data):
            raise ValueError(at)
        found.append(data[at + 4 : end].decode())
        at = end
    return np.array(found, dtype=object)


def _listed(output: _Output) -> NDArray[Any]:
    """The data of a JSON tensor, flat or nested."""
    nested = bytes(output.data)[1:].lstrip()[:1] == b"["
    if output.datatype.startswith("FP"):
        return np.array((_FLOAT_ROWS if nested else _FLOATS).decode(output.data), dtype=np.float64).ravel()
    return np.array((_PLAIN_ROWS if nested else _PLAIN).decode(output.data), dtype=object).ravel()


__all__ = ["AnswerReader", "question", "scoring", "takes"]
