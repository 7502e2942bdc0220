"""ASGI, as little of it as is needed (https://asgi.readthedocs.io, HTTP): bodies within bounds, answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from bartizan.lifecycle.deploy.gateway.failures import RequestError

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

Whole = Callable[[int, RawHeaders, bytes], bool]
"""Sends status, headers and body at once; False when that cannot be done, and nothing was sent."""
AGAIN, BODY, WHOLE = "bartizan.again", "bartizan.body", "bartizan.whole"
"""What a server may put into a scope beyond ASGI: a dictionary that comes again with the same head on the same
connection, the body when all of it is here, and a ``Whole``."""

BODY_SECONDS = 10.0
"""Time in which the body of a request has to be here."""
TICK_SECONDS = 1.0
"""How often overdue bodies are looked for."""
FIGURES = 15
"""Of a length that may be the truth."""
FORGIVEN = 4
"""So many times the largest body is read to its end before it is refused; more is cut off."""
JSON = b"application/json"
BINARY = b"application/octet-stream"

_ALWAYS: RawHeaders = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
_ENCODER = msgspec.json.Encoder()


class Reply(msgspec.Struct):
    """An answer before it is sent."""

    status: int
    body: bytes
    headers: RawHeaders = []
    kind: bytes = JSON
    stream: Any = None
    """A ``ChatStream``, which comes in place of the body."""


def reply(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Reply:
    """An answer in JSON."""
    return Reply(status, _ENCODER.encode(content), raw(headers or {}))


def raw(headers: Mapping[str, str]) -> RawHeaders:
    """Headers as ASGI has them."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def answer(send: Send, given: Reply, headers: RawHeaders, whole: Whole | None = None) -> None:
    """Send an answer with ``headers`` besides its own; in one piece where the server has a way for it."""
    length = (b"content-length", b"%d" % len(given.body))
    start = [(b"content-type", given.kind), length, *_ALWAYS, *headers, *given.headers]
    if whole is not None and whole(given.status, start, given.body):
        return
    await send({"type": "http.response.start", "status": given.status, "headers": start})
    await send({"type": "http.response.body", "body": given.body})


def fields(scope: Scope) -> dict[bytes, bytes]:
    """Header fields by name in lower case.

    Raises:
        RequestError: a field that decides something is there twice, so that another reader may take the other one.
    """
    found: dict[bytes, bytes] = dict(scope["headers"])
    if len(found) != len(scope["headers"]):
        names = [name for name, _ in scope["headers"]]
        twice = sorted(name.decode("latin-1") for name in ONCE if names.count(name) > 1)
        if twice:
            raise RequestError(400, "a header field is there twice", reason=f"twice: {', '.join(twice)}")
    return found


ONCE = frozenset(
    {
        b"authorization",
        b"bartizan-otp",
        b"client-cert",
        b"ssl-client-cert",
        b"x-api-key",
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"content-digest",
        b"host",
        b"inference-header-content-length",
        b"signature",
        b"signature-input",
        b"transfer-encoding",
    }
)
"""Fields of which a request has one at most (RFC 9110, section 5.3)."""


class Bodies:
    """Reads bodies within bounds of size and time. One task looks after all deadlines; a timer for each costs more."""

    def __init__(self, most_bytes: int, seconds: float = BODY_SECONDS) -> None:
        self.most_bytes, self._seconds = most_bytes, seconds
        self._until: dict[asyncio.Task[Any] | None, float] = {}
        self._late: set[asyncio.Task[Any] | None] = set()

    async def watch(self) -> None:
        """Give up on bodies that are overdue, until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            for task, until in list(self._until.items()):
                if task is not None and until < now:
                    self._late.add(task)
                    task.cancel()

    async def read(self, receive: Receive, length: bytes = b"", *, is_here: bool = False) -> bytes:
        """The whole body; ``length`` is what its header field says of it. ``is_here``: nobody has to wait for it.

        Raises:
            RequestError: it is too large, too slow, or ends early.
        """
        if len(length) > FIGURES or (length.isdigit() and int(length) > FORGIVEN * self.most_bytes):
            raise self._too_large()
        if is_here:
            return await self._whole(receive)
        task = asyncio.current_task()
        self._until[task] = time.monotonic() + self._seconds
        try:
            return await self._whole(receive)
        except asyncio.CancelledError:
            if task is None or task not in self._late:
                raise
            task.uncancel()
            raise RequestError(
                408, "the request was not here in time", headers={"connection": "close"}, reason="body overdue"
            ) from None
        finally:
            del self._until[task]
            self._late.discard(task)

    async def _whole(self, receive: Receive) -> bytes:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            if len(body) > self.most_bytes:
                raise self._too_large()
            return body
        return await self._collected(message, receive)

    async def _collected(self, message: Mapping[str, Any], receive: Receive) -> bytes:
        """One that is too large is let in and forgotten up to a bound, so that its sender hears why."""
        body, size = bytearray(), 0
        while True:
            if message["type"] == "http.disconnect":
                raise RequestError(400, "the request ended early")
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size <= self.most_bytes:
                body += part
            elif not more or size > FORGIVEN * self.most_bytes:
                raise self._too_large()
            if not more:
                return bytes(body)
            message = await receive()

    def _too_large(self) -> RequestError:
        return RequestError(
            413, f"a request has at most {self.most_bytes} bytes", headers={"connection": "close"}, reason="too large"
        )


__all__ = [
    "AGAIN",
    "BINARY",
    "BODY",
    "JSON",
    "WHOLE",
    "Bodies",
    "RawHeaders",
    "Receive",
    "Reply",
    "Scope",
    "Send",
    "answer",
    "fields",
    "raw",
]
