"""Reads of declared datasets in development: recorded in the audit log, and an alert when one is unusual."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bartizan.core import predicates
from bartizan.core.digest import Digest
from bartizan.core.errors import InputError
from bartizan.core.statement import make
from bartizan.lifecycle.deploy.gateway.audit import searching
from bartizan.lifecycle.deploy.gateway.audit.access import Access, unusual
from bartizan.lifecycle.deploy.gateway.audit.record import Record
from bartizan.lifecycle.deploy.gateway.audit.store import Reading
from bartizan.wiring.audit_cases import time_of
from bartizan.wiring.auditing import act, open_store, reader, record_act
from bartizan.wiring.workspace import Workspace, load

ACCESS = "dataset-access"
"""Kind of the observations about unusual reads of a dataset."""
READ = "dataset.read"
"""Operation of the records of such reads."""
MOST_READS = 5000
"""Newest reads of a dataset that a new one is compared with."""


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """A read of a dataset that was recorded."""

    dataset: str
    digest: Digest
    rows: int
    alerts: tuple[str, ...]
    """What is unusual about it; each is in the ledger as an alert too."""


def note_access(workspace: Workspace, name: str, rows: int, *, purpose: str, who: str = "", at: int = 0) -> Noted:
    """Record that somebody read a declared dataset, and raise an alert if that is unusual.

    Raises:
        InputError: no dataset is called so, or the number of rows is negative.
    """
    if rows < 0:
        raise InputError(f"{rows} rows", remedy="give how many were read.")
    system = workspace.system()
    known = {artefact.name: artefact for artefact in system.of_kind("dataset")}
    if name not in known:
        raise InputError(f"no dataset is called {name[:80]!r}", remedy=f"declared are: {', '.join(known)}.")
    dataset, who, at = known[name], who or reader(), at or time.time_ns()
    store = open_store(workspace)
    try:
        with store.reading() as reading:
            alerts = unusual(_reads(reading, dataset.id), Access(at, who, rows))
        made = act(
            READ,
            caller=who,
            reasons=(purpose, *alerts),
            decision="flagged" if alerts else "answered",
            model=dataset.id,
            model_digest=dataset.digest,
            rows=rows,
            at=at,
        )
        record_act(workspace, store, made)
    finally:
        store.close()
    if alerts:
        _raise_alert(workspace, made, alerts)
    return Noted(dataset=name, digest=dataset.digest, rows=rows, alerts=alerts)


def _reads(reading: Reading, dataset: str) -> list[Access]:
    found = searching.search(reading, searching.Query(operation=READ, model=dataset, limit=MOST_READS)).found
    return [Access(hit.record.at, hit.record.caller, hit.record.rows) for hit in found]


def _raise_alert(workspace: Workspace, record: Record, alerts: Sequence[str]) -> None:
    at = time_of(record.at)
    statement = make(
        predicates.OBSERVATION,
        {record.model: record.model_digest},
        predicates.Observation(
            kind=ACCESS,
            observed_from=at,
            observed_until=at,
            alerts=tuple(alerts),
            summary=f"An unusual read of {record.model}, audit record {record.id}: {'; '.join(alerts)}.",
            inputs=(predicates.Input.of(record.model, record.model_digest),),
        ),
    )
    workspace.publish(statement, workspace.service)


def open_dataset(workspace: Workspace, name: str, *, purpose: str, rows: int | None = None) -> Path:
    """The path of a declared dataset, after the read was recorded: for the code that trains and explores.

    ``rows``: how many will be read; left out, all of a CSV file are counted.

    Raises:
        InputError: no dataset is called so.
    """
    paths: dict[str, Path] = load("bartizan.wiring.declared:declared_paths")(workspace.declaration)
    path = paths.get(f"dataset:{name}")
    if path is None:
        raise InputError(f"no dataset is called {name[:80]!r}", remedy="see bartizan.toml.")
    note_access(workspace, name, _lines(path) if rows is None else rows, purpose=purpose)
    return path


def _lines(path: Path) -> int:
    """Rows of a text table without its head."""
    try:
        with path.open("rb") as stream:
            count = sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}", remedy="say how many rows are read.") from error
    return max(0, count - 1)


__all__ = ["ACCESS", "READ", "Noted", "note_access", "open_dataset"]
