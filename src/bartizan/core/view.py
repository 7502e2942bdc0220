"""A checked view of the ledger: every answer is proved, or a ``LedgerError``.

1. The newest checkpoint is signed by a key that may sign checkpoints.
2. It covers exactly the entries that are there, and the index heads that are there.
3. It extends what was seen before (the *pin*), so neither ledger nor trust can be rolled back.
4. Each list of entries about a digest is complete (``index``), and each entry is the one that the
   index names: its leaf hash binds its bytes and its time of receipt.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from bartizan.core import checkpoint as notes
from bartizan.core import envelope as dsse
from bartizan.core import index, merkle, predicates, trust
from bartizan.core.checkpoint import Checkpoint
from bartizan.core.digest import Digest
from bartizan.core.errors import EvidenceError, LedgerError, TamperedError, TrustRollbackError
from bartizan.core.ports import REVOCATIONS, CheckpointRow, Edge, Entry, IndexRow, Snapshot

RESTORE = "restore the store from a backup, or compare with a checkpoint that was kept elsewhere."


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen last, kept outside the store. Like a TUF client's memory, it only moves forward."""

    first_trust: Digest
    """Digest of the envelope of trust document version 1."""
    trust_version: int
    size: int
    root: str
    """Hexadecimal root hash at ``size``."""


class Inclusion(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that an envelope is in the ledger; verifies without it."""

    seq: int
    received_ms: int
    envelope: Digest
    path: tuple[str, ...]
    """Hexadecimal sibling hashes, bottom up."""
    checkpoint: str
    """The signed note."""


def entry_leaf(received_ms: int, digest: Digest) -> bytes:
    """Leaf hash of an entry: 8 bytes of time, 32 bytes of digest."""
    return merkle.leaf_hash(received_ms.to_bytes(8, "big") + bytes.fromhex(digest))


class View:
    """One checked snapshot of a ledger."""

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        note: str,
        checkpoint: Checkpoint,
        shards: Mapping[int, bytes],
        chain: Sequence[Entry],
    ) -> None:
        self._snapshot = snapshot
        self._shards = shards
        self._proved: dict[int, list[IndexRow]] = {}
        self.note = note
        self.checkpoint = checkpoint
        self._history = trust.accept_history([(entry.seq, entry.body) for entry in chain])
        self.signed_trust = self._history[-1][1]
        self.first_trust = self._history[0][1].digest
        self.checkpoint_keys = self.trust.keys_for(trust.CHECKPOINT, moment(checkpoint.received_ms))

    @classmethod
    def open(cls, snapshot: Snapshot, pin: Pin | None) -> View | None:
        """Check a snapshot against its own checkpoint and what was seen before. None for an empty store.

        Raises:
            LedgerError: it contradicts itself, or the pin.
            TrustRollbackError: its trust document is older than the pinned one.
        """
        row = snapshot.checkpoint()
        if row is None:
            if pin is not None or snapshot.count():
                raise LedgerError("the ledger's checkpoints are gone", remedy=RESTORE)
            return None
        unproved, _ = notes.parse(row.note)
        shards = snapshot.shards()  # read once: a store that answers differently each time is a liar too
        if index.index_root(shards) != unproved.index_root:
            raise LedgerError("the index does not match the signed checkpoint", remedy=RESTORE)
        chain = _trust_chain(snapshot, unproved, shards)
        view = cls(snapshot, note=row.note, checkpoint=unproved, shards=shards, chain=chain)
        notes.verify(row.note, view.checkpoint_keys)
        view._check_tree(row)
        if pin is not None:
            view._check_pin(pin)
        return view

    def trust_before(self, seq: int) -> trust.Trust:
        """The trust document that was in force when entry ``seq`` was received."""
        earlier = [signed for at, signed in self._history if at < seq]
        return (earlier[-1] if earlier else self._history[0][1]).trust

    @property
    def trust(self) -> trust.Trust:
        """The newest trust document."""
        return self.signed_trust.trust

    def _check_tree(self, row: CheckpointRow) -> None:
        size = self.checkpoint.size
        if row.size != size or self._snapshot.count() != size:
            raise LedgerError(
                f"the checkpoint covers {size} entries, the store holds {self._snapshot.count()}", remedy=RESTORE
            )
        if (
            not merkle.is_frontier(size, row.frontier)
            or merkle.root(merkle.split_frontier(row.frontier)) != self.checkpoint.root
        ):
            raise LedgerError("the stored tree does not match the signed checkpoint", remedy=RESTORE)

    def _check_pin(self, pin: Pin) -> None:
        if self.first_trust != pin.first_trust:
            raise LedgerError("this is another ledger: its first trust document is not the pinned one", remedy=RESTORE)
        if self.trust.version < pin.trust_version:
            raise TrustRollbackError(
                f"trust document version {self.trust.version} is older than version {pin.trust_version} seen before",
                remedy=RESTORE,
            )
        if self.checkpoint.size < pin.size:
            raise LedgerError(
                f"the ledger was rolled back: it held {pin.size} entries and now {self.checkpoint.size}",
                remedy=RESTORE,
            )
        if not self.extends(pin.size, bytes.fromhex(pin.root)):
            raise LedgerError(f"the first {pin.size} entries are not those seen before", remedy=RESTORE)

    def pin(self) -> Pin:
        """What to remember of this view."""
        return Pin(
            first_trust=self.first_trust,
            trust_version=self.trust.version,
            size=self.checkpoint.size,
            root=self.checkpoint.root.hex(),
        )

    def extends(self, size: int, root: bytes) -> bool:
        """Whether this ledger is an extension of the one with ``size`` entries and ``root``."""
        if size == self.checkpoint.size:
            return root == self.checkpoint.root
        try:
            path = merkle.consistency_proof(
                size, self.checkpoint.size, _NodeReader(self._snapshot, size, self.checkpoint.size)
            )
        except (KeyError, IndexError):
            return False
        return merkle.verify_consistency(size, self.checkpoint.size, root, self.checkpoint.root, path)

    def about(self, digests: Collection[str], predicate_types: Collection[str] | None = None) -> list[Entry]:
        """Every entry that speaks about one of ``digests``, oldest first; proved complete."""
        wanted = set(digests)
        rows = [row for bucket in self._buckets({index.bucket_of(d) for d in wanted}) for row in bucket]
        leaves = {
            row.seq: row.leaf_hash
            for row in rows
            if row.subject in wanted and (predicate_types is None or row.predicate_type in predicate_types)
        }
        return self._fetch(leaves)

    def revocations(self) -> list[Entry]:
        """Every revocation, oldest first; proved complete."""
        [rows] = self._buckets({REVOCATIONS})
        return self._fetch({row.seq: row.leaf_hash for row in rows})

    def _buckets(self, numbers: set[int]) -> list[list[IndexRow]]:
        missing = sorted(numbers - self._proved.keys())
        if missing:
            fetched = self._snapshot.buckets(missing)
            for number in missing:
                rows = fetched.get(number, [])
                index.prove_complete(number, rows, self._shards)
                self._proved[number] = rows
        return [self._proved[number] for number in sorted(numbers)]

    def _fetch(self, leaves: dict[int, bytes]) -> list[Entry]:
        return _fetch(self._snapshot, leaves)

    def find(self, digest: Digest) -> Entry | None:
        """The entry with this envelope digest, if the store shows it; its bytes are checked against its leaf."""
        entry = self._snapshot.find(digest)
        if entry is None or entry.seq >= self.checkpoint.size:
            return None
        check_entry(entry, entry.leaf_hash)
        return entry

    def look_up(self, text: str) -> Entry | None:
        """An entry by its number, or by its envelope's digest or the only digest that begins so."""
        if text.isdecimal() and len(text) < len("000000000000"):
            entries = self._snapshot.entries([int(text)])
        else:
            entries = [entry for entry in [self._snapshot.find_prefix(text)] if entry is not None]
        for entry in entries:
            check_entry(entry, entry.leaf_hash)
        return entries[0] if entries else None

    def lineage(self, digest: Digest, *, forward: bool) -> list[Edge]:
        """Edges that lead on from ``digest``, nearest first. Lineage helps to search; it proves nothing."""
        return self._snapshot.lineage(digest, forward=forward)

    @staticmethod
    def payload(entry: Entry) -> bytes:
        """What the envelope of an entry holds."""
        return dsse.parse(entry.body).payload

    def prove(self, digest: Digest) -> Inclusion:
        """Proof that an envelope is in the ledger, to be checked elsewhere with ``verify_inclusion``.

        Raises:
            LedgerError: it is not in the ledger.
        """
        entry = self._snapshot.find(digest)
        if entry is None or entry.seq >= self.checkpoint.size:
            raise LedgerError(f"envelope {digest[:12]} is not in the ledger", remedy="run `bartizan evidence list`.")
        reader = _NodeReader(self._snapshot, entry.seq, self.checkpoint.size)
        path = merkle.inclusion_proof(entry.seq, self.checkpoint.size, reader)
        return Inclusion(
            seq=entry.seq,
            received_ms=entry.received_ms,
            envelope=entry.digest,
            path=tuple(step.hex() for step in path),
            checkpoint=self.note,
        )


def check_entry(entry: Entry, leaf: bytes) -> None:
    """Check that an entry's bytes and time are those that ``leaf`` binds.

    Raises:
        TamperedError: they are not.
    """
    try:
        envelope = dsse.parse(entry.body)
        sound = (
            envelope.digest == entry.digest and entry_leaf(entry.received_ms, entry.digest) == leaf == entry.leaf_hash
        )
    except (EvidenceError, ValueError, OverflowError) as error:
        raise TamperedError(f"entry {entry.seq} is altered: {error}", seq=entry.seq, remedy=RESTORE) from error
    if not sound:
        raise TamperedError(f"entry {entry.seq} is altered: bytes or time do not match", seq=entry.seq, remedy=RESTORE)


def verify_inclusion(proof: Inclusion, body: bytes, public_keys: dict[str, str]) -> Checkpoint:
    """Check, away from the ledger, that ``body`` was in it when the proof's checkpoint was signed.

    Raises:
        EvidenceError: it was not, or the checkpoint is not signed by one of ``public_keys``.
    """
    checkpoint = notes.verify(proof.checkpoint, public_keys)
    digest = dsse.parse(body).digest
    leaf = entry_leaf(proof.received_ms, digest)
    path = [bytes.fromhex(step) for step in proof.path]
    if digest != proof.envelope or not merkle.verify_inclusion(leaf, proof.seq, checkpoint.size, path, checkpoint.root):
        raise LedgerError(f"envelope {digest[:12]} is not what the proof speaks about")
    return checkpoint


class _NodeReader:
    """Hashes of complete subtrees out of a store, fetched together on first need."""

    def __init__(self, snapshot: Snapshot, first: int, size: int) -> None:
        levels = range(size.bit_length() + 1)
        near = {
            (level, place)
            for level in levels
            for at in (first, first - 1, size)
            for place in ((at >> level) - 1, at >> level, (at >> level) ^ 1)
        }
        near |= set(merkle.frontier_coordinates(size)) | set(merkle.frontier_coordinates(first))
        near = {(level, place) for level, place in near if place >= 0}
        self._snapshot = snapshot
        self._known = dict(snapshot.nodes([where for where in near if where[0] > 0]))
        self._leaves: dict[int, bytes] = {
            entry.seq: entry.leaf_hash for entry in snapshot.entries([place for level, place in near if level == 0])
        }

    def __call__(self, level: int, place: int) -> bytes:
        if level == 0:
            if place not in self._leaves:
                self._leaves |= {entry.seq: entry.leaf_hash for entry in self._snapshot.entries([place])}
            return self._leaves[place]
        if (level, place) not in self._known:
            self._known |= self._snapshot.nodes([(level, place)])
        return self._known[level, place]


def _trust_chain(snapshot: Snapshot, unproved: Checkpoint, shards: Mapping[int, bytes]) -> list[Entry]:
    """All trust documents, proved complete against the index that the checkpoint names."""
    number = index.bucket_of(trust.TRUST_SUBJECT)
    rows = snapshot.buckets([number]).get(number, [])
    index.prove_complete(number, rows, shards)
    leaves = {
        row.seq: row.leaf_hash
        for row in rows
        if row.subject == trust.TRUST_SUBJECT and row.predicate_type == predicates.TRUST
    }
    if not leaves:
        raise LedgerError(f"trust documents are missing from a ledger of {unproved.size} entries", remedy=RESTORE)
    return _fetch(snapshot, leaves)


def _fetch(snapshot: Snapshot, leaves: dict[int, bytes]) -> list[Entry]:
    """Exactly the entries with these sequence numbers and leaf hashes, oldest first."""
    entries = {entry.seq: entry for entry in snapshot.entries(leaves.keys())}
    for seq, leaf in leaves.items():
        if seq not in entries:
            raise TamperedError(f"entry {seq} is missing", seq=seq, remedy=RESTORE)
        check_entry(entries[seq], leaf)
    return [entries[seq] for seq in sorted(leaves)]


def moment(milliseconds: int) -> datetime:
    """A ledger time as a point in time."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
