"""Cases: what a person has to look at, and what is kept of it until somebody has.

A held answer waits for a person, and its caller with it. What guards flagged or filtered, and a sample of what they let
by, is looked at afterwards. Every case has a due date. What was asked and answered is sealed, and erased when its time
is over; what is said of a case without it names no person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Protocol

import msgspec
import numpy as np

from bartizan.core.digest import Digest, digest_json
from bartizan.core.errors import StoreError
from bartizan.lifecycle.deploy.gateway.guard import Answer, Asked, Numbers

Queue = Literal["held", "flagged", "filtered", "sampled"]
QUEUES: tuple[Queue, ...] = ("held", "flagged", "filtered", "sampled")
State = Literal["open", "decided"]

MOST_SHOWN = 64
"""Rows of a batch that are kept for a reviewer to see."""
MOST_NUMBERS = 1 << 17
"""Numbers of one case, rows times columns: 1 MiB; what is larger is not held."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a case from its beginning, and never changes."""

    id: str
    """128 random bits, hexadecimal: whoever does not know it cannot ask for it."""
    queue: Queue
    request: str
    """Names the audit record."""
    caller: str
    role: str
    model: str
    model_digest: Digest
    label: str = ""
    """Class that was answered, of a single row; empty for batches and for what was not answered."""
    rows: int = 0
    reasons: tuple[str, ...] = ()
    opened: int
    """Milliseconds since the epoch."""
    due: int
    """When it has to be decided, milliseconds since the epoch."""
    content: Digest
    """SHA-256 of the sealed content."""

    @property
    def digest(self) -> Digest:
        """What a decision about it names."""
        return digest_json(msgspec.to_builtins(self))


class Content(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What was asked and answered, before it is sealed."""

    columns: tuple[str, ...]
    """Names; empty for images."""
    classes: tuple[str, ...]
    shape: tuple[int, int]
    datatype: Literal["<f4", "<f8"]
    rows: bytes
    labels: tuple[int, ...] = ()
    """Empty when nothing was answered."""
    scores: bytes = b""
    """``(rows, classes)`` in double precision."""
    source: str = "model"
    verified: str = ""
    texts: tuple[str, ...] = ()
    """Fields of text, where there are any."""

    def numbers(self) -> Numbers:
        """The rows ``(batch, features)``."""
        return np.frombuffer(self.rows, self.datatype).reshape(self.shape)

    def answer(self) -> Answer | None:
        """What was answered."""
        if not self.labels:
            return None
        scores = np.frombuffer(self.scores, "<f8").reshape(-1, len(self.classes)) if self.scores else None
        return Answer(np.array(self.labels, np.int64), scores, self.source)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A case as it stands."""

    case: Case
    state: State = "open"
    content: bytes | None = None
    """Sealed; None once it was erased."""
    more: int = 0
    """So many more of the same caller and queue that were counted and not kept."""
    decided: int | None = None
    """When, milliseconds since the epoch."""
    statement: str = ""
    """Digest of the signed decision's envelope."""
    verdict: str = ""
    reviewer: str = ""
    """Id of the principal who decided."""


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How one queue stands."""

    open: int = 0
    overdue: int = 0
    decided: int = 0
    changed: int = 0
    """Decided otherwise than was answered."""


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """How much a queue takes."""

    capacity: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    """Open cases altogether."""
    per_caller: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    """Open cases of one caller; more are counted and not kept."""


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """How a case ended."""

    at: int
    """Milliseconds since the epoch."""
    statement: Digest
    verdict: str
    reviewer: str


class CaseStore(Protocol):
    """Where cases lie. Blocks; used by several threads. Raises StoreError when it cannot do its work."""

    def add(self, case: Case, content: bytes, fingerprint: str, room: Room) -> Kept | None:
        """Keep a case. Gives the open one of the same fingerprint where there is one; None when there is no room."""

    def find(self, case_id: str) -> Kept | None:
        """One case."""

    def listed(
        self, *, queue: str = "", state: str = "open", due_before: int | None = None, limit: int = 100
    ) -> list[Kept]:
        """Cases without their content, the most urgent first."""

    def settle(self, case_id: str, conclude: Callable[[Kept], Settled], *, again: str = "") -> Kept:
        """Decide an open case. ``conclude`` signs; nobody else can decide the same case meanwhile.

        ``again`` is the statement of a decision that does not stand any more: then it is decided anew.

        Raises:
            InputError: there is no such case, or it was decided.
        """

    def erase(self, queues: Sequence[str], before: int) -> int:
        """Erase the content of cases that were decided, or were due, before; gives how many."""

    def tallies(self, now: int) -> dict[str, Tally]:
        """How each queue stands."""

    def close(self) -> None:
        """Let go of the database."""


def content_of(
    asked: Asked, answer: Answer | None, columns: Sequence[str], classes: Sequence[str], most: int
) -> Content:
    """What is kept of a request: at most so many of its rows."""
    rows = np.ascontiguousarray(asked.rows[:most])
    labels = () if answer is None else tuple(answer.labels[:most].tolist())
    scores = b"" if answer is None or answer.scores is None else answer.scores[:most].astype("<f8").tobytes()
    return Content(
        columns=tuple(columns),
        classes=tuple(classes),
        shape=(rows.shape[0], rows.shape[1]),
        datatype="<f4" if rows.dtype == np.float32 else "<f8",
        rows=rows.tobytes(),
        labels=labels,
        scores=scores,
        source="model" if answer is None else answer.source,
        verified=asked.verified,
    )


_DECODER = msgspec.msgpack.Decoder(Content)


def packed(content: Content) -> bytes:
    """Content as bytes."""
    return msgspec.msgpack.encode(content)


def unpacked(data: bytes) -> Content:
    """Content from bytes. Raises StoreError when they are none."""
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"the content of a case cannot be read: {error}") from error


__all__ = [
    "MOST_NUMBERS",
    "MOST_SHOWN",
    "QUEUES",
    "Case",
    "CaseStore",
    "Content",
    "Kept",
    "Queue",
    "Room",
    "Settled",
    "Tally",
    "content_of",
    "packed",
    "unpacked",
]
