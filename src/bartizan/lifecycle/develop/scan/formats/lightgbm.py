"""LightGBM models: the text form, and the JSON dump.

Format: ``GBDT::SaveModelToString`` (``src/boosting/gbdt_model_text.cpp``) and ``Tree::ToString``
(``src/io/tree.cpp``) of LightGBM, versions v2 to v4. Nodes are counted from 0, leaves from -1 down.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from bartizan.lifecycle.develop.scan.formats.trees import code_in, judge_texts, judge_walk
from bartizan.lifecycle.develop.scan.limits import MIB, Meter
from bartizan.lifecycle.develop.scan.pickle.constants import Buffer
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source
from bartizan.lifecycle.develop.scan.verdict import Report

LONGEST_LINE = 16 * MIB
MOST_LEAVES = 1 << 20
DUMP_LIMIT = 32 * MIB
_HEAD = re.compile(rb"tree\r?\nversion=v\d+\r?\n")
_DUMP = re.compile(rb'\s*\{\s*"name"\s*:\s*"tree"\s*,\s*"version"\s*:\s*"v\d')
_PARAMETER = re.compile(r"\[\w[\w.]*: .*\]\Z|\[\w[\w.]*:\s*\]\Z")
_SECTIONS = {"feature_importances:": "", "feature importances:": "", "parameters:": "end of parameters"}
PER_NODE = ("split_feature", "threshold", "decision_type", "left_child", "right_child", "split_gain", "internal_value",
            "internal_weight", "internal_count")  # fmt: skip
PER_LEAF = ("leaf_value", "leaf_weight", "leaf_count")
HEADER_KEYS = frozenset(
    ("version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx", "objective", "average_output",
     "feature_names", "feature_infos", "monotone_constraints", "tree_sizes")
)  # fmt: skip
TREE_KEYS = frozenset(
    (*PER_NODE, *PER_LEAF, "num_leaves", "num_cat", "cat_boundaries", "cat_threshold", "is_linear", "leaf_const",
     "num_features", "leaf_features", "leaf_coeff", "shrinkage", "leaf_parent", "leaf_features_inner")
)  # fmt: skip


class _BrokenModelError(Exception):
    """The text is no model; the text says why."""


def is_lightgbm_text(source: Source) -> bool:
    """Whether a text begins as LightGBM writes its models."""
    return _HEAD.match(bytes(source.data[:64])) is not None


def is_lightgbm_dump(source: Source) -> bool:
    """Whether a text begins as LightGBM's JSON dump."""
    return _DUMP.match(bytes(source.data[:256])) is not None


class _Lines:
    """The lines of a text with their offsets, one at a time."""

    def __init__(self, data: Buffer) -> None:
        self._lines = self._split(data)
        self.at = 0
        self._kept: str | None = None

    def _split(self, data: Buffer) -> Iterator[tuple[int, bytes]]:
        start = 0
        rest = b""
        for at in range(0, len(data), MIB):
            *lines, rest = (rest + bytes(data[at : at + MIB])).split(b"\n")
            for line in lines:
                yield start, line
                start += len(line) + 1
            if len(rest) > LONGEST_LINE:
                raise _BrokenModelError(f"a line is longer than {LONGEST_LINE} bytes")
        if rest:
            yield start, rest

    def next(self) -> str | None:
        """The next line; None at the end."""
        if self._kept is not None:
            line, self._kept = self._kept, None
            return line
        found = next(self._lines, None)
        if found is None:
            return None
        self.at, raw = found
        try:
            return raw.rstrip(b"\r").decode()
        except UnicodeDecodeError as error:
            raise _BrokenModelError("a line is no text") from error

    def back(self, line: str) -> None:
        """Hand a line back."""
        self._kept = line

    def block(self) -> dict[str, str]:
        """Lines ``key=value`` up to an empty one; a bare key has an empty value."""
        made: dict[str, str] = {}
        while (line := self.next()) is not None and line:
            key, _, value = line.partition("=")
            if key in made:
                raise _BrokenModelError(f"{key[:40]!r} is given twice")
            made[key] = value
        return made


def examine_lightgbm_text(source: Source, meter: Meter, _examine: Examine) -> Report:
    """Examine a model in LightGBM's text form, line by line."""
    draft = Draft(source, "lightgbm", meter.limits.findings)
    lines = _Lines(source.data)
    try:
        _read_model(lines, draft)
    except _BrokenModelError as broken:
        draft.fire("trees/malformed", str(broken), lines.at)
        draft.miss("the model cannot be read to its end")
    return draft.close()


def _read_model(lines: _Lines, draft: Draft) -> None:
    lines.next()
    header = lines.block()
    _judge_keys(header, HEADER_KEYS, "the header", lines, draft)
    features = _number(header, "max_feature_idx") + 1
    if len(header.get("feature_names", "").split()) not in {0, features}:
        draft.fire("trees/sizes", f"names of features do not fit {features} features")
    begins: list[int] = []
    while (line := _content(lines)) is not None and line.startswith("Tree="):
        if line != f"Tree={len(begins)}":
            draft.fire("trees/malformed", f"{line[:40]!r} stands where tree {len(begins)} should", lines.at)
        begins.append(lines.at)
        _judge_tree(lines.block(), f"tree {len(begins) - 1}", features, lines, draft)
    draft.facts["trees"] = len(begins)
    if line != "end of trees":
        raise _BrokenModelError("the line 'end of trees' is missing")
    _judge_sizes(header.get("tree_sizes", ""), [*begins, lines.at], draft)
    _read_rest(lines, draft)


def _content(lines: _Lines) -> str | None:
    """The next line that is not empty."""
    while (line := lines.next()) is not None and not line:
        pass
    return line


def _judge_keys(block: dict[str, str], known: frozenset[str], what: str, lines: _Lines, draft: Draft) -> None:
    for key, value in block.items():
        if key not in known:
            draft.fire("trees/malformed", f"{what} has a line {key[:40]!r}, which LightGBM does not write", lines.at)
        if found := code_in(value):
            draft.fire("trees/code-in-text", f"{key[:40]} holds {found!r}", lines.at)


def _number(block: dict[str, str], key: str) -> int:
    value = block.get(key, "")
    if not re.fullmatch(r"-?\d{1,9}", value):
        raise _BrokenModelError(f"{key}={value[:40]} is no number")
    return int(value)


def _judge_sizes(announced: str, begins: list[int], draft: Draft) -> None:
    """``tree_sizes`` lets threads read trees without looking for them: it must tell where they begin."""
    if not announced:
        return
    sizes = announced.split()
    found = [str(end - start) for start, end in itertools.pairwise(begins)]
    if sizes != found:
        draft.fire("trees/sizes", "tree_sizes does not fit where the trees begin")


def _judge_tree(block: dict[str, str], what: str, features: int, lines: _Lines, draft: Draft) -> None:
    _judge_keys(block, TREE_KEYS, what, lines, draft)
    leaves = _number(block, "num_leaves")
    if not 1 <= leaves <= MOST_LEAVES:
        raise _BrokenModelError(f"{what} announces {leaves} leaves")
    nodes = leaves - 1
    for keys, count in ((PER_NODE, nodes), (PER_LEAF, leaves)):
        for key in keys:
            found = len(block[key].split()) if key in block else None
            if found is not None and found != count and not (nodes == 0 and found <= 1):
                draft.fire("trees/sizes", f"{what}: {key} has {found} values for {count}", lines.at)
                return
    if nodes:
        _judge_nodes(block, what, leaves, features, draft)
    _judge_categories(block, what, draft)


def _integers(block: dict[str, str], key: str) -> list[int]:
    try:
        return [int(item) for item in block[key].split()]
    except (KeyError, ValueError) as error:
        raise _BrokenModelError(f"{key} is missing or holds something else than integers") from error


def _judge_nodes(block: dict[str, str], what: str, leaves: int, features: int, draft: Draft) -> None:
    nodes = leaves - 1
    left, right = _integers(block, "left_child"), _integers(block, "right_child")
    places = [[child if child >= 0 else nodes + ~child for child in pair] for pair in zip(left, right, strict=True)]
    if any(child >= nodes for pair in zip(left, right, strict=True) for child in pair):
        draft.fire("trees/child-index", f"{what}: a node leads to a node of {nodes} that is not there")
    else:
        judge_walk(nodes + leaves, lambda node: places[node] if node < nodes else (), what, draft)
    if any(not 0 <= feature < features for feature in _integers(block, "split_feature")):
        draft.fire("trees/child-index", f"{what}: a node asks for a feature of {features} that is not there")


def _judge_categories(block: dict[str, str], what: str, draft: Draft) -> None:
    count = _number(block, "num_cat") if "num_cat" in block else 0
    if not count:
        return
    boundaries, threshold = _integers(block, "cat_boundaries"), _integers(block, "cat_threshold")
    is_rising = all(0 <= start <= end for start, end in itertools.pairwise(boundaries))
    if len(boundaries) != count + 1 or not is_rising or boundaries[-1] != len(threshold):
        draft.fire("trees/child-index", f"{what}: the bounds of its categories do not fit the categories")


def _read_rest(lines: _Lines, draft: Draft) -> None:
    """Feature importances, parameters and the categories of pandas; anything else belongs to no part."""
    while (line := _content(lines)) is not None:
        if line in _SECTIONS:
            _read_section(line, lines, draft)
        elif line.startswith("pandas_categorical:"):
            _judge_pandas(line.partition(":")[2], draft)
        elif line == "parser:":
            while (part := lines.next()) is not None and part != "end of parser":
                if found := code_in(part):
                    draft.fire("trees/code-in-text", f"the parser holds {found!r}", lines.at)
        elif re.fullmatch(r"[^\n=]{1,200}=\d+", line) is None:
            draft.gap(lines.at, len(draft.source.data), "follow the model")
            return


def _read_section(name: str, lines: _Lines, draft: Draft) -> None:
    end = _SECTIONS[name]
    while (line := lines.next()) is not None and line != end:
        if found := code_in(line):
            draft.fire("trees/code-in-text", f"{name} {found!r}", lines.at)
        if end and line and not _PARAMETER.match(line):
            draft.fire("trees/malformed", f"{line[:60]!r} is no parameter", lines.at)


def _judge_pandas(text: str, draft: Draft) -> None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        draft.fire("trees/malformed", "pandas_categorical is no JSON")
        return
    judge_texts(value, "categories of pandas", draft)


def examine_lightgbm_dump(source: Source, meter: Meter, _examine: Examine) -> Report:
    """Examine a model as LightGBM's ``dump_model`` writes it: for people, it is never loaded as a model."""
    draft = Draft(source, "lightgbm", meter.limits.findings)
    if len(source.data) > DUMP_LIMIT:
        draft.miss(f"a dump of more than {DUMP_LIMIT} bytes", rule="file/limit")
        return draft.close()
    try:
        document: dict[str, Any] = json.loads(bytes(source.data).decode())
    except (ValueError, RecursionError) as error:
        draft.fire("trees/malformed", f"it is no JSON: {str(error)[:120]}")
        draft.miss("the dump cannot be read")
        return draft.close()
    if not isinstance(document.get("tree_info"), list):
        draft.fire("trees/malformed", "the list of trees is missing")
    else:
        draft.facts["trees"] = len(document["tree_info"])
    judge_texts(document, "texts of the dump", draft)
    return draft.close()
