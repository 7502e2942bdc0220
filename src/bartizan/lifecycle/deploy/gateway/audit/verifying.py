"""Verifying the whole log: every record, the tree, every checkpoint, and what witnesses saw.

What each kind of tampering comes out as:

- a changed body, time or class: the leaf does not fit, and the record is named;
- a deleted or inserted record: the numbering has a gap, and the record is named;
- exchanged records: a leaf binds its place, so the first of them is named;
- leaves computed anew to hide one of these: the tree no longer has the root that was signed; the block of 256 is
  named when its stored hash was left alone, else the records between two checkpoints;
- records cut off at the end: a checkpoint covers more than there is; when checkpoints were cut off too, a witness
  has seen one that does;
- a fork: a witness has seen another root at that size;
- another key: a checkpoint is not signed by a key that may sign checkpoints.

Records that came after the newest checkpoint are covered by nothing yet: they are counted as ``unsigned``.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from bartizan.core import checkpoint as notes
from bartizan.core import merkle
from bartizan.core.checkpoint import Checkpoint
from bartizan.core.errors import EvidenceError
from bartizan.lifecycle.deploy.gateway.audit import entries
from bartizan.lifecycle.deploy.gateway.audit.record import Record
from bartizan.lifecycle.deploy.gateway.audit.retention import announced
from bartizan.lifecycle.deploy.gateway.audit.store import Reading, Row

Keys = Callable[[int], Mapping[str, str]]
"""Key id to PEM of whoever might sign checkpoints at a time (ms)."""
MOST_PROBLEMS = 20


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it was written."""

    seq: int
    """Number of the first bad record, or of the first that may be bad."""
    what: str


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint that a witness keeps."""

    place: str
    note: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a verification came out."""

    records: int
    dropped: int
    """Records whose bodies are gone because their time was over."""
    checkpoints: int
    witnessed: int
    """Checkpoints of witnesses that were compared."""
    unsigned: int
    """Records after the newest checkpoint."""
    root: str
    note: str
    problems: tuple[Problem, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class _Faults:
    """Collects problems, the first ones only."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.derived: list[Problem] = []
        """What is wrong with what can be computed from the records; of interest when these are sound."""

    def add(self, seq: int, what: str) -> None:
        """Something is wrong with record ``seq``."""
        if len(self.found) < MOST_PROBLEMS:
            self.found.append(Problem(seq=seq, what=what))

    def add_derived(self, seq: int, what: str) -> None:
        """Something is wrong with what is derived from records beginning with ``seq``."""
        if len(self.derived) < MOST_PROBLEMS:
            self.derived.append(Problem(seq=seq, what=what))

    def named(self, low: int, high: int) -> bool:
        """Whether one of these records is named already."""
        return any(low <= problem.seq <= high for problem in self.found)

    def all(self) -> tuple[Problem, ...]:
        """Problems by record."""
        return tuple(sorted(self.found or self.derived, key=lambda item: item.seq))


def verify(reading: Reading, origin: str, keys: Keys, seen: Sequence[Seen] = ()) -> Report:
    """Check everything; never raises for what the log says of itself."""
    faults = _Faults()
    signed = list(_signed(reading, origin, keys, faults))
    shown = list(_shown(origin, keys, seen, faults))
    roots = {said.size: said for said in signed}
    wanted = {*roots, *(said.size for _, said in shown)}
    walk = _Walk(reading, faults, wanted)
    walk.run()
    _compare(walk, sorted(roots.values(), key=lambda said: said.size), faults)
    _compare_shown(walk, shown, faults)
    _check_head(reading, walk, faults)
    newest = max(roots, default=0)
    return Report(
        records=walk.size,
        dropped=walk.dropped,
        checkpoints=len(signed),
        witnessed=len(shown),
        unsigned=max(0, walk.size - newest),
        root=merkle.root(walk.frontier).hex(),
        note=(reading.newest_note() or (0, ""))[1],
        problems=faults.all(),
    )


def _signed(reading: Reading, origin: str, keys: Keys, faults: _Faults) -> Iterator[Checkpoint]:
    for size, note in reading.notes():
        said = _believe(note, origin, keys)
        if isinstance(said, str):
            faults.add(size, f"the checkpoint over {size} records: {said}")
        elif said.size != size:
            faults.add(min(size, said.size), f"the checkpoint over {said.size} records is filed under {size}")
        else:
            yield said


def _shown(origin: str, keys: Keys, seen: Sequence[Seen], faults: _Faults) -> Iterator[tuple[str, Checkpoint]]:
    for item in seen:
        said = _believe(item.note, origin, keys)
        if isinstance(said, str):
            faults.add(0, f"what witness {item.place} keeps: {said}")
        else:
            yield item.place, said


def _believe(note: str, origin: str, keys: Keys) -> Checkpoint | str:
    """A checkpoint, or why it counts for nothing."""
    try:
        said, _ = notes.parse(note)
        said = notes.verify(note, keys(said.received_ms))
    except EvidenceError as error:
        return error.message
    return said if said.origin == origin else f"it is one of {said.origin}"


class _Walk:
    """One pass over all records."""

    def __init__(self, reading: Reading, faults: _Faults, wanted: set[int]) -> None:
        self._reading, self._faults, self._wanted = reading, faults, wanted
        self.size, self.dropped = 0, 0
        self.frontier: list[bytes] = []
        self.roots: dict[int, bytes] = {0: merkle.EMPTY_ROOT}
        self.bad_blocks: list[int] = []
        self._gone: dict[int, tuple[int, int]] = {}
        """Class to the latest time of a dropped body, and its number."""
        self._announced: dict[int, int] = {}
        self._block: list[tuple[Record, int]] = []

    def run(self) -> None:
        """Look at every record."""
        for row in self._reading.rows(0, 1 << 62):
            if row.seq != self.size:
                what = f"record {self.size} is missing" if row.seq > self.size else f"record {row.seq} is there twice"
                self._faults.add(self.size, what)
                break
            self._look_at(row)
            self._grow(row)
        for kind, (at, seq) in self._gone.items():
            if at >= self._announced.get(kind, 0):
                self._faults.add(seq, f"the body of record {seq} is gone, and the log does not say that it was dropped")

    def _look_at(self, row: Row) -> None:
        digest = hashlib.sha256(row.body).digest() if row.body is not None else row.digest
        if digest is None or not self._fits(row, digest):
            self._faults.add(row.seq, f"record {row.seq} is altered")
        elif row.body is None:
            self.dropped += 1
            latest = self._gone.get(row.kind)
            if latest is None or row.at > latest[0]:
                self._gone[row.kind] = (row.at, row.seq)
        else:
            self._read(row, row.body)

    @staticmethod
    def _fits(row: Row, digest: bytes) -> bool:
        try:
            return entries.leaf(row.seq, row.at, row.kind, digest) == row.leaf
        except (ValueError, struct.error):
            return False

    def _read(self, row: Row, body: bytes) -> None:
        try:
            record = entries.decode(body, row.seq)
        except EvidenceError as error:
            self._faults.add(row.seq, error.message)
            return
        if (record.at, entries.class_of(record)) != (row.at, row.kind):
            self._faults.add(row.seq, f"record {row.seq} is filed under another time or class than it says")
        self._block.append((record, row.kind))
        for kind, limit in announced(record).items():
            self._announced[kind] = max(limit, self._announced.get(kind, 0))
        kept = self._reading.content(record.content) if record.content else None
        if kept is not None and hashlib.sha256(kept.sealed).hexdigest() != record.content:
            self._faults.add(row.seq, f"the sealed content of record {row.seq} is altered")

    def _grow(self, row: Row) -> None:
        self.size, self.frontier, nodes = merkle.extend(self.size, self.frontier, [row.leaf])
        large = {(node.level, node.index): node.hash for node in nodes if node.level >= entries.BLOCK_BITS}
        if large and self._reading.nodes(list(large)) != large:
            self.bad_blocks.append((self.size - 1) >> entries.BLOCK_BITS)
        if not self.size & (entries.BLOCK - 1):
            self._check_index((self.size - 1) >> entries.BLOCK_BITS)
        if self.size in self._wanted:
            self.roots[self.size] = merkle.root(self.frontier)

    def _check_index(self, number: int) -> None:
        words = entries.terms(self._block)
        whole = len(self._block) == entries.BLOCK
        shown = dict(self._reading.sketches(number, number + 1)).get(number)
        if self._reading.mentioned(words, number) != len(words) or (whole and shown != entries.prints(self._block)):
            start = number << entries.BLOCK_BITS
            last = start + entries.BLOCK - 1
            self._faults.add_derived(start, f"the index leaves out some of records {start} to {last}")
        self._block = []


def _compare(walk: _Walk, signed: Sequence[Checkpoint], faults: _Faults) -> None:
    """The roots that were signed against those of the records; the first that differs says where."""
    before = 0
    for said in signed:
        if said.size > walk.size:
            faults.add(walk.size, f"the log was cut: a checkpoint covers {said.size} records, {walk.size} are there")
            return
        if walk.roots[said.size] != said.root:
            _name(walk, before, said.size, faults)
            return
        before = said.size
    if walk.bad_blocks:
        start = walk.bad_blocks[0] << entries.BLOCK_BITS
        faults.add_derived(start, f"a stored hash over records {start} to {start + entries.BLOCK - 1} is not theirs")


def _name(walk: _Walk, start: int, stop: int, faults: _Faults) -> None:
    blocks = [number << entries.BLOCK_BITS for number in walk.bad_blocks]
    near = [max(first, start) for first in blocks if first + entries.BLOCK > start and first < stop]
    low, high = (near[0], min(near[0] | (entries.BLOCK - 1), stop - 1)) if near else (start, stop - 1)
    if not faults.named(low, high):
        faults.add(low, f"one of records {low} to {high} is not what was signed")


def _compare_shown(walk: _Walk, shown: Sequence[tuple[str, Checkpoint]], faults: _Faults) -> None:
    before = 0
    for place, said in sorted(shown, key=lambda item: item[1].size):
        if said.size > walk.size:
            what = f"the log was cut: witness {place} has seen {said.size} records, {walk.size} are there"
            faults.add(walk.size, what)
            return
        if walk.roots[said.size] != said.root:
            where = f"among records {before} to {said.size - 1} it has seen others"
            faults.add(before, f"the log was forked or rewritten after witness {place} saw it: {where}")
            return
        before = said.size


def _check_head(reading: Reading, walk: _Walk, faults: _Faults) -> None:
    head = reading.head()
    if head.size != walk.size or head.frontier != b"".join(walk.frontier):
        what = f"the log says that it holds {head.size} records, {walk.size} are there"
        faults.add_derived(min(head.size, walk.size), what)


__all__ = ["Keys", "Problem", "Report", "Seen", "verify"]
