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
    rows: list[dict[str, float] | list[Any]]
    id: str = ""


_DECODER = msgspec.json.Decoder(_Request)


def read(body: bytes, described: Description) -> Question:
    """Read a question.

    Raises:
        RequestError: it is none, or its rows are not what the model takes.
    """
    try:
        request = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError) as error:
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


def _numbers(row: dict[str, float] | list[Any], described: Description) -> list[float]:
    if isinstance(row, dict):
        if not described.columns or row.keys() != set(described.columns):
            raise unfit("these are not the columns of the model")
        return [row[name] for name in described.columns]
    flat = _flat(row, described)
    if len(flat) != described.features:
        raise unfit(f"{len(flat)} numbers for {described.features} features")
    return flat


def _flat(row: list[Any], described: Description) -> list[float]:
    """Numbers in their order; images may be nested, by channel and row, or by row when there is one channel."""
    depth = len(described.shape)
    level: list[Any] = row
    for _ in range(depth):
        if not level or not isinstance(level[0], list):
            break
        if not all(isinstance(part, list) for part in level):
            raise unfit("rows are nested unevenly")
        level = [number for part in level for number in part]
    if any(type(number) not in {int, float} for number in level):
        raise unfit("a row has something else than numbers")
    return level


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
