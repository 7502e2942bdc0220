"""The gateway's data plane: a plain ASGI application (https://asgi.readthedocs.io, HTTP).

Whatever comes in is bounded in size and time. Every answer is JSON, but for the notice to users, which
is a page, and names the digest of the model in the header ``bartizan-model-digest``; no answer shows a
traceback (CWE-209).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import msgspec

from bartizan import __version__
from bartizan.core.errors import SandboxError, WorkError
from bartizan.lifecycle.deploy.gateway import protocol
from bartizan.lifecycle.deploy.gateway.passes import may_explain
from bartizan.lifecycle.deploy.gateway.protocol import MAX_BODY_BYTES, Question, RequestError
from bartizan.lifecycle.deploy.gateway.schedule import Door, Served

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Ask = Callable[[Served, Question], dict[str, Any]]

MAX_WAITING = 32
"""Requests that are read or answered at the same time; more are told to come again."""
BODY_SECONDS = 10.0
"""Time in which a request has to be here."""
FORGIVEN = 4
"""So many times the largest body is read to its end before it is refused; more is cut off."""
MAX_PATH = 512
DIGEST_HEADER = "bartizan-model-digest"
NOTICE_HEADER = "bartizan-notice-digest"
PAGE_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
}
_LOG = logging.getLogger("bartizan.gateway")


class Reply(msgspec.Struct, frozen=True):
    """An answer before it is bytes."""

    status: int
    content: Any
    """JSON, or bytes that are sent as they are."""
    headers: dict[str, str] = {}


class Application:
    """Routes requests to the door. ``model`` is the thread on which the model is asked."""

    def __init__(
        self,
        door: Door,
        name: str,
        model: ThreadPoolExecutor,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._door, self._name, self._model, self._clock = door, name, model, clock
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; connections that are no HTTP are closed."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1003})
            return
        try:
            reply = await self._answer(scope, receive)
        except RequestError as error:
            reply = Reply(error.status, {"error": error.message}, error.headers)
        except Exception:  # noqa: BLE001 - nobody outside may see what went wrong inside
            _LOG.exception("a request could not be answered")
            reply = Reply(500, {"error": "the gateway made a mistake; its log says which"})
        await self._send(reply, send)

    async def _send(self, reply: Reply, send: Send) -> None:
        body = reply.content if isinstance(reply.content, bytes) else msgspec.json.encode(reply.content)
        digest = self._door.digest
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            DIGEST_HEADER: f"sha256:{digest}" if digest else "unknown",
            **reply.headers,
        }
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        path = str(scope["path"])
        parts = path.strip("/").split("/") if len(path) <= MAX_PATH else []
        match parts:
            case ["v2"]:
                return self._get(scope, self._server)
            case ["notice" | "notice.md" | "notice.json" as form]:
                return self._get(scope, lambda: self._notice(form))
            case ["v2", "health", "live"]:
                return self._get(scope, lambda: Reply(200, {"live": True}))
            case ["v2", "health", "ready"]:
                return self._get(scope, self._ready)
            case ["v2", "models", name, *rest] if name == self._name:
                return await self._of_model(scope, receive, rest)
            case ["v2", "models", _, *_]:
                raise RequestError(404, f"the only model here is {self._name}")
        raise RequestError(404, "there is nothing here; begin with GET /v2")

    async def _of_model(self, scope: Scope, receive: Receive, rest: list[str]) -> Reply:
        match rest:
            case ["versions", version, *more]:
                if version.removeprefix("sha256:") != self._door.digest:
                    raise RequestError(404, "this version of the model is not here")
                rest = more
        match rest:
            case []:
                return self._get(scope, lambda: Reply(200, protocol.metadata(self._served().description)))
            case ["ready"]:
                return self._get(scope, self._ready)
            case ["infer"]:
                _allow(scope, "POST")
                return await self._infer(scope, receive)
            case ["explain"]:
                _allow(scope, "POST")
                return await self._explain(scope, receive)
        raise RequestError(404, f"there is nothing here; begin with GET /v2/models/{self._name}")

    def _get(self, scope: Scope, answer: Callable[[], Reply]) -> Reply:
        _allow(scope, "GET")
        return answer()

    def _server(self) -> Reply:
        return Reply(200, {"name": "bartizan", "version": __version__, "extensions": [], "models": [self._name]})

    def _ready(self) -> Reply:
        reason, digest = self._door.reason, self._door.digest
        content = {"name": self._name, "ready": not reason, "version": digest or ""}
        return Reply(503 if reason else 200, content | ({"error": reason} if reason else {}))

    def _notice(self, form: str) -> Reply:
        """What users are told; open to everybody who can reach the gateway."""
        told = self._door.admission.told
        if told is None:
            raise RequestError(404, "no notice to users: none is declared, or the model's card does not stand")
        headers = {NOTICE_HEADER: f"sha256:{told.digest}"}
        match form:
            case "notice.json":
                return Reply(200, told.plain, headers)
            case "notice.md":
                return Reply(200, told.markdown.encode(), headers | {"content-type": "text/markdown; charset=utf-8"})
        return Reply(200, told.html.encode(), headers | PAGE_HEADERS)

    def _served(self) -> Served:
        served = self._door.served
        if served is None:
            raise _out(self._door.reason)
        return served

    async def _infer(self, scope: Scope, receive: Receive) -> Reply:
        served, question, given = await self._asked(scope, receive, Served.ask)
        told = self._door.admission.told
        beside = {"parameters": {**told.beside, "notice": "/notice"}} if told else {}
        return Reply(200, protocol.write(question, given, served.description) | beside)

    async def _explain(self, scope: Scope, receive: Receive) -> Reply:
        """Why the model answers so, for whoever shows a pass of a role that is granted it."""
        description = self._served().description
        may_explain(_headers(scope), self._door.admission.grants, description.digest, self._clock())
        served, _, given = await self._asked(scope, receive, Served.explain)
        named = {"model_name": served.description.name, "model_version": served.description.digest}
        return Reply(200, named | given)

    async def _asked(self, scope: Scope, receive: Receive, ask: Ask) -> tuple[Served, Question, dict[str, Any]]:
        """Read one question, put it to the model, and see that the model may still answer."""
        self._served()
        if self._waiting >= MAX_WAITING:
            raise RequestError(503, "too many requests at once", headers={"retry-after": "1"})
        self._waiting += 1
        try:
            body = await _body(scope, receive)
            served = self._served()
            question = protocol.read(body, served.description)
            given = await self._given(served, question, ask)
        finally:
            self._waiting -= 1
        if served.withdrawn or self._door.served is not served:
            raise _out(self._door.reason)
        return served, question, given

    async def _given(self, served: Served, question: Question, ask: Ask) -> dict[str, Any]:
        """The model's answer; a model whose process failed is out until it was verified and opened anew."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._model, self._ask, served, question, ask)
        except SandboxError as error:
            _LOG.error("%s", error.message)
            self._door.take_out(served, error.message)
            raise _out(error.message) from error
        except WorkError as error:
            _LOG.warning("%s", error.message)
            raise RequestError(422, "the model cannot answer these rows") from error

    def _ask(self, served: Served, question: Question, ask: Ask) -> dict[str, Any]:
        """On the model's thread. What was withdrawn while the request waited is not asked any more."""
        if served.withdrawn:
            raise _out(self._door.reason)
        return ask(served, question)


def _allow(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise RequestError(405, f"only {method} is answered here", headers={"allow": method})


def _out(reason: str) -> RequestError:
    return RequestError(503, f"the model is not in service: {reason or 'it is being opened anew'}")


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return {bytes(name).lower(): bytes(value) for name, value in scope["headers"]}


async def _body(scope: Scope, receive: Receive) -> bytes:
    headers = _headers(scope)
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json" or b"inference-header-content-length" in headers:
        raise RequestError(415, "requests are application/json; binary tensors are not taken")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise RequestError(415, "compressed requests are not taken")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _collected(receive)
    except TimeoutError as error:
        raise RequestError(408, f"the request was not here within {BODY_SECONDS:g} seconds") from error


async def _collected(receive: Receive) -> bytes:
    """The whole body. One that is too large is let in and forgotten up to a bound, so that its sender hears why."""
    body, size = bytearray(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "the request ended early")
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size <= MAX_BODY_BYTES:
            body += part
        elif not more or size > FORGIVEN * MAX_BODY_BYTES:
            raise RequestError(413, f"a request has at most {MAX_BODY_BYTES} bytes", headers={"connection": "close"})
        if not more:
            return bytes(body)


__all__ = ["DIGEST_HEADER", "Application"]
