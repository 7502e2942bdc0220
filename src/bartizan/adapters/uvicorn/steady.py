"""What a gateway need not do again for each request of a connection, on uvicorn.

Clients that stay connected send the same head again and again: byte for byte the same request line and header fields,
but for the length of the body. What was made of it, by httptools and uvicorn, is kept and used again. A request that
has come as a whole is not made a task of asyncio when somebody is there to lead it (``Begin``), an answer of one piece
is written in one piece, and one timer goes with a connection instead of one with each request. Everything else goes
uvicorn's own way.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, cast

from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

from bartizan.adapters.uvicorn.guarded import BoundedProtocol
from bartizan.lifecycle.deploy.gateway.asgi import AGAIN, BODY, WHOLE

Begin = Callable[[Coroutine[Any, Any, None], set[asyncio.Task[None]]], None]
"""Leads a coroutine to its end; when it becomes a task, that is put into the set."""
MOST_HEADS, MOST_BYTES = 64, 16 << 10
"""Heads that are kept for a connection, and their bytes; bodies of different lengths make different heads."""
LONGEST_HEAD = 4096
_END = b"\r\n\r\n"
_LENGTH = b"content-length"
_LENGTH_FIELD = re.compile(rb"\r\ncontent-length:[ \t]*(0|[1-9][0-9]{0,9})\r\n", re.IGNORECASE)
_KEPT_AWAY = frozenset({b"expect", b"upgrade", b"transfer-encoding"})
"""Header fields that change how a connection goes on."""


class Head(NamedTuple):
    """What was made of the head of a request."""

    scope: dict[str, Any]
    length: int
    """Bytes of the body."""


class Steady(RequestResponseCycle):
    """A request that is here as a whole, and its answer."""

    message_event: Any  # made when somebody waits for it

    def __init__(self, protocol: SteadyProtocol, scope: dict[str, Any], body: bytes) -> None:  # not as uvicorn makes it
        scope[BODY] = body
        scope[WHOLE] = self.whole  # taken out again once it answered: a cycle waits for a search for cycles
        self.scope = cast("Any", scope)
        self.transport, self.flow, self.logger = protocol.transport, protocol.flow, protocol.logger
        self.access_log = protocol.access_log
        self.access_logger = protocol.access_logger
        self.default_headers = protocol.server_state.default_headers
        self.message_event = _NOBODY
        self.on_response = protocol.on_response_complete
        self.disconnected = self.waiting_for_100_continue = self.more_body = False
        self.keep_alive = True
        self.body = body  # type: ignore[assignment]  # never added to
        self.response_started = self.response_complete = False
        self.chunked_encoding: bool | None = None
        self.expected_content_length = 0
        self._is_read = False
        self._start: Any = None

    async def receive(self) -> Any:
        """See ASGI."""
        if not self._is_read and not self.disconnected:
            self._is_read = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        if not (self.disconnected or self.response_complete):
            if self.message_event is _NOBODY:
                self.message_event = asyncio.Event()
            await self.message_event.wait()
        return {"type": "http.disconnect"}

    def whole(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
        """Send all of an answer; False when it has to go uvicorn's own way, and nothing was sent."""
        lines = [_line((name, value)) for name, value in headers]
        if (
            self.response_started
            or self._start is not None
            or not self.keep_alive
            or (_LENGTH, b"%d" % len(body)) not in headers
            or None in lines
            or (self.disconnected or self.flow.write_paused or self.default_headers or self.access_log)
            or self.scope["method"] == "HEAD"
        ):
            return False
        self._forget()
        self.response_started = self.response_complete = True
        self.transport.write(b"".join([STATUS_LINE[status], *cast("list[bytes]", lines), b"\r\n", body]))
        self.message_event.set()
        self.on_response()
        return True

    async def send(self, message: Any) -> None:
        """See ASGI. The start of an answer waits for its body, where it says how long that is."""
        if message["type"] == "http.response.start" and not self.response_started:
            # One that was kept back already was not sent: the application has failed since.
            self._start = message
            if any(name == _LENGTH for name, _ in message.get("headers", ())):
                return
        start, self._start = self._start, None
        if start is None or start is message:
            self._forget()
            await super().send(message)
            return
        is_whole = message["type"] == "http.response.body" and not message.get("more_body")
        if not is_whole or not self.whole(start["status"], list(start.get("headers", ())), message.get("body", b"")):
            self._forget()
            await super().send(start)
            await super().send(message)

    def _forget(self) -> None:
        scope: Any = self.scope
        scope.pop(WHOLE, None)


class _Nobody:
    """In place of the event that nobody waits for."""

    def set(self) -> None:
        """Tell nobody."""


_NOBODY = _Nobody()


_LINES: dict[tuple[bytes, bytes], bytes] = {}
MOST_LINES = 256
"""Lines of heads that are remembered. Those that differ from answer to answer push the others out now and then."""


def _line(field: tuple[bytes, bytes]) -> bytes | None:
    """A line of the head of an answer; None when it is not for the short way."""
    line = _LINES.get(field)
    if line is None:
        name, value = field
        start = _start_of(name)
        if start is None or HEADER_VALUE_RE.search(value):
            return None
        if len(_LINES) >= MOST_LINES:
            _LINES.clear()
        line = _LINES[field] = b"%b%b\r\n" % (start, value)
    return line


@functools.lru_cache(64)
def _start_of(name: bytes) -> bytes | None:
    lower = name.lower()
    return None if lower in {b"connection", b"transfer-encoding"} or HEADER_RE.search(name) else lower + b": "


class SteadyProtocol(BoundedProtocol):
    """For ``uvicorn.Config(http=...)``."""

    begin: Begin | None = None
    """Set in a subclass, as a static method: leads requests that have come as a whole."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._heads: dict[bytes, Head] = {}
        self._kept = 0
        """Bytes of them."""
        self._likes: dict[tuple[bytes, bytes], Head] = {}
        """By what stands before the length of the body, and after it."""
        self._data = b""
        """What is being read, as long as it began with a request."""
        self._in_message = False
        self._to_start: tuple[RequestResponseCycle, Any] | None = None
        self._is_reading = False
        self._idle_since = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        cycle = self.cycle
        if not self._in_message and (cycle is None or cycle.response_complete):
            end = data.find(_END, 0, LONGEST_HEAD) + len(_END)
            head = self._heads.get(data[:end]) or self._like(data[:end])
            if head is not None and len(data) == end + head.length and self._has_room():
                self._again(head, data[end:])
                return
            self._data = data
        self._is_reading = True
        try:
            super().data_received(data)
        finally:
            self._is_reading, self._data = False, b""
            to_start, self._to_start = self._to_start, None
            if to_start is not None:
                self._begin(*to_start)

    def on_message_begin(self) -> None:
        """See ``httptools``."""
        self._in_message = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """See ``httptools``."""
        self._in_message = False
        super().on_message_complete()
        data, self._data = self._data, b""
        if data:
            self._keep(data)

    def on_response_complete(self) -> None:
        """See uvicorn, whose timer for each request is one for the connection here."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._look)

    def _look(self) -> None:
        """Close a connection that has been idle for so long."""
        self._idle_timer = None
        if self._in_message or not self.cycle.response_complete or self.transport.is_closing():
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._look)
        else:
            self.transport.close()

    def _keep(self, data: bytes) -> None:
        """Keep the head of a request that was read from ``data``, when nothing else was."""
        end = data.find(_END, 0, LONGEST_HEAD) + len(_END)
        length = len(self.cycle.body)
        if end + length != len(data) or end < len(_END) or data[:1] in b"\r\n":
            return
        if len(self._heads) >= MOST_HEADS or self._kept + 2 * end > MOST_BYTES:
            return
        names = [name for name, _ in self.headers]
        plain = names.count(_LENGTH) <= 1 and not _KEPT_AWAY.intersection(names) and self.scope["method"] != "CONNECT"
        if plain and self.scope["http_version"] == "1.1" and self.parser.should_keep_alive():
            scope = {**self.scope, "headers": list(self.headers), AGAIN: {}}
            self._kept += end
            head = self._heads[data[:end]] = Head(scope, length)
            field = _LENGTH_FIELD.search(data, 0, end)
            if field is not None and int(field[1]) == length:
                self._kept += end
                self._likes[data[: field.start(1)], data[field.end(1) : end]] = head

    def _like(self, data: bytes) -> Head | None:
        """What a head is that differs from one that is known in the length of the body alone."""
        field = _LENGTH_FIELD.search(data)
        like = None if field is None else self._likes.get((data[: field.start(1)], data[field.end(1) :]))
        if field is None or like is None:
            return None
        headers = [(name, field[1] if name == _LENGTH else value) for name, value in like.scope["headers"]]
        head = Head({**like.scope, "headers": headers, AGAIN: {}}, int(field[1]))
        if len(self._heads) < MOST_HEADS // 2 and self._kept + len(data) <= MOST_BYTES:
            self._kept += len(data)
            self._heads[data] = head
        return head

    def _has_room(self) -> bool:
        limit = self.limit_concurrency
        return (
            limit is None or (len(self.connections) < limit and len(self.tasks) < limit)
        ) and not self.transport.is_closing()

    def _again(self, head: Head, body: bytes) -> None:
        """A request with a head that is known."""
        if self._timer is not None:
            self._settle()
        cycle = self.cycle = Steady(self, {**head.scope, "state": self.app_state.copy()}, body)
        self._begin(cycle, self.app)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._is_reading:
            self._to_start = (cycle, app)  # once it shows whether all of it is here
        else:
            super()._start_asgi_task(cycle, app)

    def _begin(self, cycle: RequestResponseCycle, app: Any) -> None:
        begin = self.begin
        if begin is None or cycle.more_body or app is not self.app:
            super()._start_asgi_task(cycle, app)
        else:
            begin(cycle.run_asgi(app), self.tasks)


__all__ = ["Begin", "SteadyProtocol"]
