"""How flat rows go into an ONNX model: as one tensor, in the order of the graph, or as one input for each column."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from bartizan.adapters.onnx.graph import FLOATS, WHOLE, Graph, Input
from bartizan.targets.hosting import Refusal

_IMAGE = 3
CHANNELS_LAST = (1, 2, 0)


@dataclass(frozen=True, slots=True)
class Feed:
    """Rows ``(batch, features)`` to inputs by name."""

    inputs: tuple[Input, ...]
    sides: tuple[int, ...] = ()
    """Of the one input, without its batch; empty where each column is an input."""
    turned: bool = False
    """The graph takes channels last, and rows lie with channels first."""
    batch: int = 0
    """Fixed size of a batch; 0 where it is free."""
    double: bool = False
    shape: tuple[int, ...] = ()
    """``(channels, height, width)``; empty for tables."""
    names: list[str] = field(default_factory=list)
    """Of columns."""

    def arrays(self, rows: NDArray[np.floating]) -> dict[str, NDArray[Any]]:
        """For ONNX Runtime. A batch of fixed size is filled up with zeros."""
        if self.batch and len(rows) < self.batch:
            rows = np.concatenate([rows, np.zeros((self.batch - len(rows), rows.shape[1]), rows.dtype)])
        if not self.sides:
            return {given.name: _column(given, rows[:, place]) for place, given in enumerate(self.inputs)}
        kind = FLOATS[self.inputs[0].kind]
        if self.turned:
            rows = rows.reshape(len(rows), *self.shape).transpose(0, *(1 + axis for axis in CHANNELS_LAST))
        return {self.inputs[0].name: np.ascontiguousarray(rows.reshape(len(rows), *self.sides), dtype=kind)}

    def tensors(self, rows: Any) -> dict[str, Any]:
        """The same for torch, without filling up."""
        kinds: dict[int, str] = {TensorProto.FLOAT: "float", TensorProto.DOUBLE: "double"}
        if not self.sides:
            columns = enumerate(self.inputs)
            return {given.name: getattr(rows[:, [place]], kinds[given.kind])() for place, given in columns}
        rows = getattr(rows, kinds[self.inputs[0].kind])()
        if self.turned:
            rows = rows.reshape(len(rows), *self.shape).permute(0, *(1 + axis for axis in CHANNELS_LAST))
        return {self.inputs[0].name: rows.reshape(len(rows), *self.sides)}


def feed_of(graph: Graph, features: int, shape: tuple[int, ...]) -> Feed:
    """How rows of so many features, or images of that shape, go into a graph.

    Raises:
        Refusal: they do not fit.
    """
    inputs = graph.inputs
    if not inputs:
        raise Refusal("it takes no input")
    if len(inputs) > 1:
        return _columns(inputs, features)
    (given,) = inputs
    if given.kind not in FLOATS:
        kind = TensorProto.DataType.Name(given.kind)
        raise Refusal(f"its input is of type {kind}, and rows are numbers (FLOAT or DOUBLE)")
    sides = _filled(given.sides, features, shape)
    return Feed(
        (given,),
        sides=sides,
        turned=_is_turned(sides, shape),
        batch=given.batch,
        double=FLOATS[given.kind] == "float64",
        shape=shape or (sides if len(sides) == _IMAGE else ()),
    )


def _columns(inputs: list[Input], features: int) -> Feed:
    """One input for each column of a table, as skl2onnx writes pipelines that were fitted to a table with names."""
    odd = [
        given.name for given in inputs if given.sides not in {(1,), (0,), ()} or given.kind not in FLOATS.keys() | WHOLE
    ]
    if odd or len(inputs) != features:
        named = f", and {odd[0][:60]!r} is no column of numbers" if odd else ""
        raise Refusal(f"it takes {len(inputs)} inputs{named}; the declared data has {features} columns")
    return Feed(
        tuple(inputs),
        batch=max(given.batch for given in inputs),
        double=any(FLOATS.get(given.kind) == "float64" for given in inputs),
        names=[given.name for given in inputs],
    )


def _column(given: Input, values: NDArray[np.floating]) -> NDArray[Any]:
    shape = (len(values),) if given.sides == () else (len(values), 1)
    if given.kind in FLOATS:
        return values.reshape(shape).astype(FLOATS[given.kind])
    if (values != np.rint(values)).any():
        raise Refusal(f"its input {given.name[:60]!r} takes whole numbers; declare the column as integer")
    return values.reshape(shape).astype(np.int64 if given.kind == TensorProto.INT64 else np.int32)


def _filled(sides: tuple[int, ...] | None, features: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The sides of one row, where the graph leaves some free by those that are declared."""
    if sides is not None and sides and all(sides) and math.prod(sides) == features:
        return sides
    turned = tuple(shape[axis] for axis in CHANNELS_LAST) if len(shape) == _IMAGE else ()
    for candidate in (shape, turned, (features,)):
        if candidate and (sides is None or _fit(sides, candidate)):
            return candidate
    told = "x".join(str(side or "?") for side in sides or ())
    raise Refusal(
        f"its input takes rows of {told or 'no'} numbers, and the declared data has "
        f"{'x'.join(map(str, shape)) if shape else features}"
    )


def _fit(sides: tuple[int, ...], candidate: tuple[int, ...]) -> bool:
    """Whether sides, of which 0 are free, can be those."""
    return len(sides) == len(candidate) and all(
        ours in {0, theirs} for ours, theirs in zip(sides, candidate, strict=True)
    )


def _is_turned(sides: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    if len(shape) != _IMAGE or len(sides) != _IMAGE or sides == shape:
        return False
    return sides == tuple(shape[axis] for axis in CHANNELS_LAST)
