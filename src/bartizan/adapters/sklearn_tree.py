"""Small decision trees by scikit-learn, handed on as plain rows."""

from __future__ import annotations

from typing import Any

from sklearn.tree import DecisionTreeClassifier

from bartizan.targets.protocol import Labels, Rows


class SklearnTrees:
    """See ``gateway.guards.rules.fitting.Trees``."""

    def fit(
        self, rows: Rows, labels: Labels, *, levels: int, least: int, seed: int
    ) -> list[tuple[int, float, int, int, int]]:
        """See ``Trees.fit``."""
        fitted = DecisionTreeClassifier(max_depth=levels, min_samples_leaf=least, random_state=seed).fit(rows, labels)
        tree: Any = fitted.tree_
        answers = fitted.classes_[tree.value[:, 0, :].argmax(axis=1)]
        return [
            (int(column), float(threshold), int(left), int(right), -1 if left >= 0 else int(answer))
            for column, threshold, left, right, answer in zip(
                tree.feature, tree.threshold, tree.children_left, tree.children_right, answers, strict=True
            )
        ]
