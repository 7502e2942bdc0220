"""A witness of other logs as a plain ASGI application: ``POST /add-checkpoint``, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bartizan.lifecycle.deploy.gateway.audit.witnesses import MAX_REQUEST, Bystander, Reply

PATH = "/add-checkpoint"
SECONDS = 10.0
"""Time in which a request has to be here."""
TOO_LARGE, TOO_SLOW, NOT_ALLOWED, NOT_FOUND, FAILED = 413, 408, 405, 404, 500

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class WitnessApplication:
    """See the module."""

    def __init__(self, bystander: Bystander) -> None:
        self._bystander = bystander

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        reply = await self._reply(scope, receive)
        headers = [(b"content-type", reply.content_type.encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body.encode()})

    async def _reply(self, scope: Mapping[str, Any], receive: Receive) -> Reply:
        if scope["path"] != PATH:
            return Reply(NOT_FOUND, "there is nothing here\n")
        if scope["method"] != "POST":
            return Reply(NOT_ALLOWED, "POST a checkpoint\n")
        try:
            body = await asyncio.wait_for(_body(receive), SECONDS)
        except TimeoutError:
            return Reply(TOO_SLOW, "too slow\n")
        if body is None:
            return Reply(TOO_LARGE, f"at most {MAX_REQUEST} bytes\n")
        try:
            return await asyncio.to_thread(self._bystander.add, body)
        except Exception:  # noqa: BLE001 - a witness whose disk failed cosigns nothing, and says no more
            return Reply(FAILED, "this witness cannot remember anything now\n")


async def _body(receive: Receive) -> bytes | None:
    """The body; None when it is too large."""
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_REQUEST:
            return None
        if not message.get("more_body", False):
            return body


__all__ = ["PATH", "WitnessApplication"]
