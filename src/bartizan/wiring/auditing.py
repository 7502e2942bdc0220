"""The audit log of a workspace: opened, served from, witnessed, and cut back."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bartizan.core import checkpoint as notes
from bartizan.core import predicates
from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import BartizanError, InputError
from bartizan.core.statement import make
from bartizan.core.trust import CHECKPOINT
from bartizan.core.view import moment
from bartizan.lifecycle.deploy.gateway.audit import entries, verifying
from bartizan.lifecycle.deploy.gateway.audit.record import Record
from bartizan.lifecycle.deploy.gateway.audit.retention import Dropped, retain
from bartizan.lifecycle.deploy.gateway.audit.secrets import Secrets
from bartizan.lifecycle.deploy.gateway.audit.settings import AuditSettings, check, nanoseconds
from bartizan.lifecycle.deploy.gateway.audit.store import Store
from bartizan.lifecycle.deploy.gateway.audit.trail import NO_DIGEST, Trail, rhythm
from bartizan.lifecycle.deploy.gateway.audit.tree import Tree
from bartizan.lifecycle.deploy.gateway.audit.witnesses import Witness
from bartizan.lifecycle.deploy.gateway.audit.writer import Writer, item
from bartizan.wiring.workspace import Workspace, load

KIND = "audit"
"""Kind of the observations that carry a checkpoint of the audit log."""
_LOG = logging.getLogger("bartizan.gateway")


def origin(workspace: Workspace) -> str:
    """Name of the audit log in its checkpoints."""
    return f"{workspace.settings.origin}/audit"


def settings_of(workspace: Workspace) -> AuditSettings:
    """The table ``[audit]`` of the document ``gateway``; the defaults when there is none.

    Raises:
        InputError: it cannot be read or kept to.
    """
    try:
        table = msgspec.toml.decode(_document(workspace))
        return check(msgspec.convert(table.get("audit", {}), AuditSettings))
    except (ValueError, msgspec.MsgspecError, RecursionError, AttributeError) as error:
        raise InputError(f"gateway.toml: {error}", remedy="mend the table [audit].") from error


def _document(workspace: Workspace) -> bytes:
    paths: dict[str, Path] = load("bartizan.wiring.declared:declared_paths")(workspace.declaration)
    path = paths.get("document:gateway")
    if path is None:
        return b""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}", remedy="put the gateway's configuration back.") from error


def _configuration(workspace: Workspace) -> Digest:
    """Digest of the gateway's configuration; empty when there is none."""
    document = _document(workspace)
    return digest_bytes(document) if document else NO_DIGEST


def open_store(workspace: Workspace, *, serving: bool = False) -> Store:
    """The audit log's database."""
    store: Store = load("bartizan.stores.audit:open_audit")(workspace.settings.location("audit"), serving=serving)
    return store


def keys_of(workspace: Workspace) -> verifying.Keys:
    """Who might sign checkpoints at a time, by the trust document of the ledger."""
    with workspace.view() as view:
        trust = view.trust
    return lambda at_ms: trust.keys_for(CHECKPOINT, moment(at_ms))


def _writer(workspace: Workspace, store: Store, settings: AuditSettings) -> Writer:
    keys = keys_of(workspace)
    with store.reading() as reading:
        newest = reading.newest_note()
    known: Mapping[str, str] = {}
    if newest is not None:
        known = keys(notes.parse(newest[1])[0].received_ms)
    return Writer(store, workspace.service, origin(workspace), known=known, rhythm=rhythm(settings))


def witnesses_of(workspace: Workspace, settings: AuditSettings) -> list[Witness]:
    """The witnesses of the settings; relative paths start from the folder of bartizan.toml."""
    return [_witness(workspace, place) for place in settings.witness]


def _witness(workspace: Workspace, place: str) -> Witness:
    made: Witness
    if place.startswith(("https://", "http://")):
        made = load("bartizan.adapters.witness:remote_witness")(place)
    else:
        path = workspace.folder / place.removeprefix("file://")
        made = load("bartizan.stores.audit.witnessed:FileWitness")(path)
    return made


class Recording:
    """Everything that a gateway needs of its audit log: ``log`` for the pipeline, and what goes on beside it."""

    def __init__(
        self,
        workspace: Workspace,
        settings: AuditSettings,
        *,
        configuration: Digest,
        mask: Callable[[bytes], bytes] = lambda content: content,
    ) -> None:
        """Open the log for serving, compare it with its witnesses, and record the start.

        Raises:
            StoreError: it cannot be written, or another gateway writes it.
            LedgerError: it was changed, cut or forked since it was signed or witnessed.
        """
        self._workspace, self._settings = workspace, check(settings)
        self._store = open_store(workspace, serving=True)
        try:
            self._writer = _writer(workspace, self._store, settings)
            self._witnesses = witnesses_of(workspace, settings)
            self._writer.write([item(act("gateway.start", configuration=configuration))], sign=True)
            show(self._store, self._writer.note, self._witnesses)
            secrets = Secrets(self._store, settings)
            self.log = Trail(self._writer, secrets, settings, configuration=configuration, mask=mask)
        except BaseException:
            self._store.close()
            raise
        self.trouble = ""
        """What a witness or the ledger has against the log; empty when nothing."""
        self._configuration = configuration
        self._shown_size, self._stated_at = self._writer.size, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beside, name="audit-witness", daemon=True)
        self._thread.start()

    def _beside(self) -> None:
        """Show checkpoints to witnesses and to the ledger, until the log is closed; again and again if need be."""
        pause = min(self._settings.witness_seconds, self._settings.ledger_seconds)
        while True:
            stopping = self._stop.is_set()
            self._once(last=stopping)
            if stopping:
                return
            self._stop.wait(pause)

    def _once(self, *, last: bool) -> None:
        note = self._writer.note
        try:
            if note and notes.parse(note)[0].size != self._shown_size:
                show(self._store, note, self._witnesses)
                self._shown_size = notes.parse(note)[0].size
            if last or time.monotonic() - self._stated_at >= self._settings.ledger_seconds:
                state(self._workspace, note, self._settings, self._configuration, trouble=self.trouble)
                self._stated_at = time.monotonic()
            self.trouble = ""
        except BartizanError as error:
            if error.message != self.trouble:
                _LOG.error("the audit log is not witnessed: %s", error.message)
            self.trouble = error.message
        except Exception:  # noqa: BLE001 - the thread must live
            _LOG.exception("the audit log is not witnessed")
            self.trouble = "the witnesses could not be asked"

    async def close(self) -> None:
        """Record the stop, write and sign everything, show it to the witnesses and to the ledger."""
        with contextlib.suppress(BartizanError):
            waiting = self.log.append(act("gateway.stop", configuration=self._configuration))
            if waiting is not None:
                await waiting
        await self.log.close()
        self._stop.set()
        await asyncio.to_thread(self._thread.join)
        self._store.close()


def show(store: Store, note: str, witnesses: Sequence[Witness]) -> dict[str, str]:
    """Show a checkpoint to all witnesses; gives their cosignatures by place.

    Raises:
        StoreError: one cannot be reached.
        LedgerError: one has seen a log that this one does not extend.
    """
    if not note or not witnesses:
        return {}
    said, _ = notes.parse(note)
    with store.reading() as reading:
        tree = Tree(reading)
        return {
            witness.place: witness.show(note, lambda old: tree.consistency(old, said.size)) for witness in witnesses
        }


def state(
    workspace: Workspace, note: str, settings: AuditSettings, configuration: Digest, *, trouble: str = ""
) -> Digest | None:
    """Leave a checkpoint of the audit log in the ledger, as evidence about the gateway's configuration.

    None when there is no checkpoint yet.
    """
    if not note:
        return None
    said, _ = notes.parse(note)
    at = moment(said.received_ms)
    subject = Digest(hashlib.sha256(said.origin.encode()).hexdigest())
    statement = make(
        predicates.OBSERVATION,
        {f"audit:{said.origin}": subject, **({"document:gateway": configuration} if configuration else {})},
        predicates.Observation(
            kind=KIND,
            observed_from=at,
            observed_until=at,
            alerts=(trouble,) if trouble else (),
            checkpoint=note,
            metrics={
                f"kept_days_{name}": _days(getattr(settings.keep, name)) for name in (*entries.CLASSES, "digests")
            },
            summary=f"The audit log {said.origin} holds {said.size} records, root {said.root.hex()}; "
            f"retention is longer than the detection lag of {settings.detection_lag}.",
        ),
    )
    return workspace.publish(statement, workspace.service)


def _days(span: str) -> predicates.Metric:
    days = nanoseconds(span) / nanoseconds("1d")
    return predicates.Metric(value=days, low=days, high=days, n=1, unit="days", method="declared")


def reader() -> str:
    """Who runs this command, without a name: the number of the account."""
    return f"uid:{os.getuid()}"


def act(
    operation: str,
    *,
    caller: str = "gateway",
    reasons: Sequence[str] = (),
    decision: str = "answered",
    configuration: Digest = NO_DIGEST,
    model: str = "",
    model_digest: Digest = NO_DIGEST,
    rows: int = 0,
    at: int = 0,
) -> Record:
    """A record of what was no request: an act of administration, a start, a switch, a read of the log."""
    now = at or time.time_ns()
    return Record(
        id=entries.new_id(now),
        at=now,
        caller=caller,
        role="operator" if caller != "gateway" else "gateway",
        method="local",
        operation=operation,
        status=0,
        decision=decision,
        reasons=tuple(reason[:1000] for reason in reasons),
        configuration=configuration,
        model=model,
        model_digest=model_digest,
        rows=rows,
    )


@contextmanager
def opened(workspace: Workspace) -> Iterator[Store]:
    """The store of a log that is there.

    Raises:
        InputError: there is none yet.
    """
    location = workspace.settings.location("audit")
    if "://" not in location and not Path(location).exists():
        raise InputError(f"there is no audit log at {location}", remedy="`bartizan serve` begins one.")
    store = open_store(workspace)
    try:
        yield store
    finally:
        store.close()


def record_act(workspace: Workspace, store: Store, record: Record) -> None:
    """Put an act into the log, signed at once."""
    _writer(workspace, store, settings_of(workspace)).write([item(record)], sign=True)


def show_now(workspace: Workspace) -> dict[str, str]:
    """Show the newest checkpoint to all witnesses and state it in the ledger; gives cosignatures by place."""
    settings = settings_of(workspace)
    with opened(workspace) as store:
        writer = _writer(workspace, store, settings)
        writer.write([item(act("audit.witness", caller=reader()))], sign=True)
        cosigned = show(store, writer.note, witnesses_of(workspace, settings))
        state(workspace, writer.note, settings, _configuration(workspace))
    return cosigned


def cut_back(workspace: Workspace) -> Dropped:
    """Drop and destroy what is kept long enough; what is dropped is said in the log first."""
    settings = settings_of(workspace)
    with opened(workspace) as store:
        return retain(_writer(workspace, store, settings), settings, caller=reader())


__all__ = [
    "KIND",
    "Recording",
    "act",
    "cut_back",
    "keys_of",
    "open_store",
    "opened",
    "origin",
    "reader",
    "record_act",
    "settings_of",
    "show",
    "show_now",
    "state",
    "witnesses_of",
]
