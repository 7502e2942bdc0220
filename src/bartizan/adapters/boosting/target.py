"""A fitted XGBoost or LightGBM classifier as a target in this process."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from bartizan.adapters.boosting.lightgbm_structure import read_lightgbm
from bartizan.adapters.boosting.xgboost_structure import read_xgboost
from bartizan.core.errors import ArtefactError, WorkError
from bartizan.targets.protocol import Access, Labels, Rows, Scores
from bartizan.targets.structure import Structure


class BoostingTarget:
    """A classifier with the interface of scikit-learn whose structure can be had. See ``Target``, ``Transparent``.

    For models that the user fitted or loaded himself. Either an ``XGBClassifier`` or an ``LGBMClassifier``,
    fitted to an array.
    """

    dtype = np.dtype(np.float64)

    def __init__(self, model: Any, *, name: str = "model:boosting") -> None:
        if not hasattr(model, "predict_proba") or not (hasattr(model, "get_booster") or hasattr(model, "booster_")):
            raise ArtefactError(
                f"a {type(model).__name__} is no boosted classifier",
                remedy="give an XGBClassifier or an LGBMClassifier.",
            )
        self.name = name
        self._model = model
        self._values = np.asarray(model.classes_)

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``."""
        return frozenset({Access.LABELS, Access.SCORES, Access.TRAINING, Access.WEIGHTS})

    @property
    def classes(self) -> int:
        """See ``Target.classes``."""
        return len(self._values)

    @property
    def class_values(self) -> tuple[str, ...]:
        """See ``Target.class_values``."""
        return tuple(str(value) for value in self._values.tolist())

    @property
    def features(self) -> int:
        """See ``Target.features``."""
        return int(self._model.n_features_in_)

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        answer = self._model.predict(self._checked(rows), **self._options)
        labels: Labels = np.searchsorted(self._values, answer).astype(np.int64)
        return labels

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        answer = self._model.predict_proba(self._checked(rows), **self._options)
        scores: Scores = np.asarray(answer, dtype=np.float64)
        return scores

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> BoostingTarget:
        """See ``Target.retrain``.

        Raises:
            WorkError: a class is missing, without which such a model cannot be fitted.
        """
        if len(np.unique(labels)) != self.classes:
            raise WorkError(f"{self.name} can only be fitted to rows of all its {self.classes} classes")
        model = type(self._model)(**{**self._model.get_params(), "random_state": seed % 2**31, "n_jobs": 1})
        return BoostingTarget(model.fit(self._checked(rows), self._values[labels]), name=self.name)

    def structure(self) -> Structure:
        """See ``Transparent.structure``."""
        return self._structure

    @cached_property
    def _structure(self) -> Structure:
        if hasattr(self._model, "get_booster"):
            return read_xgboost(bytes(self._model.get_booster().save_raw("json")))
        return read_lightgbm(self._model.booster_.model_to_string())

    @property
    def _options(self) -> dict[str, Any]:
        """LightGBM warns of rows without names when it was fitted to rows without names."""
        return {} if hasattr(self._model, "get_booster") else {"validate_features": False}

    def _checked(self, rows: Rows) -> Rows:
        if rows.ndim != 2 or rows.shape[1] != self.features:  # noqa: PLR2004 - rows are two-dimensional
            raise WorkError(f"{self.name} takes rows of {self.features} features and was given an array {rows.shape}")
        return rows
