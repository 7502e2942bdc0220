"""The gateway's data plane: a plain ASGI application (https://asgi.readthedocs.io, HTTP).

Each request has a route, and each route an operation that whoever asks must be granted; what is left over is
refused. Whatever comes in is bounded in size and time. Every request but those of open routes is recorded before it
is answered. No answer shows a traceback (CWE-209) or says which protection refused it, and why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from bartizan.core.digest import Digest
from bartizan.core.errors import StoreError
from bartizan.lifecycle.deploy.gateway import asgi
from bartizan.lifecycle.deploy.gateway.asgi import Reply, Scope, reply
from bartizan.lifecycle.deploy.gateway.budgets.refusal import slowed
from bartizan.lifecycle.deploy.gateway.caller import Showing
from bartizan.lifecycle.deploy.gateway.exchange import Exchange
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.front import Front, Granted
from bartizan.lifecycle.deploy.gateway.identity.refusal import FactorError, Unready
from bartizan.lifecycle.deploy.gateway.pipeline import BrokenGuardError
from bartizan.lifecycle.deploy.gateway.routes import OPEN, Route, Table
from bartizan.lifecycle.deploy.gateway.turns import Company, Step, Turnstile
from bartizan.lifecycle.deploy.gateway.upstream.relay import relay

DIGEST_HEADER = "bartizan-model-digest"
REQUEST_HEADER = "bartizan-request"
MOST_AT_ONCE = 512
"""Requests that are read or answered at the same time; more are told to come again."""
MOST_OF_ONE = 64
"""Of one caller."""
IN_STEP = frozenset({"infer", "predict"})
"""Handlers that say so before they wait for anything but their company. The others are tasks, as everywhere."""
OK = 200
NOT_NOW = "not now"
MISTAKE = "the gateway made a mistake; its log says which"
ELSEWHERE = "there is nothing here; begin with GET /v2"
_LOG = logging.getLogger("bartizan.gateway")


class Used(Protocol):
    """What is not closed while somebody uses it."""

    busy: int


class Call:
    """One request on its way through the application."""

    __slots__ = (
        "_company",
        "_turnstile",
        "_used",
        "exchange",
        "front",
        "granted",
        "headers",
        "lane",
        "receive",
        "route",
        "scope",
        "values",
    )

    def __init__(self, scope: Scope, receive: asgi.Receive, found: Found, front: Front, turnstile: Turnstile) -> None:
        self.scope, self.receive, self.front = scope, receive, front
        self.route, self.values = found
        self.headers: Mapping[bytes, bytes] = {}
        self.exchange = Exchange(self.route.operation, front.configuration)
        self.granted: Granted | None = None
        self.lane: Any = None
        """The model that it is about, as whoever answers sees it."""
        self._turnstile = turnstile
        self._company: Company | None = None
        self._used: list[Used] = []

    async def join(self) -> None:
        """Go on together with those that come at the same time. See ``turns``."""
        self._company = await self._turnstile.join()

    async def walk(self, steps: Sequence[Step], subject: object) -> None:
        """Take steps together with those that are as far. See ``turns``."""
        await self._turnstile.walk(steps, subject)

    @property
    def is_led(self) -> bool:
        """Whether it came as a whole, and goes on with others without being a task. See ``turns``."""
        return self._turnstile.leads

    async def apart(self) -> None:
        """Wait for something that the others have nothing to do with: nobody need wait for this call."""
        self.leave()
        await self._turnstile.apart()

    def leave(self) -> None:
        """Be through: nobody need wait for this call. Harmless when it was said before."""
        company, self._company = self._company, None
        if company is not None:
            self._turnstile.leave(company)

    def use(self, served: Used) -> None:
        """Have something stay open until this call has ended."""
        served.busy += 1
        self._used.append(served)

    def end(self) -> None:
        """Nothing is needed any longer."""
        self.leave()
        for served in self._used:
            served.busy -= 1
        self._used.clear()


Found = tuple[Route, tuple[str, ...]]
Handler = Callable[[Call], Awaitable[Reply]]


class Application:
    """Finds the route, recognises and admits whoever asks, lets a handler answer, records, and sends.

    ``front`` gives what is in force; ``handlers`` answer, by the names that routes have; ``model_of`` gives the
    name of the model that a call is about, and its digest, whether there is such a model or not: who may not ask must
    not learn it.
    """

    def __init__(
        self,
        front: Callable[[], Front],
        handlers: Mapping[str, Handler],
        model_of: Callable[[Call], tuple[str, Digest]],
        table: Table | None = None,
    ) -> None:
        self._front, self._handlers, self._model_of = front, handlers, model_of
        self._table = table or Table()
        self._turnstile = Turnstile()
        self.begin, self.through = self._turnstile.begin, self._turnstile.through
        """For a server that need not make a task of each request. See ``turns``."""
        self._busy = 0
        self._busy_of: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """Answer one request; connections that are no HTTP are closed."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1003})
            return
        found = self._table.find(scope["method"], scope["path"])
        if isinstance(found, set):
            await asgi.answer(send, _no_route(found), [])
            return
        call = Call(scope, receive, found, self._front(), self._turnstile)
        if call.route.handler not in IN_STEP:
            await call.apart()
        if call.route.operation == OPEN:
            await asgi.answer(send, await self._openly(call), [])
            return
        try:
            given = await self._kept(call, await self._recorded(call))
        finally:
            call.end()
        headers = [(b"bartizan-request", call.exchange.id.encode())]
        if call.exchange.digest and given.status == OK:
            headers.append((b"bartizan-model-digest", b"sha256:" + call.exchange.digest.encode()))
        if given.stream is None:
            await asgi.answer(send, given, headers, scope.get(asgi.WHOLE))
        else:
            await self._streamed(call, given, send, headers)

    async def _streamed(self, call: Call, given: Reply, send: asgi.Send, headers: asgi.RawHeaders) -> None:
        """Send a stream, and record how it ended: that it began is on record already."""
        try:
            await relay(given.stream, call.receive, send, headers=headers)
        finally:
            exchange = call.exchange
            exchange.operation, exchange.rows = f"{exchange.operation}.end", int(given.stream.usage.total)
            exchange.reason = str(given.stream.ended or "left")
            await self._kept(call, reply(given.status, None))

    async def _openly(self, call: Call) -> Reply:
        try:
            return await self._handlers[call.route.handler](call)
        except RequestError as error:
            return failed(error)
        except Exception:  # noqa: BLE001 - nobody outside may see what went wrong inside
            _LOG.exception("a request could not be answered")
            return reply(500, {"error": MISTAKE})

    async def _recorded(self, call: Call) -> Reply:
        """The answer, or what is told in its place; the exchange knows why."""
        exchange = call.exchange
        try:
            return await self._answered(call)
        except RequestError as error:
            exchange.refused(error)
            return failed(error)
        except BrokenGuardError as error:
            exchange.refused(RequestError(500, MISTAKE, reason=str(error)))
            return reply(500, {"error": MISTAKE})
        except StoreError as error:
            _LOG.error("%s", error.message)
            exchange.refused(RequestError(503, NOT_NOW, reason=error.message))
            return reply(503, {"error": NOT_NOW}, {"retry-after": "1"})
        except Exception as error:  # noqa: BLE001 - nobody outside may see what went wrong inside
            _LOG.exception("request %s could not be answered", exchange.id)
            exchange.refused(RequestError(500, MISTAKE, reason=type(error).__name__))
            return reply(500, {"error": MISTAKE})

    async def _kept(self, call: Call, given: Reply) -> Reply:
        """The answer, once it is on record; nothing is answered that could not be recorded."""
        front, exchange = call.front, call.exchange
        try:
            if given.stream is None:
                exchange.output = front.log.keyed(given.body)
            record = exchange.record(given.status)
            waiting = front.log.append(record, exchange.body)
            if waiting is not None:
                await waiting
            call.leave()
        except StoreError as error:
            _LOG.error("%s", error.message)
            if given.stream is not None:
                await given.stream.aclose()
            return reply(503, {"error": NOT_NOW}, {"retry-after": "1"})
        for watcher in front.watchers:
            watcher.observed(record)
        if call.granted is not None and call.granted.role.pad_milliseconds:
            # answers and refusals alike, the wait for the record included: their time tells little
            await asyncio.sleep(call.granted.role.wait(exchange.microseconds / 1e6))
        return given

    async def _answered(self, call: Call) -> Reply:
        exchange, front, scope = call.exchange, call.front, call.scope
        showing = _showing(scope)
        call.headers = showing.headers
        try:
            caller = front.callers.recognise(showing, exchange.now)
        except Unready:
            await call.apart()
            caller = await front.callers.again(showing, exchange.now)
        exchange.caller = caller
        if front.pacing is not None:
            found = front.pacing.admit(caller)
            if not isinstance(found, float):
                await call.apart()
                found = await found
            if found:
                raise slowed(found)
        exchange.model, digest = self._model_of(call)
        try:
            granted = front.policy.decide(caller, call.route.operation, exchange.model, digest)
        except FactorError as error:
            granted = await self._confirmed(call, showing, digest, error)
        call.granted = granted
        self._enter(caller.id)
        try:
            return await self._handlers[call.route.handler](call)
        finally:
            self._leave(caller.id)

    async def _confirmed(self, call: Call, showing: Showing, digest: Digest, error: FactorError) -> Granted:
        """What is granted to a caller who shows a second factor."""
        front, exchange = call.front, call.exchange
        if front.factors is None:
            raise error
        await call.apart()
        caller = await front.factors.confirm(exchange.caller, showing, exchange.now, fresh=error.fresh)
        exchange.caller = caller
        return front.policy.decide(caller, call.route.operation, exchange.model, digest)

    def _enter(self, caller: str) -> None:
        if self._busy >= MOST_AT_ONCE or self._busy_of.get(caller, 0) >= MOST_OF_ONE:
            raise RequestError(503, "too many requests at once", headers={"retry-after": "1"})
        self._busy += 1
        self._busy_of[caller] = self._busy_of.get(caller, 0) + 1

    def _leave(self, caller: str) -> None:
        self._busy -= 1
        left = self._busy_of[caller] - 1
        if left:
            self._busy_of[caller] = left
        else:
            del self._busy_of[caller]


def failed(error: RequestError) -> Reply:
    """What a client is told of a failure."""
    return reply(error.status, {"error": error.message}, error.headers)


def _no_route(methods: set[str]) -> Reply:
    if not methods:
        return reply(404, {"error": ELSEWHERE})
    allowed = ", ".join(sorted(methods))
    return reply(405, {"error": f"only {allowed} is answered here"}, {"allow": allowed})


def _showing(scope: Scope) -> Showing:
    """What a request shows, made once for a head that comes again on a connection.

    Raises:
        RequestError: see ``asgi.fields``.
    """
    again: dict[str, Any] | None = scope.get(asgi.AGAIN)
    known: Showing | None = again.get("showing") if again is not None else None
    if known is None:
        headers, client = asgi.fields(scope), scope.get("client")
        known = Showing(headers, client[0] if client else "", _certificate(scope))
        if again is not None:
            again["showing"] = known
    return known


def _certificate(scope: Scope) -> str:
    """The client's certificate, where the server shows it (ASGI's TLS extension)."""
    extensions: dict[str, Any] | None = scope.get("extensions")
    tls = extensions.get("tls") if extensions else None
    chain = tls.get("client_cert_chain") if tls else None
    return str(next(iter(chain))) if chain else ""


__all__ = ["DIGEST_HEADER", "REQUEST_HEADER", "Application", "Call", "Handler", "failed"]
