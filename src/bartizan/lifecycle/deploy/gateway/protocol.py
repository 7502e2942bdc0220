"""Open Inference Protocol v2 over HTTP: requests into rows, answers into JSON, within bounds.

https://github.com/kserve/open-inference-protocol (REST). One input tensor of numbers, as JSON; the binary tensor
extension is not offered. What is out of bounds is refused with a sentence (CWE-20, CWE-770), never guessed at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from bartizan.core.digest import Digest
from bartizan.targets.protocol import Access, Rows, Scores, Target

Detail = Literal["label", "top-k", "rounded-scores", "scores"]

MAX_BODY_BYTES = 4 << 20
MAX_ROWS = 4096
MAX_NUMBERS = 1 << 20
"""Numbers of one request, rows times features."""
MAX_ID = 128
MAX_TENSORS = 16
TOP = 3
"""Most classes that ``top-k`` ranks; it never ranks all of them, so that the last is not given away."""
DECIMALS = 2
"""Decimals that ``rounded-scores`` keeps."""
INPUT = "features"
"""Name of the input tensor."""

_WHOLE = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
_REAL = {"FP16": float(np.finfo(np.float16).max), "FP32": float(np.finfo(np.float32).max), "FP64": math.inf}
DATATYPES = (*_REAL, *_WHOLE)
"""What is taken; everything is handed to the model as FP64."""


class RequestError(Exception):
    """A request that cannot be answered: HTTP status and one sentence for whoever sent it."""

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What is served, as a client may know it."""

    name: str
    digest: Digest
    features: int
    classes: tuple[str, ...]
    detail: Detail
    uses: tuple[str, ...] = ()
    prohibited_uses: tuple[str, ...] = ()
    limits: str = ""

    def outputs(self) -> dict[str, tuple[str, list[int]]]:
        """Name of each output to its datatype and shape (-1: one for each row)."""
        match self.detail:
            case "label":
                return {"label": ("BYTES", [-1])}
            case "top-k":
                return {"label": ("BYTES", [-1]), "top": ("BYTES", [-1, ranked(len(self.classes))])}
            case _:
                return {"label": ("BYTES", [-1]), "scores": ("FP64", [-1, len(self.classes)])}


class _Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    shape: tuple[int, ...]
    datatype: str
    data: msgspec.Raw
    parameters: dict[str, Any] = {}


class _Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Any] = {}


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Wanted, ...] = ()
    id: str = ""
    parameters: dict[str, Any] = {}


class Question(msgspec.Struct, frozen=True):
    """A request that is sound."""

    id: str
    rows: Rows
    outputs: tuple[str, ...]
    """Names of the outputs that are wanted, in the order of the answer."""


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError)
_REQUEST = msgspec.json.Decoder(_Request)
_REALS = msgspec.json.Decoder(list[float])
_REAL_ROWS = msgspec.json.Decoder(list[list[float]])
_WHOLES = msgspec.json.Decoder(list[int])
_WHOLE_ROWS = msgspec.json.Decoder(list[list[int]])


def read(body: bytes, described: Description) -> Question:
    """Read an inference request.

    Raises:
        RequestError: it is none, or asks for what the model does not take or give.
    """
    try:
        request = _REQUEST.decode(body)
    except _UNREADABLE as error:
        raise RequestError(400, f"this is no inference request: {error}") from error
    if len(request.id) > MAX_ID:
        raise RequestError(400, f"an id has at most {MAX_ID} characters")
    if len(request.inputs) != 1 or request.inputs[0].name != INPUT:
        raise RequestError(400, f"exactly one input is taken, and it is called {INPUT!r}")
    return Question(request.id, _rows(request.inputs[0], described), _outputs(request.outputs, described))


def _outputs(wanted: Sequence[_Wanted], described: Description) -> tuple[str, ...]:
    known = described.outputs()
    names = [item.name for item in wanted[: MAX_TENSORS + 1]]
    if any(name not in known for name in names) or len(set(names)) != len(names):
        raise RequestError(400, f"outputs are {', '.join(known)}, each once at most")
    return tuple(names) or tuple(known)


def _rows(tensor: _Tensor, described: Description) -> Rows:
    shape = tensor.shape
    if len(shape) != 2 or shape[1] != described.features or shape[0] < 1:  # noqa: PLR2004 - rows and columns
        raise RequestError(400, f"the shape is [rows, {described.features}] with at least one row")
    if shape[0] > MAX_ROWS or shape[0] * shape[1] > MAX_NUMBERS:
        raise RequestError(413, f"at most {MAX_ROWS} rows and {MAX_NUMBERS} numbers are taken at once")
    if tensor.datatype not in DATATYPES:
        raise RequestError(400, f"datatypes that are taken: {', '.join(DATATYPES)}")
    rows = np.array(_numbers(tensor, shape[0], shape[1]), dtype="<f8").reshape(shape)
    if not np.isfinite(rows).all():
        raise RequestError(400, "every number must be finite")
    return rows


def _numbers(tensor: _Tensor, height: int, width: int) -> list[float] | list[int]:
    """The numbers one after the other, each within its datatype; nested or flat, as the protocol allows both."""
    flat, nested = (_REALS, _REAL_ROWS) if tensor.datatype in _REAL else (_WHOLES, _WHOLE_ROWS)
    numbers: Any = _flat(tensor.data, flat, nested, height, width)
    least, most = _WHOLE.get(tensor.datatype, (-_REAL.get(tensor.datatype, 0), _REAL.get(tensor.datatype, 0)))
    if len(numbers) != height * width:
        raise RequestError(400, f"{len(numbers)} numbers are no {height} rows of {width}")
    if not least <= min(numbers) <= max(numbers) <= most:
        raise RequestError(400, f"a number is out of the range of {tensor.datatype}")
    return numbers  # type: ignore[no-any-return]  # one of the two decoders made it


def _flat(data: msgspec.Raw, flat: Any, nested: Any, height: int, width: int) -> Any:
    if bytes(data).lstrip(b"[ \t\r\n")[:1] in {b"]", b""}:
        return []
    try:
        if bytes(data)[1:].lstrip()[:1] != b"[":
            return flat.decode(data)
        rows = nested.decode(data)
    except _UNREADABLE as error:
        raise RequestError(400, f"data: {error}") from error
    if len(rows) != height or any(len(row) != width for row in rows):
        raise RequestError(400, f"data are no {height} rows of {width}")
    return [number for row in rows for number in row]


def ask(target: Target, question: Question, described: Description) -> dict[str, Any]:
    """Ask the model; gives each wanted output as a list. Blocks.

    Raises:
        WorkError: the model cannot answer.
    """
    given: dict[str, Any] = {}
    if "label" in question.outputs:
        given["label"] = _names(target.labels(question.rows), described)
    if set(question.outputs) - {"label"}:
        scores = target.scores(question.rows)
        given |= {"top": _ranking(scores, described)} if "top" in question.outputs else {}
        given |= {"scores": _shown(scores, described)} if "scores" in question.outputs else {}
    return {name: given[name] for name in question.outputs}


def ranked(classes: int) -> int:
    """How many classes ``top-k`` names: at most three and never all."""
    return max(1, min(TOP, classes - 1))


def detail_of(declared: Detail, target: Target) -> Detail:
    """The declared detail, or labels alone when the model has no scores."""
    return declared if Access.SCORES in target.offers else "label"


def _names(indices: Any, described: Description) -> list[str]:
    return [described.classes[index] for index in indices.ravel().tolist()]


def _ranking(scores: Scores, described: Description) -> list[str]:
    order = np.argsort(-scores, axis=1, kind="stable")[:, : ranked(len(described.classes))]
    return _names(order, described)


def _shown(scores: Scores, described: Description) -> list[float]:
    shown = np.round(scores, DECIMALS) if described.detail == "rounded-scores" else scores
    numbers: list[float] = shown.ravel().tolist()
    return numbers


def write(question: Question, given: Mapping[str, Any], described: Description) -> dict[str, Any]:
    """The answer to an inference request."""
    known, height = described.outputs(), len(question.rows)
    return {
        "model_name": described.name,
        "model_version": described.digest,
        **({"id": question.id} if question.id else {}),
        "outputs": [
            {"name": name, "datatype": known[name][0], "shape": [height, *known[name][1][1:]], "data": data}
            for name, data in given.items()
        ],
    }


def metadata(described: Description) -> dict[str, Any]:
    """The model as the protocol shows it, with what it is for and what it is not for."""
    return {
        "name": described.name,
        "versions": [described.digest],
        "platform": "bartizan",
        "inputs": [{"name": INPUT, "datatype": "FP64", "shape": [-1, described.features]}],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": shape}
            for name, (datatype, shape) in described.outputs().items()
        ],
        "parameters": {
            "digest": f"sha256:{described.digest}",
            "uses": list(described.uses),
            "prohibited_uses": list(described.prohibited_uses),
            "limits": described.limits,
        },
    }


__all__ = ["Description", "Question", "RequestError", "ask", "detail_of", "metadata", "read", "write"]
