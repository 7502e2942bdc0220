"""Finding records: by request, answer, caller, time, model, decision, guard, class. Newest first, and bounded.

The index is by blocks of 256 records and never proof: what it leads to is looked at, and ``verifying`` checks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.audit import entries
from bartizan.lifecycle.deploy.gateway.audit.record import Record
from bartizan.lifecycle.deploy.gateway.audit.secrets import digests_of
from bartizan.lifecycle.deploy.gateway.audit.store import Reading, Row

MAX_FOUND = 100_000
MOST_BLOCKS = 20_000
"""Blocks that one search looks into (5 million records); then it says where to go on."""
_AHEAD = 512
_QUOTED = frozenset('"\\/')
"""What JSON may write in another way."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for; everything that is given has to hold."""

    id: str = ""
    caller: str = ""
    model: str = ""
    digest: str = ""
    """Digest of the model."""
    decision: str = ""
    operation: str = ""
    guard: str = ""
    """A guard that said something."""
    kind: str = ""
    """A class: ``answered``, ``refused``, ``flagged`` or ``admin``."""
    outputs: tuple[str, ...] = ()
    """Keyed digests that the answer's body may have; see ``of_answer``."""
    since: int = 0
    """Nanoseconds since the epoch."""
    until: int = 0
    """Not included; 0: no end."""
    limit: int = 100
    before: int = 0
    """Only records with a lower number; 0: all."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One record and where it stands."""

    seq: int
    kind: str
    record: Record


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    found: tuple[Found, ...]
    complete: bool
    """Whether everything was looked at."""
    go_on: int = 0
    """What to give as ``before`` to go on."""


def of_answer(reading: Reading, body: bytes) -> Query:
    """A query for the request that was answered with exactly these bytes.

    Raises:
        InputError: no key lives any more under which the answer could be recognised.
    """
    names = tuple(digests_of(reading, body))
    if not names:
        raise InputError(
            "no key of the audit log lives any more", remedy="search by the id in the answer's bartizan-request header."
        )
    return Query(outputs=names)


def search(reading: Reading, query: Query) -> Result:
    """Search.

    Raises:
        InputError: the limit or the class is none.
    """
    if not 1 <= query.limit <= MAX_FOUND:
        raise InputError(f"a limit of {query.limit}", remedy=f"give 1 to {MAX_FOUND}.")
    if query.kind and query.kind not in entries.CLASSES:
        raise InputError(f"no class is called {query.kind[:80]!r}", remedy=f"choose of {', '.join(entries.CLASSES)}.")
    start, stop = _bounds(reading, query)
    found: list[Found] = []
    matches, needles = _matcher(query), _needles(query)
    looked = 0
    for number in _candidates(reading, query, start, stop):
        first = max(start, number << entries.BLOCK_BITS)
        last = min(stop, (number + 1) << entries.BLOCK_BITS)
        for row in reversed(list(reading.rows(first, last))):
            if row.body is None or not all(needle in row.body for needle in needles):
                continue
            hit = _read(row, row.body)
            if not matches(hit):
                continue
            if len(found) == query.limit:
                return Result(found=tuple(found), complete=False, go_on=found[-1].seq)
            found.append(hit)
        looked += 1
        if looked == MOST_BLOCKS:
            return Result(found=tuple(found), complete=False, go_on=first)
    return Result(found=tuple(found), complete=True)


def _bounds(reading: Reading, query: Query) -> tuple[int, int]:
    start, stop = 0, reading.head().size
    at = entries.at_of(query.id)
    if query.since or query.until or at >= 0:
        since, until = (at, at + 1) if at >= 0 else (query.since, query.until or (1 << 63) - 1)
        first, last = reading.between(since, until)
        start, stop = first, min(stop, last + 1)
    return start, min(stop, query.before or stop)


def _read(row: Row, body: bytes) -> Found:
    return Found(seq=row.seq, kind=entries.CLASSES[row.kind], record=entries.decode(body, row.seq))


def _needles(query: Query) -> list[bytes]:
    """What stands word for word in every body that is looked for: most others need not be decoded."""
    given = (query.id, query.caller, query.model, query.digest, query.decision, query.operation, query.guard)
    return [
        text.encode() for text in given if text and text.isascii() and text.isprintable() and not set(text) & _QUOTED
    ]


def _candidates(reading: Reading, query: Query, start: int, stop: int) -> Iterator[int]:
    """Numbers of blocks that may hold what is looked for, newest first."""
    if start >= stop:
        return
    newest, oldest = (stop - 1) >> entries.BLOCK_BITS, start >> entries.BLOCK_BITS
    complete = reading.head().size >> entries.BLOCK_BITS
    if newest >= complete:
        yield newest  # it has no index line yet
        newest -= 1
    words = _prints(query)
    if words:
        yield from _printed(reading, words, oldest, newest)
    elif common := _terms(query):
        yield from _common(reading, common, oldest, newest)
    else:
        yield from range(newest, oldest - 1, -1)


def _printed(reading: Reading, words: Sequence[int], oldest: int, newest: int) -> Iterator[int]:
    for number, block in reading.sketches(oldest, newest + 1):
        if any(entries.printed(word, block) for word in words):
            yield number


def _common(reading: Reading, words: Sequence[int], oldest: int, newest: int) -> Iterator[int]:
    first, *others = words
    before = newest + 1
    while True:
        page = reading.blocks(first, before, _AHEAD)
        for number in page:
            if number < oldest:
                return
            if reading.mentioned(others, number) == len(others):
                yield number
        if len(page) < _AHEAD:
            return
        before = page[-1]


def _prints(query: Query) -> list[int]:
    words = [entries.term("output", output) for output in query.outputs]
    if query.id and entries.at_of(query.id) < 0 and not words:
        words.append(entries.term("id", query.id))
    return words


def _terms(query: Query) -> list[int]:
    """Terms of the query, those first that are likely rare."""
    given = (
        ("caller", query.caller),
        ("guard", query.guard),
        ("operation", query.operation),
        ("class", query.kind),
        ("decision", query.decision),
        ("digest", query.digest),
        ("model", query.model),
    )
    return [entries.term(name, value) for name, value in given if value]


def _matcher(query: Query) -> Callable[[Found], bool]:
    wanted = {
        "id": query.id,
        "caller": query.caller,
        "model": query.model,
        "model_digest": query.digest,
        "decision": query.decision,
        "operation": query.operation,
    }
    wanted = {name: value for name, value in wanted.items() if value}

    def matches(hit: Found) -> bool:
        record = hit.record
        return (
            all(getattr(record, name) == value for name, value in wanted.items())
            and (not query.kind or hit.kind == query.kind)
            and (not query.outputs or record.output in query.outputs)
            and record.at >= query.since
            and (not query.until or record.at < query.until)
            and (not query.guard or any(ruling.guard == query.guard for ruling in record.rulings))
        )

    return matches


__all__ = ["MAX_FOUND", "Found", "Query", "Result", "of_answer", "search"]
