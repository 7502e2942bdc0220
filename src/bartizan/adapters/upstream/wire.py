"""Requests to one declared server: pooled connections, deadlines, bounds, and nothing that leads elsewhere.

One ``aiohttp`` session an upstream, since its pool and parser are in C and cost a third of what httpx's do for a
request. It follows no redirects, keeps no cookies, reads no proxy settings or netrc from the environment, takes no
compressed answers (CWE-409), and sends no header that it was not told to send.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import msgspec
from yarl import URL

from bartizan.core.errors import InputError
from bartizan.lifecycle.deploy.gateway.upstream.circuit import Circuit
from bartizan.lifecycle.deploy.gateway.upstream.port import Kind, UpstreamError
from bartizan.lifecycle.deploy.gateway.upstream.settings import PRINTABLE, UpstreamSettings, address

MOST_KEY_BYTES = 8192
LOOKED_SECONDS = 5.0
"""How often the file with the credential is looked at."""
MOST_RETRY_AFTER = 300.0
OK, LIMITED, BROKEN = 200, 429, 500
KEPT_SECONDS = 15.0
"""How long an idle connection is kept; shorter than servers usually do, so that few are found closed."""


class Reply(msgspec.Struct, frozen=True):
    """A whole answer with status 200."""

    body: bytes
    headers: Mapping[str, str]


class Credential:
    """What is shown to the upstream, read from its file and again when the file changes."""

    def __init__(self, settings: UpstreamSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = Path(settings.key_file) if settings.key_file else None
        self._name, self._scheme, self._clock = settings.key_header.lower(), settings.key_scheme, clock
        self._headers: dict[str, str] = {}
        self._seen, self._looked = (0, 0), clock()
        if self._path is not None:
            self._read(self._path)

    def headers(self) -> dict[str, str]:
        """The header with the credential; empty when none is declared."""
        if self._path is not None and self._clock() - self._looked > LOOKED_SECONDS:
            self._looked = self._clock()
            with contextlib.suppress(OSError, InputError):  # while it is being replaced, the old one counts
                self._read(self._path)
        return self._headers

    def _read(self, path: Path) -> None:
        try:
            found = path.stat()
            if (seen := (found.st_mtime_ns, found.st_ino)) == self._seen:
                return
            with path.open("rb") as file:
                key = file.read(MOST_KEY_BYTES + 1).strip().decode("ascii", "replace")
        except OSError as error:
            raise InputError(f"the credential {path} cannot be read: {error.strerror}", remedy="mend it.") from error
        if not PRINTABLE.fullmatch(key) or len(key) > MOST_KEY_BYTES:
            raise InputError(f"{path} is no credential", remedy="put one line of printable characters into it.")
        self._seen = seen
        self._headers = {self._name: f"{self._scheme} {key}".strip()}


class Wire:
    """The connection to one upstream, behind its circuit breaker. Used on one event loop."""

    def __init__(self, settings: UpstreamSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises InputError: address, credential or certificates cannot be used."""
        parts = address(settings)
        self._base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._settings, self._credential = settings, Credential(settings, clock)
        self._tls = _tls(settings) if parts.scheme == "https" else None
        self.circuit = Circuit(settings.failures, settings.rest_seconds, clock)
        self._session: aiohttp.ClientSession | None = None
        self._asking = 0

    async def exchange(self, method: str, path: str) -> Reply:
        """Ask something that changes nothing, and read the whole answer.

        Raises:
            UpstreamError: there is no answer that can be used.
        """
        async with await self.open(method, path, repeatable=True) as opened:
            body = await opened.received()
            opened.done()
            return Reply(body, opened.headers)

    async def open(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        repeatable: bool,
    ) -> Opened:
        """Ask, and give the answer as soon as its head is here. Say ``done`` or ``failed`` of it, and close it.

        Without an answer it is asked again, all within one deadline: ``repeatable`` also when the upstream may have
        read the question, otherwise only while nothing of it was sent.

        Raises:
            UpstreamError: there is no answer, or it is a refusal.
        """
        settings = self._settings
        if self._asking >= settings.connections + settings.waiting:
            raise UpstreamError("busy", "too many requests wait for it", retry_after=1.0)
        deadline = asyncio.get_running_loop().time() + settings.total_seconds
        left = settings.retries
        while True:
            visit = _Visit(self)
            try:
                return await self._once(visit, (method, path, body, headers or {}), deadline)
            except UpstreamError as error:
                visit.over(error.kind)
                if left == 0 or error.kind != "unreachable" or not (repeatable or error.unsent):
                    raise
                left -= 1
            except BaseException:
                visit.over(undecided=True)
                raise

    async def _once(self, visit: _Visit, asked: tuple[str, str, bytes, Mapping[str, str]], deadline: float) -> Opened:
        method, path, body, headers = asked
        try:
            async with asyncio.timeout_at(min(deadline, self._first_byte())):
                response = await self._connected().request(
                    method,
                    URL(self._base + path, encoded=True),
                    data=body or None,
                    headers={**headers, **self._credential.headers(), "accept-encoding": "identity"},
                    allow_redirects=False,
                )
        except _FAILURES as error:
            raise _failure(error) from None
        try:
            _accept(response)
        except UpstreamError:
            response.close()
            raise
        return Opened(response, self._settings, visit, deadline)

    def _first_byte(self) -> float:
        settings = self._settings
        return asyncio.get_running_loop().time() + settings.connect_seconds + settings.first_byte_seconds

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            settings = self._settings
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=settings.connections, ssl=self._tls or True, keepalive_timeout=KEPT_SECONDS, ttl_dns_cache=60
                ),
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=settings.connect_seconds, sock_read=settings.first_byte_seconds
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("user-agent", "content-type", "accept"),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def entered(self, by: int) -> None:
        """Count requests on their way."""
        self._asking += by

    async def close(self) -> None:
        """Let go of all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class _Visit:
    """One request at the circuit breaker: it goes in once and comes out once."""

    def __init__(self, wire: Wire) -> None:
        self._probe = wire.circuit.enter()
        self._wire: Wire | None = wire
        wire.entered(1)

    def over(self, kind: Kind | None = None, *, undecided: bool = False) -> None:
        """It is over, for good or ill; what comes later does not count."""
        if self._wire is not None:
            self._wire.entered(-1)
            self._wire.circuit.leave(probe=self._probe, kind=kind, undecided=undecided)
            self._wire = None


class Opened:
    """An answer whose body is on its way."""

    def __init__(
        self, response: aiohttp.ClientResponse, settings: UpstreamSettings, visit: _Visit, deadline: float
    ) -> None:
        self._response, self._settings, self._visit, self._deadline = response, settings, visit, deadline
        self._size = 0
        self.headers: Mapping[str, str] = response.headers

    async def received(self) -> bytes:
        """The whole body. Raises UpstreamError: it breaks off, takes too long, or is too large."""
        if (self._response.content_length or 0) > self._settings.answer_bytes:
            raise self.failed("large", "its answer is too large")
        parts = []
        while block := await self.block():
            parts.append(block)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def block(self) -> bytes:
        """More of the body; empty at its end. Raises UpstreamError: it breaks off, takes too long, or is too large."""
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(self._deadline, now + self._settings.idle_seconds)):
                block = await self._response.content.readany()
        except _FAILURES as error:
            failure = _failure(error)
            raise self.failed(failure.kind, failure.message) from None
        self._size += len(block)
        if self._size > self._settings.answer_bytes:
            raise self.failed("large", "its answer is too large")
        return block

    def failed(self, kind: Kind, message: str) -> UpstreamError:
        """Note that the answer cannot be used; gives what to raise."""
        self._visit.over(kind)
        self._response.close()
        return UpstreamError(kind, message)

    def done(self) -> None:
        """The answer is whole and can be used."""
        self._visit.over()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it: the connection is used again when the whole answer was read, and shut otherwise."""
        self._visit.over(undecided=True)
        self._response.close()


_FAILURES = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
_UNTRUSTED = (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError)
_MEANING: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Kind, str, bool], ...] = (
    (_UNTRUSTED, "unreachable", "its certificate or TLS is not what is required", True),
    (aiohttp.ConnectionTimeoutError, "unreachable", "no connection in time", True),
    (TimeoutError, "late", "it takes longer than a request may", False),
    (aiohttp.ClientPayloadError, "wrong", "its answer broke off", False),
    ((aiohttp.ClientResponseError, ValueError), "wrong", "what it answers is no HTTP", False),
    (aiohttp.ClientConnectorError, "unreachable", "it cannot be connected to", True),
    (BaseException, "unreachable", "it closed the connection without an answer", False),
)
"""The first that fits counts: what it means, in which words, and whether nothing can have been sent."""


def _failure(error: BaseException) -> UpstreamError:
    """A failure of the library in our words; it never repeats what the upstream sent."""
    kind, message, unsent = next(meaning[1:] for meaning in _MEANING if isinstance(error, meaning[0]))
    return UpstreamError(kind, message, unsent=unsent)


def _accept(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status == LIMITED:
        raise UpstreamError("limited", "it is asked too often", retry_after=_retry_after(response.headers))
    if status >= BROKEN:
        raise UpstreamError("failed", f"it answers with status {status}")
    if status != OK:
        raise UpstreamError("refused", f"it answers with status {status}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise UpstreamError("wrong", "it compresses its answer although nobody asked for that")


def _retry_after(headers: Mapping[str, str]) -> float:
    said = headers.get("retry-after", "")
    return min(float(said), MOST_RETRY_AFTER) if said.isascii() and said.isdigit() and len(said) < 10 else 1.0  # noqa: PLR2004 - digits of a count


def _tls(settings: UpstreamSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.authority_file or None)
        if settings.certificate_file:
            context.load_cert_chain(settings.certificate_file, settings.certificate_key_file or None)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the certificates of upstream {settings.name!r} cannot be used: {error}", remedy="mend the files."
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


__all__ = ["Credential", "Opened", "Reply", "Wire"]
