"""Requests to a server over one kept connection, sent again where that may help.

Only this machine is asked unless remote hosts are allowed, redirects are not followed, and the address that was
checked is the one that is connected to. What is sent again after a failure is counted like any other query: the
server may have answered it.
"""

from __future__ import annotations

import email.utils
import http.client
import io
import ipaddress
import math
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bartizan.adapters.http_target.endpoint import Endpoint
from bartizan.core.errors import InputError, WorkError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_ANSWER_BYTES = 64 << 20
MAX_WORDS = 200
"""Characters of a server's own words that an error repeats."""
RETRIED = frozenset({502, 503, 504})
"""Statuses after which a request is sent again: somebody on the way failed."""
LIMITED = 429
MAX_PAUSE = 300.0
FIRST_PAUSE = 0.2
"""Seconds before a request is sent for the second time; the shortest pause doubles each time after that."""


class Wire:
    """Requests over one kept connection, sent again where that may help."""

    def __init__(self, endpoint: Endpoint, sleep: Callable[[float], None]) -> None:
        parts = urlsplit(endpoint.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            raise InputError(f"{endpoint.url[:200]!r} is no address of a model", remedy="give http://HOST:PORT/PATH.")
        self.path = parts.path.rstrip("/") or "/"
        self._query = f"?{parts.query}" if parts.query else ""
        if not re.fullmatch(r"[!-~]+", self.path + self._query):
            raise InputError(
                f"{endpoint.url[:200]!r} holds letters that no address may", remedy="write them as %20 and the like."
            )
        self._endpoint, self._sleep = endpoint, sleep
        self._host, self._secure = parts.hostname, parts.scheme == "https"
        try:
            self._port = parts.port or (443 if self._secure else 80)
        except ValueError as error:
            raise InputError(f"{endpoint.url[:200]!r}: {error}") from error
        self._address = _address(self._host, self._port, allow_remote=endpoint.allow_remote)
        self._connection: http.client.HTTPConnection | None = None
        self._timed: Any = None

    def exchange(self, method: str, path: str, body: bytes, charge: Callable[[bool], None]) -> bytes:
        """Send a request until it is answered, and charge it each time.

        Raises:
            WorkError: there is no answer, or it is a refusal.
        """
        waited, failures, limited, again = 0.0, 0, 0, False
        while True:
            charge(again)
            again = True
            try:
                status, headers, data = self._once(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                failures += 1
                if failures > self._endpoint.retries:
                    raise WorkError(
                        f"{self._endpoint.url} does not answer ({failures} attempts): {_reason(error)}",
                        remedy="see that the server runs, or give it more time.",
                    ) from error
                self._sleep(_growing(failures))
                continue
            if status == http.HTTPStatus.OK:
                return data
            if status == LIMITED:
                limited += 1
                pause = max(_pause(headers), _growing(limited))
                waited += pause
                if waited > self._endpoint.patience:
                    raise WorkError(
                        f"{self._endpoint.url} lets this role ask again in {pause:g} s only ({limited} times refused)",
                        remedy="come back later, or ask with a role that may ask more often.",
                    )
                self._sleep(pause)
                continue
            failures += 1
            if status not in RETRIED or failures > self._endpoint.retries:
                raise WorkError(
                    f"{self._endpoint.url} refuses with status {status}: {words(data)}",
                    remedy="see that address, protocol and features are those of the served model.",
                )
            self._sleep(_growing(failures))

    def _once(self, method: str, path: str, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        deadline = time.monotonic() + self._endpoint.seconds
        connection = self._connected(deadline)
        headers = {"Content-Type": "application/json", "Accept": "application/json", **self._endpoint.headers}
        connection.request(method, path + self._query, body or None, headers)
        response = connection.getresponse()
        data = response.read(MAX_ANSWER_BYTES + 1)
        if len(data) > MAX_ANSWER_BYTES:
            self.close()
            raise WorkError(f"{self._endpoint.url} answers with more than {MAX_ANSWER_BYTES} bytes")
        if response.will_close:
            self.close()
        return response.status, {key.lower(): value for key, value in response.getheaders()}, data

    def _connected(self, deadline: float) -> http.client.HTTPConnection:
        if self._connection is None:
            made = http.client.HTTPConnection(self._host, self._port, timeout=self._endpoint.seconds)
            raw = socket.create_connection(self._address, timeout=_left(deadline))
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._secure:
                raw.settimeout(_left(deadline))
                raw = ssl.create_default_context().wrap_socket(raw, server_hostname=self._host)
            self._timed = _Timed(raw)
            made.sock = self._timed
            self._connection = made
        self._timed.deadline = deadline
        return self._connection

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Timed:
    """A socket whose reading and writing together end at one deadline, not each by itself."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self.deadline = math.inf

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        left = memoryview(data)
        while left:
            self._raw.settimeout(_left(self.deadline))
            left = left[self._raw.send(left) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        """A stream to read the answer from; it keeps the socket open until it is closed itself."""
        del mode
        return io.BufferedReader(_Stream(self._raw, self))

    def close(self) -> None:
        """Let go of the socket once no stream reads from it."""
        self._raw.close()


class _Stream(io.RawIOBase):
    """Bytes from a socket, for as long as its deadline lets them come."""

    def __init__(self, raw: socket.socket, timed: _Timed) -> None:
        self._socket, self._timed = raw, timed
        self._bytes = raw.makefile("rb", buffering=0)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Read what is there. Raises TimeoutError at the deadline."""
        self._socket.settimeout(_left(self._timed.deadline))
        return self._bytes.readinto(buffer)

    def close(self) -> None:
        """Let go of the socket."""
        self._bytes.close()
        super().close()


def _left(deadline: float) -> float:
    """Seconds until a deadline. Raises TimeoutError when it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the answer takes longer than a request may")
    return left


def _growing(times: int) -> float:
    """Shortest pause in seconds after so many failures or refusals."""
    return min(FIRST_PAUSE * 2.0 ** (times - 1), MAX_PAUSE)


def _address(host: str, port: int, *, allow_remote: bool) -> tuple[str, int]:
    """The address to connect to. Raises InputError when the host is remote without leave or unknown."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InputError(f"no host is called {host[:100]!r}: {error}", remedy="mend the address.") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not allow_remote and not all(ipaddress.ip_address(each.partition("%")[0]).is_loopback for each in addresses):
        raise InputError(
            f"{host} is another machine, and attacks ask this one only",
            remedy="if its owner agreed to be attacked, say so: --allow-remote.",
        )
    return addresses[0], port


def _pause(headers: Mapping[str, str]) -> float:
    """Seconds until a server may be asked again, as it says; one second when it does not."""
    for name in ("retry-after", "ratelimit-reset", "x-ratelimit-reset"):
        text = headers.get(name, "").strip()
        if not text:
            continue
        try:
            seconds = float(text)
        except ValueError:
            moment = email.utils.parsedate_to_datetime(text) if name == "retry-after" and _is_date(text) else None
            seconds = moment.timestamp() - time.time() if moment else 1.0
        if seconds > 1e9:  # noqa: PLR2004 - a time of day instead of a span
            seconds -= time.time()
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), MAX_PAUSE)
    return 1.0


def _is_date(text: str) -> bool:
    return email.utils.parsedate_tz(text) is not None


def words(data: bytes) -> str:
    """The beginning of somebody else's words, safe to show."""
    text = data[:MAX_WORDS].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else " " for letter in text) or "nothing"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
