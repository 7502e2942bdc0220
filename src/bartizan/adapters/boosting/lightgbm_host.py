"""The process that holds a LightGBM model: a text file, loaded by LightGBM itself.

The file holds the parameters of training, so that the same can be done again with other data: as many rounds as there
are in the file. Weights of records and of classes, and early stopping, are not in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bartizan.adapters.boosting.lightgbm_structure import read_lightgbm
from bartizan.core.errors import ArtefactError
from bartizan.targets.host import Inside, Question, labels_of, library, numbers, packed, rows_of
from bartizan.targets.hosting import Answer, Command, Refusal
from bartizan.targets.protocol import Labels, Rows, Scores

OBJECTIVES = ("binary", "multiclass", "multiclassova")
LEARNING = """
    boosting tree_learner num_leaves learning_rate max_depth min_data_in_leaf min_sum_hessian_in_leaf
    bagging_fraction pos_bagging_fraction neg_bagging_fraction bagging_freq feature_fraction
    feature_fraction_bynode lambda_l1 lambda_l2 linear_lambda min_gain_to_split drop_rate max_drop
    skip_drop top_rate other_rate max_delta_step monotone_constraints monotone_constraints_method monotone_penalty
    feature_contri path_smooth interaction_constraints max_bin max_bin_by_feature min_data_in_bin
    bin_construct_sample_cnt sigmoid scale_pos_weight
"""
"""Parameters that say how trees are grown, by the names that LightGBM writes."""
SWITCHES = """
    bagging_by_query extra_trees xgboost_dart_mode uniform_drop linear_tree is_enable_sparse enable_bundle use_missing
    zero_as_missing feature_pre_filter is_unbalance boost_from_average
"""
"""Those that are on or off: written as numbers, and taken as words only."""


class Host:
    """The booster, and those that were trained like it."""

    def __init__(self) -> None:
        self.file = bytearray()
        self.inside = Inside()
        self.framework: Any = None
        self.boosters: dict[int, Any] = {}
        self.parameters: dict[str, Any] = {}
        self.features = self.classes = 0

    def dropping(self, command: Command[Question]) -> Command[Question]:
        """The command, after models that nobody needs any longer have been let go."""

        def answer(question: Question) -> Answer:
            for handle in question.drop:
                self.boosters.pop(handle, None)
            return command(question)

        return answer

    def keep(self, question: Question) -> Answer:
        """Take the model file. It is loaded only when the other side has seen that it is the right one."""
        self.file = question.data
        return {}

    def load(self, _: Question) -> Answer:
        """Load the model file and say what is in it."""
        text, self.file = _text(self.file), bytearray()
        head, tail = text.partition("\nend of trees")[::2]
        said = dict(line.split("=", 1) for line in head.partition("\nTree=")[0].splitlines() if "=" in line)
        objective, *settings = said.get("objective", "").split() or [""]
        if objective not in OBJECTIVES:
            raise Refusal(f"its objective {objective[:50] or '(none)'} is none of classification")
        if "\npandas_categorical:" in tail and "\npandas_categorical:null" not in tail + "\n":
            _check_no_categories(tail)
        self.framework = library("lightgbm", "bartizan[lightgbm]")
        self.boosters[0] = booster = self._booster(text)
        self.features = int(booster.num_feature())
        self.classes = 2 if objective == "binary" else int(said.get("num_class", "0"))
        self.parameters = _parameters(tail) | dict(_pair(setting) for setting in settings if ":" in setting)
        self.parameters |= {"objective": objective, "num_class": 1 if objective == "binary" else self.classes}
        lacks: dict[str, str] = {}
        try:
            self.inside.read = read_lightgbm(text)
        except ArtefactError as reason:
            lacks["weights"] = reason.message
        if not _parameters(tail):
            lacks["training"] = "The LightGBM file does not say how the model was trained"
        facts = {
            "features": self.features,
            "classes": self.classes,
            "scores": True,
            "names": _names(booster),
            "weights": self.inside.read is not None,
            "training": "training" not in lacks,
            "lacks": lacks,
        }
        return {"facts": facts}

    def labels(self, question: Question) -> Answer:
        """Class indices, ``(rows,)``."""
        scores = self._scores(question.model, rows_of(question, self.features))
        # Of two equal chances the first, as LGBMClassifier decides.
        return packed(scores.argmax(axis=1), "<i8")

    def scores(self, question: Question) -> Answer:
        """Probabilities, ``(rows, classes)``; those of one class against the rest are divided by their sum."""
        scores = self._scores(question.model, rows_of(question, self.features))
        return packed(scores / scores.sum(axis=1, keepdims=True), "<f8")

    def fit(self, question: Question) -> Answer:
        """Train as the file says, on other data, and keep the result under the handle given."""
        rows, labels = rows_of(question, self.features), labels_of(question, self.features)
        self.boosters[question.model] = self._trained(rows, labels, question.seed)
        return {}

    def structure(self, question: Question) -> Answer:
        """The plan of one model's trees."""
        self.inside.read = read_lightgbm(self.boosters[question.model].model_to_string())
        return self.inside.structure(question)

    def _trained(self, rows: Rows, labels: Labels, seed: int) -> Any:
        fixed = {"seed": seed % 2**31, "num_threads": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1}
        data = self.framework.Dataset(np.array(rows), labels.copy(), params={"verbosity": -1}, free_raw_data=True)
        return self.framework.train(self.parameters | fixed, data, num_boost_round=self.boosters[0].current_iteration())

    def _scores(self, model: int, rows: Rows) -> Scores:
        if not len(rows):
            return np.empty((0, self.classes))
        answer = numbers(np.asarray(self.boosters[model].predict(rows, num_threads=1, validate_features=False)))
        return answer if answer.ndim > 1 else np.column_stack([1 - answer, answer])

    def _booster(self, text: str) -> Any:
        try:
            return self.framework.Booster(model_str=text)
        except self.framework.basic.LightGBMError as error:
            raise Refusal(f"LightGBM reads no model from it ({str(error)[:200]})") from error


def _text(file: bytearray) -> str:
    try:
        return file.decode()
    except UnicodeDecodeError as error:
        raise Refusal("it is no text, and so no LightGBM model") from error


def _check_no_categories(tail: str) -> None:
    line = tail.split("\npandas_categorical:", 1)[1].splitlines()[0].strip()
    if line not in {"null", "[]"}:
        raise Refusal("it was fitted to a table with columns of categories, which rows of numbers do not fit")


def _names(booster: Any) -> list[str]:
    """Names of the columns; none where LightGBM made them up."""
    names = [str(name) for name in booster.feature_name()]
    return [] if names == [f"Column_{place}" for place in range(len(names))] else names


def _parameters(tail: str) -> dict[str, Any]:
    """How the trees were grown, as the file says."""
    block = tail.partition("\nparameters:")[2].partition("\nend of parameters")[0]
    pairs = [_pair(line.strip()[1:-1]) for line in block.splitlines() if line.startswith("[") and ":" in line]
    learning, switches = LEARNING.split(), SWITCHES.split()
    grown = {name: value for name, value in pairs if name in learning and value}
    return grown | {name: "true" if value == "1" else "false" for name, value in pairs if name in switches}


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    return name.strip(), value.strip()


def commands() -> dict[str, Command[Question]]:
    """What this host can be asked; see ``bartizan.targets.hosting``."""
    host = Host()
    named: dict[str, Command[Question]] = {
        "keep": host.keep,
        "load": host.load,
        "labels": host.labels,
        "scores": host.scores,
        "fit": host.fit,
        "structure": host.structure,
        "arrays": host.inside.arrays,
    }
    return {name: host.dropping(command) for name, command in named.items()}
