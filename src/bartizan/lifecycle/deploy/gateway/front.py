"""What is in force at the front of the gateway, for all models alike. Replaced as a whole when the configuration is."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from bartizan.core.digest import Digest
from bartizan.lifecycle.deploy.gateway.audit.record import AuditLog, Record
from bartizan.lifecycle.deploy.gateway.budget import Budgets
from bartizan.lifecycle.deploy.gateway.caller import Caller, Showing
from bartizan.lifecycle.deploy.gateway.guard import Answer, Asked
from bartizan.lifecycle.deploy.gateway.pipeline import Passage
from bartizan.lifecycle.deploy.gateway.protocol import Output
from bartizan.lifecycle.deploy.gateway.roles import Role


class Granted(msgspec.Struct, frozen=True):
    """What the policy grants one caller for one operation on one model."""

    role: Role
    budgets: tuple[str, ...] = ()
    """Names of every budget that is drawn on."""
    bits: dict[str, int] = {}
    """By model, the bits of score that one row discloses; filled in as they are worked out."""


class Callers(Protocol):
    """Recognises callers, from memory where it can."""

    def recognise(self, showing: Showing, now: float) -> Caller:
        """Who asks; ``ANONYMOUS`` when nothing is shown, and that may be.

        Raises:
            Unready: it has to be found out first.
            RequestError: 401, what is shown does not count.
        """

    async def again(self, showing: Showing, now: float) -> Caller:
        """Who asks, after it was found out. Raises RequestError."""


class Policy(Protocol):
    """Decides, by roles and attributes. Whatever is not granted is denied."""

    def decide(self, caller: Caller, operation: str, model: str, digest: Digest) -> Granted:
        """What is granted. Raises RequestError 401, 403 or 404, with the reasons for the record."""


class Teller(Protocol):
    """Turns answers into what a role is told."""

    def tell(self, answer: Answer, asked: Asked, role: Role, *, coarse: bool) -> Mapping[str, Output]:
        """The outputs by name; with ``coarse`` the label alone."""

    def outputs(self, role: Role, classes: int) -> Mapping[str, Output]:
        """What a role is told of one row, without data."""

    def bits(self, role: Role, classes: int) -> int:
        """Bits of score that one row discloses."""


class Signatures(Protocol):
    """Checks signed input (RFC 9421)."""

    def source(
        self,
        method: str,
        path: str,
        headers: Mapping[bytes, bytes],
        body: bytes,
        now: float,
        *,
        role: str = "",
        query: str = "",
    ) -> str | Awaitable[str]:
        """Who signed this request; empty when nobody did. Raises RequestError when a signature does not count."""


class Factors(Protocol):
    """Confirms callers by a second factor."""

    async def confirm(self, caller: Caller, showing: Showing, now: float, *, fresh: bool = True) -> Caller:
        """The same caller, confirmed. Raises RequestError when nothing is shown that counts."""


class Pacing(Protocol):
    """Slows callers whose requests were flagged."""

    def admit(self, caller: Caller) -> Awaitable[float] | float:
        """Seconds that a caller has to wait; 0 when the request may go on."""


class Cases(Protocol):
    """Keeps what a person has to look at."""

    async def hold(self, asked: Asked, answer: Answer, passage: Passage) -> Mapping[str, Any]:
        """Keep an answer back until a person has decided; gives what the caller is told: case and deadline."""

    async def outcome(self, case: str, caller: Caller) -> Mapping[str, Any] | None:
        """What became of a case of this caller; None when there is none."""

    def flag(self, asked: Asked, answer: Answer | None, passage: Passage) -> None:
        """Keep a case for later review. Must not block.

        Raises:
            RequestError: it would be answered and cannot be kept.
        """

    def answered(self, asked: Asked, answer: Answer) -> None:
        """An ordinary answer: some of them are kept for review."""


class Watcher(Protocol):
    """Hears of every record: telemetry, standing of callers."""

    def observed(self, record: Record) -> None:
        """Must not block or fail; a few microseconds at most."""


class Front(msgspec.Struct, kw_only=True):
    """Everything together."""

    configuration: Digest
    callers: Callers
    policy: Policy
    log: AuditLog
    teller: Teller
    budgets: Budgets | None = None
    signatures: Signatures | None = None
    factors: Factors | None = None
    pacing: Pacing | None = None
    cases: Cases | None = None
    watchers: Sequence[Watcher] = ()


__all__ = ["Callers", "Cases", "Factors", "Front", "Granted", "Pacing", "Policy", "Signatures", "Teller", "Watcher"]
