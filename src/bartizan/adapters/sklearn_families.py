"""Model families of scikit-learn, and of xgboost and lightgbm where they are installed, fitted in this process.

Here nothing of unknown origin is loaded: the estimators are made and trained by our own code from the
declared data. Model files go through the isolated process instead.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from bartizan.core.errors import WorkError
from bartizan.lifecycle.develop.choose.candidate import Aspect, Axis, Candidate, Facts, Interpretability, Supply
from bartizan.targets.protocol import Access, Labels, Rows, Scores

READABLE_WEIGHTS = 100
"""Numbers of a linear or Bayes model that a person can still go through one by one."""
READABLE_LEAVES = 32
"""Leaves of a tree that fits a page."""
SCALE = "scale"
"""Setting of every family whose answers depend on the units of the features."""


def _not_here(_: Any) -> str:
    return "no way to prune was provided."


def _as_it_is(estimator: Any, _rows: Rows, _labels: Labels, _seed: int) -> Any:
    return estimator


@dataclass(frozen=True)
class Tools:
    """What other files know of estimators; wiring hands it in, because adapters do not know one another."""

    why_not_pruned: Callable[[Any], str] = _not_here
    pruned: Callable[[Any, Rows, Labels, int], Any] = _as_it_is


class FittedTarget:
    """A fitted scikit-learn classifier in this process. See ``Target`` and ``Fitted``."""

    class_values: tuple[str, ...] = ()

    def __init__(self, estimator: Any, *, classes: int, name: str, known: Labels, tools: Tools | None = None) -> None:
        self.estimator = estimator
        self.tools = tools or Tools()
        self.classes = classes
        self.name = name
        self.known = known
        """``(known,)``: the classes that were in its training data; the estimator counts these from 0."""

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        return frozenset({Access.LABELS, Access.SCORES, Access.TRAINING})

    @property
    def features(self) -> int:
        """See ``Target.features``."""
        return int(self.estimator.n_features_in_)

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        if not len(rows):
            return np.empty(0, dtype=np.int64)
        labels: Labels = self.known[np.asarray(self.estimator.predict(rows), dtype=np.int64)]
        return labels

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        scores = np.zeros((len(rows), self.classes))
        if len(rows):
            scores[:, self.known] = self.estimator.predict_proba(rows)
        return scores

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> FittedTarget:
        """See ``Target.retrain``. The rows may have other columns than before."""
        return fitted(self.estimator, rows, labels, classes=self.classes, name=self.name, seed=seed, tools=self.tools)

    def why_not_pruned(self) -> str:
        """See ``Prunable.why_not_pruned``."""
        return self.tools.why_not_pruned(self.estimator)

    def pruned(self, rows: Rows, labels: Labels, *, seed: int) -> FittedTarget:
        """See ``Prunable.pruned``."""
        smaller = self.tools.pruned(self.estimator, rows, labels, seed % 2**32)
        return fitted(smaller, rows, labels, classes=self.classes, name=self.name, seed=seed, tools=self.tools)

    @cached_property
    def facts(self) -> Facts:
        """See ``Fitted.facts``."""
        return facts_of(self.estimator)


def fitted(
    estimator: Any, rows: Rows, labels: Labels, *, classes: int, name: str, seed: int, tools: Tools | None = None
) -> FittedTarget:
    """A fresh copy of ``estimator``, fitted.

    Raises:
        WorkError: there are no rows, or the estimator refuses them.
    """
    if not len(rows):
        raise WorkError(f"{name} cannot learn from no records", remedy="give training records.")
    known, coded = np.unique(labels, return_inverse=True)
    model = clone(estimator) if len(known) > 1 else DummyClassifier(strategy="prior")
    random = {key: seed % 2**32 for key in model.get_params() if key.split("__")[-1] in {"random_state", "seed"}}
    try:
        with _quietly():
            model.set_params(**random).fit(rows, coded)
    except ValueError as error:
        raise WorkError(f"{name} cannot learn from these records: {error}") from error
    return FittedTarget(model, classes=classes, name=name, known=known.astype(np.int64), tools=tools)


@contextmanager
def _quietly() -> Iterator[None]:
    """Training that stops at its step limit is a setting here, not an accident."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        yield


# -- what is inside --------------------------------------------------------------------------------


def facts_of(estimator: Any) -> Facts:
    """Count what a fitted estimator holds."""
    core = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    core = getattr(core, "network_", core)
    parameters = numbers(core)
    interpretability, why = openness(core, parameters)
    return Facts(parameters, len(pickle.dumps(estimator, protocol=5)), interpretability, why)


def numbers(core: Any) -> int | None:
    """Numbers that a fitted estimator learnt from the data; None for a kind that is not known here."""
    for kind, count in _COUNTERS.items():
        if isinstance(core, kind):
            return int(count(core))
    return _foreign_numbers(core)


def _network_numbers(core: MLPClassifier) -> int:
    return sum(int(np.count_nonzero(part)) for part in (*core.coefs_, *core.intercepts_))


def tree_numbers(tree: DecisionTreeClassifier) -> int:
    """A feature and a threshold for each split, the shares of the classes for each leaf."""
    leaves = int(tree.get_n_leaves())
    return 2 * (leaves - 1) + leaves * (len(tree.classes_) - 1)


def _boosted_numbers(core: HistGradientBoostingClassifier) -> int:
    counts = [predictor.get_n_leaf_nodes() for each in core._predictors for predictor in each]  # noqa: SLF001 - no other way to count
    return sum(2 * (leaves - 1) + leaves for leaves in counts)


_COUNTERS: dict[type[Any], Callable[[Any], int]] = {
    DummyClassifier: lambda core: len(core.class_prior_),
    LogisticRegression: lambda core: np.count_nonzero(core.coef_) + core.intercept_.size,
    DecisionTreeClassifier: tree_numbers,
    RandomForestClassifier: lambda core: sum(tree_numbers(tree) for tree in core.estimators_),
    GaussianNB: lambda core: core.theta_.size + core.var_.size + core.class_prior_.size,
    KNeighborsClassifier: lambda core: core.n_samples_fit_ * (core.n_features_in_ + 1),
    MLPClassifier: _network_numbers,
    HistGradientBoostingClassifier: _boosted_numbers,
}
"""How the numbers of each kind are counted."""


def _foreign_numbers(core: Any) -> int | None:
    """Of xgboost and lightgbm: a feature and a threshold for each split, a value for each leaf."""
    kind = type(core).__module__.split(".")[0]
    if kind == "xgboost":
        frame = core.get_booster().get_dump(dump_format="text")
        leaves = sum(tree.count("leaf=") for tree in frame)
        return int(3 * leaves - 2 * len(frame))
    if kind == "lightgbm":
        trees = core.booster_.dump_model()["tree_info"]
        return int(sum(3 * tree["num_leaves"] - 2 for tree in trees))
    return None


def openness(core: Any, parameters: int | None) -> tuple[Interpretability, str]:
    """How far a fitted estimator can be followed, and why."""
    if isinstance(core, DummyClassifier):
        return Interpretability.GLASS_BOX, "the mixture of classes"
    if isinstance(core, LogisticRegression | GaussianNB):
        few = parameters is not None and parameters <= READABLE_WEIGHTS
        what = f"{parameters} weights" if isinstance(core, LogisticRegression) else f"{parameters} means and variances"
        return (Interpretability.GLASS_BOX if few else Interpretability.GREY_BOX), what
    if isinstance(core, DecisionTreeClassifier):
        leaves = int(core.get_n_leaves())
        few = leaves <= READABLE_LEAVES
        return (Interpretability.GLASS_BOX if few else Interpretability.GREY_BOX), f"a tree of {leaves} leaves"
    if isinstance(core, KNeighborsClassifier):
        return Interpretability.GREY_BOX, f"answers by the {core.n_neighbors} most similar records"
    return Interpretability.BLACK_BOX, f"{parameters:,} numbers" if parameters else "not looked into"


# -- families --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """One family. See ``Candidate``."""

    name: str
    title: str
    make: Callable[[dict[str, Any]], Any]
    """An unfitted estimator with these settings."""
    axes: tuple[Axis, ...] = ()
    package: str = "scikit-learn"
    is_floor: bool = False
    tools: Tools = field(default_factory=Tools)

    @property
    def supply(self) -> Supply:
        """See ``Candidate.supply``."""
        return Supply(
            code=f"{self.package} {metadata.version(self.package)}",
            weights="learnt here from the declared training data",
            risk="the package and the training data have to be trusted; no weights of others, no service of others",
        )

    def fingerprint(self) -> Any:
        """See ``Candidate.fingerprint``."""
        return [self.supply.code, np.__version__, repr(self.estimator({}))]

    def fit(self, rows: Rows, labels: Labels, *, classes: int, seed: int, settings: dict[str, Any]) -> FittedTarget:
        """See ``Candidate.fit``."""
        name = f"model:{self.name}"
        estimator = self.estimator(settings)
        return fitted(estimator, rows, labels, classes=classes, name=name, seed=seed, tools=self.tools)

    def estimator(self, settings: dict[str, Any]) -> Any:
        """The unfitted estimator, with standardisation in front where the settings ask for it."""
        chosen = {axis.setting: axis.values[0] for axis in self.axes} | settings
        scale = chosen.pop(SCALE, False)
        core = self.make(chosen)
        return Pipeline([("scale", StandardScaler()), ("model", core)]) if scale else core


def _axis(aspect: Aspect, setting: str, *values: Any) -> Axis:
    return Axis(aspect=aspect, setting=setting, values=values)


SCALING = _axis(Aspect.CONFIGURATION, SCALE, True, False)  # noqa: FBT003 - alternatives


def _families() -> list[Family]:
    """Those of scikit-learn, by rising capacity."""
    dials, shape, algorithm = Aspect.HYPERPARAMETERS, Aspect.ARCHITECTURE, Aspect.ALGORITHM
    return [
        Family("floor", "Most frequent class", lambda _: DummyClassifier(strategy="prior"), is_floor=True),
        Family(
            "logistic",
            "Logistic regression",
            lambda said: LogisticRegression(max_iter=2_000, **said),
            (SCALING, _axis(dials, "C", 0.01, 0.1, 1.0, 10.0), _axis(algorithm, "solver", "lbfgs", "newton-cg")),
        ),
        Family(
            "tree",
            "Decision tree",
            lambda said: DecisionTreeClassifier(**said),
            (
                _axis(shape, "max_depth", 2, 3, 4, 6, None),
                _axis(dials, "min_samples_leaf", 10, 5, 1),
                _axis(algorithm, "criterion", "gini", "entropy"),
            ),
        ),
        Family(
            "bayes",
            "Naive Bayes (Gaussian)",
            lambda said: GaussianNB(**said),
            (SCALING, _axis(dials, "var_smoothing", 1e-2, 1e-5, 1e-9)),
        ),
        Family(
            "neighbours",
            "Nearest neighbours",
            lambda said: KNeighborsClassifier(**said),
            (SCALING, _axis(shape, "n_neighbors", 15, 5, 1), _axis(algorithm, "weights", "uniform", "distance")),
        ),
        Family(
            "forest",
            "Random forest",
            lambda said: RandomForestClassifier(n_jobs=1, **said),
            (
                _axis(shape, "n_estimators", 30, 100),
                _axis(shape, "max_depth", 4, 8, None),
                _axis(dials, "min_samples_leaf", 5, 1),
            ),
        ),
        Family(
            "boosting",
            "Gradient-boosted trees",
            lambda said: HistGradientBoostingClassifier(early_stopping=False, **said),
            (
                _axis(shape, "max_iter", 30, 100),
                _axis(shape, "max_leaf_nodes", 4, 15),
                _axis(dials, "learning_rate", 0.1),
            ),
        ),
        Family(
            "network",
            "Small neural network",
            lambda said: MLPClassifier(max_iter=300, **(said | {"hidden_layer_sizes": (said["hidden_layer_sizes"],)})),
            (SCALING, _axis(shape, "hidden_layer_sizes", 8, 32), _axis(dials, "alpha", 1.0, 0.01)),
        ),
    ]


XGBOOST = ("xgboost", "xgboost-cpu")
"""Packages that bring it."""


def _installed(package: str) -> bool:
    return any(metadata.distributions(name=package))


def _foreign() -> list[Family]:
    """Those of other packages that are installed."""
    shape, dials, found = Aspect.ARCHITECTURE, Aspect.HYPERPARAMETERS, list[Family]()
    if find_spec("xgboost"):
        package = next(name for name in (*filter(_installed, XGBOOST), XGBOOST[0]))
        found.append(
            Family(
                "xgboost",
                "Gradient-boosted trees (xgboost)",
                lambda said: import_module("xgboost").XGBClassifier(n_jobs=1, verbosity=0, **said),
                (
                    _axis(shape, "n_estimators", 30, 100),
                    _axis(shape, "max_depth", 2, 4),
                    _axis(dials, "reg_lambda", 1.0),
                ),
                package=package,
            )
        )
    if find_spec("lightgbm"):
        found.append(
            Family(
                "lightgbm",
                "Gradient-boosted trees (lightgbm)",
                lambda said: import_module("lightgbm").LGBMClassifier(
                    n_jobs=1, verbose=-1, deterministic=True, force_col_wise=True, **said
                ),
                (
                    _axis(shape, "n_estimators", 30, 100),
                    _axis(shape, "num_leaves", 4, 15),
                    _axis(dials, "min_child_samples", 20),
                ),
                package="lightgbm",
            )
        )
    return found


class InstalledFamilies:
    """See ``Families``."""

    def __init__(self, tools: Tools | None = None) -> None:
        self._tools = tools or Tools()

    def candidates(self) -> Sequence[Candidate]:
        """See ``Families.candidates``."""
        return [replace(family, tools=self._tools) for family in (*_families(), *_foreign())]
