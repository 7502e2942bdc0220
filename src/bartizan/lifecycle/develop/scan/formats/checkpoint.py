"""Indexes of TensorFlow checkpoints (``variables.index``): which tensor lies where in the data files.

Format: ``tensorflow/core/util/tensor_bundle`` on top of the sorted tables of LevelDB
(``table_format.md``): blocks of keys that share their beginnings, an index of the blocks, and a
footer. The data files beside it hold raw numbers and are claimed with the size that the index gives.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator
from typing import NamedTuple

from bartizan.lifecycle.develop.scan.formats.protobuf import Tree, WireError, varint
from bartizan.lifecycle.develop.scan.formats.savedmodel import ITEM_SIZES
from bartizan.lifecycle.develop.scan.limits import LimitError, Meter
from bartizan.lifecycle.develop.scan.source import Draft, Examine, Source
from bartizan.lifecycle.develop.scan.verdict import Report

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER = 48
TRAILER = 5
"""Behind every block: one byte for its compression, four for its checksum."""
MOST_ENTRIES = 1_000_000
LONGEST_KEY = 1 << 16
MOST_SHARDS = 100_000


class Handle(NamedTuple):
    """Where a block lies."""

    offset: int
    size: int


class Item(NamedTuple):
    """A key and the place of its value."""

    key: bytes
    start: int
    end: int


def recognise_checkpoint(source: Source) -> bool:
    """Whether a footer of a table ends the bytes."""
    return len(source.data) >= FOOTER and bytes(source.data[-8:]) == MAGIC


def examine_checkpoint(source: Source, meter: Meter, _examine: Examine) -> Report:
    """Examine an index: every entry, and that blocks and footer fill the file."""
    draft = Draft(source, "tensorflow-checkpoint", meter.limits.findings)
    examiner = CheckpointExaminer(source, Tree(source, meter, draft, "tensorflow"), draft)
    try:
        examiner.run()
    except WireError as broken:
        draft.fire("tensorflow/malformed", str(broken), broken.at)
        draft.miss("the index cannot be read to its end")
    except LimitError as limit:
        draft.miss(str(limit), rule="file/limit")
    return draft.close()


class CheckpointExaminer:
    """The examination of one index."""

    def __init__(self, source: Source, tree: Tree, draft: Draft) -> None:
        self.data = source.data
        self.name = posixpath.basename(source.name).removesuffix(".index")
        self.tree = tree
        self.draft = draft
        self.shards = 1
        self.ends: dict[int, int] = {}
        self.spans: list[tuple[int, int]] = []
        self.entries = 0

    def run(self) -> None:
        """Read footer, index and blocks."""
        start = len(self.data) - FOOTER
        meta, at = self._handle(start, start + FOOTER - 8)
        index, at = self._handle(at, start + FOOTER - 8)
        if any(bytes(self.data[at : start + FOOTER - 8])):
            self.draft.gap(at, start + FOOTER - 8, "fill the footer")
        self.spans.append((start, len(self.data)))
        for _ in self._block(meta):
            pass
        for item in self._block(index):
            block, _ = self._handle(item.start, item.end)
            for entry in self._block(block):
                self._entry(entry)
        self._account()
        self._claim()

    def _handle(self, at: int, end: int) -> tuple[Handle, int]:
        offset, at = varint(self.data, at, end)
        size, at = varint(self.data, at, end)
        if offset + size + TRAILER > len(self.data):
            raise WireError(f"a block of {size} bytes leads past the end", at)
        return Handle(offset, size), at

    def _block(self, handle: Handle) -> Iterator[Item]:
        """The entries of a block; each key repeats the beginning of the one before."""
        end = handle.offset + handle.size
        self.spans.append((handle.offset, end + TRAILER))
        if self.data[end]:
            raise WireError("a block is compressed", handle.offset)
        restarts = int.from_bytes(bytes(self.data[max(handle.offset, end - 4) : end]), "little")
        limit = end - 4 - 4 * restarts
        if limit < handle.offset:
            raise WireError("a block ends within its restart points", handle.offset)
        at, key = handle.offset, b""
        while at < limit:
            shared, at = varint(self.data, at, limit)
            fresh, at = varint(self.data, at, limit)
            size, at = varint(self.data, at, limit)
            if shared > len(key) or shared + fresh > LONGEST_KEY or at + fresh + size > limit:
                raise WireError("an entry leads past its block", at)
            key = key[:shared] + bytes(self.data[at : at + fresh])
            at += fresh
            self.entries += 1
            if self.entries > MOST_ENTRIES:
                raise LimitError(f"more than {MOST_ENTRIES} entries")
            yield Item(key, at, at + size)
            at += size

    def _entry(self, item: Item) -> None:
        if not item.key:
            self.tree.walk("BundleHeaderProto", item.start, item.end, {})
            self.shards = self.tree.message("BundleHeaderProto", item.start, item.end).number("num_shards")
            if not 0 < self.shards <= MOST_SHARDS:
                raise WireError(f"{self.shards} data files", item.start)
            return
        self.tree.walk("BundleEntryProto", item.start, item.end, {})
        entry = self.tree.message("BundleEntryProto", item.start, item.end)
        offset, size, shard = entry.number("offset"), entry.number("size"), entry.number("shard_id")
        shape = entry.message("shape")
        dims = [dim.number("size") for dim in shape.messages("dim")] if shape else []
        shown = item.key[:80].decode("utf-8", "replace")
        if min(offset, size, shard, *dims) < 0 or shard >= self.shards or offset + size >= 1 << 62:
            self.draft.fire(
                "tensorflow/malformed", f"entry {shown!r}: file {shard}, {size} bytes at {offset}", item.start
            )
            return
        width = ITEM_SIZES.get(entry.number("dtype"))
        if width and not entry.has("slices") and math.prod(dims) * width != size:
            detail = f"{shown!r} takes {math.prod(dims) * width} bytes and has {size}"
            self.draft.fire("tensorflow/tensor-size", detail, item.start)
        self.ends[shard] = max(self.ends.get(shard, 0), offset + size)

    def _account(self) -> None:
        at = 0
        for start, end in sorted(self.spans):
            if start > at:
                self.draft.gap(at, start)
            elif start < at:
                self.draft.fire("tensorflow/malformed", "blocks overlap", start)
            at = max(at, end)

    def _claim(self) -> None:
        """The data files beside the index, as large as their last tensor needs."""
        self.draft.facts["tensors"] = self.entries
        for shard, end in self.ends.items():
            self.draft.claims[f"{self.name}.data-{shard:05}-of-{self.shards:05}"] = end
