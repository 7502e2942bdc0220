"""Looking into the audit log: search, proofs, cases for others, and verification. Every look is recorded first."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from bartizan.core import checkpoint as notes
from bartizan.core import predicates
from bartizan.core.digest import Digest
from bartizan.core.errors import EvidenceError, InputError
from bartizan.core.keys import keyid_of, load_public
from bartizan.lifecycle.deploy.gateway.admission import UNHEARD
from bartizan.lifecycle.deploy.gateway.audit import bundle as bundles
from bartizan.lifecycle.deploy.gateway.audit import entries, searching, verifying
from bartizan.lifecycle.deploy.gateway.audit.record import Record
from bartizan.lifecycle.deploy.gateway.audit.secrets import unseal
from bartizan.lifecycle.deploy.gateway.audit.settings import AuditSettings, nanoseconds
from bartizan.lifecycle.deploy.gateway.audit.store import Reading, Store
from bartizan.lifecycle.deploy.gateway.audit.verifying import Report, Seen
from bartizan.lifecycle.deploy.gateway.audit.witnesses import Witness
from bartizan.wiring.auditing import (
    KIND,
    act,
    keys_of,
    opened,
    origin,
    reader,
    record_act,
    settings_of,
    show_newest,
    witnesses_of,
)
from bartizan.wiring.workspace import Workspace


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A record as it is shown to people."""

    seq: int
    kind: str
    at: datetime
    kept_until: datetime
    review_due: datetime | None
    """By when a person has to look at a flagged case."""
    record: Record


class Hits(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found."""

    found: tuple[Hit, ...]
    complete: bool
    go_on: int = 0


def search(workspace: Workspace, query: searching.Query, *, reason: str, answer: bytes | None = None) -> Hits:
    """Search the log; that this was done, by whom and why is recorded first.

    ``answer``: the body of an answer whose request is looked for.
    """
    settings = settings_of(workspace)
    with opened(workspace) as store:
        record_act(workspace, store, act("audit.search", caller=reader(), reasons=(reason, *_named(query))))
        with store.reading() as reading:
            if answer is not None:
                query = msgspec.structs.replace(query, outputs=searching.of_answer(reading, answer).outputs)
            result = searching.search(reading, query)
    return Hits(
        found=tuple(_hit(found, settings) for found in result.found), complete=result.complete, go_on=result.go_on
    )


def _named(query: searching.Query) -> list[str]:
    given: dict[str, Any] = msgspec.structs.asdict(query)
    return [f"{name}={value}" for name, value in given.items() if value and name not in {"outputs", "limit"}]


def _hit(found: searching.Found, settings: AuditSettings) -> Hit:
    at = time_of(found.record.at)
    due = _after(at, settings.review_within) if found.kind == entries.CLASSES[entries.FLAGGED] else None
    kept = _after(at, getattr(settings.keep, found.kind))
    return Hit(seq=found.seq, kind=found.kind, at=at, kept_until=kept, review_due=due, record=found.record)


def time_of(at: int) -> datetime:
    """A time in nanoseconds since the epoch."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at // 1000)


def _after(at: datetime, span: str) -> datetime:
    return at + timedelta(microseconds=nanoseconds(span) // 1000)


def content(workspace: Workspace, name: str, *, reason: str) -> bytes:
    """Sealed content in the clear; that it was read is recorded first."""
    with opened(workspace) as store:
        record_act(workspace, store, act("audit.content", caller=reader(), reasons=(reason, f"content={name}")))
        with store.reading() as reading:
            return unseal(reading, name)


def prove(workspace: Workspace, name: str) -> bundles.Bundle:
    """A proof of one record, by the id of its request or its number.

    Raises:
        InputError: it is not in the log.
    """
    settings = settings_of(workspace)
    with opened(workspace) as store:
        record_act(workspace, store, act("audit.prove", caller=reader(), reasons=(name,)))
        with store.reading() as reading:
            seq = _seq_of(reading, name)
            return _bundle(workspace, settings, reading, [seq], {"id": name}, "proof")


def _seq_of(reading: Reading, name: str) -> int:
    if name.isdecimal() and len(name) < entries.TIME_DIGITS:
        if int(name) < reading.head().size:
            return int(name)
    elif found := searching.search(reading, searching.Query(id=name, limit=1)).found:
        return found[0].seq
    raise InputError(f"no record is called {name[:80]!r}", remedy="see `bartizan audit search`.")


def export(workspace: Workspace, query: searching.Query, ids: Sequence[str], *, reason: str) -> bundles.Bundle:
    """A case: everything that a search finds, or the records with these ids, with proofs.

    Raises:
        InputError: more is found than fits the limit, or an id is not in the log.
    """
    settings = settings_of(workspace)
    with opened(workspace) as store:
        said = (reason, *_named(query), *(f"id={name}" for name in ids))
        record_act(workspace, store, act("audit.export", caller=reader(), reasons=said))
        with store.reading() as reading:
            seqs = {_seq_of(reading, name) for name in ids}
            if not ids:
                result = searching.search(reading, query)
                if not result.complete:
                    raise InputError(f"more than {query.limit} records", remedy="raise --limit or narrow the search.")
                seqs = {found.seq for found in result.found}
            selection = dict(part.partition("=")[::2] for part in _named(query))
            if ids:
                selection["ids"] = " ".join(ids)
            return _bundle(workspace, settings, reading, sorted(seqs), selection, reason)


def _bundle(  # noqa: PLR0917 - what a bundle is made of
    workspace: Workspace,
    settings: AuditSettings,
    reading: Reading,
    seqs: Sequence[int],
    selection: Mapping[str, str],
    reason: str,
) -> bundles.Bundle:
    newest = reading.newest_note()
    at_ms = notes.parse(newest[1])[0].received_ms if newest else 0
    keys = {**keys_of(workspace)(at_ms), workspace.service.keyid: workspace.service.public_pem}
    seen = _latest_seen(workspace, settings)
    return bundles.make(reading, seqs, keys, selection, reason, seen)


def _latest_seen(workspace: Workspace, settings: AuditSettings) -> list[Seen]:
    latest = (witness.seen()[-1:] for witness in witnesses_of(workspace, settings))
    return [item for some in latest for item in some]


def check_file(data: bytes, pem: str) -> bundles.Checked:
    """Verify a proof or a bundle with one public key. Needs neither workspace nor log."""
    return bundles.check(bundles.read(data), {keyid_of(load_public(pem)): pem})


def verify(workspace: Workspace, extra: Sequence[Witness] = ()) -> Report:
    """Verify the whole log: against its checkpoints, its witnesses, and the checkpoints in the ledger."""
    settings = settings_of(workspace)
    witnesses = [*witnesses_of(workspace, settings), *extra]
    with opened(workspace) as store:
        with store.reading() as reading:
            seen = [item for witness in witnesses for item in witness.seen()]
            seen += _stated(workspace)
            report = verifying.verify(reading, origin(workspace), keys_of(workspace), seen)
        problems = [*report.problems, *_asked(workspace, store, report, witnesses)]
    return msgspec.structs.replace(report, problems=tuple(problems))


def _stated(workspace: Workspace) -> list[Seen]:
    """Checkpoints that the ledger holds as observations; newer ones replace none of them here."""
    subject = Digest(hashlib.sha256(origin(workspace).encode()).hexdigest())
    found = []
    with workspace.view() as view:
        for item in workspace.evidence(view, [subject], {}):
            said = item.statement.read() if item.statement and item.standing not in UNHEARD else None
            if isinstance(said, predicates.Observation) and said.kind == KIND and said.checkpoint:
                found.append(Seen(place="ledger", note=said.checkpoint))
    return found


def _asked(workspace: Workspace, store: Store, report: Report, witnesses: Sequence[Witness]) -> list[verifying.Problem]:
    """What witnesses say that can only be shown a checkpoint."""
    problems = []
    for witness in witnesses:
        if witness.seen() or not report.note or not report.sound:
            continue
        try:
            show_newest(workspace, store, [witness])
        except EvidenceError as error:
            problems.append(verifying.Problem(seq=0, what=error.message))
    return problems


__all__ = [
    "Hit",
    "Hits",
    "check_file",
    "content",
    "export",
    "prove",
    "search",
    "time_of",
    "verify",
]
