"""Server-sent events out of bytes, in bounded memory (WHATWG HTML, 9.2 Server-sent events)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bartizan.lifecycle.deploy.gateway.upstream.port import UpstreamError

DONE = b"[DONE]"
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventReader:
    """Feed it blocks as they come; it gives the data of each event that is whole."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._buffer = bytearray()
        self._scanned = 0
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, block: bytes) -> Iterator[bytes]:
        """Data of the events that this block completes.

        Raises:
            UpstreamError: an event is larger than it may be.
        """
        self._buffer += block
        while (line := self._line()) is not None:
            if line:
                self._take(line)
            elif self._data:
                yield b"\n".join(self._data)
                self._data, self._size = [], 0
        if len(self._buffer) + self._size > self._most:
            raise UpstreamError("large", f"an event of its answer has more than {self._most} bytes")

    def _line(self) -> bytes | None:
        """The next whole line. A carriage return at the very end may be half of a line's end."""
        found = _LINE_END.search(self._buffer, self._scanned)
        if found is None or (found.group() == b"\r" and found.end() == len(self._buffer)):
            self._scanned = max(0, len(self._buffer) - 1)
            return None
        line = bytes(self._buffer[: found.start()])
        del self._buffer[: found.end()]
        self._scanned = 0
        return line

    def _take(self, line: bytes) -> None:
        """One field; comments and fields that nobody uses are left out."""
        name, _, value = line.partition(b":")
        if name != b"data":
            return
        self._size += len(value) + 1
        if self._size > self._most:
            raise UpstreamError("large", f"an event of its answer has more than {self._most} bytes")
        self._data.append(value.removeprefix(b" "))


def event(data: bytes) -> bytes:
    """One event on the wire. JSON has no line ends, so one line holds it."""
    return b"data: " + data + b"\n\n"


__all__ = ["DONE", "EventReader", "event"]
