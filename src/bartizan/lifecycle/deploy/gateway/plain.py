"""``/predict``: questions and answers for people and scripts, by the names of columns.

``{"rows": [{"mean radius": 14.2, ...}, ...]}`` or, without names, ``{"rows": [[14.2, ...], ...]}``; images may come
nested as they are (channels, height, width) or flat. The answer has one object for each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.protocol import MAX_NUMBERS, MAX_ROWS, Description, Output, Question, unfit

UNREADABLE = 'requests are {"rows": [...]}, with an object of columns or a list of numbers for each row'


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rows: list[msgspec.Raw]
    id: str = ""


_DECODER = msgspec.json.Decoder(_Request)
_NAMED = msgspec.json.Decoder(dict[str, float])
_NESTED: dict[int, msgspec.json.Decoder[Any]] = {
    0: msgspec.json.Decoder(list[float]),
    1: msgspec.json.Decoder(list[list[float]]),
    2: msgspec.json.Decoder(list[list[list[float]]]),
}
"""By how many more brackets a row begins with; typed, so that what is no number costs nothing."""
_CANNOT = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError)


def read(body: bytes, described: Description) -> Question:
    """Read a question.

    Raises:
        RequestError: it is none, or its rows are not what the model takes.
    """
    try:
        request = _DECODER.decode(body)
    except _CANNOT as error:
        raise RequestError(400, UNREADABLE, reason=str(error)) from error
    if not request.rows:
        raise RequestError(400, UNREADABLE, reason="no rows")
    if len(request.rows) > MAX_ROWS or len(request.rows) * described.features > MAX_NUMBERS:
        raise RequestError(413, f"at most {MAX_ROWS} rows are taken at once", reason="too many rows or numbers")
    rows = [_numbers(row, described) for row in request.rows]
    with np.errstate(over="ignore"):
        array = np.array(rows, dtype=described.dtype)
    if not np.isfinite(array).all():
        raise unfit("every number must be finite")
    return Question(request.id[:128], array)


def _numbers(row: msgspec.Raw, described: Description) -> list[float]:
    text = bytes(row)
    try:
        if text[:1] == b"{":
            return _by_name(_NAMED.decode(text), described)
        opened = text[:64].replace(b" ", b"").replace(b"\n", b"")
        depth = len(opened) - len(opened.lstrip(b"[")) - 1
        deepest = max(len(described.shape) - 1, 0)
        level: list[Any] = _NESTED[depth if 0 <= depth <= deepest else 0].decode(text)
    except _CANNOT as error:
        raise unfit(f"a row has something else than numbers: {error}") from error
    for _ in range(max(depth, 0)):
        level = [number for part in level for number in part]
    if len(level) != described.features:
        raise unfit(f"{len(level)} numbers for {described.features} features")
    return level


def _by_name(row: dict[str, float], described: Description) -> list[float]:
    if not described.columns or row.keys() != set(described.columns):
        raise unfit("these are not the columns of the model")
    return [row[name] for name in described.columns]


def write(outputs: Mapping[str, Output], count: int) -> dict[str, Any]:
    """One object for each row, under ``predictions``."""
    names = list(outputs)
    columns = [_by_row(outputs[name], count) for name in names]
    return {"predictions": [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]}


def _by_row(output: Output, count: int) -> list[Any]:
    if output.width == 1:
        return list(output.data)
    return [output.data[row * output.width : (row + 1) * output.width] for row in range(count)]


__all__ = ["read", "write"]
