"""A workspace: one declared system with its ledger, blobs, keys and pin."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bartizan.core import envelope, ledger
from bartizan.core.digest import Digest, parse_digest
from bartizan.core.errors import (
    EvidenceError,
    InputError,
    LedgerError,
    LedgerMovedError,
    StatementError,
    StoreError,
)
from bartizan.core.evidence import Evidence, gather
from bartizan.core.ports import Batch, Blobs, Clock, Files, Records, Signer
from bartizan.core.statement import Statement
from bartizan.core.system import System
from bartizan.core.view import Pin, View, moment
from bartizan.wiring.settings import DECLARATION, Settings

if TYPE_CHECKING:
    from bartizan.core.check import Blob

MAX_PIN_BYTES = 4096
ATTEMPTS = 20
"""Times that an append is tried again because somebody else was quicker."""
TOLERANCE = timedelta(minutes=5)
"""How far the clocks of those who share a ledger may differ."""


def utc_now() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


class Workspace:
    """Everything that a command works with. Opens what it needs when it needs it."""

    def __init__(self, folder: Path, *, clock: Clock = utc_now, environment: Mapping[str, str] | None = None) -> None:
        self.settings = Settings.read(folder, environment)
        self.environment = os.environ if environment is None else environment
        self.clock = clock
        self._signers: dict[str, Signer] = {}

    @property
    def folder(self) -> Path:
        """Where ``bartizan.toml`` lies."""
        return self.settings.folder

    @property
    def declaration(self) -> Path:
        """``bartizan.toml``."""
        return self.folder / DECLARATION

    @cached_property
    def records(self) -> Records:
        """The ledger's rows."""
        records: Records = load("bartizan.stores.records:open_records")(self.settings.location("records"))
        return records

    @cached_property
    def blobs(self) -> Blobs:
        """Reports and documents."""
        blobs: Blobs = load("bartizan.stores.blobs:open_blobs")(self.settings.location("blobs"))
        return blobs

    @cached_property
    def files(self) -> Files:
        """Artefacts on disk."""
        files: Files = load("bartizan.stores.files:LocalFiles")()
        return files

    def system(self) -> System:
        """The declared system, with every digest as of now.

        Raises:
            InputError: ``bartizan.toml`` or something it names cannot be used.
        """
        if not self.declaration.exists():
            raise InputError(f"no {DECLARATION} in {self.folder}", remedy="run `bartizan init` there first.")
        system: System = load("bartizan.wiring.declared:load")(self.declaration, self.files, self.clock)
        return system

    def close(self) -> None:
        """Let go of database connections."""
        records = self.__dict__.get("records")
        if records is not None and hasattr(records, "close"):
            records.close()

    # ---- the ledger

    @contextmanager
    def view(self) -> Iterator[View]:
        """A checked view of the ledger; what was seen is remembered.

        Raises:
            EvidenceError: the ledger contradicts itself or what was seen before.
        """
        pin = self.read_pin()
        with self.records.snapshot() as snapshot:
            view = View.open(snapshot, pin)
            if view is None:
                raise LedgerError("there is no ledger yet", remedy="run `bartizan init`.")
            if pin is None:
                raise LedgerError(
                    "this ledger has not been seen from here, so it cannot be told from a forged one",
                    remedy=f"compare with its owner, then run `bartizan trust pin {view.first_trust}`.",
                )
            self._remember(view, pin)
            yield view

    def read_pin(self) -> Pin | None:
        """What was seen last, or None.

        Raises:
            LedgerError: the pin file is there but cannot be read as a pin.
        """
        path = self.settings.path("pin")
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_PIN_BYTES + 1)
            pin = msgspec.json.decode(data, type=Pin)
            parse_digest(pin.root)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, StatementError) as error:
            raise LedgerError(
                f"the pin file {path} cannot be read: {error}", remedy="restore it from a backup."
            ) from error
        return pin

    def write_pin(self, pin: Pin) -> None:
        """Remember what was seen; never less than was seen before, whoever else writes at the same time."""
        path = self.settings.path("pin")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with path.with_name(f".{path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                old = self.read_pin()
                if old is not None and (old.size, old.trust_version) >= (pin.size, pin.trust_version):
                    return
                new = path.with_name(f".{path.name}.new")
                new.write_bytes(msgspec.json.format(msgspec.json.encode(pin), indent=1) + b"\n")
                new.replace(path)
        except OSError as error:
            raise StoreError(f"the pin file {path} cannot be written: {error}", remedy="give write access.") from error

    def _remember(self, view: View, pin: Pin) -> None:
        seen = view.pin()
        if (seen.size, seen.trust_version) != (pin.size, pin.trust_version):
            self.write_pin(seen)

    def append(self, bodies: Sequence[bytes], *, seen: str = "") -> Batch | None:
        """Append envelopes under a checkpoint signed by the service key.

        When somebody else appends meanwhile, look again and try again. With ``seen``, the note of a
        view that ``bodies`` were concluded from, give up instead: what was concluded may be wrong now.

        Raises:
            LedgerMovedError: the ledger is not as it was ``seen``, or never stands still.
        """
        for _ in range(ATTEMPTS):
            with self.view() as view:
                expect = view
            if seen and expect.note != seen:
                raise LedgerMovedError("the ledger changed since it was looked at", remedy="run the command again.")
            with contextlib.suppress(LedgerMovedError):
                batch = ledger.append(
                    self.records,
                    bodies,
                    now_ms=int(self.clock().timestamp() * 1000),
                    signer=self.service,
                    origin=self.settings.origin,
                    expect=expect,
                )
                with self.view():
                    return batch
        raise LedgerMovedError("others append without a pause", remedy="run the command again.")

    def publish(self, statement: Statement, signer: Signer, blobs: Sequence[Blob] = (), *, seen: str = "") -> Digest:
        """Store blobs, sign a statement, append it; returns the envelope's digest."""
        for blob in blobs:
            self.blobs.put(blob.data, blob.media_type)
        body = envelope.seal_statement(statement, [signer])
        self.append([body], seen=seen)
        return envelope.parse(body).digest

    def evidence(self, view: View, digests: Sequence[str], current: Mapping[str, Digest]) -> list[Evidence]:
        """What was said about ``digests``, weighed now; results whose report is gone do not count."""
        return gather(view, digests, current, self.now(view), self.intact)

    def now(self, view: View) -> datetime:
        """The clock, but never before the ledger's last entry: a clock set back revives nothing.

        Raises:
            LedgerError: the last entry lies in the future, so nothing would grow older until then.
        """
        clock, last = self.clock(), moment(view.checkpoint.received_ms)
        if last > clock + TOLERANCE:
            raise LedgerError(
                f"the ledger's last entry is of {last:%Y-%m-%d %H:%M}, this clock says {clock:%Y-%m-%d %H:%M}",
                remedy="correct this machine's clock; if the entry is wrong, go back to a backup from before it.",
            )
        return max(clock, last)

    def intact(self, digest: Digest) -> bool:
        """Whether a blob is there, unaltered."""
        try:
            self.blobs.get(digest)
        except (StoreError, EvidenceError):
            return False
        return True

    # ---- keys

    @property
    def service(self) -> Signer:
        """The key that signs results, verdicts and checkpoints."""
        return self.signer(self.settings.values["service"])

    def signer(self, name: str) -> Signer:
        """The key called ``name``: a file in the key folder, or a URI set as BARTIZAN_SIGNER_NAME."""
        if name not in self._signers:
            uri = self.environment.get(f"BARTIZAN_SIGNER_{name.upper().replace('-', '_')}", "")
            self._signers[name] = self._from_uri(name, uri) if uri else self._from_file(name)
        return self._signers[name]

    def key_path(self, name: str) -> Path:
        """Where the private key called ``name`` lies or would lie."""
        return self.settings.path("keys") / f"{name}.pem"

    def public_path(self, name: str) -> Path:
        """Where the public key called ``name`` lies or would lie."""
        return self.settings.path("keys") / f"{name}.pub.pem"

    def _from_uri(self, name: str, uri: str) -> Signer:
        pem = load("bartizan.stores.keys:read_public")(self.public_path(name))
        signer: Signer = load("bartizan.stores.keys:signer_from_uri")(uri, pem, lambda _: self.passphrase())
        return signer

    def _from_file(self, name: str) -> Signer:
        signer: Signer = load("bartizan.stores.keys:load_signer")(self.key_path(name), self.passphrase)
        return signer

    def passphrase(self) -> str | None:
        """What unlocks key files: BARTIZAN_PASSPHRASE, the first line of a file, or None (then it is asked for)."""
        if "BARTIZAN_PASSPHRASE" in self.environment:
            return self.environment["BARTIZAN_PASSPHRASE"]
        if not self.settings.values["passphrase_file"]:
            return None
        path = self.settings.path("passphrase_file")
        try:
            return path.read_text(encoding="utf-8").split("\n", 1)[0]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"passphrase file {path}: {error}", remedy="give a readable text file.") from error


def load(name: str) -> Any:
    """An object by ``module:name``, imported only now."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)
