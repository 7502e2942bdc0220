"""JSON, JSON lines and the judges of what they say.

Documents up to ``TREE`` bytes are read whole, with an eye on keys that occur twice. Longer ones (the
tokenizers of language models hold tens of megabytes of vocabulary) are checked for syntax without building
anything, and only the short values of the outermost object are read; there the last of two equal keys
counts, as it does for the libraries that read these files.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from bartizan.lifecycle.develop.scan.formats import huggingface, notebook
from bartizan.lifecycle.develop.scan.limits import MIB
from bartizan.lifecycle.develop.scan.source import Draft, Source

TREE = 2 * MIB
VALUE = MIB // 2
"""Values of a long document up to this size are read."""
NAMES = (".json", ".ipynb", ".geojson", ".jsonld", ".webmanifest")
LINE_NAMES = (".jsonl", ".ndjson")
MOST_DUPLICATES = 20


class _Pairs:
    """Hook for the JSON parser that notes keys which occur twice in one object."""

    def __init__(self) -> None:
        self.twice: list[str] = []

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs) and len(self.twice) < MOST_DUPLICATES:
            seen: set[str] = set()
            self.twice += [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]  # add returns None, on purpose
        return made


def judge(source: Source, draft: Draft, text: str) -> bool:
    """JSON by content; by name it has to be JSON."""
    name = source.name.lower()
    is_named = name.endswith(NAMES)
    if not is_named and text.lstrip()[:1] not in {"{", "["}:
        return False
    if len(text) > TREE:
        return judge_long(source, draft)
    pairs = _Pairs()
    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        draft.kind = "json"
        draft.fire("json/nesting", "values are nested too deeply", 0)
        draft.miss("the document was not read")
        return True
    except ValueError as error:
        return _judge_broken(draft, text, str(error), is_named=is_named)
    draft.kind = "json"
    for key in pairs.twice[:MOST_DUPLICATES]:
        draft.fire("json/duplicate-key", repr(key[:80]))
    judge_value(source, draft, value)
    return True


def _judge_broken(draft: Draft, text: str, why: str, *, is_named: bool) -> bool:
    """JSON lines, or what only calls itself JSON."""
    if _are_lines(text.encode()):
        draft.kind = "json-lines"
        return True
    if is_named:
        draft.kind = "json"
        draft.fire("json/malformed", why[:120])
        draft.miss("the document cannot be read")
    return is_named


def _are_lines(data: bytes) -> bool:
    lines = [line for line in data.splitlines() if line.strip()]
    try:
        for line in lines:
            msgspec.json.decode(line, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return len(lines) > 1 and all(line.lstrip()[:1] in {b"{", b"["} for line in lines)


def judge_value(source: Source, draft: Draft, value: Any) -> None:
    """A parsed document: a notebook, or a configuration."""
    if notebook.is_notebook(value):
        draft.kind = "notebook"
        notebook.judge(draft, value)
    else:
        huggingface.judge(source, draft, value)


def judge_long(source: Source, draft: Draft) -> bool:
    """A document that is too long to be read whole."""
    data = memoryview(source.data)
    name = source.name.lower()
    begins = bytes(data[:64]).lstrip()[:1]
    if begins not in {b"{", b"["}:
        return False
    if name.endswith(LINE_NAMES):
        return _judge_long_lines(draft, data)
    try:
        kind: Any = dict[str, msgspec.Raw] if begins == b"{" else msgspec.Raw
        parts = msgspec.json.decode(data, type=kind)
    except RecursionError:
        draft.kind = "json"
        draft.fire("json/nesting", "values are nested too deeply", 0)
        draft.miss("the document was not read")
        return True
    except msgspec.DecodeError as error:
        return _judge_long_lines(draft, data) or _miss_long(draft, name, str(error))
    draft.kind = "json"
    if not isinstance(parts, dict):
        return True
    _judge_parts(source, draft, parts)
    return True


def _judge_parts(source: Source, draft: Draft, parts: dict[str, msgspec.Raw]) -> None:
    """The short values of a long object; a long value under a key that is judged is said not to be examined."""
    if {"cells", "nbformat"} <= parts.keys():
        draft.miss(f"a notebook is examined up to {TREE} bytes", rule="file/limit")
        return
    short: dict[str, Any] = {}
    for key, raw in parts.items():
        if len(memoryview(raw)) <= VALUE:
            short[key] = json.loads(bytes(memoryview(raw)))
        elif key in huggingface.JUDGED:
            draft.miss(f"the value of {key!r} is longer than {VALUE} bytes", rule="file/limit")
    huggingface.judge(source, draft, short)


def _judge_long_lines(draft: Draft, data: memoryview) -> bool:
    """JSON lines; each line is checked for syntax."""
    at = 0
    decoder = msgspec.json.Decoder(msgspec.Raw)
    whole = bytes(data) if not isinstance(data.obj, bytes) else data.obj
    while at < len(whole):
        end = whole.find(b"\n", at)
        end = len(whole) if end < 0 else end
        try:
            if whole[at:end].strip():
                decoder.decode(data[at:end])
        except (msgspec.DecodeError, RecursionError):
            return False
        at = end + 1
    draft.kind = "json-lines"
    return True


def _miss_long(draft: Draft, name: str, why: str) -> bool:
    if not name.endswith((*NAMES, *LINE_NAMES)):
        return False
    draft.kind = "json"
    draft.fire("json/malformed", why[:120])
    draft.miss("the document cannot be read")
    return True


__all__ = ["judge", "judge_long", "judge_value"]
