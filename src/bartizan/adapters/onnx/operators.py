"""What the operators of ONNX compute, by torch: each as a function of its node and of the tensors that go in.

Definitions: https://onnx.ai/onnx/operators/. Attributes that newer versions turned into inputs are taken from either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, numpy_helper
from torch.nn import functional

from bartizan.adapters.onnx.graph import SOFTMAX_OF_THE_LAST
from bartizan.targets.hosting import Refusal

Tensor = torch.Tensor
Computed = Tensor | tuple[Tensor, ...]
KINDS = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.INT64: torch.int64,
    TensorProto.INT32: torch.int32,
    TensorProto.BOOL: torch.bool,
}


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a graph."""

    kind: str
    said: dict[str, Any]
    """Its attributes."""
    opset: int
    outputs: int

    def of(self, name: str, usual: Any) -> Any:
        """An attribute."""
        return self.said.get(name, usual)

    def listed(self, name: str, given: Sequence[Tensor | None], place: int) -> list[int] | None:
        """Whole numbers that are an input, or were an attribute in older versions."""
        if len(given) > place and given[place] is not None:
            return [int(value) for value in given[place].reshape(-1).tolist()]  # type: ignore[union-attr]  # see above
        return [int(value) for value in self.said[name]] if name in self.said else None


Operator = Callable[..., Computed]
OPERATORS: dict[str, Operator] = {}


def _named(*names: str) -> Callable[[Operator], Operator]:
    def keep(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return keep


def tensor_of(value: TensorProto) -> Tensor:
    """A constant."""
    return torch.from_numpy(np.array(numpy_helper.to_array(value)))


# ---- number by number


def _plain(function: Callable[..., Tensor]) -> Operator:
    return lambda _, *given: function(*given)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda _, *given: reduce(function, given)


OPERATORS |= {
    "Sub": _plain(torch.sub),
    "Mul": _plain(torch.mul),
    "Pow": _plain(torch.pow),
    "Relu": _plain(torch.relu),
    "Sigmoid": _plain(torch.sigmoid),
    "Tanh": _plain(torch.tanh),
    "Softsign": _plain(functional.softsign),
    "HardSwish": _plain(functional.hardswish),
    "Mish": _plain(functional.mish),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Log": _plain(torch.log),
    "Sqrt": _plain(torch.sqrt),
    "Reciprocal": _plain(torch.reciprocal),
    "Neg": _plain(torch.neg),
    "Abs": _plain(torch.abs),
    "Sin": _plain(torch.sin),
    "Cos": _plain(torch.cos),
    "Identity": _plain(lambda rows: rows),
    "Where": _plain(torch.where),
    "Equal": _plain(torch.eq),
    "MatMul": _plain(torch.matmul),
    "Add": _folded(torch.add),
    "Sum": _folded(torch.add),
    "Max": _folded(torch.maximum),
    "Min": _folded(torch.minimum),
    "Mean": lambda _, *given: reduce(torch.add, given) / len(given),
    "LeakyRelu": lambda node, rows: functional.leaky_relu(rows, node.of("alpha", 0.01)),
    "Elu": lambda node, rows: functional.elu(rows, node.of("alpha", 1.0)),
    "Celu": lambda node, rows: functional.celu(rows, node.of("alpha", 1.0)),
    "ThresholdedRelu": lambda node, rows: functional.threshold(rows, node.of("alpha", 1.0), 0.0),
    "HardSigmoid": lambda node, rows: (rows * node.of("alpha", 0.2) + node.of("beta", 0.5)).clamp(0, 1),
    "Softplus": lambda _, rows: torch.logaddexp(rows, torch.zeros_like(rows)),
    "PRelu": lambda _, rows, slope: torch.where(rows < 0, rows * slope, rows),
    "Cast": lambda node, rows: rows.to(KINDS[node.said["to"]]),
}


@_named("Div")
def _div(_: Node, left: Tensor, right: Tensor) -> Tensor:
    if left.is_floating_point():
        return left / right
    return torch.div(left, right, rounding_mode="trunc")


@_named("Selu")
def _selu(node: Node, rows: Tensor) -> Tensor:
    scale, alpha = node.of("gamma", 1.0507009873554805), node.of("alpha", 1.6732632423543772)
    bent: Tensor = scale * functional.elu(rows, alpha)
    return bent


@_named("Gelu")
def _gelu(node: Node, rows: Tensor) -> Tensor:
    return functional.gelu(rows, approximate=node.of("approximate", b"none").decode())


@_named("Clip")
def _clip(node: Node, rows: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    least = node.of("min", -math.inf) if low is None else low
    most = node.of("max", math.inf) if high is None else high
    kind = rows.dtype
    bounded = torch.maximum(rows, torch.as_tensor(least, dtype=kind))
    return torch.minimum(bounded, torch.as_tensor(most, dtype=kind))


@_named("Dropout")
def _dropout(_: Node, rows: Tensor, _ratio: Tensor | None = None, training: Tensor | None = None) -> Tensor:
    if training is not None and bool(training):
        raise Refusal("its operator Dropout is set to training, so that its answers are random")
    return rows


# ---- layers


@_named("Gemm")
def _gemm(node: Node, left: Tensor, right: Tensor, more: Tensor | None = None) -> Tensor:
    left = left.t() if node.of("transA", 0) else left
    right = right.t() if node.of("transB", 0) else right
    alpha, beta = node.of("alpha", 1.0), node.of("beta", 1.0)
    if more is not None and alpha == beta == 1.0:
        return torch.addmm(more, left, right)
    product = left @ right if alpha == 1.0 else alpha * (left @ right)
    return product if more is None else product + (more if beta == 1.0 else beta * more)


@_named("Conv")
def _conv(node: Node, rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    depth = weight.dim() - 2
    strides, dilations = node.of("strides", [1] * depth), node.of("dilations", [1] * depth)
    low, high = _margins(node, rows, list(weight.shape[2:]), strides, dilations)
    padding, rows = _even(rows, low, high, 0.0)
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[depth - 1]
    return convolve(rows, weight, bias, tuple(strides), padding, tuple(dilations), node.of("group", 1))


def _margins(
    node: Node, rows: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Cells around the rows, before and after each axis."""
    automatic, depth = node.of("auto_pad", b"NOTSET").decode(), len(kernel)
    if automatic in {"NOTSET", "VALID"}:
        pads = node.of("pads", [0] * 2 * depth) if automatic == "NOTSET" else [0] * 2 * depth
        return list(pads[:depth]), list(pads[depth:])
    low, high = [], []
    for side, width, stride, dilation in zip(rows.shape[2:], kernel, strides, dilations, strict=True):
        missing = max((-(-side // stride) - 1) * stride + (width - 1) * dilation + 1 - side, 0)
        less = missing // 2
        low.append(less if automatic == "SAME_UPPER" else missing - less)
        high.append(missing - low[-1])
    return low, high


def _even(rows: Tensor, low: list[int], high: list[int], filling: float) -> tuple[tuple[int, ...], Tensor]:
    """Margins that are the same on both sides, which torch has, or none and rows that have them already."""
    if low == high:
        return tuple(low), rows
    return (0,) * len(low), _surrounded(rows, low, high, filling)


def _surrounded(rows: Tensor, low: Sequence[int], high: Sequence[int], filling: float) -> Tensor:
    around = [width for pair in zip(reversed(low), reversed(high), strict=True) for width in pair]
    return functional.pad(rows, around, value=filling)


@_named("MaxPool")
def _max_pool(node: Node, rows: Tensor) -> Tensor:
    kernel = node.said["kernel_shape"]
    depth = len(kernel)
    strides, dilations = node.of("strides", [1] * depth), node.of("dilations", [1] * depth)
    low, high = _margins(node, rows, kernel, strides, dilations)
    fits = low == high and all(2 * width <= side for width, side in zip(low, kernel, strict=True))
    padding = tuple(low) if fits else (0,) * depth
    rows = rows if fits else _surrounded(rows, low, high, -math.inf)
    pool = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[depth - 1]
    return pool(rows, tuple(kernel), tuple(strides), padding, tuple(dilations), ceil_mode=bool(node.of("ceil_mode", 0)))


@_named("AveragePool")
def _average_pool(node: Node, rows: Tensor) -> Tensor:
    kernel = node.said["kernel_shape"]
    depth = len(kernel)
    strides = node.of("strides", [1] * depth)
    if node.of("ceil_mode", 0) or set(node.of("dilations", [1])) != {1}:
        raise Refusal("its operator AveragePool is rounded up or dilated, which is not differentiated here")
    low, high = _margins(node, rows, kernel, strides, [1] * depth)
    pool = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[depth - 1]
    mean = pool(_surrounded(rows, low, high, 0.0), tuple(kernel), tuple(strides))
    if node.of("count_include_pad", 0) or not any(low + high):
        return mean
    share = pool(_surrounded(torch.ones_like(rows[:1, :1]), low, high, 0.0), tuple(kernel), tuple(strides))
    return mean / share


@_named("GlobalAveragePool")
def _global_average(_: Node, rows: Tensor) -> Tensor:
    return rows.mean(dim=tuple(range(2, rows.dim())), keepdim=True)


@_named("GlobalMaxPool")
def _global_max(_: Node, rows: Tensor) -> Tensor:
    return rows.amax(dim=tuple(range(2, rows.dim())), keepdim=True)


@_named("BatchNormalization")
def _batch_norm(node: Node, rows: Tensor, scale: Tensor, bias: Tensor, *moments: Tensor) -> Tensor:
    mean, spread = moments
    if node.of("training_mode", 0) or not node.of("spatial", 1):
        raise Refusal("its operator BatchNormalization is set to training, or to single cells")
    return functional.batch_norm(rows, mean, spread, scale, bias, training=False, eps=node.of("epsilon", 1e-5))


@_named("InstanceNormalization")
def _instance_norm(node: Node, rows: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return functional.instance_norm(rows, weight=scale, bias=bias, eps=node.of("epsilon", 1e-5))


@_named("LayerNormalization")
def _layer_norm(node: Node, rows: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    shape = rows.shape[node.of("axis", -1) :]
    return functional.layer_norm(rows, shape, scale.expand(shape), bias, node.of("epsilon", 1e-5))


@_named("Softmax", "LogSoftmax")
def _softmax(node: Node, rows: Tensor) -> Tensor:
    function = torch.softmax if node.kind == "Softmax" else torch.log_softmax
    if node.opset >= SOFTMAX_OF_THE_LAST:
        return function(rows, node.of("axis", -1))
    axis = node.of("axis", 1) % rows.dim()
    # Older versions take the softmax of all axes from one on together.
    return function(rows.flatten(axis), axis).reshape(rows.shape)


# ---- shapes


@_named("Constant")
def _constant(node: Node) -> Tensor:
    said = node.said
    if "value" in said:
        return tensor_of(said["value"])
    for name, kind in (("value_int", torch.int64), ("value_ints", torch.int64)):
        if name in said:
            return torch.tensor(said[name], dtype=kind)
    for name in ("value_float", "value_floats"):
        if name in said:
            return torch.tensor(said[name], dtype=torch.float32)
    raise Refusal("it holds a constant that is neither numbers nor a tensor")


@_named("ConstantOfShape")
def _constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    value = tensor_of(node.said["value"]) if "value" in node.said else torch.zeros(1)
    return value.reshape(()).expand([int(side) for side in shape.tolist()]).clone()


@_named("Range")
def _range(_: Node, start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


@_named("Shape")
def _shape(node: Node, rows: Tensor) -> Tensor:
    return torch.tensor(list(rows.shape)[node.of("start", 0) : node.of("end", rows.dim())], dtype=torch.int64)


@_named("Size")
def _size(_: Node, rows: Tensor) -> Tensor:
    return torch.tensor(rows.numel(), dtype=torch.int64)


@_named("Flatten")
def _flatten(node: Node, rows: Tensor) -> Tensor:
    axis = node.of("axis", 1) % max(rows.dim(), 1)
    return rows.reshape(math.prod(rows.shape[:axis]), -1)


@_named("Reshape")
def _reshape(node: Node, rows: Tensor, shape: Tensor) -> Tensor:
    sides = [int(side) for side in shape.tolist()]
    if not node.of("allowzero", 0):
        sides = [rows.shape[place] if side == 0 else side for place, side in enumerate(sides)]
    return rows.reshape(sides)


@_named("Transpose")
def _transpose(node: Node, rows: Tensor) -> Tensor:
    return rows.permute(node.of("perm", list(range(rows.dim()))[::-1]))


@_named("Squeeze")
def _squeeze(node: Node, rows: Tensor, *more: Tensor | None) -> Tensor:
    axes = node.listed("axes", more, 0)
    return rows.squeeze() if axes is None else rows.squeeze(tuple(axes))


@_named("Unsqueeze")
def _unsqueeze(node: Node, rows: Tensor, *more: Tensor | None) -> Tensor:
    axes = node.listed("axes", more, 0) or []
    depth = rows.dim() + len(axes)
    for axis in sorted(axis % depth for axis in axes):
        rows = rows.unsqueeze(axis)
    return rows


@_named("Concat")
def _concat(node: Node, *given: Tensor) -> Tensor:
    return torch.cat(given, node.said["axis"])


@_named("Split")
def _split(node: Node, rows: Tensor, *more: Tensor | None) -> tuple[Tensor, ...]:
    axis, sizes = node.of("axis", 0), node.listed("split", more, 0)
    return torch.split(rows, -(-rows.shape[axis] // node.outputs) if sizes is None else sizes, axis)


@_named("Slice")
def _slice(node: Node, rows: Tensor, *more: Tensor | None) -> Tensor:
    starts, ends = node.listed("starts", more, 0) or [], node.listed("ends", more, 1) or []
    axes = node.listed("axes", more, 2) or list(range(len(starts)))
    steps = node.listed("steps", more, 3) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        chosen = range(*slice(start, _end(end, step), step).indices(rows.shape[axis]))
        rows = rows.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64))
    return rows


def _end(end: int, step: int) -> int | None:
    """Backwards, the smallest numbers stand for the first place, which a slice of Python reaches by None."""
    return None if step < 0 and end <= -(2**31) + 1 else end


@_named("Gather")
def _gather(node: Node, rows: Tensor, places: Tensor) -> Tensor:
    axis = node.of("axis", 0) % max(rows.dim(), 1)
    flat = places.reshape(-1).to(torch.int64)
    flat = torch.where(flat < 0, flat + rows.shape[axis], flat)
    shape = (*rows.shape[:axis], *places.shape, *rows.shape[axis + 1 :])
    return rows.index_select(axis, flat).reshape(shape)


@_named("Expand")
def _expand(_: Node, rows: Tensor, shape: Tensor) -> Tensor:
    return rows * torch.ones([int(side) for side in shape.tolist()], dtype=rows.dtype)


@_named("Pad")
def _pad(node: Node, rows: Tensor, *more: Tensor | None) -> Tensor:
    pads, depth = node.listed("pads", more, 0) or [], rows.dim()
    if len(more) > 2 and more[2] is not None:  # noqa: PLR2004 - the third further input names the axes
        axes, named = [int(axis) % depth for axis in more[2].tolist()], pads
        pads = [0] * 2 * depth
        for place, axis in enumerate(axes):
            pads[axis], pads[axis + depth] = named[place], named[place + len(axes)]
    mode, filling = node.of("mode", b"constant").decode(), node.of("value", 0.0)
    if len(more) > 1 and more[1] is not None and more[1].numel():
        filling = float(more[1])
    if mode == "constant":
        return _surrounded(rows, pads[:depth], pads[depth:], filling)
    if any(pads[:2]) or any(pads[depth : depth + 2]):
        raise Refusal("its operator Pad repeats cells across the batch or the channels")
    around = [width for place in range(depth - 1, 1, -1) for width in (pads[place], pads[place + depth])]
    return functional.pad(rows, around, mode={"reflect": "reflect", "edge": "replicate"}.get(mode, mode))


@_named("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2")
def _reduce(node: Node, rows: Tensor, *more: Tensor | None) -> Tensor:
    axes, keep = node.listed("axes", more, 0), bool(node.of("keepdims", 1))
    if not axes:
        if node.of("noop_with_empty_axes", 0):
            return rows
        axes = list(range(rows.dim()))
    functions: dict[str, Callable[..., Tensor]] = {
        "ReduceMean": torch.mean,
        "ReduceSum": torch.sum,
        "ReduceMax": torch.amax,
        "ReduceL2": torch.linalg.vector_norm,
    }
    return functions[node.kind](rows, dim=tuple(axes), keepdim=keep)


# ---- of scikit-learn's pipelines


@_named("Scaler")
def _scaler(node: Node, rows: Tensor) -> Tensor:
    offset, scale = (torch.tensor(node.said[name], dtype=torch.float32) for name in ("offset", "scale"))
    return (rows - offset) * scale


@_named("FeatureVectorizer")
def _feature_vectorizer(_: Node, *columns: Tensor) -> Tensor:
    return torch.cat([column.reshape(len(column), -1).float() for column in columns], 1)


@_named("Normalizer")
def _normalizer(node: Node, rows: Tensor) -> Tensor:
    norms = {b"MAX": math.inf, b"L1": 1.0, b"L2": 2.0}
    size = torch.linalg.vector_norm(rows, norms[node.of("norm", b"MAX")], dim=-1, keepdim=True)
    return rows / torch.where(size == 0, torch.ones_like(size), size)


@_named("LinearClassifier")
def _linear_classifier(node: Node, rows: Tensor) -> tuple[Tensor, ...]:
    """The label is left out: it has no slope, and nothing that has one is made of it."""
    weights = torch.tensor(node.said["coefficients"], dtype=torch.float32)
    bias = torch.tensor(node.of("intercepts", [0.0]), dtype=torch.float32)
    outputs = rows @ weights.reshape(-1, rows.shape[1]).t() + bias
    kinds: dict[bytes, Callable[[Tensor], Tensor]] = {
        b"NONE": lambda given: given,
        b"LOGISTIC": torch.sigmoid,
        b"SOFTMAX": lambda given: torch.softmax(given, 1),
    }
    kind = node.of("post_transform", b"NONE")
    if kind not in kinds or outputs.shape[1] == 1:
        raise Refusal("its operator LinearClassifier is of a kind that is not differentiated here")
    return torch.empty(0), kinds[kind](outputs)
