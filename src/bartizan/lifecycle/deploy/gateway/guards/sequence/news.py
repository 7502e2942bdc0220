"""What replicas tell one another: where somebody searches, and who. Best effort; nothing rests on its arrival."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import StoreError
from bartizan.lifecycle.deploy.gateway.state import SharedState

WAITING = 256
"""Pieces of news that wait to be sent; older ones are dropped."""
LONGEST_ROW, LONGEST_NAME = 4_096, 512


class News(msgspec.Struct, frozen=True, array_like=True):
    """One point that was counted at a place."""

    row: bytes
    """Short form of the query that was searched around, little-endian float32."""
    account: str
    at: float
    """Seconds since the epoch."""


class Sharing:
    """Sends what is told on the event loop that runs, and hands on what others say."""

    def __init__(self, state: SharedState, topic: str) -> None:
        self._state, self._topic = state, topic
        self._waiting: deque[bytes] = deque(maxlen=WAITING)
        self._sending: asyncio.Task[None] | None = None

    def tell(self, row: NDArray[np.float32], account: str, now: float) -> None:
        """Tell all other replicas of one more point; ``row`` is ``(width + 1,)``."""
        self._waiting.append(msgspec.msgpack.encode(News(row[:-1].astype("<f4").tobytes(), account, now)))
        if self._sending is not None and not self._sending.done():
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._sending = loop.create_task(self._send())

    async def _send(self) -> None:
        while self._waiting:
            try:
                await self._state.publish(self._topic, self._waiting.popleft())
            except StoreError:
                return

    def listen(self, heard: Callable[[News], None]) -> None:
        """Call ``heard`` for what other replicas say. What makes no sense is passed over."""

        def take(content: bytes) -> None:
            try:
                news = msgspec.msgpack.decode(content, type=News)
            except msgspec.DecodeError:
                return
            if len(news.row) <= LONGEST_ROW and len(news.account) <= LONGEST_NAME and np.isfinite(news.at):
                heard(news)

        self._state.subscribe(self._topic, take)
