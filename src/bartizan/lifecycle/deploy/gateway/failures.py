"""What a request is refused with."""

from __future__ import annotations

from collections.abc import Mapping


class RequestError(Exception):
    """A request that cannot be answered: HTTP status and one sentence for whoever sent it.

    ``reason`` is for the audit record alone. What a client is told never says which guard refused it and why, what
    the model looks like inside, or what it runs on.
    """

    def __init__(
        self, status: int, message: str, *, headers: Mapping[str, str] | None = None, reason: str = ""
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})
        self.reason = reason or message


__all__ = ["RequestError"]
