"""XGBoost models: JSON, Universal Binary JSON, and the binary form up to version 2.

Format: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html and ``doc/model.schema`` of
XGBoost; the binary form after ``src/learner.cc`` (``LearnerIO::Load``) and ``src/tree/tree_model.cc`` 1.7.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError, Cursor
from bartizan.lifecycle.develop.scan.formats.trees import LEAF, judge_texts, judge_walk
from bartizan.lifecycle.develop.scan.formats.ubjson import Numbers, read_ubjson
from bartizan.lifecycle.develop.scan.limits import MIB, LimitError, Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source
from bartizan.lifecycle.develop.scan.verdict import Report

DECODED_WHOLE = 16 * MIB
"""JSON above this is decoded tree by tree."""
HEAD = 64 << 10
_JSON = re.compile(rb'\s*\{\s*(?:"version"\s*:\s*\[[\d\s,]{1,60}\]\s*,\s*)?"learner"\s*:\s*\{')
_UBJSON = re.compile(rb"\{(?:[iU]|I\x00|l\x00{3}|L\x00{7})(?:\x07learner|\x07version|\x06Config)")
_BINARY_NAMES = re.compile(rb"[a-z]{2,12}:[a-z0-9_:-]{2,30}\Z")
_OBJECTIVE = re.compile(r"[a-z0-9_]{1,30}(?::[a-z0-9_@.-]{1,40})?\Z", re.IGNORECASE)
BOOSTERS = ("gbtree", "dart", "gblinear")
ARRAYS = ("left_children", "right_children", "parents", "split_indices", "split_conditions", "default_left")
"""Arrays with one number per node, in every version."""
MORE_ARRAYS = ("loss_changes", "sum_hessian", "split_type")
_TOP_NODE = 136
"""Bytes of the model parameters at the front of a binary model."""


class _BrokenModelError(Exception):
    """The document is no model; the text says why."""


def is_xgboost_json(source: Source) -> bool:
    """Whether a text begins as XGBoost writes its models, or is an object with the same keys in another order."""
    head = bytes(source.data[:HEAD])
    has_keys = head.lstrip()[:1] == b"{" and b'"learner"' in head and b'"gradient_booster"' in head
    return has_keys or _JSON.match(head) is not None


def is_xgboost_ubjson(source: Source) -> bool:
    """Whether bytes begin as XGBoost writes its models in binary JSON."""
    return _UBJSON.match(bytes(source.data[:32])) is not None


def is_xgboost_binary(source: Source) -> bool:
    """Whether bytes are a binary model: 136 bytes of parameters, then the names of objective and booster."""
    data = source.data
    at = 4 if bytes(data[:4]) == b"binf" else 0
    head = bytes(data[at : at + _TOP_NODE + 128])
    if len(head) < _TOP_NODE + 24:
        return False
    size = int.from_bytes(head[_TOP_NODE : _TOP_NODE + 8], "little")
    if not 3 <= size <= 64:  # noqa: PLR2004 -- lengths of names
        return False
    return _BINARY_NAMES.match(head[_TOP_NODE + 8 : _TOP_NODE + 8 + size]) is not None


def examine_xgboost_json(source: Source, meter: Meter, _examine: Examine) -> Report:
    """Examine a model in JSON."""
    draft = Draft(source, "xgboost", meter.limits.findings)
    try:
        _judge(_decode(source.data, draft), draft)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        draft.fire("trees/malformed", f"it is no JSON: {str(error)[:120]}")
        draft.miss("the model cannot be read")
    except _BrokenModelError as broken:
        draft.fire("trees/malformed", str(broken))
        draft.miss("the model cannot be read to its end")
    return draft.close()


def examine_xgboost_ubjson(source: Source, meter: Meter, _examine: Examine) -> Report:
    """Examine a model in Universal Binary JSON."""
    draft = Draft(source, "xgboost", meter.limits.findings)
    try:
        document = read_ubjson(source.data)
        for key in document.duplicates:
            draft.fire("trees/malformed", f"the key {key[:60]!r} occurs twice in one map")
        _judge(document.value, draft)
        if document.end < len(source.data):
            draft.gap(document.end, len(source.data), "follow the model")
    except (BrokenFormatError, _BrokenModelError, struct.error) as broken:
        draft.fire("trees/malformed", str(broken), getattr(broken, "offset", None))
        draft.miss("the model cannot be read to its end")
    except LimitError as limit:
        draft.miss(str(limit), rule="file/limit")
    return draft.close()


def _decode(data: Buffer, draft: Draft) -> Any:
    """The document; of a large one, the trees as they stand in the text."""
    if len(data) <= DECODED_WHOLE:
        return json.loads(bytes(data).decode(errors="backslashreplace"), object_pairs_hook=_Pairs(draft))
    top = _fields(msgspec.json.decode(data, type=dict[str, msgspec.Raw]))
    learner = _fields(top.get("learner"))
    booster = _fields(learner.get("gradient_booster"))
    inner = "gbtree" if "gbtree" in booster else ""
    outer = _fields(booster[inner]) if inner else booster
    model = _fields(outer.get("model"))
    trees = msgspec.json.decode(model.pop("trees", b"[]"), type=list[msgspec.Raw])
    made = _whole(model) | {"trees": trees}
    outer_made = _whole({key: value for key, value in outer.items() if key != "model"}) | {"model": made}
    booster_made = _whole({key: value for key, value in booster.items() if key != inner}) if inner else {}
    booster_made |= {inner: outer_made} if inner else outer_made
    learner_made = _whole({key: value for key, value in learner.items() if key != "gradient_booster"})
    return {"learner": learner_made | {"gradient_booster": booster_made}}


def _fields(raw: Any) -> dict[str, Any]:
    if isinstance(raw, dict):
        return raw
    if raw is None:
        raise _BrokenModelError("a part of the model is missing")
    return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])


def _whole(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: msgspec.json.decode(value) for key, value in fields.items()}


class _Pairs:
    """Hook for the JSON parser that reports keys which occur twice in one object."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            self.draft.fire("trees/malformed", "a key occurs twice in one object")
        return made


def _part(value: Any, *path: str) -> dict[str, Any]:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        raise _BrokenModelError(f"{'.'.join(path) or 'the model'} is no object")
    return value


def _judge(document: Any, draft: Draft) -> None:
    if isinstance(document, dict) and set(document) == {"Config", "Model"}:
        judge_texts(document["Config"], "the settings", draft)
        document = document["Model"]
    learner = _part(document, "learner")
    others = {key: value for key, value in learner.items() if key != "gradient_booster"}
    judge_texts(others, "attributes, names or settings", draft)
    objective = _part(learner, "objective").get("name")
    if not isinstance(objective, str) or not _OBJECTIVE.match(objective):
        draft.fire("trees/malformed", f"{str(objective)[:60]!r} is the name of no objective")
    features = _count(_part(learner, "learner_model_param").get("num_feature"))
    booster = _part(learner, "gradient_booster")
    name = booster.get("name")
    if name not in BOOSTERS:
        raise _BrokenModelError(f"{str(name)[:60]!r} is no booster of XGBoost")
    if name == "gblinear":
        _judge_linear(_part(booster, "model"), features, draft)
    else:
        _judge_trees(_part(booster, "gbtree", "model") if name == "dart" else _part(booster, "model"), features, draft)


def _count(value: Any) -> int:
    """A count, which XGBoost writes as text."""
    try:
        count = int(value)
    except (TypeError, ValueError) as error:
        raise _BrokenModelError(f"{str(value)[:40]!r} is no count") from error
    if not 0 <= count < 1 << 31:
        raise _BrokenModelError(f"{str(value)[:40]!r} is no count")
    return count


def _judge_linear(model: dict[str, Any], features: int, draft: Draft) -> None:
    weights = _numbers(model.get("weights"), "weights")
    draft.facts["weights"] = len(weights)
    if features and len(weights) % (features + 1):
        draft.fire("trees/sizes", f"{len(weights)} weights for {features} features")


def _judge_trees(model: dict[str, Any], features: int, draft: Draft) -> None:
    trees = model.get("trees")
    if not isinstance(trees, list):
        raise _BrokenModelError("the trees are no array")
    announced = _count(_part(model, "gbtree_model_param").get("num_trees"))
    if announced != len(trees):
        draft.fire("trees/sizes", f"{announced} trees are announced and {len(trees)} are there")
    draft.facts["trees"] = len(trees)
    info = _numbers(model.get("tree_info"), "tree_info")
    if len(info) != len(trees):
        draft.fire("trees/sizes", f"tree_info tells of {len(info)} trees and {len(trees)} are there")
    for index, tree in enumerate(trees):
        _judge_tree(msgspec.json.decode(tree) if isinstance(tree, msgspec.Raw) else tree, index, features, draft)


def _judge_tree(tree: Any, index: int, features: int, draft: Draft) -> None:
    what = f"tree {index}"
    param = _part(_part(tree), "tree_param")
    count = _count(param.get("num_nodes"))
    for name in (*ARRAYS, *(each for each in MORE_ARRAYS if each in tree)):
        found = len(_numbers(tree.get(name), name))
        if found != count:
            draft.fire("trees/sizes", f"{what}: {name} has {found} numbers for {count} nodes")
            return
    left = _integers(tree["left_children"])
    right = _integers(tree["right_children"])
    if judge_walk(count, lambda node: () if left[node] == LEAF else (left[node], right[node]), what, draft):
        _judge_splits(_integers(tree["split_indices"]), left, features, what, draft)
    _judge_categories(tree, count, what, draft)


def _judge_splits(indices: list[int], left: list[int], features: int, what: str, draft: Draft) -> None:
    for node, feature in enumerate(indices):
        if left[node] != LEAF and features and not 0 <= feature < features:
            draft.fire("trees/child-index", f"{what}: node {node} asks for feature {feature} of {features}")
            return


def _judge_categories(tree: dict[str, Any], count: int, what: str, draft: Draft) -> None:
    names = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
    if not any(name in tree for name in names):
        return
    all_values, nodes, segments, sizes = (_integers(tree.get(name)) for name in names)
    if not len(nodes) == len(segments) == len(sizes):
        draft.fire("trees/sizes", f"{what}: the lists of categories differ in length")
    if any(not 0 <= node < count for node in nodes):
        draft.fire("trees/child-index", f"{what}: categories belong to a node that is not there")
    for start, size in zip(segments, sizes, strict=False):
        if start < 0 or size < 0 or start + size > len(all_values):
            draft.fire("trees/child-index", f"{what}: categories {start} to {start + size} of {len(all_values)}")
            return


def _numbers(value: Any, what: str) -> Numbers | list[Any]:
    if not isinstance(value, list | Numbers):
        raise _BrokenModelError(f"{what} is no array")
    return value


def _integers(value: Any) -> list[int]:
    """The integers of an array."""
    made = list(value.values()) if isinstance(value, Numbers) else value
    if not isinstance(made, list) or not all(isinstance(item, int) for item in made):
        raise _BrokenModelError("an array of indices holds something else")
    return made


def examine_xgboost_binary(source: Source, meter: Meter, _examine: Examine) -> Report:
    """Examine a model in the binary form: parameters, names, booster, trees, attributes."""
    draft = Draft(source, "xgboost", meter.limits.findings)
    cursor = Cursor(source.data, 4 if bytes(source.data[:4]) == b"binf" else 0)
    try:
        _read_binary(cursor, draft)
    except (BrokenFormatError, _BrokenModelError, struct.error) as broken:
        draft.fire("trees/malformed", str(broken), cursor.at)
        draft.miss("the model cannot be read to its end")
        return draft.close()
    if cursor.left:
        draft.gap(cursor.at, cursor.end, "follow the model")
    return draft.close()


def _read_binary(cursor: Cursor, draft: Draft) -> None:
    _, features, _, has_attributes, has_metrics = struct.unpack("<fIiii", cursor.take(20))
    cursor.skip(_TOP_NODE - 20)
    objective = _text(cursor)
    booster = _text(cursor)
    if booster not in BOOSTERS:
        raise _BrokenModelError(f"{booster[:60]!r} is no booster of XGBoost")
    if booster == "gblinear":
        _read_linear(cursor)
    else:
        _read_trees(cursor, features, draft, is_dart=booster == "dart")
    attributes = list(_pairs(cursor)) if has_attributes else []
    judge_texts(attributes, "attributes", draft)
    if objective == "count:poisson":
        judge_texts(_text(cursor), "the settings of the objective", draft)
    for _ in range(cursor.unsigned(8) if has_metrics else 0):
        judge_texts(_text(cursor), "names of metrics", draft)


def _text(cursor: Cursor) -> str:
    return cursor.take(cursor.unsigned(8)).decode("utf-8", "backslashreplace")


def _pairs(cursor: Cursor) -> Iterator[tuple[str, str]]:
    for _ in range(cursor.unsigned(8)):
        yield _text(cursor), _text(cursor)


def _read_linear(cursor: Cursor) -> None:
    cursor.skip(136)
    cursor.skip(4 * cursor.unsigned(8))


def _read_trees(cursor: Cursor, features: int, draft: Draft, *, is_dart: bool) -> None:
    count, _roots, _features = struct.unpack("<iii", cursor.take(12))
    cursor.skip(160 - 12)
    if count < 0:
        raise _BrokenModelError(f"{count} trees")
    draft.facts["trees"] = count
    for index in range(count):
        _read_tree(cursor, index, features, draft)
    cursor.skip(4 * count)
    if is_dart and count:
        weights = cursor.unsigned(8)
        if weights != count:
            draft.fire("trees/sizes", f"{weights} weights for {count} trees", cursor.at)
        cursor.skip(4 * weights)


def _read_tree(cursor: Cursor, index: int, features: int, draft: Draft) -> None:
    _, nodes, _, _, _, leaf_vector = struct.unpack("<iiiiii", cursor.take(24))
    cursor.skip(148 - 24)
    at = cursor.skip(20 * nodes)
    cursor.skip(16 * nodes)
    if leaf_vector:
        cursor.skip(4 * cursor.unsigned(8))
    left, right, splits = [], [], []
    for _, left_child, right_child, split, _ in struct.iter_unpack("<iiiIf", cursor.data[at : at + 20 * nodes]):
        left.append(left_child)
        right.append(right_child)
        splits.append(split & 0x7FFFFFFF)
    what = f"tree {index}"
    if judge_walk(nodes, lambda node: () if left[node] == LEAF else (left[node], right[node]), what, draft):
        _judge_splits(splits, left, features, what, draft)
