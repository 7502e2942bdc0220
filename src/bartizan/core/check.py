"""The Check shape: something that examines artefacts and yields a statement.

A check is registered under the entry-point group ``bartizan.checks``. It names the artefacts it
looks at and the digests its result rests on; whether it has to run at all is decided from the
ledger, and running, signing and storing is the runner's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import msgspec

from bartizan.core.digest import Digest, digest_bytes
from bartizan.core.finding import Finding
from bartizan.core.system import Artefact, System

T = TypeVar("T")


class Blob(msgspec.Struct, frozen=True):
    """Bytes too long for a statement: a report, a document."""

    data: bytes
    media_type: str = "application/json"

    @property
    def digest(self) -> Digest:
        """SHA-256 of the data."""
        return digest_bytes(self.data)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found out."""

    predicate_type: str
    """One of the constants of ``bartizan.core.predicates``."""
    predicate: Any
    """A predicate struct of ``bartizan.core.predicates``; the runner adds ``check``, ``inputs`` and ``report``."""
    findings: tuple[Finding, ...] = ()
    report: Blob | None = None
    """Full result for people and later readers; stored as a blob and named by digest in the statement."""


class Context(Protocol):
    """What the runner offers a check while it runs."""

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Tell how far the work is. Cheap; call it often."""

    def service(self, port: type[T]) -> T:
        """The object that wiring provides for a port, such as ``bartizan.targets.protocol.Targets``."""

    def report_of(self, check: str, artefact_id: str) -> bytes:
        """Full report of an earlier check of this run; KeyError when there is none that holds."""


@runtime_checkable
class Check(Protocol):
    """One kind of examination. Stateless; safe to send to another process."""

    name: str
    """``scan``, ``data.quality``, ``redteam.evasion.hopskipjump``."""
    version: str
    """Raise it whenever the same inputs may give another result."""
    title: str
    controls: tuple[str, ...]
    """Catalogue control ids to which the result is evidence."""
    after: tuple[str, ...]
    """Checks that must hold, without refusing, on the same artefact before this one may run."""

    def subjects(self, system: System) -> Sequence[Artefact]:
        """The artefacts to examine, one job each; empty when the check does not apply."""

    def inputs(self, system: System, subject: Artefact) -> Mapping[str, Digest]:
        """Every digest the result rests on, by artefact id or ``settings:...``."""

    def run(self, system: System, subject: Artefact, context: Context) -> Outcome:
        """Examine. Raises ``BartizanError`` when the work cannot be done."""
