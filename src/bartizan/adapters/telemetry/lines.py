"""Events as lines of JSON, written by a thread of its own so that a slow disk never holds a request up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.telemetry.events import SEVERITIES, Event
from bartizan.lifecycle.deploy.gateway.telemetry.settings import Kind

MOST_WAITING = 10_000
LAST_SECONDS = 3.0
_LOG = logging.getLogger("bartizan.gateway")
_END = b""


class Lines:
    """Appends events to a file, or to standard error. See ``telemetry.port.Listener``."""

    kinds: frozenset[Kind] = frozenset(SEVERITIES)

    def __init__(self, where: str, each_second: float, lost: Callable[[], None] = lambda: None) -> None:
        """``lost`` is called for each event that could not be kept.

        Raises:
            InputError: the file cannot be written.
        """
        self.each_second = each_second
        self._where, self._lost = where, lost
        self._queue: queue.Queue[bytes] = queue.Queue(MOST_WAITING)
        self._file = _opened(where)
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def tell(self, event: Event, suppressed: int) -> None:
        """See ``telemetry.port.Listener``. What does not fit into the queue is lost and counted."""
        try:
            self._queue.put_nowait(event.encoded(suppressed) + b"\n")
        except queue.Full:
            self._lost()

    def _run(self) -> None:
        while line := self._queue.get():
            try:
                self._write(line)
            except OSError:
                self._lost()
        if self._where != "-":
            with contextlib.suppress(OSError):
                os.close(self._file)

    def _write(self, line: bytes) -> None:
        """One whole line, also after the file was moved away to be rotated."""
        if self._where != "-" and not _same(self._file, self._where):
            fresh = os.open(self._where, _FLAGS, 0o640)
            os.close(self._file)
            self._file = fresh
        while line:
            line = line[os.write(self._file, line) :]

    async def close(self) -> None:
        """See ``telemetry.port.Listener``."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(_END)
        await asyncio.to_thread(self._thread.join, LAST_SECONDS)


_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def _opened(where: str) -> int:
    if where == "-":
        return sys.stderr.fileno()
    try:
        return os.open(where, _FLAGS, 0o640)
    except OSError as error:
        raise InputError(
            f"events cannot be written to {where}: {error.strerror}", remedy="give a file that can be appended to."
        ) from error


def _same(file: int, where: str) -> bool:
    try:
        there = Path(where).stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(file)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


__all__ = ["Lines"]
