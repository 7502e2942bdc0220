"""The structure of an XGBoost model, from its JSON document (``Booster.save_raw("json")``, ``model.json``).

Format: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html and its JSON schema. Rows are
rounded to float32 and go left where they are less than the split; leaves are added in float32.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import ArtefactError
from bartizan.targets.structure import LEAF, Floats, Link, TreeEnsemble, joined, last_passing

BINARY = {"binary:logistic": Link.LOGISTIC, "binary:logitraw": Link.LOGISTIC, "binary:hinge": Link.NONE}
MANY = {"multi:softprob": Link.SOFTMAX, "multi:softmax": Link.SOFTMAX}


def read_xgboost(document: bytes | str) -> TreeEnsemble:
    """Trees (``gbtree``, ``dart``) for classification.

    Sums are those of XGBoost to the last bit.

    Raises:
        ArtefactError: the document is none, or holds something else: categories, vector leaves, a regression.
    """
    try:
        return _read(json.loads(document)["learner"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ArtefactError(
            f"what is said to be an XGBoost model is none: {type(error).__name__}: {error}",
            remedy="save it with Booster.save_model('model.json').",
        ) from error


def _read(learner: dict[str, Any]) -> TreeEnsemble:
    objective, booster = str(learner["objective"]["name"]), learner["gradient_booster"]
    link = BINARY.get(objective) or MANY.get(objective)
    if link is None:
        _refuse(f"the objective {objective}")
    parameters = learner["learner_model_param"]
    outputs = 1 if objective in BINARY else int(parameters["num_class"])
    features = int(parameters["num_feature"])
    base = _base(parameters, objective, outputs)
    cut = _cut(objective)
    if booster["name"] not in {"gbtree", "dart"}:
        _refuse(f"the booster {booster['name']}")
    scales = booster.get("weight_drop")
    model = (booster["gbtree"] if booster["name"] == "dart" else booster)["model"]
    trees, groups = model["trees"], model["tree_info"]
    parts = [_tree(tree, int(group), outputs, features) for tree, group in zip(trees, groups, strict=True)]
    if scales is not None:
        parts = [_scaled(part, scale, base) for part, scale in zip(parts, scales, strict=True)]
    return joined(parts, base=base, features=features, link=link, single=True, cut=cut)


def _base(parameters: dict[str, Any], objective: str, outputs: int) -> Floats:
    """What the sums start from: the base score before the link."""
    said = np.array(json.loads(f"[{str(parameters['base_score']).strip('[]')}]"), np.float32)
    said = np.broadcast_to(said, outputs).copy()
    if objective not in {"binary:logistic", "binary:logitraw"}:
        return said.astype(np.float64)
    # In float32, but for the logarithm, which NumPy rounds otherwise than the C library.
    odds = (np.float32(1) / said - np.float32(1)).astype(np.float64)
    return (-np.log(odds)).astype(np.float32).astype(np.float64)


def _cut(objective: str) -> float:
    """The largest sum of leaves that is still answered with class 0: more than one half is asked in float32."""
    if objective != "binary:logistic":
        return 0.0

    def passes(sums: Floats) -> NDArray[np.bool_]:
        single = sums.astype(np.float32)
        chance = np.float32(1) / (np.exp(np.minimum(-single, np.float32(88.7))) + np.float32(1))
        half: NDArray[np.bool_] = chance <= np.float32(0.5)
        return half

    return float(last_passing(passes, 1)[0])


def _scaled(tree: TreeEnsemble, scale: float, base: Floats) -> TreeEnsemble:
    """A tree of ``dart``: predicted together with the base, freed of it, and scaled, all in float32."""
    single, start = tree.value.astype(np.float32), base.astype(np.float32)
    value = ((single + start) - start) * np.float32(scale)
    return replace(tree, value=np.where(tree.value != 0, value, 0).astype(np.float64))


def _tree(tree: dict[str, Any], group: int, outputs: int, features: int) -> TreeEnsemble:
    if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
        _refuse("leaves that hold vectors")
    if any(tree.get("split_type", ())):
        _refuse("splits by category")
    left, right = np.array(tree["left_children"], np.int64), np.array(tree["right_children"], np.int64)
    inner, own = left != LEAF, np.arange(len(left))
    split = np.array(tree["split_conditions"], np.float32)
    threshold = np.full(len(own), np.inf)
    threshold[inner] = _below(split[inner])
    value = np.zeros((len(own), outputs))
    value[~inner, group] = split[~inner]
    return _ordered(
        TreeEnsemble(
            feature=np.where(inner, np.array(tree["split_indices"], np.int64), LEAF),
            threshold=threshold,
            left=np.where(inner, left, own),
            right=np.where(inner, right, own),
            value=value,
            roots=np.zeros(1, np.int64),
            base=np.zeros(outputs),
            features=features,
            link=Link.NONE,
        )
    )


def _below(split: NDArray[np.float32]) -> Floats:
    """The largest float64 that is less than the split once it is rounded to float32."""

    def passes(values: Floats) -> NDArray[np.bool_]:
        passed: NDArray[np.bool_] = values.astype(np.float32) < split
        return passed

    return last_passing(passes, len(split))


def _ordered(tree: TreeEnsemble) -> TreeEnsemble:
    """Children stand behind their parents, as everything here relies on.

    Raises:
        ArtefactError: they do not, or lead outside.
    """
    inner, own = tree.feature != LEAF, np.arange(len(tree.feature))
    for side in (tree.left, tree.right):
        if not ((side[inner] > own[inner]) & (side[inner] < len(own))).all():
            _refuse("nodes whose children do not stand behind them")
    if not ((tree.feature >= LEAF) & (tree.feature < tree.features)).all():
        _refuse("splits by features that there are not")
    return tree


def _refuse(what: str) -> NoReturn:
    raise ArtefactError(
        f"the structure of an XGBoost model with {what} is not read",
        remedy="attack it by its answers: the black-box attacks need no structure.",
    )
