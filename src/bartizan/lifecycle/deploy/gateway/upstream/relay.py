"""A streamed chat to its client over ASGI: whoever goes away is noticed, and the upstream let go of at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from bartizan.lifecycle.deploy.gateway.upstream.port import ChatStream

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
HEADERS = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))


async def relay(
    stream: ChatStream,
    receive: Receive,
    send: Send,
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    seconds: float = 300.0,
) -> None:
    """Send the whole stream, or as much of it as the client waits for and ``seconds`` allow. Closes the stream.

    Call it once the request was read to its end: what is received then is only that the client went away.
    """
    sending = asyncio.ensure_future(_sent(stream, send, (*HEADERS, *headers)))
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({sending, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _ended(sending, gone)
        await stream.aclose()
    if sending.done() and not sending.cancelled() and (error := sending.exception()) is not None:
        raise error


async def _sent(stream: ChatStream, send: Send, headers: Sequence[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
    async for events in stream:
        await send({"type": "http.response.body", "body": events, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _ended(*tasks: asyncio.Future[None]) -> None:
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)


__all__ = ["relay"]
