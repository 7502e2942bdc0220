"""What the outside must provide: records, blobs, files, a clock, signers.

The core decides, the shell fetches. A ``Records`` store is dumb on purpose: it hands over rows and
writes a batch that the core computed. Nothing it returns is believed before ``core.ledger`` has
checked it against a signed checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec

from bartizan.core.digest import Digest, ManifestEntry

BUCKETS = 4096
"""Index buckets by the first 12 bits of a subject digest; one more, the last, lists all revocations."""
REVOCATIONS = BUCKETS
HEADS_PER_SHARD = 64
"""Bucket heads are stored 64 to a row."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One envelope in the ledger."""

    seq: int
    """Position, from 0, without gaps."""
    digest: Digest
    """SHA-256 of ``body``."""
    body: bytes
    """The DSSE envelope, byte for byte as it was received."""
    predicate_type: str
    received_ms: int
    """When the ledger received it, milliseconds since the epoch; never decreases."""
    leaf_hash: bytes
    """RFC 6962 leaf hash over the time of receipt and the digest."""


class IndexRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the evidence index: this entry speaks about this digest."""

    bucket: int
    subject: Digest
    predicate_type: str
    seq: int
    leaf_hash: bytes


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """Lineage: ``child`` rests on ``parent``, as said by entry ``seq``. A cache, never proof."""

    child: Digest
    parent: Digest
    kind: str
    seq: int


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """Hash of one complete subtree of the Merkle tree: ``2**level`` leaves from ``index * 2**level``."""

    level: int
    index: int
    hash: bytes


class CheckpointRow(msgspec.Struct, frozen=True, kw_only=True):
    """A signed checkpoint and what is needed to extend the tree from it."""

    size: int
    note: str
    """The signed note (C2SP tlog-checkpoint)."""
    frontier: bytes
    """Hashes of the complete subtrees that make up the tree, left to right, 32 bytes each."""
    received_ms: int
    """Time of receipt of the last entry."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one append writes; all of it or nothing."""

    entries: tuple[Entry, ...]
    index: tuple[IndexRow, ...]
    edges: tuple[Edge, ...]
    nodes: tuple[Node, ...]
    shards: dict[int, bytes]
    """Shard number to its ``HEADS_PER_SHARD * 32`` bytes of bucket heads."""
    checkpoint: CheckpointRow


class Writer(Protocol):
    """What an append may read while it holds the ledger exclusively."""

    def checkpoint(self) -> CheckpointRow | None:
        """The latest checkpoint."""

    def shards(self, numbers: Collection[int]) -> dict[int, bytes]:
        """Stored shards among ``numbers``."""

    def known(self, digests: Collection[Digest]) -> dict[Digest, int]:
        """Sequence numbers of those envelopes that are already stored."""


class Records(Protocol):
    """The ledger's rows, in one database."""

    def append(self, build: Callable[[Writer], Batch | None]) -> Batch | None:
        """Hold the ledger exclusively, let ``build`` compute a batch, write it durably, return it."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """One consistent read view; nothing that is appended meanwhile is seen."""


class Snapshot(Protocol):
    """A consistent view of the rows."""

    def checkpoint(self) -> CheckpointRow | None:
        """The latest checkpoint."""

    def count(self) -> int:
        """Number of entries."""

    def shards(self) -> dict[int, bytes]:
        """All stored shards of bucket heads."""

    def buckets(self, numbers: Collection[int]) -> dict[int, list[IndexRow]]:
        """All rows of these buckets, each by (seq, subject); empty buckets may be left out."""

    def entries(self, seqs: Collection[int]) -> list[Entry]:
        """These entries, by seq; missing ones are left out."""

    def scan(self, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
        """Entries ``start <= seq < stop`` in order, streamed."""

    def find(self, digest: Digest) -> Entry | None:
        """The entry whose envelope has this digest."""

    def find_prefix(self, prefix: str) -> Entry | None:
        """The only entry whose envelope digest begins so; None when there is none or more than one."""

    def search(self, *, predicate_type: str = "", subject: str = "", limit: int = 100) -> list[int]:
        """Newest sequence numbers first; ``subject`` may be a digest prefix."""

    def nodes(self, coordinates: Collection[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """Stored node hashes by (level, index)."""

    def checkpoints(self) -> Iterator[CheckpointRow]:
        """All checkpoints, smallest first."""

    def lineage(self, digest: Digest, *, forward: bool, depth: int = 64) -> list[Edge]:
        """Edges reachable from ``digest``: to what rests on it (forward) or what it rests on; each once."""


class Blobs(Protocol):
    """Bytes by digest; written once, never changed."""

    def put(self, data: bytes, media_type: str = "application/octet-stream") -> Digest:
        """Store if absent, durably; returns the digest."""

    def get(self, digest: Digest) -> bytes:
        """The bytes, checked against ``digest``. Raises StoreError when absent or altered."""

    def has(self, digest: Digest) -> bool:
        """Whether something is stored under ``digest`` (not whether it is intact)."""

    def list(self) -> Iterator[Digest]:
        """All stored digests."""


class Files(Protocol):
    """Artefacts on a filesystem."""

    def digest(self, path: Path) -> Digest:
        """Digest of a file (its bytes) or folder (manifest root). Raises ArtefactError."""

    def manifest(self, path: Path) -> list[ManifestEntry]:
        """The files of a folder, or the one file called ``.``, with digests; links and special files are refused."""


class Clock(Protocol):
    """Tells the time, with a time zone."""

    def __call__(self) -> datetime:
        """Now, in UTC."""


class Signer(Protocol):
    """Something that signs: a key file, an HSM, a cloud KMS."""

    @property
    def keyid(self) -> str:
        """SHA-256 of the public key's DER form, hexadecimal."""

    @property
    def public_pem(self) -> str:
        """The public key, SubjectPublicKeyInfo PEM."""

    def sign(self, data: bytes) -> bytes:
        """Signature over ``data``: ECDSA P-256 with SHA-256 (DER) or Ed25519."""


Signers = Sequence[Signer]
