"""Upkeep of a ledger: verify all of it, rebuild what is derived."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from bartizan.core import audit, checkpoint, index
from bartizan.core.digest import Digest, parse_digest
from bartizan.core.envelope import parse, verified_keyids
from bartizan.core.errors import LedgerError, StatementError, TamperedError
from bartizan.core.ports import Snapshot
from bartizan.core.statement import decode
from bartizan.core.trust import TRUST_PAYLOAD
from bartizan.core.view import View, moment
from bartizan.wiring.workspace import Workspace


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a full verification found sound."""

    entries: int
    checkpoints: int
    reports: int
    root: str
    received_at: datetime


def verify(workspace: Workspace, note: str = "") -> Verified:
    """Check everything that is stored, reports included; also against a note that was kept elsewhere.

    Raises:
        TamperedError: names the first bad entry.
        LedgerError: the checkpoints, the index, the pin or the note contradict the entries.
    """
    with workspace.records.snapshot() as snapshot:
        view = audit.audit(snapshot, workspace.read_pin())
        known = {who.keyid: who.public_key for who in view.trust.principals}
        reports = _check_reports(workspace, snapshot, known)
        checkpoints = sum(1 for _ in snapshot.checkpoints())
    if note:
        _check_note(view, note)
    return Verified(
        entries=view.checkpoint.size,
        checkpoints=checkpoints,
        reports=reports,
        root=view.checkpoint.root.hex(),
        received_at=moment(view.checkpoint.received_ms),
    )


def _check_reports(workspace: Workspace, snapshot: Snapshot, known: dict[str, str]) -> int:
    """Every report that a statement names must be there, unaltered."""
    seen: set[Digest] = set()
    for entry in snapshot.scan():
        envelope = parse(entry.body)
        if envelope.payload_type == TRUST_PAYLOAD or not verified_keyids(envelope, known):
            continue  # what strangers say need not be backed by a report here
        report = _report_of(decode(envelope.payload).predicate)
        if report is None or report in seen:
            continue
        seen.add(report)
        if not workspace.intact(report):
            raise TamperedError(
                f"entry {entry.seq}: its report {report[:12]} is missing or altered",
                seq=entry.seq,
                remedy="restore the blobs from a backup, or run the check again.",
            )
    return len(seen)


def _report_of(predicate: dict[str, Any]) -> Digest | None:
    try:
        return parse_digest(predicate["report"]["digest"]["sha256"])
    except (KeyError, TypeError, AttributeError, StatementError):
        return None


def _check_note(view: View, note: str) -> None:
    kept = checkpoint.verify(note, view.checkpoint_keys)
    if kept.size > view.checkpoint.size:
        raise LedgerError(
            f"the ledger was cut: the note covers {kept.size} entries, the ledger holds {view.checkpoint.size}",
            remedy="restore the ledger from a backup.",
        )
    if not view.extends(kept.size, kept.root):
        raise LedgerError(f"the first {kept.size} entries are not those of the note", remedy="restore from a backup.")


def reindex(workspace: Workspace) -> int:
    """Rebuild every derived row from the envelopes; returns the number of entries.

    Raises:
        EvidenceError: the entries do not add up to the signed checkpoint.
    """
    with workspace.records.snapshot() as snapshot:
        rebuilt = audit.rebuild(snapshot.scan())
        row = snapshot.checkpoint()
    if row is None:
        raise LedgerError("there is no checkpoint", remedy="restore the ledger from a backup.")
    said, _ = checkpoint.parse(row.note)
    if (said.size, said.index_root) != (rebuilt.size, index.index_root(rebuilt.shards)) or said.root != rebuilt.root:
        raise LedgerError("the entries do not add up to the signed checkpoint", remedy="restore from a backup.")
    replace: Any = workspace.records
    replace.replace_derived(rebuilt.index, rebuilt.edges, rebuilt.nodes, rebuilt.shards)
    return rebuilt.size
