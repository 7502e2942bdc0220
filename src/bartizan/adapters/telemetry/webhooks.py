"""Alerts to declared addresses: signed, bounded, tried again with growing pauses, never led elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import aiohttp

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.telemetry.events import Event
from bartizan.lifecycle.deploy.gateway.telemetry.settings import Kind, WebhookSettings, declared
from bartizan.lifecycle.deploy.gateway.telemetry.signing import headers, secret_of

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 600.0
LAST_SECONDS = 3.0
MOST_SECRET_BYTES = 1024
DONE = range(200, 300)
GONE = 410
"""The receiver wants no more (Standard Webhooks): nothing is sent until the gateway starts anew."""


class Webhook:
    """One receiver. See ``telemetry.port.Listener``. Used on one event loop; open it there with ``start``."""

    def __init__(
        self,
        settings: WebhookSettings,
        lost: Callable[[], None] = lambda: None,
        *,
        first_pause: float = FIRST_PAUSE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``lost`` is called for each message that is given up.

        Raises:
            InputError: the address is none that may be told, or there is no secret.
        """
        self._url = declared(settings.url, "a webhook")
        self._secret = _secret(settings.secret_file)
        self._settings, self._lost, self._first, self._clock = settings, lost, first_pause, clock
        self.each_second, self.kinds = settings.each_second, frozenset[Kind](settings.kinds)
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._gone = self._closing = False

    def tell(self, event: Event, suppressed: int) -> None:
        """See ``telemetry.port.Listener``. What does not fit into the queue is lost and counted."""
        if self._gone or self._closing or len(self._waiting) >= self._settings.waiting:
            self._lost()
            return
        self._waiting.append((f"msg_{event.id}", event.encoded(suppressed)))
        self._more.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        async with self._session() as session:
            while not self._gone and not (self._closing and not self._waiting):
                while self._waiting and not self._gone:
                    await self._deliver(session, *self._waiting[0])
                    self._waiting.popleft()
                self._more.clear()
                if not self._closing:
                    await self._more.wait()

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1),
            timeout=aiohttp.ClientTimeout(total=self._settings.seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("user-agent",),
            auto_decompress=False,
            trust_env=False,
        )

    async def _deliver(self, session: aiohttp.ClientSession, message: str, body: bytes) -> None:
        """Until it is taken, refused for good, or tried as often as is declared."""
        for attempt in range(self._settings.attempts):
            status = await self._post(session, message, body)
            if status in DONE:
                return
            if status == GONE:
                self._gone = True
                break
            if attempt + 1 < self._settings.attempts:
                pause = min(self._first * 4.0**attempt, LONGEST_PAUSE)
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - keeps replicas apart
        self._lost()

    async def _post(self, session: aiohttp.ClientSession, message: str, body: bytes) -> int:
        """The status of the answer; 0 when there is none. The answer's body is not read."""
        signed = headers(self._secret, message, int(self._clock()), body)
        try:
            response = await session.post(self._url, data=body, headers=signed, allow_redirects=False)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return 0
        response.close()
        return response.status

    async def close(self) -> None:
        """See ``telemetry.port.Listener``."""
        self._closing = True
        self._more.set()
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._task, LAST_SECONDS)
        for _ in range(len(self._waiting)):
            self._lost()
        self._waiting.clear()


def _secret(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            text = file.read(MOST_SECRET_BYTES + 1)
    except OSError as error:
        raise InputError(f"the secret {path} cannot be read: {error.strerror}", remedy="mend it.") from error
    return secret_of(text.decode("ascii", "replace"))


__all__ = ["Webhook"]
