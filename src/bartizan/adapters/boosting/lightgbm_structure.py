"""The structure of a LightGBM model, from its text (``Booster.model_to_string()``, ``model.txt``).

Rows stay in float64 and go left where they are at most the threshold; leaves are added in float64. Negative
children are leaves, by their complement.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from bartizan.core.errors import ArtefactError
from bartizan.targets.structure import LEAF, Floats, Integers, Link, TreeEnsemble, joined

CATEGORICAL, MISSING_SHIFT, ZERO_IS_MISSING = 1, 2, 1
"""Bits of ``decision_type``: by category; what counts as missing (0 nothing, 1 zero, 2 NaN)."""
LINKS = {"binary": Link.LOGISTIC, "multiclass": Link.SOFTMAX, "softmax": Link.SOFTMAX}


def read_lightgbm(text: str) -> TreeEnsemble:
    """Trees for classification.

    Raises:
        ArtefactError: the text is no model, or holds something else: categories, linear leaves, a regression.
    """
    try:
        return _read(text)
    except (KeyError, ValueError, IndexError) as error:
        raise ArtefactError(
            f"what is said to be a LightGBM model is none: {type(error).__name__}: {error}",
            remedy="save it with Booster.save_model('model.txt').",
        ) from error


def _read(text: str) -> TreeEnsemble:
    head, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
    said = _fields(head)
    kind, *settings = said["objective"].split()
    link = LINKS.get(kind)
    if link is None:
        _refuse(f"the objective {kind}")
    values = dict(setting.split(":", 1) for setting in settings if ":" in setting)
    if float(values.get("sigmoid", 1)) != 1.0:
        _refuse("another slope of the logistic function than 1")
    outputs, features = int(said["num_tree_per_iteration"]), int(said["max_feature_idx"]) + 1
    trees = [_tree(_fields(block), place % outputs, outputs, features) for place, block in enumerate(blocks)]
    divisor = float(max(1, len(trees) // outputs)) if "average_output" in head.splitlines() else 1.0
    return joined(trees, base=np.zeros(outputs), features=features, link=link, divisor=divisor)


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in block.splitlines())
    return {name: value for name, mark, value in pairs if mark}


def _tree(said: dict[str, str], output: int, outputs: int, features: int) -> TreeEnsemble:
    """Questions first, in their order, and then the leaves."""
    if said.get("is_linear", "0") != "0":
        _refuse("linear leaves")
    leaves = int(said["num_leaves"])
    questions = leaves - 1
    total = questions + leaves
    feature, threshold = np.full(total, LEAF, np.int64), np.full(total, np.inf)
    left, right = np.arange(total), np.arange(total)
    if questions:
        decisions = _integers(said["decision_type"])
        if (decisions & CATEGORICAL).any():
            _refuse("splits by category")
        if ((decisions >> MISSING_SHIFT) & 3 == ZERO_IS_MISSING).any():
            _refuse("zeros that count as missing")
        feature[:questions], threshold[:questions] = _integers(said["split_feature"]), _floats(said["threshold"])
        for side, name in ((left, "left_child"), (right, "right_child")):
            child = _integers(said[name])
            side[:questions] = np.where(child >= 0, child, questions + ~child)
    _check(feature, left, right, questions, features)
    value = np.zeros((total, outputs))
    value[questions:, output] = _floats(said["leaf_value"])
    return TreeEnsemble(
        feature, threshold, left, right, value, np.zeros(1, np.int64), np.zeros(outputs), features, Link.NONE
    )


def _check(feature: Integers, left: Integers, right: Integers, questions: int, features: int) -> None:
    """Children stand behind their parents."""
    own = np.arange(questions)
    for side in (left[:questions], right[:questions]):
        if not ((side > own) & (side < len(feature))).all():
            _refuse("nodes whose children do not stand behind them")
    if not ((feature >= LEAF) & (feature < features)).all():
        _refuse("splits by features that there are not")


def _integers(line: str) -> Integers:
    return np.array(line.split(), dtype=np.int64)


def _floats(line: str) -> Floats:
    return np.array(line.split(), dtype=np.float64)


def _refuse(what: str) -> NoReturn:
    raise ArtefactError(
        f"the structure of a LightGBM model with {what} is not read",
        remedy="attack it by its answers: the black-box attacks need no structure.",
    )
