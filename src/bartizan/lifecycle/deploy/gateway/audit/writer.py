"""Writing batches: the half of the log that blocks. One transaction a batch, and a signed checkpoint when one is due.

The head is read again under the store's lock for every batch, so that several replicas append to one tree and
none forks it. Before anything is signed, the new tree is shown to extend the last one that was seen signed: a
database that was changed underneath is noticed and never signed.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bartizan.core import checkpoint as notes
from bartizan.core import merkle
from bartizan.core.checkpoint import Checkpoint
from bartizan.core.errors import LedgerError, StoreError
from bartizan.core.ports import Node, Signer
from bartizan.lifecycle.deploy.gateway.audit import entries
from bartizan.lifecycle.deploy.gateway.audit.record import Record
from bartizan.lifecycle.deploy.gateway.audit.store import Batch, Block, Head, Kept, Reading, Store
from bartizan.lifecycle.deploy.gateway.audit.tree import Tree, extends

NO_INDEX = hashlib.sha256(b"").digest()
"""Stands where a ledger's checkpoint names its index; an audit log's index is a cache and not committed to."""
KEPT_NOTE_SECONDS = 60
"""Of the checkpoints, one a minute is kept; those between make way for newer ones."""
LONG_SINCE = 4
"""So many times after it was due, a checkpoint is signed where everybody waits for it."""
_MS = 1_000_000


class Item(NamedTuple):
    """A record on its way to the disk."""

    record: Record
    kind: int
    body: bytes
    kept: Kept | None


def item(record: Record, kept: Kept | None = None) -> Item:
    """Encode a record.

    Raises:
        StoreError: it is too long to be kept.
    """
    body = entries.encode(record)
    if len(body) > entries.MAX_BODY_BYTES:
        raise StoreError(f"an audit record of {len(body)} bytes is too long", remedy="give shorter reasons.")
    return Item(record, entries.class_of(record), body, kept)


class Rhythm(NamedTuple):
    """When a checkpoint is due."""

    seconds: float = 1.0
    records: int = 4096


class Writer:
    """Appends to one store. May be used from any thread; one writes at a time."""

    def __init__(
        self,
        store: Store,
        signer: Signer,
        origin: str,
        *,
        known: Mapping[str, str] | None = None,
        rhythm: Rhythm | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Open and check what is there. ``known`` are the keys (id to PEM) that earlier checkpoints may be signed by.

        Raises:
            LedgerError: the newest checkpoint is not signed by a known key, or the log does not extend it.
        """
        self.store, self.origin = store, origin
        self._signer, self._rhythm, self._clock = signer, rhythm or Rhythm(), clock
        self._known = {signer.keyid: signer.public_pem, **(known or {})}
        self._signed = Checkpoint(origin=origin, size=0, root=merkle.EMPTY_ROOT, index_root=NO_INDEX, received_ms=0)
        self._replaces, self._kept_at = -1, 0
        self._recent: list[tuple[Record, int]] = []
        self._recent_from = 0
        self._ahead: tuple[str, int] | None = None
        """A checkpoint that was signed beside the work and is not in the log yet, and its size."""
        self._is_doubtful = False
        """Whether one could not be signed beside the work: then it is signed where everybody waits for it."""
        self._lock = threading.Lock()
        self.has_to_write = False
        """Whether ``put`` did nothing because a checkpoint comes first; to try again is in vain."""
        self.note = ""
        """The newest checkpoint that this writer signed or found."""
        self.size = 0
        """Records in the log when it was last written to."""
        with store.reading() as reading:
            self._look(reading)

    def _look(self, reading: Reading) -> None:
        newest, head = reading.newest_note(), reading.head()
        self.size = head.size
        if newest is not None:
            said = notes.verify(newest[1], self._known)
            if said.origin != self.origin:
                raise LedgerError(f"this is the audit log {said.origin}, not {self.origin}", remedy="see [audit].")
            self._signed, self.note = said, newest[1]
        self._check(reading, head, Tree(reading))

    def _check(self, reading: Reading, head: Head, tree: Tree) -> bytes:
        """Root of the tree at ``head``, which has to extend what was signed last."""
        del reading
        old = self._signed
        root = merkle.root(merkle.split_frontier(head.frontier))
        sound = merkle.is_frontier(head.size, head.frontier) and old.size <= head.size
        if not sound or not extends(old.size, head.size, old.root, root, tree.consistency(old.size, head.size)):
            raise self._changed(head)
        return root

    def _changed(self, head: Head) -> LedgerError:
        return LedgerError(
            f"the audit log holds {head.size} records that do not extend the {self._signed.size} that were signed",
            remedy="run `bartizan audit verify`; keep a copy of the database before you restore it.",
        )

    def due(self) -> bool:
        """Whether a checkpoint should be signed now."""
        return self._due(self.size - self._signed.size)

    def _due(self, behind: int, times: int = 1) -> bool:
        """Whether one is, when so many records are not signed; ``times`` that long since."""
        late = self._clock() // _MS - self._signed.received_ms >= times * self._rhythm.seconds * 1000
        return behind > 0 and (late or behind >= times * self._rhythm.records)

    @property
    def is_overdue(self) -> bool:
        """Whether ``put`` would rather have a checkpoint signed. See ``sign``."""
        return self._ahead is None and self.due()

    def sign(self) -> None:
        """Sign the tree as it is, while others ``put``; the checkpoint goes into the log with the next of them.

        Raises:
            StoreError: it could not be read.
            LedgerError: the stored tree was changed underneath.
        """
        try:
            with self.store.reading() as reading:
                head = reading.head()
                note = self._note(reading, head, head, (), (), force=False)
            self.store.sync()  # nobody outside is shown a checkpoint of what a loss of power could take
        except Exception:  # whatever it was, it shows again where everybody waits
            self._is_doubtful = True
            raise
        self._ahead = (note, head.size) if note else None

    def write(self, items: Sequence[Item], *, sign: bool = False) -> None:
        """Append records durably; ``sign`` asks for a checkpoint whether one is due or not.

        Raises:
            StoreError: they could not be written.
            LedgerError: the stored tree was changed underneath.
        """
        with self._lock:
            self._written(items, self.store.write(lambda reading: self._build(reading, items, sign=sign)))

    def put(self, items: Sequence[Item]) -> bool:
        """Append records without waiting for anybody; they are on disk once the store's ``sync`` has come back.

        A checkpoint takes its time: see ``is_overdue``. False when this cannot be done now, or a checkpoint should have
        been signed long since: ``write`` them then.

        Raises:
            StoreError: they could not be written.
            LedgerError: the stored tree was changed underneath.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self.has_to_write = self._is_doubtful or self._due(self.size + len(items) - self._signed.size, LONG_SINCE)
            if self.has_to_write:
                return False
            done = self.store.put(lambda reading: self._build(reading, items))
            if done is not None:
                self._written(items, done)
        finally:
            self._lock.release()
        return done is not None

    def _written(self, items: Sequence[Item], done: Batch) -> None:
        self.size = done.head.size
        if done.note:
            self._signed, self.note = notes.parse(done.note)[0], done.note
            self._replaces, self._ahead, self._is_doubtful = self._next_replaced(done), None, False
        self._remember(items, done.head.size)

    def _remember(self, items: Sequence[Item], size: int) -> None:
        """Keep the records of the block that is not complete yet: its index line is made from them."""
        start = size & ~(entries.BLOCK - 1)
        first = size - len(items)
        if first != self._recent_from + len(self._recent):
            self._recent, self._recent_from = [], first  # another process appended in between
        self._recent.extend((new.record, new.kind) for new in items)
        if start > self._recent_from:
            self._recent = self._recent[start - self._recent_from :]
            self._recent_from = start

    def _next_replaced(self, done: Batch) -> int:
        """The note just written makes way for the next one, unless a minute has passed since one was kept."""
        now = self._clock()
        if now - self._kept_at >= KEPT_NOTE_SECONDS * 1_000_000_000:
            self._kept_at = now
            return -1
        return done.note_size

    def _build(self, reading: Reading, items: Sequence[Item], *, sign: bool | None = None) -> Batch:
        """``sign``: with a checkpoint in any case, or when due. None: with one that was signed before, if any."""
        head = reading.head()
        if head.size < self._signed.size:
            raise self._changed(head)
        rows: list[tuple[int, int, int, bytes, bytes]] = []
        leaves: list[bytes] = []
        sha256, leaf_of = hashlib.sha256, entries.leaf
        for seq, (record, kind, body, _) in enumerate(items, start=head.size):
            made = leaf_of(seq, record.at, kind, sha256(body).digest())
            leaves.append(made)
            rows.append((seq, record.at, kind, made, body))
        # a checkpoint is proved by all of them; kept are those of whole blocks
        least = entries.BLOCK_BITS if sign is None else 1
        size, frontier, nodes = merkle.extend(head.size, merkle.split_frontier(head.frontier), leaves, least)
        new = Head(size, b"".join(frontier))
        note, note_size = self._ahead if sign is None and self._ahead is not None else ("", size)
        if sign is not None:
            note = self._note(reading, head, new, nodes, leaves, force=sign)
        return Batch(
            rows=rows,
            nodes=[(node.level, node.index, node.hash) for node in nodes if node.level >= entries.BLOCK_BITS],
            blocks=self._blocks(reading, items, head.size, size),
            contents=[new.kept for new in items if new.kept is not None],
            head=new,
            note=note,
            note_size=note_size,
            replaces=self._replaces if note else -1,
        )

    def _blocks(self, reading: Reading, items: Sequence[Item], old: int, new: int) -> list[Block]:
        """Index lines of the blocks that these records complete."""
        made = []
        for number in range(old >> entries.BLOCK_BITS, new >> entries.BLOCK_BITS):
            start = number << entries.BLOCK_BITS
            fresh = items[max(start - old, 0) : start + entries.BLOCK - old]
            records = [*self._stored(reading, start, old), *((one.record, one.kind) for one in fresh)]
            made.append(Block(number, entries.terms(records), entries.prints(records)))
        return made

    def _stored(self, reading: Reading, start: int, stop: int) -> list[tuple[Record, int]]:
        """Records of a block that are stored already: from memory when they are all ours."""
        if start >= stop:
            return []
        if self._recent_from <= start and self._recent_from + len(self._recent) == stop:
            return self._recent[start - self._recent_from :]
        stored = reading.rows(start, stop)
        return [(entries.decode(row.body, row.seq), row.kind) for row in stored if row.body is not None]

    def _note(
        self,
        reading: Reading,
        old: Head,
        new: Head,
        nodes: Sequence[Node],
        leaves: Sequence[bytes],
        *,
        force: bool,
    ) -> str:
        behind = new.size - self._signed.size
        now_ms = self._clock() // _MS
        late = now_ms - self._signed.received_ms >= self._rhythm.seconds * 1000
        if behind <= 0 or not (force or late or behind >= self._rhythm.records):
            return ""
        pending = {(node.level, node.index): node.hash for node in nodes}
        tree = Tree(reading, pending, dict(enumerate(leaves, start=old.size)))
        root = self._check(reading, new, tree)
        said = Checkpoint(
            origin=self.origin,
            size=new.size,
            root=root,
            index_root=NO_INDEX,
            received_ms=max(now_ms, self._signed.received_ms),
        )
        return notes.seal(said, self._signer)


__all__ = ["LONG_SINCE", "NO_INDEX", "Item", "Rhythm", "Writer", "item"]
