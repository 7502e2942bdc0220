"""Retention: what is dropped when its time is over, and that the log says so before it happens.

A dropped body leaves its leaf in the tree. A body that is missing without a word of the log is tampering, so the
word comes first: a record of operation ``audit.retain`` with one reason ``drop CLASS NANOSECONDS`` for each class.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

import msgspec

from bartizan.lifecycle.deploy.gateway.audit import entries
from bartizan.lifecycle.deploy.gateway.audit.record import Record
from bartizan.lifecycle.deploy.gateway.audit.searching import Query, search
from bartizan.lifecycle.deploy.gateway.audit.secrets import DAY
from bartizan.lifecycle.deploy.gateway.audit.settings import AuditSettings, nanoseconds
from bartizan.lifecycle.deploy.gateway.audit.store import Reading, Store
from bartizan.lifecycle.deploy.gateway.audit.writer import Writer, item

OPERATION = "audit.retain"
_REASON = re.compile(r"drop ([a-z]+) ([0-9]{1,19})")


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased."""

    bodies: Mapping[str, int]
    """Class to number of records."""
    contents: int
    keys: tuple[str, ...]


def horizons(settings: AuditSettings, now: int) -> dict[int, int]:
    """Class to the time (ns) before which its bodies have to go."""
    return {kind: max(0, now - nanoseconds(getattr(settings.keep, name))) for kind, name in enumerate(entries.CLASSES)}


def due(reading: Reading, settings: AuditSettings, now: int) -> bool:
    """Whether something may have to go, and nothing was dropped for a day."""
    last = search(reading, Query(operation=OPERATION, limit=1)).found
    if last and now - last[0].record.at < DAY:
        return False
    _, newest = reading.between(0, max(horizons(settings, now).values()))
    return newest >= 0 or any(secret.until <= now for secret in reading.secrets())


def retain(writer: Writer, settings: AuditSettings, *, caller: str, now: int | None = None) -> Dropped:
    """Say in the log what is going to be dropped, sign that, then drop it and destroy what keys are over.

    Raises:
        StoreError: the store failed; what was said and not done yet is done the next time.
    """
    moment = time.time_ns() if now is None else now
    limits = horizons(settings, moment)
    writer.write([item(_word(caller, moment, limits))], sign=True)
    store = writer.store
    bodies: dict[str, int] = {name: store.drop(kind, 0, limits[kind]) for kind, name in enumerate(entries.CLASSES)}
    contents = store.drop_contents(max(0, moment - nanoseconds(settings.keep.content)))
    return Dropped(bodies=bodies, contents=contents, keys=_destroy(store, moment))


def _destroy(store: Store, now: int) -> tuple[str, ...]:
    with store.reading() as reading:
        over = tuple(secret.name for secret in reading.secrets() if secret.until <= now)
    if over:
        store.destroy(over)
    return over


def _word(caller: str, now: int, limits: dict[int, int]) -> Record:
    return Record(
        id=entries.new_id(now),
        at=now,
        caller=caller,
        role="operator",
        method="local",
        operation=OPERATION,
        status=0,
        decision="answered",
        reasons=tuple(f"drop {entries.CLASSES[kind]} {limit}" for kind, limit in limits.items()),
    )


def announced(record: Record) -> dict[int, int]:
    """Class to the time before which a record says that bodies are dropped."""
    if record.operation != OPERATION:
        return {}
    read = (_REASON.fullmatch(reason) for reason in record.reasons)
    return {entries.CLASSES.index(hit[1]): int(hit[2]) for hit in read if hit and hit[1] in entries.CLASSES}


__all__ = ["OPERATION", "Dropped", "announced", "due", "horizons", "retain"]
