"""What the audit log needs of a database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import msgspec

Coordinates = tuple[int, int]
"""Level and place of a complete subtree."""


class Row(NamedTuple):
    """One record as it is stored."""

    seq: int
    at: int
    """Nanoseconds since the epoch."""
    kind: int
    """Place of its class in ``entries.CLASSES``."""
    leaf: bytes
    digest: bytes | None
    """SHA-256 of the body, once that is dropped."""
    body: bytes | None


class Head(msgspec.Struct, frozen=True):
    """How far the log reaches."""

    size: int = 0
    frontier: bytes = b""
    """Hashes of the complete subtrees that make up the tree, 32 bytes each."""


class Kept(NamedTuple):
    """Sealed content."""

    name: str
    """SHA-256 of ``sealed``, which the record names too."""
    kind: int
    at: int
    key: str
    sealed: bytes


class Secret(NamedTuple):
    """A key that will be destroyed."""

    name: str
    key: bytes
    until: int
    """Nanoseconds since the epoch after which nothing may need it."""


class Block(NamedTuple):
    """What a complete block of records can be found by."""

    number: int
    terms: Collection[int]
    prints: bytes
    """See ``entries.prints``."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction adds; all of it or nothing."""

    rows: Sequence[tuple[int, int, int, bytes, bytes]]
    """seq, at, class, leaf, body."""
    nodes: Sequence[tuple[int, int, bytes]]
    """level, place, hash, from level ``entries.BLOCK_BITS`` up."""
    blocks: Sequence[Block]
    """Index lines of the blocks that became complete."""
    contents: Sequence[Kept]
    head: Head
    note: str = ""
    """A new checkpoint over ``head``; empty when none is due."""
    note_size: int = 0
    replaces: int = -1
    """Size of an older checkpoint that need not be kept any longer."""


class Reading(Protocol):
    """One consistent view."""

    def head(self) -> Head:
        """How far the log reaches."""

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """Records ``start <= seq < stop``, in order, streamed."""

    def leaves(self, start: int, stop: int) -> list[bytes]:
        """Leaf hashes of these records, in order; shorter when some are missing."""

    def nodes(self, wanted: Collection[Coordinates]) -> dict[Coordinates, bytes]:
        """Stored hashes among those wanted."""

    def notes(self, above: int = -1) -> Iterator[tuple[int, str]]:
        """Sizes and notes of the checkpoints that were kept, smallest first."""

    def newest_note(self) -> tuple[int, str] | None:
        """The largest checkpoint."""

    def blocks(self, term: int, before: int, limit: int) -> list[int]:
        """Numbers of the newest complete blocks below ``before`` that a term occurs in, newest first."""

    def mentioned(self, terms: Collection[int], number: int) -> int:
        """How many of these terms the index has for a block."""

    def sketches(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Numbers and prints of blocks ``start <= number < stop``, newest first, streamed."""

    def between(self, start: int, stop: int) -> tuple[int, int]:
        """First and last sequence number of records with ``start <= at < stop``; ``(0, -1)`` for none."""

    def content(self, name: str) -> Kept | None:
        """Sealed content."""

    def secret(self, name: str) -> Secret | None:
        """A key that still lives."""

    def secrets(self) -> list[Secret]:
        """All keys that still live."""


class Store(Protocol):
    """The audit log's database. Every method raises StoreError when it cannot do its work in a few seconds."""

    place: str
    """Where it lies, for people."""

    def write(self, build: Callable[[Reading], Batch]) -> Batch:
        """Hold the head, let ``build`` compute a batch from it, write it durably."""

    def put(self, build: Callable[[Reading], Batch]) -> Batch | None:
        """Write as ``write`` does, at once or not at all: nobody is waited for, neither others who write nor the disk.

        It counts once ``sync`` has come back. None when it cannot be done so: then nothing was written.
        """

    def sync(self) -> None:
        """Wait until everything that was put is on disk. May be called from any thread."""

    def reading(self) -> AbstractContextManager[Reading]:
        """A view that later writes do not change; may be used from any thread."""

    def make_secret(self, secret: Secret) -> Secret:
        """Store a key durably, unless there is one of its name; gives the one that counts."""

    def drop(self, kind: int, start: int, stop: int) -> int:
        """Drop the bodies of a class with ``start <= at < stop``, keeping their digests; gives how many."""

    def drop_contents(self, before: int) -> int:
        """Erase sealed contents older than that; gives how many."""

    def destroy(self, names: Collection[str]) -> None:
        """Erase keys so that no copy stays in the database's files."""

    def close(self) -> None:
        """Let go of it."""


__all__ = ["Batch", "Block", "Coordinates", "Head", "Kept", "Reading", "Row", "Secret", "Store"]
