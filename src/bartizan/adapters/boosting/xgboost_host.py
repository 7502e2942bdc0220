"""The process that holds an XGBoost model: a JSON or UBJSON file, loaded by XGBoost itself.

Such a file does not say how the model was trained (rate, depth, sampling), so it is not trained again. It does not say
what the classes are called either: they are the whole numbers from 0, as XGBoost demands of labels.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from bartizan.adapters.boosting.xgboost_structure import BINARY, MANY, read_xgboost
from bartizan.core.errors import ArtefactError
from bartizan.targets.host import Inside, Question, library, numbers, packed, rows_of
from bartizan.targets.hosting import Answer, Command, Refusal
from bartizan.targets.protocol import Rows
from bartizan.targets.structure import Link, linked

HINGE = "binary:hinge"


class Host:
    """One booster."""

    def __init__(self) -> None:
        self.file = bytearray()
        self.inside = Inside()
        self.framework: Any = None
        self.booster: Any = None
        self.objective = ""
        self.features = 0

    def keep(self, question: Question) -> Answer:
        """Take the model file. It is loaded only when the other side has seen that it is the right one."""
        self.file = question.data
        return {}

    def load(self, _: Question) -> Answer:
        """Load the model file and say what is in it."""
        self.framework = library("xgboost", "bartizan[xgboost]")
        self.booster, self.file = self._booster(self.file), bytearray()
        learner = json.loads(self.booster.save_config())["learner"]
        self.objective = str(learner["objective"]["name"])
        if self.objective not in BINARY.keys() | MANY.keys():
            raise Refusal(f"its objective {self.objective[:50]} is none of classification")
        self.features = int(self.booster.num_features())
        classes = 2 if self.objective in BINARY else int(learner["learner_model_param"]["num_class"])
        lacks = {"training": "An XGBoost file does not say how the model was trained"}
        try:
            self.inside.read = read_xgboost(bytes(self.booster.save_raw("json")))
        except ArtefactError as reason:
            lacks["weights"] = reason.message
        facts = {
            "features": self.features,
            "classes": classes,
            "scores": self.objective != HINGE,
            "names": list(self.booster.feature_names or ()),
            "weights": self.inside.read is not None,
            "lacks": lacks,
        }
        return {"facts": facts}

    def labels(self, question: Question) -> Answer:
        """Class indices, ``(rows,)``."""
        rows = rows_of(question, self.features)
        if self.objective == HINGE:
            answer = self._predicted(rows) > 0
        elif self.objective == "binary:logitraw":
            answer = self._predicted(rows, output_margin=True) > 0
        elif self.objective == "binary:logistic":
            answer = self._predicted(rows) > 0.5  # noqa: PLR2004 - in float32, as XGBClassifier decides
        elif self.objective == "multi:softmax":
            answer = self._predicted(rows)
        else:
            answer = self._predicted(rows).argmax(axis=1)
        return packed(answer, "<i8")

    def scores(self, question: Question) -> Answer:
        """Probabilities, ``(rows, classes)``."""
        rows = rows_of(question, self.features)
        if self.objective in {"binary:logistic", "multi:softprob"}:
            answer = self._predicted(rows)
            answer = answer if answer.ndim > 1 else np.column_stack([1 - answer, answer])
        else:
            margin = self._predicted(rows, output_margin=True).astype(np.float64)
            answer = linked(margin.reshape(len(rows), -1), BINARY.get(self.objective, Link.SOFTMAX))
        return packed(answer, "<f8")

    def _predicted(self, rows: Rows, **options: Any) -> Any:
        matrix = self.framework.DMatrix(rows, nthread=1, feature_names=self.booster.feature_names)
        return numbers(self.booster.predict(matrix, **options))

    def _booster(self, file: bytearray) -> Any:
        _check_document(file)
        booster = self.framework.Booster(params={"nthread": 1})
        try:
            booster.load_model(file)
        except self.framework.core.XGBoostError as error:
            said = str(error).splitlines()
            raise Refusal(f"XGBoost reads no model from it ({said[0][:200] if said else 'no reason given'})") from error
        booster.set_param({"nthread": 1, "device": "cpu"})
        return booster


def _check_document(file: bytearray) -> None:
    """Refuse early what XGBoost would end this process over."""
    if not file.startswith(b"{"):
        raise Refusal("it is neither XGBoost's JSON nor its UBJSON")
    if file[1:].lstrip()[:1] != b'"':
        return
    try:
        whole = json.loads(file)
    except ValueError as error:
        raise Refusal(f"it is no whole JSON document ({error})") from error
    if not isinstance(whole.get("learner"), dict):
        raise Refusal("it is a JSON document, and none of XGBoost")


def commands() -> dict[str, Command[Question]]:
    """What this host can be asked; see ``bartizan.targets.hosting``."""
    host = Host()
    return {
        "keep": host.keep,
        "load": host.load,
        "labels": host.labels,
        "scores": host.scores,
        "structure": host.inside.structure,
        "arrays": host.inside.arrays,
    }
