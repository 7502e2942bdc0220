"""Shared state in Valkey (https://valkey.io), for several replicas, over a unix socket or TLS.

Time is the server's. A server clock that goes back stands still for every allowance; one that leaps ahead is not
followed further than this replica's own steady clock says that time has passed. A server that lost its memory is
noticed by the replicas that knew it: they refuse rather than fill every allowance up.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from valkey.asyncio import BlockingConnectionPool, Valkey
from valkey.asyncio.retry import Retry
from valkey.backoff import NoBackoff
from valkey.exceptions import AuthenticationError, NoPermissionError, ValkeyError
from valkey.exceptions import ConnectionError as ConnectionLostError

from bartizan.core.errors import InputError, StoreError
from bartizan.lifecycle.deploy.gateway.state import Lease
from bartizan.stores.shared.allowance import LEASE_MICROSECONDS, MILLION, Drawn, Wanted
from bartizan.stores.shared.memory import dated, small
from bartizan.stores.shared.scripts import COUNT, DRAW, GIVE_BACK

PREFIX = "bartizan:"
"""Of every key and topic; a server may be lent to others with access control by it."""
SECONDS = 1.0
"""That one call may take."""
CONNECTIONS = 16
SLACK_MICROSECONDS = 5 * MILLION
"""How far the server's clock may run ahead of ours, besides one part in a thousand."""
AGAIN_SECONDS = 1.0
"""Between two attempts to hear news."""
TOPIC_BYTES = 16
"""Mark of the replica in front of its news, so that it does not hear itself."""
LOST = -2
_LOG = logging.getLogger("bartizan.gateway")
_REACH = "make sure that the server runs and can be reached, and that the login is right."
_Calls = Callable[[], Awaitable[Any]]


class ValkeyState:
    """See ``SharedState``. Nothing is connected before the first call."""

    def __init__(
        self,
        location: str,
        *,
        password: str = "",
        ca_file: str = "",
        seconds: float = SECONDS,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        pool = BlockingConnectionPool.from_url(
            _checked(location),
            max_connections=CONNECTIONS,
            timeout=seconds,
            socket_timeout=seconds,
            # Once, for a connection that the server closed meanwhile. What was taken twice is never given twice.
            retry=Retry(NoBackoff(), 1),
            retry_on_error=[ConnectionLostError],
            **({} if location.startswith("unix:") else {"socket_connect_timeout": seconds}),
            **({"password": password} if password else {}),
            **_tls(location, ca_file),
        )
        self._client: Any = Valkey(connection_pool=pool)
        self._steady, self._seconds = steady, seconds
        self._draw, self._return, self._count = (
            self._client.register_script(script) for script in (DRAW, GIVE_BACK, COUNT)
        )
        self._born = b""
        """What this server said of itself when it was first met; it forgets that when it forgets allowances."""
        self._met = (0, 0.0)
        """Microseconds by the server and seconds by us, at one moment."""
        self._meeting = asyncio.Lock()
        self._name = secrets.token_bytes(TOPIC_BYTES)
        self._heard: dict[bytes, list[Callable[[bytes], None]]] = {}
        self._hearing: tuple[bytes, ...] = ()
        """Topics that the listener hears."""
        self._listener: asyncio.Task[None] | None = None

    # ---- allowances

    async def lease(
        self, key: str, units: int, *, limit: int, window: float, now: float, burst: int = 0, least: int = 1
    ) -> Lease:
        """See ``SharedState``."""
        wanted = Wanted(units=units, least=least, limit=limit, window=round(window * MILLION), burst=burst)
        drawn, moment = await self._drawn(key, wanted)
        return dated(drawn, now - moment / MILLION)

    async def charge(self, key: str, units: int, *, limit: int, window: float, burst: int = 0) -> None:
        """See ``SharedState``."""
        wanted = Wanted(units=units, least=0, limit=limit, window=round(window * MILLION), burst=burst, force=True)
        await self._drawn(key, wanted)

    async def _drawn(self, key: str, wanted: Wanted) -> tuple[Drawn, int]:
        """What the server grants, and the moment at which it did so by its clock."""
        await self._meet()
        numbers = (wanted.units, wanted.least, wanted.limit, wanted.window, wanted.burst, int(wanted.force))
        arguments = (self._born, *numbers, self._ceiling(), LEASE_MICROSECONDS)
        keys = (f"{PREFIX}born", PREFIX + key)
        answer = await self._asked(lambda: self._draw(keys=keys, args=arguments))
        granted, until, resets, left, mark, moment = map(int, answer)
        if granted == LOST:
            raise StoreError(
                "the server of the shared state has lost what it knew, and with it what was spent",
                remedy="restore it from its backup, or start the gateway anew to begin with full budgets; let the "
                "server keep its data on disk (appendonly yes).",
            )
        return Drawn(granted, until, resets, left, mark), moment

    def _ceiling(self) -> int:
        """The latest moment that the server can truthfully say it is."""
        passed = (self._steady() - self._met[1]) * MILLION
        return round(self._met[0] + passed * 1.001) + SLACK_MICROSECONDS

    async def give_back(self, key: str, lease: Lease, unspent: int) -> None:
        """See ``SharedState``."""
        if unspent > 0:
            await self._asked(lambda: self._return(keys=[PREFIX + key], args=[lease.mark, unspent]))

    async def keys(self, prefix: str, most: int) -> list[str]:
        """See ``SharedState``."""
        pattern = f"{PREFIX}{_escaped(prefix)}*"
        found: set[str] = set()
        cursor = 0
        while True:
            place = cursor
            cursor, names = await self._asked(lambda: self._client.scan(place, match=pattern, count=1000))  # noqa: B023
            found.update(name.decode(errors="replace").removeprefix(PREFIX) for name in names)
            if not cursor:
                return sorted(found)[:most]

    async def forget(self, key: str) -> bool:
        """See ``SharedState``."""
        return bool(await self._asked(lambda: self._client.delete(PREFIX + key)))

    # ---- facts

    async def count(self, key: str, by: int, *, lasts: float) -> int:
        """See ``SharedState``."""
        arguments = [by, max(1, round(lasts * 1000))]
        return int(await self._asked(lambda: self._count(keys=[f"{PREFIX}count:{key}"], args=arguments)))

    async def remember(self, key: str, value: bytes, *, lasts: float) -> None:
        """See ``SharedState``."""
        small(value)
        milliseconds = max(1, round(lasts * 1000))
        await self._asked(lambda: self._client.set(f"{PREFIX}fact:{key}", value, px=milliseconds))

    async def recall(self, key: str) -> bytes | None:
        """See ``SharedState``."""
        found = await self._asked(lambda: self._client.get(f"{PREFIX}fact:{key}"))
        return None if found is None else bytes(found)

    # ---- news

    async def publish(self, topic: str, news: bytes) -> None:
        """See ``SharedState``."""
        await self._asked(lambda: self._client.publish(f"{PREFIX}news:{topic}", self._name + news))

    def subscribe(self, topic: str, heard: Callable[[bytes], None]) -> None:
        """See ``SharedState``."""
        self._heard.setdefault(f"{PREFIX}news:{topic}".encode(), []).append(heard)
        with contextlib.suppress(RuntimeError):  # another thread has no loop; the next call listens
            self._listen()

    def _listen(self) -> None:
        """Hear everything that is subscribed to by now."""
        loop, topics, listener = asyncio.get_running_loop(), tuple(self._heard), self._listener
        if not topics or (listener is not None and not listener.done() and topics == self._hearing):
            return
        if listener is not None:
            listener.cancel()
        self._hearing = topics
        self._listener = loop.create_task(self._hear(topics))

    async def _hear(self, topics: tuple[bytes, ...]) -> None:
        """Hear news for ever, through failures of the server."""
        while True:
            with contextlib.suppress(ValkeyError, OSError):
                async with self._client.pubsub() as heard:
                    await heard.subscribe(*topics)
                    while True:
                        message = await heard.get_message(ignore_subscribe_messages=True, timeout=SECONDS)
                        if message is not None:
                            self._tell(bytes(message["channel"]), bytes(message["data"]))
            await asyncio.sleep(AGAIN_SECONDS)

    def _tell(self, topic: bytes, data: bytes) -> None:
        if data.startswith(self._name):
            return
        for heard in self._heard.get(topic, ()):
            try:
                heard(data[TOPIC_BYTES:])
            except Exception:  # noqa: BLE001 - whoever listens must not stop the listening
                _LOG.exception("news of another replica could not be taken in")

    # ---- the server

    async def _meet(self) -> None:
        """Look at the server once: whether it may forget, who it is, and what time it has."""
        if not self._born:
            async with self._meeting:
                await self._look()

    async def _look(self) -> None:
        if not self._born:
            memory = await self._asked(lambda: self._client.info("memory"))
            if memory.get("maxmemory") and memory.get("maxmemory_policy") != "noeviction":
                raise StoreError(
                    "the server of the shared state throws away what does not fit, and with it what was spent",
                    remedy="set maxmemory-policy noeviction.",
                )
            await self._asked(lambda: self._client.set(f"{PREFIX}born", secrets.token_hex(16), nx=True))
            born = await self._asked(lambda: self._client.get(f"{PREFIX}born"))
            moment = await self._asked(self._client.time)
            self._met = (moment[0] * MILLION + moment[1], self._steady())
            self._born = bytes(born or b"")

    async def _asked(self, call: _Calls) -> Any:
        """What the server answers, in bounded time.

        Raises:
            StoreError: it does not.
        """
        self._listen()
        with _explained():
            async with asyncio.timeout(2 * self._seconds):
                return await call()

    async def close(self) -> None:
        """See ``SharedState``."""
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
        with contextlib.suppress(ValkeyError, OSError):
            await self._client.aclose(close_connection_pool=True)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What goes wrong with the server as an error without its address or login (CWE-532)."""
    try:
        yield
    except (AuthenticationError, NoPermissionError) as error:
        raise StoreError(
            "the server of the shared state refuses the login, or forbids its scripts", remedy=_REACH
        ) from error
    except TimeoutError as error:
        raise StoreError("the server of the shared state does not answer in time", remedy=_REACH) from error
    except (ValkeyError, OSError, ValueError) as error:
        kind = type(error).__name__
        raise StoreError(f"the server of the shared state is out of reach ({kind})", remedy=_REACH) from error


def _checked(location: str) -> str:
    """The address, when passwords and counts do not cross a network in the clear (CWE-319).

    Raises:
        InputError: they would, or it is no address.
    """
    parts = urlsplit(location)
    if parts.scheme == "unix":
        if not parts.path:
            raise InputError("the address of the shared state names no socket", remedy="write unix:///run/valkey.sock.")
        return location
    try:
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise InputError("the address of the shared state has no sound port") from error
    if not host or any(name.startswith("ssl") for name, _ in parse_qsl(parts.query)):
        raise InputError("the address of the shared state is none", remedy="write valkeys://HOST:PORT.")
    if parts.scheme in {"valkey", "redis"} and not _is_loopback(host):
        raise InputError(
            f"the shared state at {host} would be asked in the clear",
            remedy="write valkeys:// for TLS, or give the path of a unix socket.",
        )
    return location


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(location: str, ca_file: str) -> dict[str, Any]:
    """Settings of a TLS connection: the server's certificate is always verified."""
    if not location.startswith(("valkeys:", "rediss:")):
        return {}
    return {"ssl_cert_reqs": "required", "ssl_check_hostname": True} | ({"ssl_ca_certs": ca_file} if ca_file else {})


def _escaped(text: str) -> str:
    """Text without meaning as a pattern of Valkey."""
    return "".join(f"\\{letter}" if letter in "*?[]\\^-" else letter for letter in text)


__all__ = ["PREFIX", "ValkeyState"]
