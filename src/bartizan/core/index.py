"""The evidence index, and how its completeness is proved.

A store answers "which statements speak about this digest?". A liar could leave one out: a failed
test, a revocation. So every line of the index is also linked into the hash chain of its bucket
(by the first 12 bits of the subject digest), and a checkpoint signs the hash over all chain heads.
Whoever reads a bucket recomputes its chain; a line that was removed, added, changed or moved gives
another head. Revocations form one more bucket, so that all of them are found in one read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from bartizan.core import predicates
from bartizan.core.digest import HEX, Digest
from bartizan.core.errors import TamperedError
from bartizan.core.ports import BUCKETS, HEADS_PER_SHARD, REVOCATIONS, IndexRow

HEAD_BYTES = 32
SHARDS = -(-(BUCKETS + 1) // HEADS_PER_SHARD)
EMPTY_HEAD = bytes(HEAD_BYTES)
_EMPTY_SHARD = bytes(HEAD_BYTES * HEADS_PER_SHARD)


_REINDEX = "run `bartizan ledger verify`, then `bartizan ledger reindex`."


def bucket_of(subject: str) -> int:
    """The bucket that a subject digest falls into."""
    return int(subject[:3], 16)


def rows_for(seq: int, leaf_hash: bytes, predicate_type: str, subjects: Sequence[Digest]) -> list[IndexRow]:
    """Index lines of one entry, in the order in which they are chained."""
    places = [(bucket_of(subject), subject) for subject in subjects]
    if predicate_type == predicates.REVOCATION:
        places += [(REVOCATIONS, subject) for subject in subjects]
    return [
        IndexRow(bucket=bucket, subject=subject, predicate_type=predicate_type, seq=seq, leaf_hash=leaf_hash)
        for bucket, subject in sorted(places)
    ]


def link(head: bytes, row: IndexRow) -> bytes:
    """Head of the chain after one more line.

    Raises:
        ValueError: the subject is not written in the one form, or the leaf hash is no hash.
    """
    if not HEX.match(row.subject) or len(row.leaf_hash) != HEAD_BYTES:
        raise ValueError("an index line that is not in the one form")
    return hashlib.sha256(
        head + row.seq.to_bytes(8, "big") + bytes.fromhex(row.subject) + row.leaf_hash + row.predicate_type.encode()
    ).digest()


def chain(rows: Iterable[IndexRow], head: bytes = EMPTY_HEAD) -> bytes:
    """Head after all lines."""
    for row in rows:
        head = link(head, row)
    return head


def index_root(shards: Mapping[int, bytes]) -> bytes:
    """Hash over all bucket heads; shards that are not stored are empty.

    Raises:
        TamperedError: a shard is not one of ours, or not of its one length: heads could be moved across its end.
    """
    for number, shard in shards.items():
        if not 0 <= number < SHARDS or len(shard) != len(_EMPTY_SHARD):
            raise TamperedError(f"index shard {number} has the wrong form", seq=-1, remedy=_REINDEX)
    state = hashlib.sha256()
    for number in range(SHARDS):
        state.update(shards.get(number, _EMPTY_SHARD))
    return state.digest()


def head_of(shards: Mapping[int, bytes], bucket: int) -> bytes:
    """The head of one bucket."""
    shard, place = divmod(bucket, HEADS_PER_SHARD)
    return shards.get(shard, _EMPTY_SHARD)[place * HEAD_BYTES : (place + 1) * HEAD_BYTES]


def advance(shards: Mapping[int, bytes], rows: Iterable[IndexRow]) -> dict[int, bytes]:
    """The shards that change when ``rows`` are chained on."""
    changed: dict[int, bytearray] = {}
    for row in rows:
        shard, place = divmod(row.bucket, HEADS_PER_SHARD)
        heads = changed.setdefault(shard, bytearray(shards.get(shard, _EMPTY_SHARD)))
        span = slice(place * HEAD_BYTES, (place + 1) * HEAD_BYTES)
        heads[span] = link(bytes(heads[span]), row)
    return {shard: bytes(heads) for shard, heads in changed.items()}


def prove_complete(bucket: int, rows: Sequence[IndexRow], shards: Mapping[int, bytes]) -> None:
    """Check that ``rows`` are all lines of a bucket, unaltered and in order.

    Raises:
        TamperedError: they are not.
    """
    try:
        complete = chain(rows) == head_of(shards, bucket)
    except (ValueError, OverflowError):
        complete = False
    if not complete:
        raise TamperedError(
            f"index bucket {bucket}: lines were removed, added or changed",
            seq=rows[-1].seq if rows else -1,
            remedy=_REINDEX,
        )
