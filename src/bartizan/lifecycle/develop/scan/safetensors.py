"""safetensors files: eight bytes of header length, a JSON header, raw tensors without gaps.

Format: https://huggingface.co/docs/safetensors, section "Format". The checks are those of the
reference implementation (``safetensors/src/tensor.rs``, ``Metadata::validate``) and a few that keep
two readers from seeing two different files.
"""

from __future__ import annotations

import json
from typing import Any

from bartizan.lifecycle.develop.scan.formats.embedded import Embedded
from bartizan.lifecycle.develop.scan.limits import Meter
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source, window
from bartizan.lifecycle.develop.scan.verdict import Report

ITEM_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64,
    "F64": 64, "I64": 64, "U64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
METADATA = "__metadata__"
TENSOR_KEYS = {"dtype", "shape", "data_offsets"}
PREFIX = 8
LONGEST_NOTE = 8 << 20
"""Bytes of one text of the metadata; trainers write whole statistics of captions there."""


class _Duplicates:
    """Hook for the JSON parser that notes keys which occur twice in one object."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            seen: set[str] = set()
            self.keys += [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]  # add returns None, on purpose
        return made


def examine_safetensors(source: Source, meter: Meter, examine: Examine) -> Report:
    """Examine the header against the size of the file; tensors are numbers and need no parsing."""
    draft = Draft(source, "safetensors", meter.limits.findings)
    data = source.data
    size = int.from_bytes(bytes(data[:PREFIX]), "little")
    if PREFIX + size > len(data):
        draft.fire("safetensors/malformed", f"a header of {size} bytes leads past the end", 0)
        draft.miss("the header is not whole")
        return draft.close()
    if size > meter.limits.header:
        draft.miss(f"a header of {size} bytes is longer than {meter.limits.header}", rule="file/limit")
        return draft.close()
    header = _header(bytes(data[PREFIX : PREFIX + size]), draft)
    if header is None:
        draft.miss("the header cannot be read")
        return draft.close()
    embedded = Embedded(draft, examine)
    _judge_metadata(header.pop(METADATA, {}), draft, embedded)
    spans = []
    for name, tensor in header.items():
        if span := _span(name, tensor, draft):
            spans.append(span)
            at = PREFIX + size + span[0]
            embedded.judge_numbers(f"tensor {name[:80]!r}", window(data, at, at + span[1] - span[0]), at)
    draft.facts["tensors"] = len(header)
    if len(spans) == len(header):
        _judge_spans(sorted(spans), len(data) - PREFIX - size, draft)
    return draft.close()


def _header(raw: bytes, draft: Draft) -> dict[str, Any] | None:
    duplicates = _Duplicates()
    try:
        header = json.loads(raw.decode(), object_pairs_hook=duplicates)
    except (ValueError, RecursionError) as error:
        draft.fire("safetensors/malformed", f"the header is no JSON: {str(error)[:120]}", PREFIX)
        return None
    for key in duplicates.keys:
        draft.fire("safetensors/duplicate-key", repr(key[:80]), PREFIX)
    return header if isinstance(header, dict) else None


def _judge_metadata(metadata: Any, draft: Draft, embedded: Embedded) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        draft.fire("safetensors/malformed", "the metadata are no map of texts", PREFIX)
        return
    for key, value in metadata.items():
        raw = value.encode("utf-8", "surrogatepass")
        embedded.judge_text(f"the metadata {key[:40]!r}", raw, PREFIX, LONGEST_NOTE)


def _span(name: str, tensor: Any, draft: Draft) -> tuple[int, int] | None:
    """Where a tensor lies, if its description holds together."""
    shown = repr(name[:80])
    if not isinstance(tensor, dict) or set(tensor) != TENSOR_KEYS or tensor["dtype"] not in ITEM_BITS:
        draft.fire("safetensors/malformed", f"tensor {shown} is not dtype, shape and data_offsets", PREFIX)
        return None
    shape, offsets = tensor["shape"], tensor["data_offsets"]
    if not (_sizes(shape) and _sizes(offsets) and len(offsets) == 2):  # noqa: PLR2004 -- start and end
        draft.fire("safetensors/malformed", f"shape or offsets of {shown} are no sizes", PREFIX)
        return None
    count = ITEM_BITS[tensor["dtype"]]
    for side in shape:
        count *= side
    if offsets[1] - offsets[0] != count / 8:
        draft.fire(
            "safetensors/offsets", f"tensor {shown} takes {count / 8:g} bytes and has {offsets[1] - offsets[0]}", PREFIX
        )
    return offsets[0], offsets[1]


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _judge_spans(spans: list[tuple[int, int]], size: int, draft: Draft) -> None:
    at = 0
    start_of_data = len(draft.source.data) - size
    for start, end in spans:
        if start != at:
            draft.fire(
                "safetensors/offsets", f"a tensor begins at {start} and the one before ends at {at}", start_of_data + at
            )
        at = max(at, end)
    if at > size:
        draft.fire("safetensors/offsets", f"tensors reach {at} bytes and there are {size}", start_of_data)
    elif at < size:
        draft.gap(start_of_data + at, len(draft.source.data), "follow the last tensor")
