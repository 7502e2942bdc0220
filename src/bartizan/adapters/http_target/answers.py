"""What a server answers, as labels and scores.

Nothing it says is believed for its form: a wrong shape, a number that is none, a class that there is not, or scores
that contradict the label beside them are errors with a name, never a result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.adapters.http_target.endpoint import Endpoint
from bartizan.adapters.http_target.wire import words
from bartizan.core.errors import WorkError

MAX_NUMBER = 1e300
MAX_SIDES = 2
"""Most dimensions of a tensor that holds labels or scores."""
NAMES = ("BYTES", "INT", "UINT", "BOOL")
"""How the kinds of numbers of a tensor begin that are no scores."""
LABEL_NAMES = ("label", "labels", "class", "predict", "prediction", "output_label")
SCORE_NAMES = ("scores", "probabilities", "probability", "predict_proba", "output_probability")
ANSWER_KEYS = ("predictions", "outputs", "result", "results", "scores", "labels")
ROUNDING = 0.05
"""How far the scores of one class may be from the truth by rounding; a row sums to 1 within this for each class."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered to some rows."""

    labels: NDArray[np.int64]
    scores: NDArray[np.float64] | None


def json_of(data: bytes, name: str) -> Any:
    """The document of an answer. Raises WorkError when it is none."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise WorkError(
            f"{name} answers with something that is no JSON: {words(data)}",
            remedy="see that the address is that of a model; NaN and Infinity are no JSON either.",
        ) from error


def read_oip(said: Any, endpoint: Endpoint) -> tuple[Any, Any]:
    """Labels and scores of an inference response, each as nested lists or None."""
    listed = said.get("outputs") if isinstance(said, dict) else None
    tensors = {
        tensor["name"]: tensor
        for tensor in (listed if isinstance(listed, list) else ())
        if isinstance(tensor, dict) and isinstance(tensor.get("name"), str)
    }
    if not tensors:
        raise WorkError(f"the server's answer has no outputs: {_shown(said)}")
    scores = next((_shaped(tensors[name]) for name in (endpoint.outputs, *SCORE_NAMES) if name in tensors), None)
    labels = next((_column(_shaped(tensors[name])) for name in LABEL_NAMES if name in tensors), None)
    if scores is None and labels is None:
        first = next(iter(tensors.values()))
        named = str(first.get("datatype", "")).startswith(NAMES)
        labels, scores = (_column(_shaped(first)), None) if named else _by_form(_shaped(first), endpoint)
    return _indices(labels, endpoint), scores


def _shaped(tensor: Mapping[str, Any]) -> Any:
    """The data of a tensor, flat or nested, in its declared shape."""
    data, shape, name = tensor.get("data"), tensor.get("shape"), tensor["name"][:40]
    if not isinstance(data, list) or not _is_shape(shape):
        raise WorkError(
            f"the tensor {name!r} has no data, or no shape of one or two sides",
            remedy="let the server answer one label, or one row of scores, for each row.",
        )
    array = np.asarray(data, dtype=object)
    if array.size != math.prod(shape):
        raise WorkError(f"the tensor {name!r} has {array.size} values and the shape {shape}")
    return array.reshape(shape).tolist()


def _is_shape(shape: Any) -> TypeGuard[list[int]]:
    """Whether it is a list of one or two whole numbers from 0."""
    if not isinstance(shape, list) or not 1 <= len(shape) <= MAX_SIDES:
        return False
    return all(isinstance(side, int) and not isinstance(side, bool) and 0 <= side < 2**53 for side in shape)


def _column(listed: Any) -> Any:
    """Labels as one list, also where each is in a list of its own."""
    return [row[0] for row in listed] if _is_column(listed) else listed


def _is_column(listed: Any) -> bool:
    return bool(listed) and all(isinstance(row, list) and len(row) == 1 for row in listed)


def read_plain(said: Any, endpoint: Endpoint) -> tuple[Any, Any]:
    """Labels and scores of a plain answer: a list, or an object with a list under a usual key."""
    if isinstance(said, dict):
        keys = (endpoint.outputs,) if endpoint.outputs else ANSWER_KEYS
        said = next((said[key] for key in keys if key in said), None)
    if not isinstance(said, list):
        raise WorkError(f"the server's answer has no list of predictions under {endpoint.outputs or 'a usual key'}")
    if said and all(isinstance(entry, dict) for entry in said):
        return None, [_spread(entry, endpoint) for entry in said]
    labels, scores = _by_form(said, endpoint)
    return _indices(labels, endpoint), scores


def _spread(entry: Mapping[str, Any], endpoint: Endpoint) -> list[float]:
    """Scores of some classes by name; what is left of 1 is shared by the others."""
    known = {name: entry[name] for name in endpoint.classes if name in entry}
    if not known or len(known) != len(entry) or not all(_is_number(value) for value in known.values()):
        raise WorkError(f"a prediction names something that is no class, or gives no score: {_shown(entry)}")
    rest = max(0.0, 1.0 - sum(known.values())) / max(1, len(endpoint.classes) - len(known))
    return [float(known.get(name, rest)) for name in endpoint.classes]


def _by_form(said: Any, endpoint: Endpoint) -> tuple[Any, Any]:
    """Whether a list holds classes or scores, by its form."""
    if not said or not isinstance(said[0], list):
        return said, None
    if not _is_column(said):
        return None, said
    values = _column(said)
    if len(endpoint.classes) == 2 and not any(isinstance(value, str) for value in values):  # noqa: PLR2004 - two classes
        return None, [_pair(value) for value in values]
    broken = any(isinstance(value, float) and not value.is_integer() for value in values)
    return (None, said) if broken else (values, None)


def _pair(chance: Any) -> list[float]:
    """Scores of two classes, of which the second one's is given."""
    if not _is_number(chance):
        raise WorkError(f"the server answers a score that is no number: {_shown(chance)}")
    return [1.0 - chance, float(chance)]


def _is_number(value: Any) -> bool:
    """Whether it is a number that can be computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -MAX_NUMBER < value < MAX_NUMBER


def _indices(labels: Any, endpoint: Endpoint) -> Any:
    """Class names as indices; numbers that are no names are taken for indices."""
    if labels is None:
        return None
    known = {name: index for index, name in enumerate(endpoint.classes)}
    found = []
    for label in labels:
        index = known.get(_text(label))
        if index is None and isinstance(label, int) and not isinstance(label, bool) and not _numeric(known):
            index = label if 0 <= label < len(known) else None
        if index is None:
            raise WorkError(
                f"the server answers a class {_text(label)[:40]!r}, and is declared with {', '.join(known)}",
                remedy="name every class as the server does, in the order of the label values.",
            )
        found.append(index)
    return found


def _text(label: Any) -> str:
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return label if isinstance(label, str) else _shown(label)


def _numeric(known: Mapping[str, int]) -> bool:
    """Whether the classes are called by numbers, so that a number can only be a name."""
    return all(name.lstrip("-").isdigit() for name in known)


def checked(answer: tuple[Any, Any], rows: int, classes: int, name: str) -> Answer:
    """Labels and scores as arrays, when they are such as can be true."""
    labels, listed = answer
    scores = None if listed is None else _matrix(listed, rows, classes, name)
    if labels is None:
        assert scores is not None  # noqa: S101 - one of them was found
        return Answer(scores.argmax(axis=1).astype(np.int64), scores)
    if len(labels) != rows:
        raise WorkError(f"{name} answers {rows} rows with {len(labels)} labels", remedy="see what is in front of it.")
    found = np.asarray(labels, dtype=np.int64)
    if scores is not None and (scores[np.arange(rows), found] < scores.max(axis=1)).any():
        raise WorkError(
            f"{name} answers scores that contradict the label beside them",
            remedy="mend the server: whichever of the two it means, the other one lies.",
        )
    return Answer(found, scores)


def _matrix(listed: Any, rows: int, classes: int, name: str) -> NDArray[np.float64]:
    try:
        scores = np.asarray(listed, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise WorkError(f"{name} answers scores that are no numbers: {error}") from error
    if scores.shape != (rows, classes):
        raise WorkError(
            f"{name} answers scores {scores.shape} where ({rows}, {classes}) are due",
            remedy="name every class; where only some are scored, ask for labels.",
        )
    off = np.abs(scores.sum(axis=1) - 1) > ROUNDING * classes
    if not np.isfinite(scores).all() or (scores < 0).any() or (scores > 1).any() or off.any():
        raise WorkError(
            f"{name} answers scores that are no probabilities", remedy="let the server answer probabilities, or labels."
        )
    return scores


def _shown(said: Any) -> str:
    """The beginning of what a server said, safe to show."""
    try:
        return words(msgspec.json.encode(said))
    except (OverflowError, ValueError, RecursionError):
        return "a number that is too long"
