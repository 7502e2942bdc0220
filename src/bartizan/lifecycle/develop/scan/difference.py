"""What changed between two versions of a model: structure, globals, tensors, settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from bartizan.lifecycle.develop.scan.inventory import Inventory, Kind, Part
from bartizan.lifecycle.develop.scan.source import CHUNK

Change = Literal["added", "removed", "changed"]
_FLOATS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "Double": "<f8", "Float": "<f4", "Half": "<f2",
    "<f8": "<f8", "<f4": "<f4", "<f2": "<f2", ">f8": ">f8", ">f4": ">f4",
    "I64": "<i8", "I32": "<i4", "I8": "<i1", "Long": "<i8", "Int": "<i4", "<i8": "<i8", "<i4": "<i4",
}  # fmt: skip
"""Number types that can be compared, by the names that formats give them."""
AROUND = "bytes around the parts"
ORDER: tuple[Kind, ...] = ("global", "setting", "tensor", "member")


class Difference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One part that differs."""

    kind: Kind
    name: str
    change: Change
    before: str = ""
    after: str = ""
    relative: float | None = None
    """Of a tensor: length of the change over length of the old tensor (L2)."""
    share: float | None = None
    """Of a tensor: share of its numbers that changed, 0 to 1."""


def compare(old: Inventory, new: Inventory) -> list[Difference]:
    """Everything that is not the same; code first, then settings, tensors and the rest.

    Files whose parts are all the same may still differ, in bytes that belong to no part: packed otherwise,
    or hidden in front of an archive. Those are named as well.
    """
    found = [difference for key in old.parts.keys() | new.parts.keys() if (difference := _compare(key, old, new))]
    return sorted(found or _around(old, new), key=lambda each: (ORDER.index(each.kind), each.name, each.change))


def _around(old: Inventory, new: Inventory) -> list[Difference]:
    """Files of one name with different bytes."""
    return [
        Difference(
            kind="member",
            name=f"{name}: {AROUND}" if name else AROUND,
            change="changed",
            before=f"sha256 {digest[:12]}",
            after=f"sha256 {new.files[name][:12]}",
        )
        for name, digest in old.files.items()
        if new.files.get(name, digest) != digest
    ]


def _compare(key: tuple[Kind, str], old: Inventory, new: Inventory) -> Difference | None:
    before, after = old.parts.get(key), new.parts.get(key)
    kind, name = key
    if before is None or after is None:
        there = before or after
        shape = there.shape if there else ""
        change: Change = "removed" if before else "added"
        return Difference(
            kind=kind, name=name, change=change, before=shape if before else "", after=shape if after else ""
        )
    if before.shape == after.shape and _equal(before, after):
        return None
    relative, share = _distance(before, after) if kind == "tensor" else (None, None)
    return Difference(
        kind=kind,
        name=name,
        change="changed",
        before=_shown(before),
        after=_shown(after),
        relative=relative,
        share=share,
    )


def _shown(part: Part) -> str:
    return part.shape or (f"{len(part.data)} bytes, sha256 {part.digest[:12]}" if len(part.data) else "")


def _equal(one: Part, other: Part) -> bool:
    if len(one.data) != len(other.data):
        return False
    return all(bytes(a) == bytes(b) for a, b in _pairs(one, other))


def _pairs(one: Part, other: Part) -> Iterator[tuple[memoryview, memoryview]]:
    first, second = memoryview(one.data), memoryview(other.data)
    for at in range(0, len(first), CHUNK):
        yield first[at : at + CHUNK], second[at : at + CHUNK]


def _distance(before: Part, after: Part) -> tuple[float | None, float | None]:
    """How far a tensor moved, where both have the same numbers in the same order."""
    dtype = _FLOATS.get(before.shape.partition(" ")[0])
    if before.shape != after.shape or dtype is None or len(before.data) != len(after.data):
        return None, None
    width = np.dtype(dtype).itemsize
    if not len(before.data) or len(before.data) % width:
        return None, None
    moved = length = changed = 0.0
    for one, other in _pairs(before, after):
        a, b = np.frombuffer(one, dtype).astype(np.float64), np.frombuffer(other, dtype).astype(np.float64)
        with np.errstate(all="ignore"):
            moved += float(np.square(np.nan_to_num(b - a)).sum())
            length += float(np.square(np.nan_to_num(a)).sum())
        changed += float(np.count_nonzero(a != b))
    relative = float(np.sqrt(moved / length)) if length else None
    return relative, changed * width / len(before.data)
