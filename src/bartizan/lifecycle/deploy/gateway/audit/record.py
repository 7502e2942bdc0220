"""One record of the audit log, and the log as the pipeline sees it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import msgspec

from bartizan.core.digest import Digest


class Ruling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one guard said."""

    guard: str
    action: str
    """Name of a ``guard.Action`` in lower case."""
    reason: str = ""
    measures: dict[str, float] = {}
    shadow: bool = False
    """It was recorded, and nothing followed."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of one request, or of one act of administration. No field holds an input, an output or a name."""

    id: str
    at: int
    """When the request was read, nanoseconds since the epoch."""
    caller: str
    role: str
    method: str
    """How the caller was recognised."""
    operation: str
    """``infer``, ``explain``, ``metadata``, ``chat``, ``admin.key.add`` ..."""
    status: int
    """Of the HTTP answer; 0 for what was no request."""
    decision: str
    """``answered``, ``coarsened``, ``held``, ``throttled``, ``refused``, ``failed``."""
    reasons: tuple[str, ...] = ()
    """Why, of policy and guards; never told to the client."""
    model: str = ""
    model_digest: Digest = Digest("")
    configuration: Digest = Digest("")
    """Digest of the gateway's configuration by which it was decided."""
    detail: str = ""
    """What of the answer was shown."""
    source: str = ""
    """``model``, ``cache``, ``rule``, ``fallback`` or ``upstream``."""
    rows: int = 0
    rulings: tuple[Ruling, ...] = ()
    input: str = ""
    """Keyed digest of the rows as they came; equal rows give equal digests as long as the key lives."""
    output: str = ""
    """Keyed digest of the body of the answer."""
    signed_by: str = ""
    """Source that signed the input (RFC 9421)."""
    microseconds: int = 0
    """From the first byte of the request to the end of its answer's making."""
    content: str = ""
    """Name of the sealed content, where the configuration has it kept."""


class AuditLog(Protocol):
    """Where records go. Used on the event loop."""

    def append(self, record: Record, content: bytes | None = None) -> Awaitable[None] | None:
        """Take a record in. The answer is sent once what is given here has come to pass, if anything is.

        ``content`` is what came in: kept, masked and sealed, where the configuration asks for it, else forgotten.

        Raises:
            StoreError: nothing can be recorded, or too much waits: nothing may be answered.
        """

    def keyed(self, content: bytes) -> str:
        """Digest of content under the log's present key: names it without giving it away."""

    async def close(self) -> None:
        """Write everything that waits."""


__all__ = ["AuditLog", "Record", "Ruling"]
