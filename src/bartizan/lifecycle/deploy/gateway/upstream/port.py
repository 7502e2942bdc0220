"""What the pipeline knows of upstreams: questions go in, sound answers or one kind of failure come out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, Protocol

import msgspec

from bartizan.core.errors import WorkError
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.guard import Answer, Numbers

Kind = Literal["unreachable", "late", "failed", "refused", "limited", "wrong", "large", "resting", "busy"]
"""How an upstream failed: no connection; too slow; status 5xx; another status; 429; an answer that cannot be true; one
that is too large; it is left alone after failures; too many requests wait for it."""
Spend = Callable[[int], bool | Awaitable[bool]]
"""Takes tokens out of the caller's budget as they pass; False: nothing is left."""
Ended = Literal["", "finished", "length", "budget", "failed", "left"]
"""How a streamed chat ended: the upstream said so; our bound; the budget; the upstream failed; the client went."""


class UpstreamError(WorkError):
    """An upstream gave no answer that can be used. Its message is for the audit record and the log alone."""

    def __init__(self, kind: Kind, message: str, *, retry_after: float = 0.0, unsent: bool = False) -> None:
        super().__init__(message, remedy="see that the upstream runs and is the declared one.")
        self.kind: Kind = kind
        self.retry_after = retry_after
        self.unsent = unsent
        """Nothing of the question can have reached it."""

    def as_request_error(self) -> RequestError:
        """What a client is told, where nothing stands in for the upstream: the same whatever happened inside."""
        headers = {"retry-after": str(max(1, round(self.retry_after)))}
        reason = f"upstream {self.kind}: {self.message}"
        return RequestError(503, "the model cannot answer now", headers=headers, reason=reason)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one chat."""

    prompt: int = 0
    completion: int = 0
    estimated: bool = True
    """The upstream said nothing that can be believed, and it was estimated here (``chat.estimated``)."""

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.completion


class InferenceUpstream(Protocol):
    """A classifier behind a server."""

    name: str

    async def prepare(self) -> None:
        """Find out what the model takes. Raises UpstreamError."""

    async def infer(self, rows: Numbers) -> Answer:
        """Ask for rows ``(batch, features)``; ``Answer.source`` is ``upstream``. Raises UpstreamError."""

    async def ready(self) -> bool:
        """Whether it says of itself that it can be asked."""

    async def close(self) -> None:
        """Let go of all connections."""


class ChatStream(Protocol):
    """A chat on its way, as server-sent events. Close it whatever happens."""

    usage: Usage
    """So far; whole at the end."""
    ended: Ended

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Whole events. Never raises for the upstream's sake: a failure is a last event, and in ``ended``."""

    async def aclose(self) -> None:
        """Let go of the upstream now, in the middle if need be."""


__all__ = ["ChatStream", "Ended", "InferenceUpstream", "Kind", "Spend", "UpstreamError", "Usage"]
