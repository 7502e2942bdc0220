"""What uvicorn does not bound: how long and how large the head of a request may be, and how long a client may not read.

Without it a client that sends heads byte by byte, or reads no answers, keeps its connection for ever; as many of them
as there may be connections keep everybody else out (slow loris, CWE-400), and a head that never ends fills the memory
(CWE-770). Bodies are bounded by the application.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 5.0
"""From connecting, or the first byte of a request, to the end of its head."""
READ_SECONDS = 20.0
"""Longest time for which a client may leave an answer unread."""
MOST_HEAD_BYTES = 64 << 10
MOST_FIELDS = 100
_LATE = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """For ``uvicorn.Config(http=BoundedProtocol)``. A request that comes in one piece costs no timer.

    Goes together with others of its kind: ``class Both(BoundedProtocol, TlsProtocol)``.
    """

    _in_head = False
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """See ``asyncio.Protocol``."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self._settle()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        super().data_received(data)
        cycle = self.cycle
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._refuse(_LARGE)
            elif self._timer is None:
                self._timer = self.loop.call_later(HEAD_SECONDS, self._late)
        elif self._timer is None and (cycle is None or cycle.response_complete):
            # Empty lines before a request are no request; without this they would keep a connection open.
            self._timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def on_message_begin(self) -> None:
        """See ``httptools``."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See ``httptools``. What is raised here ends in status 400 and a closed connection."""
        self._in_head = False
        if self._timer is not None:
            self._settle()
        version, headers = self.parser.get_http_version(), self.headers
        if len(headers) > MOST_FIELDS or version not in {"1.1", "1.0"}:
            raise ValueError(version)
        hosts = 0
        for name, _ in headers:
            hosts += name == b"host"
        # RFC 9112, section 3.2: none, or two, is an error.
        if hosts != 1 and (hosts or version == "1.1"):
            raise ValueError(hosts)
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _settle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        self._refuse(_LATE)

    def _refuse(self, answer: bytes) -> None:
        """Say so and close; the rest of what comes is not looked at."""
        self._settle()
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()


__all__ = ["BoundedProtocol"]
