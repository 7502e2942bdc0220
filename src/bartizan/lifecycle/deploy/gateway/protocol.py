"""Open Inference Protocol v2 over HTTP: requests into rows, answers into bytes, within bounds.

https://github.com/kserve/open-inference-protocol (REST), with the binary tensor extension as Triton and KServe have
it: after a JSON head, whose length a header field names, tensors lie byte by byte. One input tensor of numbers. What
is out of bounds is refused (CWE-20, CWE-770), never guessed at; whoever sent it is not told what the model looks like.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.digest import Digest
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.guard import Numbers

MAX_BODY_BYTES = 4 << 20
MAX_ROWS = 4096
MAX_NUMBERS = 1 << 20
"""Numbers of one request, rows times features."""
MAX_ID = 128
MAX_TENSORS = 16
INPUT = "features"
"""Name of the input tensor."""
HEAD_LENGTH = b"inference-header-content-length"
"""Header field that says how long the JSON head of a binary request, or answer, is."""
UNFIT = "the input is not what this model takes"
UNREADABLE = "this is no inference request"

_WHOLE = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
_REAL = {"FP16": float(np.finfo(np.float16).max), "FP32": float(np.finfo(np.float32).max), "FP64": math.inf}
DATATYPES = (*_REAL, *_WHOLE)
"""What is taken; everything is handed to the model in its own datatype."""
SINGLE = _REAL["FP32"]
_LAID = {
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
}
"""How each lies in memory (little endian, row by row)."""


class Output(msgspec.Struct, frozen=True):
    """One named part of an answer."""

    datatype: Literal["BYTES", "FP64", "FP32", "INT64"]
    data: list[Any]
    """Flat, row by row."""
    width: int = 1
    """Values of each row."""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What is served."""

    name: str
    digest: Digest
    features: int
    classes: tuple[str, ...]
    uses: tuple[str, ...] = ()
    prohibited_uses: tuple[str, ...] = ()
    limits: str = ""
    dtype: str = "<f8"
    """In which the model takes rows."""
    columns: tuple[str, ...] = ()
    """Names of the features."""
    shape: tuple[int, ...] = ()
    """``(channels, height, width)`` of images."""


_Plain = bool | int | float | str


class _Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    shape: tuple[int, ...]
    datatype: str
    data: msgspec.Raw = msgspec.Raw(b"")
    parameters: dict[str, _Plain] = {}


class _Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, _Plain] = {}


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Wanted, ...] = ()
    id: str = ""
    parameters: dict[str, _Plain] = {}


class Question(msgspec.Struct, frozen=True):
    """A request that is sound."""

    id: str
    rows: Numbers
    outputs: tuple[str, ...] = ()
    """Names of the outputs that are wanted, in the order of the answer; empty: all that may be given."""
    binary: frozenset[str] | None = frozenset()
    """Outputs that are wanted as bytes; None: all."""


_CANNOT = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError)
_REQUEST = msgspec.json.Decoder(_Request)
_Pair = tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]]
"""Of flat numbers, and of nested ones."""


def _decoders(number: Any) -> _Pair:
    return msgspec.json.Decoder(list[number]), msgspec.json.Decoder(list[list[number]])


def _within(most: float) -> _Pair:
    return _decoders(float if most == math.inf else Annotated[float, msgspec.Meta(ge=-most, le=most)])


_REALS, _WHOLES = _decoders(float), _decoders(int)
_BOUNDED = {
    (name, dtype): _within(min(most, SINGLE) if dtype == "<f4" else most)
    for name, most in _REAL.items()
    for dtype in ("<f4", "<f8")
}
"""By the datatype of the numbers and that in which the model computes: what takes no number that is out of range."""
_ENCODER = msgspec.json.Encoder()


def unfit(reason: str, status: int = 400) -> RequestError:
    """An input that does not fit; why is for the record alone."""
    return RequestError(status, UNFIT, reason=reason)


def read(body: bytes, head_length: bytes | None, described: Description) -> Question:
    """Read an inference request; ``head_length`` is the header field that a binary one has.

    Raises:
        RequestError: it is none, or asks for what the model does not take.
    """
    head, rest = _divided(body, head_length)
    try:
        request = _REQUEST.decode(head)
    except _CANNOT as error:
        raise RequestError(400, UNREADABLE, reason=f"{UNREADABLE}: {error}") from error
    if len(request.id) > MAX_ID:
        raise RequestError(400, f"an id has at most {MAX_ID} characters")
    if len(request.inputs) != 1 or request.inputs[0].name != INPUT:
        raise unfit(f"exactly one input is taken, and it is called {INPUT!r}")
    rows = _rows(request.inputs[0], rest, described)
    if not request.outputs and not request.parameters and rest is None:
        return Question(request.id, rows)
    return Question(request.id, rows, _names(request.outputs), _binary(request))


def _divided(body: bytes, head_length: bytes | None) -> tuple[bytes | memoryview, memoryview | None]:
    """The JSON head, and what follows it."""
    if head_length is None:
        return body, None
    if not head_length.isdigit() or len(head_length) > 8 or int(head_length) > len(body):  # noqa: PLR2004 - digits
        raise RequestError(400, UNREADABLE, reason="the length of the head is none")
    cut = int(head_length)
    return memoryview(body)[:cut], memoryview(body)[cut:]


def _names(wanted: Sequence[_Wanted]) -> tuple[str, ...]:
    names = tuple(item.name for item in wanted[: MAX_TENSORS + 1])
    if len(names) > MAX_TENSORS or len(set(names)) != len(names):
        raise RequestError(400, "each output can be asked for once", reason="outputs are named twice, or too many")
    return names


def _binary(request: _Request) -> frozenset[str] | None:
    everywhere = request.parameters.get("binary_data_output") is True
    if not request.outputs:
        return None if everywhere else frozenset()
    return frozenset(item.name for item in request.outputs if item.parameters.get("binary_data", everywhere) is True)


def _rows(tensor: _Tensor, rest: memoryview | None, described: Description) -> Numbers:
    shape = tensor.shape
    if len(shape) != 2 or shape[1] != described.features or shape[0] < 1:  # noqa: PLR2004 - rows and columns
        shape = _flattened(shape, described)
    if shape[0] > MAX_ROWS or shape[0] * shape[1] > MAX_NUMBERS:
        raise RequestError(413, f"at most {MAX_ROWS} rows are taken at once", reason="too many rows or numbers")
    size = tensor.parameters.get("binary_data_size")
    if rest is not None and size is not None:
        rows = _laid(tensor, rest, size, shape, described.dtype)
    else:
        if rest:
            raise unfit("bytes follow the head, and no tensor says that they are its own")
        real = tensor.datatype in _REAL
        numbers = _reals(tensor, *shape, described.dtype) if real else _wholes(tensor, *shape)
        return np.array(numbers, dtype=described.dtype).reshape(shape)
    if b"\x00" in np.isfinite(rows).tobytes():  # half the time of asking whether all are
        raise unfit("every number must be finite")
    return rows


def _flattened(shape: tuple[int, ...], described: Description) -> tuple[int, int]:
    """Images may come in their own shape."""
    if described.shape and shape[1:] == described.shape and shape[0] >= 1:
        return shape[0], described.features
    raise unfit(f"the shape is {list(shape)[:8]}, and not [rows, {described.features}] with at least one row")


def _laid(
    tensor: _Tensor, rest: memoryview, size: Any, shape: tuple[int, ...], dtype: str
) -> NDArray[np.floating[Any]]:
    """Rows that lie in memory as they are."""
    laid = _LAID.get(tensor.datatype)
    if laid is None:
        raise unfit(f"datatype {tensor.datatype[:16]!r}")
    kind = np.dtype(laid)
    wanted = shape[0] * shape[1] * kind.itemsize
    if tensor.data or type(size) is not int or size != wanted or len(rest) != wanted:
        raise unfit(f"{len(rest)} bytes follow the head, and {wanted} are needed")
    rows = np.frombuffer(rest, dtype=kind).reshape(shape)
    with np.errstate(over="ignore", invalid="ignore"):
        return rows.astype(dtype, copy=False)


def _reals(tensor: _Tensor, height: int, width: int, dtype: str) -> list[float]:
    """The numbers one after the other, each within its datatype and the model's. JSON has none that is infinite."""
    try:
        return _flat(tensor.data, _BOUNDED[tensor.datatype, dtype], height, width)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:  # of what kind the numbers are, or how large one is
        try:
            _flat(tensor.data, _REALS, height, width)
        except msgspec.ValidationError as kind:
            raise unfit(f"data: {kind}") from error
    computes = "" if _REAL[tensor.datatype] <= SINGLE else ", in which the model computes"
    raise unfit(f"a number is out of the range of {'FP32' if computes else tensor.datatype}{computes}")


def _wholes(tensor: _Tensor, height: int, width: int) -> list[int]:
    """The same of whole numbers. The model's datatype holds all of them."""
    if tensor.datatype not in _WHOLE:
        raise unfit(f"datatype {tensor.datatype[:16]!r}")
    try:
        numbers: list[int] = _flat(tensor.data, _WHOLES, height, width)
    except msgspec.ValidationError as error:
        raise unfit(f"data: {error}") from error
    least, most = _WHOLE[tensor.datatype]
    if not least <= min(numbers) <= max(numbers) <= most:
        raise unfit(f"a number is out of the range of {tensor.datatype}")
    return numbers


def _flat(data: msgspec.Raw, decoders: _Pair, height: int, width: int) -> Any:
    """Numbers, which may be nested or flat, as the protocol allows both.

    Raises:
        ValidationError: one of them is none, or out of range.
        RequestError: they cannot be read, or are not so many.
    """
    text, size = bytes(data), height * width
    flat, nested = decoders
    try:
        if text[1:64].lstrip()[:1] != b"[":
            numbers = flat.decode(text)
        else:
            rows = nested.decode(text)
            if len(rows) != height or any(len(row) != width for row in rows):
                raise unfit(f"data are no {height} rows of {width}")
            numbers = [number for row in rows for number in row]
    except msgspec.ValidationError:
        raise
    except _CANNOT as error:
        raise unfit(f"data: {error}") from error
    if len(numbers) != size:
        raise unfit(f"{len(numbers)} numbers are no {height} rows of {width}")
    return numbers


def write(
    question: Question,
    outputs: Mapping[str, Output],
    described: Description,
    beside: Mapping[str, Any] | None = None,
    *,
    name: str = "",
) -> tuple[bytes, int | None]:
    """The body of an answer, and how long its JSON head is when bytes follow it.

    ``name`` is what clients call the model, where that is another name than its own.

    Raises:
        RequestError: an output is wanted that is not given.
    """
    if _is_plain(question, outputs) and not beside:
        return _label(name or described.name, described.digest, outputs["label"].data[0]), None
    height = len(question.rows)
    if question.outputs and not outputs.keys() >= set(question.outputs):
        raise RequestError(403, "an output that was asked for is not given here", reason="output not granted")
    tensors, tail = [], []
    for wanted in question.outputs or outputs:
        output = outputs[wanted]
        shape = [height] if output.width == 1 else [height, output.width]
        tensor: dict[str, Any] = {"name": wanted, "datatype": output.datatype, "shape": shape}
        if question.binary is None or wanted in question.binary:
            tail.append(_as_bytes(output))
            tensor["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            tensor["data"] = output.data
        tensors.append(tensor)
    answer: dict[str, Any] = {"model_name": name or described.name, "model_version": described.digest}
    if question.id:
        answer["id"] = question.id
    if beside:
        answer["parameters"] = beside
    answer["outputs"] = tensors
    head = _ENCODER.encode(answer)
    return (b"".join([head, *tail]), len(head)) if tail else (head, None)


def _is_plain(question: Question, outputs: Mapping[str, Output]) -> bool:
    """Whether nothing but the label of one row is told."""
    if question.id or question.outputs or question.binary != frozenset() or len(outputs) != 1:
        return False
    label = outputs.get("label")
    return label is not None and len(label.data) == 1 and label.datatype == "BYTES"


@functools.lru_cache(4096)
def _label(name: str, digest: Digest, label: str) -> bytes:
    """The most frequent answer, written once."""
    tensor = {"name": "label", "datatype": "BYTES", "shape": [1], "data": [label]}
    return _ENCODER.encode({"model_name": name, "model_version": digest, "outputs": [tensor]})


def _as_bytes(output: Output) -> bytes:
    if output.datatype == "BYTES":
        texts = [str(text).encode() for text in output.data]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return np.array(output.data, dtype=_LAID[output.datatype]).tobytes()


def metadata(
    described: Description, outputs: Mapping[str, Output], versions: Sequence[str] = (), *, name: str = ""
) -> dict[str, Any]:
    """The model as the protocol shows it, with what it is for and what it is not for. ``name``: see ``write``."""
    return {
        "name": name or described.name,
        "versions": list(versions) or [described.digest],
        "platform": "bartizan",
        "inputs": [
            {
                "name": INPUT,
                "datatype": "FP32" if described.dtype == "<f4" else "FP64",
                "shape": [-1, described.features],
            }
        ],
        "outputs": [
            {"name": name, "datatype": output.datatype, "shape": [-1] if output.width == 1 else [-1, output.width]}
            for name, output in outputs.items()
        ],
        "parameters": {
            "digest": f"sha256:{described.digest}",
            "uses": list(described.uses),
            "prohibited_uses": list(described.prohibited_uses),
            "limits": described.limits,
        },
    }


__all__ = ["HEAD_LENGTH", "INPUT", "Description", "Output", "Question", "metadata", "read", "unfit", "write"]
