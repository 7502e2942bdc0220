"""The audit log of a gateway that runs: recorded into, signed, shown to witnesses and the ledger, and cut back."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence

from bartizan.core import checkpoint as notes
from bartizan.core import predicates
from bartizan.core.digest import Digest
from bartizan.core.errors import BartizanError, LedgerError, StoreError
from bartizan.core.statement import make
from bartizan.core.view import moment
from bartizan.lifecycle.deploy.gateway.audit import entries
from bartizan.lifecycle.deploy.gateway.audit.record import Record
from bartizan.lifecycle.deploy.gateway.audit.retention import Dropped, due, retain
from bartizan.lifecycle.deploy.gateway.audit.secrets import Secrets
from bartizan.lifecycle.deploy.gateway.audit.settings import AuditSettings, check, nanoseconds
from bartizan.lifecycle.deploy.gateway.audit.store import Store
from bartizan.lifecycle.deploy.gateway.audit.trail import Trail
from bartizan.lifecycle.deploy.gateway.audit.tree import Tree
from bartizan.lifecycle.deploy.gateway.audit.witnesses import Witness
from bartizan.lifecycle.deploy.gateway.audit.writer import item
from bartizan.wiring.audit_opening import (
    SELDOM,
    act,
    configuration_of,
    keys_of,
    known_keys,
    note,
    open_store,
    open_writer,
    opened,
    origin,
    reader,
    record_act,
    settings_of,
    witnesses_of,
)
from bartizan.wiring.workspace import Workspace

KIND = "audit"
"""Kind of the observations that carry a checkpoint of the audit log."""
AGAIN_SECONDS = 0.2
"""Between two looks at a log that moves on."""
_LOG = logging.getLogger("bartizan.gateway")


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
            self._writer = open_writer(workspace, self._store, settings)
            self._witnesses = witnesses_of(workspace, settings)
            self._writer.write([item(act("gateway.start", configuration=configuration))], sign=True)
            self.trouble = self._first_shown()
            """What a witness or the ledger has against the log, or why they cannot be asked; empty when nothing."""
            self._acts = open_writer(workspace, self._store, settings, SELDOM)
            secrets = Secrets(self._store, settings)
            self.log = Trail(self._writer, secrets, settings, configuration=configuration, mask=mask)
        except BaseException:
            self._store.close()
            raise
        self._acting = threading.Lock()
        self._shown_size, self._stated_at = -1 if self.trouble else self._writer.size, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beside, name="audit-witness", daemon=True)
        self._thread.start()

    def _first_shown(self) -> str:
        """Show the log as it is now; a witness that cannot be reached is no reason not to start, one that objects is.

        Raises:
            LedgerError: a witness has seen a log that this one does not extend.
        """
        try:
            show_newest(self._workspace, self._store, self._witnesses)
        except StoreError as error:
            _LOG.error("the audit log is not witnessed: %s", error.message)
            return error.message
        return ""

    def note(self, record: Record) -> None:
        """Put an act into the log, durably; from any thread (a switch of the model or the configuration).

        Raises:
            StoreError: it could not be written.
        """
        with self._acting:
            self._acts.write([item(record)])

    @property
    def _configuration(self) -> Digest:
        """The one in force, as far as requests have shown."""
        return self.log.configuration

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
            if note and notes.parse(note)[0].size > self._shown_size:
                self._shown_size, _ = show_newest(self._workspace, self._store, self._witnesses)
            if last or time.monotonic() - self._stated_at >= self._settings.ledger_seconds:
                self._retain()
                state(self._workspace, note, self._settings, self._configuration, trouble=self.trouble)
                self._stated_at = time.monotonic()
            self.trouble = ""
        except LedgerError as error:
            self.log.bar(error.message)
            self._complain(error.message)
        except BartizanError as error:
            self._complain(error.message)
        except Exception:  # noqa: BLE001 - the thread must live
            _LOG.exception("the audit log is not witnessed")
            self.trouble = "the witnesses could not be asked"

    def _retain(self) -> None:
        """Drop what was kept long enough, once a day."""
        with self._store.reading() as reading:
            wanted = due(reading, self._settings, time.time_ns())
        if wanted:
            with self._acting:
                retain(self._acts, self._settings, caller="gateway")

    def _complain(self, what: str) -> None:
        if what != self.trouble:
            _LOG.error("the audit log is not witnessed: %s", what)
        self.trouble = what

    def adopt(self, settings: AuditSettings, mask: Callable[[bytes], bytes]) -> None:
        """Go on by other settings: what is kept, and who is shown it. The queue stays as it is until the next start.

        Raises:
            InputError: they cannot be kept to.
            StoreError: a new witness cannot be had.
        """
        if settings != self._settings:
            self._witnesses = witnesses_of(self._workspace, check(settings))
            self._settings = settings
        self.log.adopt(settings, mask)

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


def show_newest(workspace: Workspace, store: Store, witnesses: Sequence[Witness]) -> tuple[int, dict[str, str]]:
    """Show the newest checkpoint in the store; gives its size and the cosignatures.

    Others (replicas, commands) sign and show too: when a witness has seen more than was shown, but the log has moved on
    meanwhile, that is no objection.

    Raises:
        StoreError: a witness cannot be reached.
        LedgerError: one has seen a log that this one does not extend, or the checkpoint is not signed by a known key.
    """
    last = ""
    while True:
        with store.reading() as reading:
            newest = reading.newest_note()
        note = newest[1] if newest else ""
        if not note:
            return 0, {}
        size = notes.parse(note)[0].size
        try:
            notes.verify(note, {workspace.service.keyid: workspace.service.public_pem, **known_keys(workspace, store)})
            return size, show(store, note, witnesses)
        except LedgerError:
            if note == last:
                raise
            last = note
        time.sleep(AGAIN_SECONDS)


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


def show_now(workspace: Workspace) -> dict[str, str]:
    """Show the newest checkpoint to all witnesses and state it in the ledger; gives cosignatures by place."""
    settings = settings_of(workspace)
    with opened(workspace) as store:
        writer = open_writer(workspace, store, settings)
        writer.write([item(act("audit.witness", caller=reader()))], sign=True)
        _, cosigned = show_newest(workspace, store, witnesses_of(workspace, settings))
        state(workspace, writer.note, settings, configuration_of(workspace))
    return cosigned


def cut_back(workspace: Workspace) -> Dropped:
    """Drop and destroy what is kept long enough; what is dropped is said in the log first."""
    settings = settings_of(workspace)
    with opened(workspace) as store:
        return retain(open_writer(workspace, store, settings), settings, caller=reader())


__all__ = [
    "KIND",
    "Recording",
    "act",
    "cut_back",
    "keys_of",
    "note",
    "open_store",
    "opened",
    "origin",
    "reader",
    "record_act",
    "settings_of",
    "show",
    "show_newest",
    "show_now",
    "state",
    "witnesses_of",
]
