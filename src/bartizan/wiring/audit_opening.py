"""Opening the audit log of a workspace, and putting acts of administration into it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bartizan.core import checkpoint as notes
from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.errors import InputError, KeyFileError
from bartizan.core.keys import keyid_of, load_public
from bartizan.core.trust import CHECKPOINT
from bartizan.core.view import moment
from bartizan.lifecycle.deploy.gateway.audit import entries, verifying
from bartizan.lifecycle.deploy.gateway.audit.record import Record
from bartizan.lifecycle.deploy.gateway.audit.settings import AuditSettings, check
from bartizan.lifecycle.deploy.gateway.audit.store import Store
from bartizan.lifecycle.deploy.gateway.audit.trail import NO_DIGEST, rhythm
from bartizan.lifecycle.deploy.gateway.audit.witnesses import Witness
from bartizan.lifecycle.deploy.gateway.audit.writer import Rhythm, Writer, item
from bartizan.wiring.workspace import Workspace, load

SELDOM = Rhythm(float("inf"), 1 << 62)
"""Never signs by itself."""


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


def configuration_of(workspace: Workspace) -> Digest:
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


def known_keys(workspace: Workspace, store: Store) -> Mapping[str, str]:
    """Keys that the newest checkpoint may be signed by."""
    with store.reading() as reading:
        newest = reading.newest_note()
    return keys_of(workspace)(notes.parse(newest[1])[0].received_ms) if newest else {}


def open_writer(workspace: Workspace, store: Store, settings: AuditSettings, rhythmic: Rhythm | None = None) -> Writer:
    """A writer with the service key, in the rhythm of the settings unless another one is given."""
    known = known_keys(workspace, store)
    return Writer(store, workspace.service, origin(workspace), known=known, rhythm=rhythmic or rhythm(settings))


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


class _Unsigned:
    """In the place of a key that is not at hand: what is written is signed by whoever signs next."""

    def __init__(self, public_pem: str) -> None:
        self.public_pem = public_pem
        self.keyid = keyid_of(load_public(public_pem))

    def sign(self, data: bytes) -> bytes:
        """Never."""
        raise KeyFileError(f"{len(data)} bytes cannot be signed without the private key", remedy="start the gateway.")


def note(workspace: Workspace, operation: str, *reasons: str) -> None:
    """Record an act of administration that was just done here; begins the log if there is none.

    Needs no private key: a gateway that runs signs it within its interval, one that does not when it starts.

    Raises:
        StoreError: the log cannot be written.
    """
    if not workspace.declaration.exists():
        return  # no system is declared here, so nothing is administered
    public = load("bartizan.stores.keys:read_public")(workspace.public_path(workspace.settings.values["service"]))
    store = open_store(workspace)
    try:
        writer = Writer(store, _Unsigned(public), origin(workspace), known=known_keys(workspace, store), rhythm=SELDOM)
        writer.write([item(act(operation, caller=reader(), reasons=reasons))])
    finally:
        store.close()


def record_act(workspace: Workspace, store: Store, record: Record) -> None:
    """Put an act into the log, signed at once."""
    open_writer(workspace, store, settings_of(workspace)).write([item(record)], sign=True)


__all__ = [
    "SELDOM",
    "act",
    "configuration_of",
    "keys_of",
    "known_keys",
    "note",
    "open_store",
    "open_writer",
    "opened",
    "origin",
    "reader",
    "record_act",
    "settings_of",
    "witnesses_of",
]
