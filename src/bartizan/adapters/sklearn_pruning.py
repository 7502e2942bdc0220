"""How estimators of scikit-learn are pruned: the unfitted, smaller estimator that takes a fitted one's place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier

from bartizan.targets.protocol import Labels, Rows

FOLDS = 5
MOST_STEPS = 20
"""Strengths of pruning that are tried for a tree."""
FEWER = 3
"""A forest or boosted trees keep one tree in so many."""
SHALLOW = 4
"""Depth of the trees of a pruned forest."""
CUT = 0.5
"""Share of the weights of a network that is set to 0, the smallest ones."""


class MagnitudePruned(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """A network whose smallest weights are set to 0 after training (Han et al. 2015, arXiv:1506.02626)."""

    def __init__(self, network: MLPClassifier, cut: float = CUT) -> None:
        self.network = network
        self.cut = cut

    def fit(self, rows: Rows, labels: Labels) -> MagnitudePruned:
        """Train, then cut each layer."""
        self.network_ = clone(self.network).fit(rows, labels)
        self.network_.coefs_ = [self._cut(weights) for weights in self.network_.coefs_]
        self.classes_ = self.network_.classes_
        self.n_features_in_ = self.network_.n_features_in_
        return self

    def predict(self, rows: Rows) -> Labels:
        """Class of each row."""
        labels: Labels = self.network_.predict(rows)
        return labels

    def predict_proba(self, rows: Rows) -> NDArray[np.float64]:
        """Probabilities of each row."""
        scores: NDArray[np.float64] = self.network_.predict_proba(rows)
        return scores

    def _cut(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        least = np.quantile(np.abs(weights), self.cut)
        return np.where(np.abs(weights) < least, 0.0, weights)


def why_not_pruned(estimator: Any) -> str:
    """Why an estimator cannot be pruned; empty when it can."""
    kinds = (DecisionTreeClassifier, RandomForestClassifier, HistGradientBoostingClassifier, MLPClassifier)
    if isinstance(core_of(estimator), kinds):
        return ""
    return "only trees, forests, boosted trees and networks are pruned; others lose features instead."


def core_of(estimator: Any) -> Any:
    """The last step of a pipeline, or the estimator."""
    return estimator[-1] if isinstance(estimator, Pipeline) else estimator


def pruned(estimator: Any, rows: Rows, labels: Labels, seed: int) -> Any:
    """An unfitted estimator that will be smaller than ``estimator`` when it has been fitted."""
    core = core_of(estimator)
    if isinstance(core, DecisionTreeClassifier):
        smaller = clone(core).set_params(ccp_alpha=pruning_strength(core, rows, labels, seed))
    elif isinstance(core, RandomForestClassifier):
        smaller = clone(core).set_params(n_estimators=max(1, core.n_estimators // FEWER), max_depth=SHALLOW)
    elif isinstance(core, HistGradientBoostingClassifier):
        smaller = clone(core).set_params(max_iter=max(1, core.max_iter // FEWER))
    else:
        smaller = MagnitudePruned(clone(core))
    return Pipeline([*estimator.steps[:-1], ("model", smaller)]) if isinstance(estimator, Pipeline) else smaller


def pruning_strength(tree: DecisionTreeClassifier, rows: Rows, labels: Labels, seed: int) -> float:
    """The strongest cost-complexity pruning within one standard error of the best (Breiman et al. 1984).

    Chosen by cross-validation on the training records.
    """
    path = clone(tree).set_params(ccp_alpha=0.0).cost_complexity_pruning_path(rows, labels).ccp_alphas
    steps = np.unique(np.maximum(path[:-1], 0.0)) if len(path) > 1 else np.zeros(1)
    # Between two steps of the path the tree is the same; the geometric mean stands for what lies between.
    middles = np.append(np.sqrt(steps[:-1] * steps[1:]), steps[-1])
    strengths = middles[np.unique(np.linspace(0, len(middles) - 1, MOST_STEPS).astype(int))]
    smallest = int(np.bincount(labels).min(initial=FOLDS, where=np.bincount(labels) > 0))
    if smallest < 2:  # noqa: PLR2004 - one record cannot be on both sides
        return 0.0
    folds = list(StratifiedKFold(min(FOLDS, smallest), shuffle=True, random_state=seed).split(rows, labels))
    right = np.zeros((len(strengths), len(labels)))
    for place, strength in enumerate(strengths.tolist()):
        model = clone(tree).set_params(ccp_alpha=strength)
        for kept, held in folds:
            right[place, held] = model.fit(rows[kept], labels[kept]).predict(rows[held]) == labels[held]
    shares = right.mean(axis=1)
    best = float(shares.max())
    error = float(np.sqrt(best * (1 - best) / len(labels)))
    return float(strengths[np.flatnonzero(shares >= best - error)[-1]])
