"""CatBoost models: the binary form (.cbm), and the JSON export.

Format: ``TFullModel::Save`` (``catboost/libs/model/model.cpp``) and ``catboost/libs/model/flatbuffers/*.fbs``:
``CBM1``, the size of the core, the core as a flatbuffer, then the parts that the core names (tables of
categories, text and embedding processing).
"""

from __future__ import annotations

import json
import re
from typing import Any

from bartizan.lifecycle.develop.scan.formats.cursor import BrokenFormatError, Cursor
from bartizan.lifecycle.develop.scan.formats.tables import Table
from bartizan.lifecycle.develop.scan.formats.trees import code_in, judge_texts
from bartizan.lifecycle.develop.scan.limits import MIB, Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import CHUNK, Draft, Examine, Source, window
from bartizan.lifecycle.develop.scan.verdict import Report

MAGIC = b"CBM1"
PREFIX = 8
FORMAT_VERSION = b"FlabuffersModel_v"
PARTS = re.compile(rb"[a-z0-9_]{3,40}\x00?\Z")
CATEGORIES = b"static_provider_v1"
MOST_TEXTS = 10_000
JSON_LIMIT = 32 * MIB
_JSON = re.compile(rb'\s*\{\s*"(?:ctr_data|features_info|model_info)"\s*:\s*\{')
_WORDS = (
    b'"float_features"',
    b'"categorical_features"',
    b'"flat_feature_index"',
    b'"catboost_version_info"',
    b'"class_params"',
    b'\\"identifier\\"',
)
_LOADABLE = re.compile(
    rb"\x7fELF[\x01\x02][\x01\x02]\x01|PK\x03\x04|\x80[\x02-\x05](?:c[a-z_]+|\x95.{6}\x00\x00)|#!/", re.DOTALL
)
"""Beginnings of programs, archives and pickles: no part of a model has them."""
_TREES, _INFO, _PART_IDS = 1, 2, 3
"""Fields of ``TModelCore``."""
_DIMENSION, _SPLITS, _SIZES, _STARTS = 0, 1, 2, 3
_STEPS, _LEAF_IDS = 10, 11
"""Fields of ``TModelTrees``."""


def is_catboost_json(source: Source) -> bool:
    """Whether a text begins as CatBoost writes its models."""
    head = bytes(source.data[:4096])
    return _JSON.match(head) is not None and any(word in head for word in _WORDS)


def examine_catboost(source: Source, meter: Meter, _examine: Examine) -> Report:
    """Examine a model in the binary form."""
    draft = Draft(source, "catboost", meter.limits.findings)
    data = source.data
    size = int.from_bytes(bytes(data[4:PREFIX]), "little")
    if PREFIX + size > len(data) or size < PREFIX:
        draft.fire("trees/sizes", f"a core of {size} bytes and {len(data) - PREFIX} are there", 4)
        draft.miss("the core is not whole")
        return draft.close()
    try:
        parts = _judge_core(window(data, PREFIX, PREFIX + size), draft)
    except BrokenFormatError as broken:
        draft.fire("trees/malformed", str(broken), PREFIX + (broken.offset or 0))
        draft.miss("the core cannot be read to its end")
        parts = []
    _judge_parts(parts, PREFIX + size, data, draft)
    return draft.close()


def _judge_core(core: Buffer, draft: Draft) -> list[bytes]:
    """Judge the trees and the texts; returns the names of the parts behind the core."""
    root = Table.root(core)
    if not root.text(0).startswith(FORMAT_VERSION):
        draft.fire("trees/malformed", f"the version {root.text(0)[:40]!r} is none of CatBoost")
    trees = root.table(_TREES)
    if trees is None:
        raise BrokenFormatError("there are no trees")
    _judge_trees(trees, draft)
    for index, pair in enumerate(root.tables(_INFO)):
        if index >= MOST_TEXTS:
            draft.miss(f"more than {MOST_TEXTS} texts about the model", rule="file/limit")
            break
        for field in (0, 1):
            text = pair.text(field).decode("utf-8", "replace")
            if found := code_in(text):
                name = pair.text(0)[:40].decode("utf-8", "replace")
                draft.fire("trees/code-in-text", f"{name!r} holds {found!r}", PREFIX + pair.at)
    parts = list(root.texts(_PART_IDS))
    for part in parts:
        if not PARTS.match(part):
            draft.fire("trees/malformed", f"{part[:40]!r} is the name of no part")
    return parts


def _judge_trees(trees: Table, draft: Draft) -> None:
    splits = trees.vector(_SPLITS, 4)[1]
    sizes = list(trees.numbers(_SIZES, "i"))
    starts = list(trees.numbers(_STARTS, "i"))
    draft.facts["trees"] = len(sizes)
    if len(starts) not in {0, len(sizes)}:
        draft.fire("trees/sizes", f"{len(starts)} beginnings for {len(sizes)} trees")
    for start, size in zip(starts, sizes, strict=False):
        if start < 0 or size < 0 or start + size > splits:
            draft.fire("trees/child-index", f"a tree takes splits {start} to {start + size} of {splits}")
            return
    _judge_steps(trees, splits, draft)


def _judge_steps(trees: Table, splits: int, draft: Draft) -> None:
    """Trees that are not symmetric: every split says how many nodes further its children stand."""
    steps, leaves = trees.vector(_STEPS, 4)[1], trees.vector(_LEAF_IDS, 4)[1]
    if not steps and not leaves:
        return
    if steps != splits or leaves != splits:
        draft.fire("trees/sizes", f"{steps} steps and {leaves} leaves for {splits} nodes")
        return
    for node, pair in enumerate(trees.numbers(_STEPS, "I")):
        if node + max(pair & 0xFFFF, pair >> 16) >= splits:
            draft.fire("trees/child-index", f"node {node} leads past the last of {splits} nodes")
            return


def _judge_parts(parts: list[bytes], start: int, data: Buffer, draft: Draft) -> None:
    """What follows the core belongs to the parts that it names; their tables hold numbers and words."""
    if start == len(data):
        if parts:
            draft.fire("trees/sizes", f"{len(parts)} parts are announced and nothing follows the core", start)
        return
    if not parts:
        draft.gap(start, len(data), "follow the model")
        return
    if parts == [CATEGORIES]:
        _judge_categories(start, data, draft)
    for at in range(start, len(data), CHUNK):
        found = _LOADABLE.search(bytes(data[at : at + CHUNK + 64]))
        if found:
            draft.gap(at + found.start(), len(data), "among the parts of the model begin like a program or an archive")
            return


def _judge_categories(start: int, data: Buffer, draft: Draft) -> None:
    """The tables of categories: how many, then each with its size."""
    cursor = Cursor(data, start)
    try:
        for _ in range(cursor.unsigned(4)):
            cursor.skip(cursor.unsigned(4))
    except BrokenFormatError as broken:
        draft.fire("trees/sizes", f"tables of categories: {broken}", broken.offset)
    else:
        if cursor.left:
            draft.gap(cursor.at, cursor.end, "follow the model")


def examine_catboost_json(source: Source, meter: Meter, _examine: Examine) -> Report:
    """Examine a model in JSON."""
    draft = Draft(source, "catboost", meter.limits.findings)
    if len(source.data) > JSON_LIMIT:
        draft.miss(f"a model of more than {JSON_LIMIT} bytes of JSON", rule="file/limit")
        return draft.close()
    try:
        document: dict[str, Any] = json.loads(bytes(source.data).decode())
    except (ValueError, RecursionError) as error:
        draft.fire("trees/malformed", f"it is no JSON: {str(error)[:120]}")
        draft.miss("the model cannot be read")
        return draft.close()
    judge_texts(document, "texts of the model", draft)
    trees = document.get("oblivious_trees", document.get("trees"))
    if not isinstance(trees, list):
        draft.fire("trees/malformed", "the list of trees is missing")
        return draft.close()
    draft.facts["trees"] = len(trees)
    if "oblivious_trees" in document:
        _judge_oblivious(trees, draft)
    return draft.close()


def _judge_oblivious(trees: list[Any], draft: Draft) -> None:
    for index, tree in enumerate(trees):
        values = tree.get("leaf_values") if isinstance(tree, dict) else None
        splits = tree.get("splits") if isinstance(tree, dict) else None
        if not isinstance(values, list) or not isinstance(splits, list | None):
            draft.fire("trees/malformed", f"tree {index} lacks its values")
        elif len(splits or ()) > 32 or len(values) % (1 << len(splits or ())):  # noqa: PLR2004 -- depth is at most 16
            draft.fire("trees/sizes", f"tree {index} has {len(values)} values for {len(splits or ())} splits")
