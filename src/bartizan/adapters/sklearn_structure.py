"""What a fitted scikit-learn classifier is made of, read from the estimator itself.

Runs where the estimator is: in the isolated process of ``bartizan.adapters.sklearn_host``, or in a test.
Read are trees and sums of trees (decision trees, extra trees, random forests, gradient boosting and
its histogram variant), linear classifiers and networks, alone or behind scalers that treat each feature by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bartizan.targets.structure import (
    LEAF,
    Activation,
    Floats,
    LinearModel,
    Link,
    NetworkModel,
    Structure,
    TreeEnsemble,
    joined,
    last_passing,
)

TREES = ("DecisionTreeClassifier", "ExtraTreeClassifier")
FORESTS = ("RandomForestClassifier", "ExtraTreesClassifier")
BOOSTED, HISTOGRAM = "GradientBoostingClassifier", "HistGradientBoostingClassifier"
LINEAR = (
    "LinearDiscriminantAnalysis",
    "LinearSVC",
    "LogisticRegression",
    "LogisticRegressionCV",
    "PassiveAggressiveClassifier",
    "Perceptron",
    "RidgeClassifier",
    "RidgeClassifierCV",
    "SGDClassifier",
)
NETWORK = "MLPClassifier"
BELOW_ZERO = -np.finfo(np.float64).smallest_subnormal
"""With this cut an output of 0 counts as class 1."""

Scaling = Callable[[Floats, NDArray[np.int64]], Floats]
"""Values, each of the feature beside it, to what the next step sees."""


class Unreadable(ValueError):  # noqa: N818 - it becomes an answer of the process, not an error of it
    """The model is of a kind whose structure is not read; the message says which."""


def kind_of(part: Any) -> str:
    """The name of scikit-learn's own class; empty for others, also for those derived from it.

    By name, because importing all these modules would take longer than to answer.
    """
    kind = type(part)
    return kind.__name__ if kind.__module__.partition(".")[0] == "sklearn" else ""


def readable(model: Any) -> str:
    """Why the structure of a model cannot be read, in one sentence; empty when it can."""
    try:
        scalers, last = _steps(model)
        for scaler in scalers:
            _scaling(scaler)
        _refuse_odd(last)
    except Unreadable as reason:
        return str(reason)
    return ""


def has_slopes(model: Any) -> bool:
    """Whether its structure can be read and has slopes to follow: linear models and networks, no trees."""
    return not readable(model) and kind_of(_steps(model)[1]) in {*LINEAR, NETWORK}


def read(model: Any) -> Structure:
    """The structure of a fitted classifier.

    Raises:
        Unreadable: it is of another kind.
    """
    scalers, last = _steps(model)
    scalings = [_scaling(scaler) for scaler in scalers]
    _refuse_odd(last)
    if kind_of(last) in LINEAR:
        return _linear(last, scalings)
    if kind_of(last) == NETWORK:
        return _network(last, scalings)
    if kind_of(last) == HISTOGRAM:
        return _histogram(last, scalings)
    if kind_of(last) == BOOSTED:
        return _boosted(last, scalings)
    trees = last.estimators_ if kind_of(last) in FORESTS else [last]
    parts = [_tree(tree.tree_, tree.tree_.value[:, 0, :], scalings) for tree in trees]
    return joined(
        parts,
        base=np.zeros(len(last.classes_)),
        features=int(model.n_features_in_),
        link=Link.MEAN,
        divisor=float(len(trees)),
    )


def _steps(model: Any) -> tuple[list[Any], Any]:
    """Scalers, and the classifier behind them."""
    if kind_of(model) != "Pipeline":
        return [], model
    steps = [step for _, step in model.steps if step is not None and not isinstance(step, str)]
    return steps[:-1], steps[-1]


def _refuse_odd(model: Any) -> None:
    if kind_of(model) not in {*TREES, *FORESTS, BOOSTED, HISTOGRAM, *LINEAR, NETWORK}:
        raise Unreadable(f"the structure of a {type(model).__name__} is not read")
    if kind_of(model) == HISTOGRAM and model.is_categorical_ is not None:
        raise Unreadable("the structure of trees that ask for categories is not read")
    if kind_of(model) == BOOSTED:
        if not isinstance(model.init_, str) and kind_of(model.init_) != "DummyClassifier":
            raise Unreadable("the structure of trees that start from another model is not read")
        if model.loss == "exponential":
            raise Unreadable("the structure of trees boosted with the exponential loss is not read")


def _scaling(step: Any) -> Scaling:
    """What a scaler does to single values, in the order of operations of the scaler itself."""
    if kind_of(step) == "StandardScaler":
        return _moved(_or(step.mean_, 0.0, step), _or(step.scale_, 1.0, step))
    if kind_of(step) == "RobustScaler":
        return _moved(_or(step.center_, 0.0, step), _or(step.scale_, 1.0, step))
    if kind_of(step) == "MaxAbsScaler":
        clip = (-1.0, 1.0) if getattr(step, "clip", False) else None
        return _moved(np.zeros(step.n_features_in_), step.scale_, clip)
    if kind_of(step) == "MinMaxScaler":
        factor, shift, clip = step.scale_, step.min_, step.feature_range if step.clip else None
        if not (factor > 0).all():
            raise Unreadable("a scaler that turns the order of values round is not read")
        return lambda values, feature: _clipped(values * factor[feature] + shift[feature], clip)
    raise Unreadable(f"what a {type(step).__name__} does to a row is not read")


def _or(numbers: Floats | None, default: float, step: Any) -> Floats:
    return np.full(step.n_features_in_, default) if numbers is None else numbers


def _moved(centre: Floats, scale: Floats, clip: tuple[float, float] | None = None) -> Scaling:
    if not (scale > 0).all():
        raise Unreadable("a scaler that turns the order of values round is not read")
    return lambda values, feature: _clipped((values - centre[feature]) / scale[feature], clip)


def _clipped(values: Floats, clip: tuple[float, float] | None) -> Floats:
    return values if clip is None else np.clip(values, *clip)


def _outer(feature: NDArray[np.int64], threshold: Floats, scalings: Sequence[Scaling], *, rounded: bool) -> Floats:
    """Thresholds for rows as they are given, from those for rows as the trees see them."""
    if not scalings and not rounded:
        return threshold

    def passes(values: Floats) -> NDArray[np.bool_]:
        for scaling in scalings:
            values = scaling(values, feature)
        seen = values.astype(np.float32).astype(np.float64) if rounded else values
        passed: NDArray[np.bool_] = seen <= threshold
        return passed

    return last_passing(passes, len(threshold))


def _tree(tree: Any, value: Floats, scalings: Sequence[Scaling]) -> TreeEnsemble:
    """One of scikit-learn's own trees, whose rows are rounded to float32."""
    inner, own = tree.children_left != LEAF, np.arange(tree.node_count)
    feature = np.where(inner, tree.feature, LEAF).astype(np.int64)
    threshold = np.full(len(own), np.inf)
    threshold[inner] = _outer(feature[inner], tree.threshold[inner], scalings, rounded=True)
    return TreeEnsemble(
        feature=feature,
        threshold=threshold,
        left=np.where(inner, tree.children_left, own),
        right=np.where(inner, tree.children_right, own),
        value=np.where(inner[:, None], 0.0, value),
        roots=np.zeros(1, np.int64),
        base=np.zeros(value.shape[1]),
        features=int(tree.n_features),
        link=Link.NONE,
    )


def _spread(value: Floats, output: int, outputs: int) -> Floats:
    """Values ``(nodes,)`` as those of one output among several."""
    spread = np.zeros((len(value), outputs))
    spread[:, output] = value
    return spread


def _boosted(model: Any, scalings: Sequence[Scaling]) -> TreeEnsemble:
    """Gradient boosting: trees of log-odds, each shrunk, on top of the frequencies of the classes."""
    outputs = model.n_trees_per_iteration_
    base = (
        np.zeros(outputs)
        if isinstance(model.init_, str)
        else model._raw_predict_init(  # noqa: SLF001 - no other way
            np.zeros((1, model.n_features_in_), np.float32)
        )[0]
    )
    parts = [
        _tree(tree.tree_, _spread(model.learning_rate * tree.tree_.value[:, 0, 0], output, outputs), scalings)
        for stage in model.estimators_
        for output, tree in enumerate(stage)
    ]
    link = Link.LOGISTIC if outputs == 1 else Link.SOFTMAX
    cut = BELOW_ZERO if outputs == 1 else 0.0
    return joined(parts, base=base, features=int(model.n_features_in_), link=link, cut=cut)


def _histogram(model: Any, scalings: Sequence[Scaling]) -> TreeEnsemble:
    """Histogram-based boosting, whose rows stay in float64."""
    outputs = model.n_trees_per_iteration_
    parts = [
        _histogram_tree(predictor.nodes, output, outputs, model.n_features_in_, scalings)
        for stage in model._predictors  # noqa: SLF001 - no other way
        for output, predictor in enumerate(stage)
    ]
    base = np.ravel(model._baseline_prediction).astype(np.float64)  # noqa: SLF001
    link = Link.LOGISTIC if outputs == 1 else Link.SOFTMAX
    if not parts:
        nodes = np.zeros(1, np.int64)
        parts = [
            TreeEnsemble(nodes + LEAF, np.full(1, np.inf), nodes, nodes, np.zeros((1, outputs)), nodes, base, 1, link)
        ]
    return joined(parts, base=base, features=int(model.n_features_in_), link=link)


def _histogram_tree(
    nodes: NDArray[Any], output: int, outputs: int, features: int, scalings: Sequence[Scaling]
) -> TreeEnsemble:
    inner, own = ~nodes["is_leaf"].astype(bool), np.arange(len(nodes))
    feature = np.where(inner, nodes["feature_idx"].astype(np.int64), LEAF)
    threshold = np.full(len(own), np.inf)
    asked = nodes["num_threshold"].astype(np.float64)[inner]
    threshold[inner] = _outer(feature[inner], asked, scalings, rounded=False)
    return TreeEnsemble(
        feature=feature,
        threshold=threshold,
        left=np.where(inner, nodes["left"].astype(np.int64), own),
        right=np.where(inner, nodes["right"].astype(np.int64), own),
        value=_spread(np.where(inner, 0.0, nodes["value"]), output, outputs),
        roots=np.zeros(1, np.int64),
        base=np.zeros(outputs),
        features=features,
        link=Link.NONE,
    )


def _linear(model: Any, scalings: Sequence[Scaling]) -> LinearModel:
    """A linear classifier; scalers in front of it are multiplied in."""
    weights, bias = np.atleast_2d(model.coef_).astype(np.float64), np.ravel(model.intercept_).astype(np.float64)
    bias = np.broadcast_to(bias, len(weights)).copy()
    weights, bias = _multiplied_in(weights, bias, scalings)
    return LinearModel(weights, bias, _link(model, len(weights)))


def _network(model: Any, scalings: Sequence[Scaling]) -> NetworkModel:
    """A network; scalers in front of it are multiplied into its first layer."""
    if model.n_outputs_ > 1 and model.out_activation_ != Link.SOFTMAX:
        raise Unreadable("the structure of a network that gives a row several classes at once is not read")
    layers = [np.asarray(layer, np.float64) for layer in model.coefs_]
    biases = [np.asarray(bias, np.float64) for bias in model.intercepts_]
    first, biases[0] = _multiplied_in(layers[0].T, biases[0], scalings)
    return NetworkModel(
        weights=np.concatenate([first.T.ravel(), *(layer.ravel() for layer in layers[1:])]),
        bias=biases[-1],
        hidden_bias=np.concatenate([np.empty(0), *biases[:-1]]),
        widths=(len(layers[0]), *(layer.shape[1] for layer in layers)),
        activation=Activation(model.activation),
        link=Link(model.out_activation_),
    )


def _multiplied_in(weights: Floats, bias: Floats, scalings: Sequence[Scaling]) -> tuple[Floats, Floats]:
    """Weights ``(outputs, features)`` and biases for rows as they are given, from those for scaled ones."""
    features = np.arange(weights.shape[1])
    for scaling in reversed(scalings):
        at_zero = scaling(np.zeros(len(features)), features)
        slope = scaling(np.ones(len(features)), features) - at_zero
        if not np.allclose(scaling(np.full(len(features), -1e6), features), at_zero - 1e6 * slope, rtol=1e-6):
            raise Unreadable("a scaler that clips is not read in front of weighted sums")
        weights, bias = weights * slope, bias + weights @ at_zero
    return weights, bias


def _link(model: Any, outputs: int) -> Link:
    if not hasattr(model, "predict_proba"):
        return Link.NONE
    if outputs == 1:
        return Link.LOGISTIC if kind_of(model) != "SGDClassifier" or model.loss == "log_loss" else Link.NONE
    if kind_of(model) == "SGDClassifier":
        return Link.ONE_AGAINST_REST if model.loss == "log_loss" else Link.NONE
    one_by_one = getattr(model, "solver", "") == "liblinear" or getattr(model, "multi_class", "") == "ovr"
    return Link.ONE_AGAINST_REST if one_by_one and kind_of(model) != "LinearDiscriminantAnalysis" else Link.SOFTMAX
