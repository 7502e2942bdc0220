"""What a model is made of, as numbers: for an adversary who holds the file, and for exact answers.

Three kinds are described: linear models, dense networks and sums of trees. Whatever a framework does to a row on
its way to a node (scaling, rounding to float32, ``<`` or ``<=``) is a rising function of one feature, and
so can be moved into the threshold: ``last_passing`` finds the largest float64 that still passes. A
``TreeEnsemble`` therefore knows one rule only, on the rows as they are given, and takes the turns of
the framework's own code at every float there is.

``pack`` and ``unpack`` carry a structure between processes; what comes back is checked first.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import msgspec
import numpy as np
import scipy
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError, WorkError
from bartizan.targets.protocol import Labels, Rows, Scores

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEAF = -1
"""Stands in ``TreeEnsemble.feature`` for a node without a question."""
MAX_NODES = 20_000_000
"""Nodes of one ensemble; bounds the memory that an answer of another process may claim."""
MAX_WIDTH = 1 << 24
"""Units of one layer."""
BLOCK = 1 << 20
"""Pairs of row and tree that are walked together; bounds memory."""
_MAGNITUDE = np.int64(0x7FFFFFFFFFFFFFFF)
_BITS = 64


class Activation(enum.StrEnum):
    """What a hidden layer makes of its weighted sums."""

    IDENTITY = "identity"
    LOGISTIC = "logistic"
    TANH = "tanh"
    RELU = "relu"


class Link(enum.StrEnum):
    """How outputs become probabilities."""

    MEAN = "mean"
    """They are probabilities already."""
    LOGISTIC = "logistic"
    """One output: the log-odds of class 1."""
    SOFTMAX = "softmax"
    ONE_AGAINST_REST = "one_against_rest"
    """Logistic of each output, then divided by their sum."""
    NONE = "none"
    """The model gives no probabilities."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearModel:
    """Outputs are weighted sums of the features."""

    weights: Floats
    """``(outputs, features)``"""
    bias: Floats
    """``(outputs,)``"""
    link: Link
    cut: float = 0.0
    """With one output: class 1 is answered where the output is larger."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return max(2, len(self.weights))

    @property
    def features(self) -> int:
        """Number of features."""
        return int(self.weights.shape[1])

    def outputs(self, rows: Rows) -> Floats:
        """``(batch, outputs)`` before the link."""
        outputs: Floats = _finite(rows, self.features) @ self.weights.T + self.bias
        return outputs

    def pulled_back(self, rows: Rows, pull: Floats) -> Floats:
        """``(batch, features)``: derivative by the rows, from ``pull`` ``(batch, outputs)`` by the outputs."""
        del rows
        pulled: Floats = pull @ self.weights
        return pulled

    def labels(self, rows: Rows) -> Labels:
        """Class indices ``(batch,)``."""
        return decided(self.outputs(rows), self.cut)

    def scores(self, rows: Rows) -> Scores:
        """Probabilities ``(batch, classes)``. Raises WorkError when the model gives none."""
        return linked(self.outputs(rows), self.link)


@dataclass(frozen=True, slots=True, eq=False)
class NetworkModel:
    """Layers of weighted sums, all but the last bent by one function."""

    weights: Floats
    """Of all layers in a row, each ``(inputs, outputs)`` of its layer."""
    bias: Floats
    """``(outputs,)`` of the last layer."""
    hidden_bias: Floats
    """Of all other layers in a row."""
    widths: tuple[int, ...]
    """Features, units of each hidden layer, outputs."""
    activation: Activation
    link: Link
    cut: float = 0.0
    """With one output: class 1 is answered where the output is larger."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return max(2, self.widths[-1])

    @property
    def features(self) -> int:
        """Number of features."""
        return self.widths[0]

    @property
    def layers(self) -> list[tuple[Floats, Floats]]:
        """Weights ``(inputs, outputs)`` and biases of each layer, in their order."""
        shapes = list(itertools.pairwise(self.widths))
        weights = np.split(self.weights, np.cumsum([here * there for here, there in shapes])[:-1])
        hidden = np.split(self.hidden_bias, np.cumsum(self.widths[1:-1]))[: len(shapes) - 1]
        return [
            (part.reshape(shape), bias) for part, shape, bias in zip(weights, shapes, [*hidden, self.bias], strict=True)
        ]

    def outputs(self, rows: Rows) -> Floats:
        """``(batch, outputs)`` before the link."""
        return self._passed(rows)[-1]

    def pulled_back(self, rows: Rows, pull: Floats) -> Floats:
        """``(batch, features)``: derivative by the rows, from ``pull`` ``(batch, outputs)`` by the outputs."""
        seen, layers = self._passed(rows), self.layers
        for place in range(len(layers) - 1, 0, -1):
            pull = (pull @ layers[place][0].T) * _steepness(seen[place - 1], self.activation)
        pulled: Floats = pull @ layers[0][0].T
        return pulled

    def labels(self, rows: Rows) -> Labels:
        """Class indices ``(batch,)``."""
        return decided(self.outputs(rows), self.cut)

    def scores(self, rows: Rows) -> Scores:
        """Probabilities ``(batch, classes)``. Raises WorkError when the model gives none."""
        return linked(self.outputs(rows), self.link)

    def _passed(self, rows: Rows) -> list[Floats]:
        """What each layer hands on; the last one its sums."""
        here, passed, layers = _finite(rows, self.features), list[Floats](), self.layers
        for place, (weights, bias) in enumerate(layers):
            here = here @ weights + bias
            if place < len(layers) - 1:
                here = _bent(here, self.activation)
            passed.append(here)
        return passed


@dataclass(frozen=True, slots=True, eq=False)
class TreeEnsemble:
    """Outputs are sums of one leaf's values from each tree.

    A row goes left where its feature is at most the threshold. Children stand behind their parent,
    so that there is no way in circles.
    """

    feature: Integers
    """``(nodes,)``: the feature that is asked about; ``LEAF`` at leaves."""
    threshold: Floats
    """``(nodes,)``: rows at most this go left; infinite where all or none do."""
    left: Integers
    """``(nodes,)``: node where the row goes; at leaves the node itself."""
    right: Integers
    value: Floats
    """``(nodes, outputs)``: what a leaf adds; nothing at other nodes."""
    roots: Integers
    """``(trees,)``, in the order in which their values are added."""
    base: Floats
    """``(outputs,)``: what the sum starts from."""
    features: int
    link: Link
    divisor: float = 1.0
    """By which the sum is divided in the end."""
    single: bool = False
    """Values are added in float32."""
    cut: float = 0.0
    """With one output: class 1 is answered where the output is larger."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return max(2, len(self.base))

    @property
    def trees(self) -> int:
        """Number of trees."""
        return len(self.roots)

    def leaves(self, rows: Rows) -> Integers:
        """``(batch, trees)``: the leaf that each row comes to."""
        rows = _finite(rows, self.features)
        size = max(1, BLOCK // max(1, self.trees))
        parts = [self._walk(rows[at : at + size]) for at in range(0, len(rows), size)]
        return np.concatenate(parts) if parts else np.empty((0, self.trees), np.int64)

    def outputs(self, rows: Rows) -> Floats:
        """``(batch, outputs)``, added up in the order and precision of the framework."""
        return self.added(self.leaves(rows))

    def added(self, leaves: Integers) -> Floats:
        """Outputs ``(batch, outputs)`` of leaves ``(batch, trees)``."""
        kind = np.float32 if self.single else np.float64
        outputs = np.repeat(self.base.astype(kind)[None], len(leaves), axis=0)
        value = self.value.astype(kind)
        for tree in range(self.trees):
            outputs += value[leaves[:, tree]]
        if self.divisor != 1.0:
            outputs /= kind(self.divisor)
        return outputs.astype(np.float64)

    def labels(self, rows: Rows) -> Labels:
        """Class indices ``(batch,)``."""
        return decided(self.outputs(rows), self.cut)

    def scores(self, rows: Rows) -> Scores:
        """Probabilities ``(batch, classes)``. Raises WorkError when the model gives none."""
        return linked(self.outputs(rows), self.link)

    def _walk(self, rows: Rows) -> Integers:
        node = np.repeat(self.roots[None], len(rows), axis=0).ravel()
        flat, width = rows.ravel(), self.features
        start = np.repeat(np.arange(len(rows)) * width, self.trees)
        pending = np.flatnonzero(self.feature[node] != LEAF)
        while pending.size:
            here = node[pending]
            below = flat[start[pending] + self.feature[here]] <= self.threshold[here]
            node[pending] = there = np.where(below, self.left[here], self.right[here])
            pending = pending[self.feature[there] != LEAF]
        return node.reshape(len(rows), self.trees)


Structure = LinearModel | NetworkModel | TreeEnsemble


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Where rows come to each leaf: ``low < row <= high`` in every feature."""

    leaf: Integers
    """``(leaves,)``: nodes."""
    tree: Integers
    """``(leaves,)``: place of their tree among the roots."""
    low: Floats
    """``(leaves, features)``"""
    high: Floats


def boxes(ensemble: TreeEnsemble) -> Boxes:
    """The box of each leaf, tree by tree. Boxes that no row can be in are left out."""
    leaf, tree, low, high = list[int](), list[int](), list[Floats](), list[Floats]()
    for place, root in enumerate(ensemble.roots.tolist()):
        everywhere = np.full(ensemble.features, np.inf)
        waiting = [(root, -everywhere, everywhere)]
        while waiting:
            node, below, above = waiting.pop()
            feature, threshold = int(ensemble.feature[node]), ensemble.threshold[node]
            if feature == LEAF:
                leaf.append(node)
                tree.append(place)
                low.append(below)
                high.append(above)
                continue
            if threshold < above[feature]:
                narrowed = below.copy()
                narrowed[feature] = max(threshold, below[feature])
                waiting.append((int(ensemble.right[node]), narrowed, above))
            if threshold > below[feature]:
                narrowed = above.copy()
                narrowed[feature] = min(threshold, above[feature])
                waiting.append((int(ensemble.left[node]), below, narrowed))
    return Boxes(np.array(leaf, np.int64), np.array(tree, np.int64), np.array(low), np.array(high))


def _bent(sums: Floats, activation: Activation) -> Floats:
    """What the function makes of weighted sums."""
    match activation:
        case Activation.IDENTITY:
            return sums
        case Activation.LOGISTIC:
            return np.asarray(scipy.special.expit(sums))
        case Activation.TANH:
            return np.tanh(sums)
        case Activation.RELU:
            return np.maximum(sums, 0.0)


def _steepness(bent: Floats, activation: Activation) -> Floats:
    """Derivative of the function where its value is ``bent``."""
    match activation:
        case Activation.IDENTITY:
            return np.ones_like(bent)
        case Activation.LOGISTIC:
            return bent * (1 - bent)
        case Activation.TANH:
            return 1 - bent**2
        case Activation.RELU:
            return (bent > 0).astype(np.float64)


def decided(outputs: Floats, cut: float = 0.0) -> Labels:
    """Class indices ``(batch,)`` of outputs ``(batch, outputs)``; of equal ones the first."""
    labels = outputs[:, 0] > cut if outputs.shape[1] == 1 else outputs.argmax(axis=1)
    return labels.astype(np.int64)


def linked(outputs: Floats, link: Link) -> Scores:
    """Probabilities ``(batch, classes)`` of outputs ``(batch, outputs)``.

    Raises:
        WorkError: there are none.
    """
    scores: Scores
    match link:
        case Link.NONE:
            raise WorkError("the model gives no probabilities", remedy="ask it for labels.")
        case Link.LOGISTIC:
            scores = scipy.special.expit(np.column_stack([-outputs[:, 0], outputs[:, 0]]))
        case Link.SOFTMAX:
            scores = scipy.special.softmax(outputs, axis=1)
        case Link.ONE_AGAINST_REST:
            chances = scipy.special.expit(outputs)
            scores = chances / chances.sum(axis=1, keepdims=True)
        case Link.MEAN:
            scores = outputs
    return scores


def last_passing(passes: Callable[[Floats], NDArray[np.bool_]], count: int) -> Floats:
    """``(count,)``: for each of so many falling tests, the largest float64 that passes.

    ``passes`` is given one float for each test, and must be true up to some float and false from
    there on. The result is infinite where all floats pass, and minus infinity where none does.
    """
    most = np.finfo(np.float64).max
    low, high = np.full(count, _rank(-most)), np.full(count, _rank(most))
    # Large floats have no counterpart in float32: what that makes of them is part of the test.
    with np.errstate(over="ignore"):
        none, everything = ~passes(_ranked(low)), passes(_ranked(high))
        for _ in range(_BITS):
            # The mean of two ranks, rounded down, without their sum, which may be too large.
            middle = (low >> 1) + (high >> 1) + (low & high & 1)
            passed = passes(_ranked(middle))
            low, high = np.where(passed, middle, low), np.where(passed, high, middle)
    return np.where(none, -np.inf, np.where(everything, np.inf, _ranked(low)))


def _rank(number: float) -> np.int64:
    """Place of a float among all floats."""
    bits = np.float64(number).view(np.int64)
    return np.int64(bits if bits >= 0 else bits ^ _MAGNITUDE)


def _ranked(ranks: Integers) -> Floats:
    """The floats at these places."""
    return np.where(ranks >= 0, ranks, ranks ^ _MAGNITUDE).view(np.float64)


def joined(trees: Sequence[TreeEnsemble], *, base: Floats, features: int, link: Link, **more: Any) -> TreeEnsemble:
    """One ensemble of several, their trees in this order.

    Raises:
        ArtefactError: there are none.
    """
    if not trees:
        raise ArtefactError("an ensemble without any tree", remedy="give a model that was fitted.")
    offsets = np.cumsum([0, *(len(tree.feature) for tree in trees)])[:-1].tolist()
    parts = list(zip(trees, offsets, strict=True))
    return TreeEnsemble(
        feature=np.concatenate([tree.feature for tree in trees]),
        threshold=np.concatenate([tree.threshold for tree in trees]),
        left=np.concatenate([tree.left + offset for tree, offset in parts]),
        right=np.concatenate([tree.right + offset for tree, offset in parts]),
        value=np.concatenate([tree.value for tree in trees]),
        roots=np.concatenate([tree.roots + offset for tree, offset in parts]),
        base=base,
        features=features,
        link=link,
        **more,
    )


def _finite(rows: Rows, features: int) -> Rows:
    """The rows, when the structure says what the model makes of them.

    Raises:
        WorkError: they have another shape, or hold missing values.
    """
    if rows.ndim != 2 or rows.shape[1] != features:  # noqa: PLR2004 - rows are two-dimensional
        raise WorkError(f"the model takes rows of {features} features and was given an array {rows.shape}")
    if not np.isfinite(rows).all():
        raise WorkError(
            "the structure of a model says nothing of rows with missing or infinite values",
            remedy="fill them in, or ask the model itself.",
        )
    return np.ascontiguousarray(rows, dtype=np.float64)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a packed structure consists of: plain values, and the shapes of its arrays."""

    kind: str
    plain: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        """Bytes of all arrays. Every number has eight of them. Negative when a shape is none."""
        if any(side < 0 for shape in self.shapes.values() for side in shape):
            return -1
        return sum(math.prod(shape) for shape in self.shapes.values()) * 8


_KINDS: dict[str, type[Structure]] = {"linear": LinearModel, "network": NetworkModel, "trees": TreeEnsemble}
_DTYPES = {"feature": "<i8", "left": "<i8", "right": "<i8", "roots": "<i8"}


def pack(structure: Structure) -> tuple[Plan, bytes]:
    """The structure as a plan and bytes."""
    kind = next(name for name, one in _KINDS.items() if isinstance(structure, one))
    named = {field.name: getattr(structure, field.name) for field in fields(structure)}
    arrays = {name: value for name, value in named.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in named.items() if name not in arrays}
    body = b"".join(array.astype(_DTYPES.get(name, "<f8")).tobytes() for name, array in arrays.items())
    return Plan(kind=kind, plain=plain, shapes={name: array.shape for name, array in arrays.items()}), body


def unpack(plan: Plan, body: bytes | bytearray) -> Structure:
    """The structure that was packed; whoever packed it is not believed.

    Raises:
        ArtefactError: it is none.
    """
    kind, at, named = _KINDS.get(plan.kind), 0, dict[str, Any](plan.plain)
    if kind is None or len(body) != plan.size:
        raise ArtefactError(f"a structure of kind {plan.kind[:20]!r} with {len(body)} bytes is none")
    for name, shape in plan.shapes.items():
        count = int(np.prod(shape, dtype=np.int64))
        named[name] = np.frombuffer(body, _DTYPES.get(name, "<f8"), count, at).reshape(shape).copy()
        at += 8 * count
    try:
        named["link"] = Link(named["link"])
        if kind is NetworkModel:
            named |= {"widths": tuple(named["widths"]), "activation": Activation(named["activation"])}
        structure: Structure = kind(**named)
        _check(structure)
    except (TypeError, KeyError, ValueError, IndexError) as error:
        raise ArtefactError(f"what is said to be the structure of a model is none: {error}") from error
    return structure


def _check(structure: Structure) -> None:
    """Raise ValueError when indices lead astray, or numbers are none."""
    if isinstance(structure, LinearModel):
        sound = structure.weights.ndim == 2 and structure.bias.shape == structure.weights.shape[:1]  # noqa: PLR2004
        numbers = [structure.weights, structure.bias]
    elif isinstance(structure, NetworkModel):
        sound = _sound_layers(structure)
        numbers = [structure.weights, structure.bias, structure.hidden_bias]
    else:
        sound = _sound_trees(structure)
        numbers = [structure.value, structure.base, np.array([structure.divisor])]
    one = len(numbers[1]) == 1
    sound = sound and (structure.link in {Link.LOGISTIC, Link.NONE} if one else structure.link != Link.LOGISTIC)
    if not sound or not all(np.isfinite(array).all() for array in numbers) or not np.isfinite(structure.cut):
        raise ValueError("its arrays do not fit together")


def _sound_layers(network: NetworkModel) -> bool:
    """Whether there are just as many numbers as the layers have."""
    widths = network.widths
    if len(widths) < 2 or not all(type(width) is int and 0 < width <= MAX_WIDTH for width in widths):  # noqa: PLR2004
        return False
    weights = sum(here * there for here, there in itertools.pairwise(widths))
    shapes = network.weights.shape, network.bias.shape, network.hidden_bias.shape
    return shapes == ((weights,), (widths[-1],), (sum(widths[1:-1]),))


def _sound_trees(trees: TreeEnsemble) -> bool:
    """Whether every way ends at a leaf, and every leaf has values."""
    nodes = len(trees.feature)
    shapes = {trees.feature.shape, trees.threshold.shape, trees.left.shape, trees.right.shape}
    if shapes != {(nodes,)} or trees.value.shape != (nodes, len(trees.base)) or trees.base.ndim != 1:
        return False
    if nodes > MAX_NODES or not len(trees.roots) or np.isnan(trees.threshold).any() or not len(trees.base):
        return False
    inner, places = trees.feature != LEAF, np.arange(nodes)
    ends = np.concatenate([trees.left, trees.right, trees.roots])
    if not ((ends >= 0) & (ends < nodes)).all():
        return False
    onward = (trees.left > places) & (trees.right > places)
    known = (trees.feature >= 0) & (trees.feature < trees.features)
    return bool((~inner | (onward & known)).all()) and trees.divisor > 0
