"""Bounds on what a scan may spend, and the meter that all parts of one scan share."""

from __future__ import annotations

import msgspec

MIB = 1 << 20
GIB = 1 << 30


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Upper bounds for one scan. Reaching one is reported and never counts as examined."""

    opcodes: int = 200_000_000
    """Pickle opcodes over all streams."""
    memo: int = 4_000_000
    """Memo entries of one pickle."""
    stack: int = 2_000_000
    """Symbols that one pickle may hold on its stack."""
    nodes: int = 1_000_000
    """Containers, imports and calls that one pickle may make."""
    reading: int = 20_000_000
    """Items and characters that may be read back from one pickle to judge arguments and states."""
    nesting: int = 8
    """Containers inside containers: a zip in a gzip in a zip."""
    members: int = 100_000
    """Files of a folder, entries of an archive."""
    folder_depth: int = 64
    expanded: int = 8 * GIB
    """Bytes that all compressed parts together may unpack to."""
    ratio: int = 250
    """Unpacked to packed size from which a stream counts as a bomb, once past ``ratio_from`` bytes."""
    ratio_from: int = 256 * MIB
    in_memory: int = 32 * MIB
    """Files and unpacked parts above this are mapped from disk."""
    header: int = 16 * MIB
    """Header of a safetensors file."""
    findings: int = 200
    """Findings kept for one part; the rest are counted."""


class LimitError(Exception):
    """A bound of the scan is reached; the text says which."""


class Meter:
    """What is left to spend in one scan."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.opcodes = limits.opcodes
        self.expanded = limits.expanded
        self.members = limits.members


__all__ = ["GIB", "MIB", "LimitError", "Limits", "Meter"]
