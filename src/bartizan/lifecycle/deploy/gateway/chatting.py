"""Chats with upstreams: the same callers, roles, budgets and records as for models; nothing of what is said is kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from bartizan.core.digest import Digest
from bartizan.lifecycle.deploy.gateway import asgi
from bartizan.lifecycle.deploy.gateway.application import Call
from bartizan.lifecycle.deploy.gateway.asgi import Bodies, Reply, reply
from bartizan.lifecycle.deploy.gateway.budget import Cost, Denied
from bartizan.lifecycle.deploy.gateway.budgets.refusal import too_much
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.front import Granted
from bartizan.lifecycle.deploy.gateway.inquiry import granted
from bartizan.lifecycle.deploy.gateway.upstream import chat
from bartizan.lifecycle.deploy.gateway.upstream.chat import ChatAsked
from bartizan.lifecycle.deploy.gateway.upstream.port import ChatStream, Spend, UpstreamError, Usage
from bartizan.lifecycle.deploy.gateway.upstream.settings import UpstreamSettings


class Chatter(Protocol):
    """A chat model behind a server. ``adapters/upstream/chat.py`` has it."""

    async def complete(self, asked: ChatAsked) -> tuple[bytes, Usage]:
        """A whole answer as JSON, and what it cost. Raises UpstreamError."""

    async def stream(self, asked: ChatAsked, spend: Spend) -> ChatStream:
        """An answer in events. Raises UpstreamError."""

    async def close(self) -> None:
        """Let go of all connections."""


class Chats:
    """Answers the routes of chats. ``upstreams`` are those that speak it, by name."""

    def __init__(self, upstreams: Mapping[str, tuple[UpstreamSettings, Chatter]], bodies: Bodies) -> None:
        self._upstreams, self._bodies = dict(upstreams), bodies

    def handlers(self) -> Mapping[str, Callable[[Call], Awaitable[Reply]]]:
        """By the names that routes have."""
        return {"chat": self.chat, "chats": self.listed}

    async def listed(self, call: Call) -> Reply:
        """Upstreams that the role may chat with, as OpenAI's interface lists models."""
        names = [name for name in self._upstreams if self._granted(call, name) is not None]
        return reply(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]})

    async def chat(self, call: Call) -> Reply:
        """One chat, whole or streamed."""
        if call.headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != asgi.JSON:
            raise RequestError(415, "requests are application/json")
        body = await self._bodies.read(call.receive, call.headers.get(b"content-length", b""))
        exchange, name = call.exchange, chat.asked_for(body)
        exchange.model = name if name in self._upstreams else ""
        exchange.input = call.front.log.keyed(body)
        # whatever it turns out to be, it was a request of this caller about this model
        await self._spend(call, Cost(bytes=len(body)))
        self._settle(call, 0)
        settings, upstream = self._named(call, name)
        asked = chat.read(body, settings)
        # the most that it may cost is taken beforehand, or many chats at once would go beyond what is left together
        await self._spend(call, Cost(requests=0, tokens=asked.prompt_tokens + asked.answer_tokens))
        exchange.source, exchange.rows, total = "upstream", asked.prompt_tokens, asked.prompt_tokens
        try:
            if asked.stream:
                stream = await upstream.stream(asked, self._spender(call, asked.answer_tokens))
                total = asked.prompt_tokens + asked.answer_tokens
                return Reply(200, b"", stream=stream)
            written, usage = await upstream.complete(asked)
            total = usage.total
        except UpstreamError as error:
            raise error.as_request_error() from error
        finally:
            self._settle(call, total)
        exchange.rows = total
        return Reply(200, written)

    def _granted(self, call: Call, name: str) -> Granted | None:
        """What roles, policies and the credential grant for this upstream; None when nothing."""
        try:
            return call.front.policy.decide(call.exchange.caller, "chat", name, Digest(""))
        except RequestError:
            return None

    def _named(self, call: Call, name: str) -> tuple[UpstreamSettings, Chatter]:
        """The upstream of a name; one that the role may not chat with is not there."""
        given = self._granted(call, name) if name in self._upstreams else None
        if given is None:
            raise RequestError(404, "there is nothing here", reason="no such upstream, or it is not granted")
        call.granted = given
        return self._upstreams[name]

    async def _spend(self, call: Call, cost: Cost) -> None:
        denied = await self._taken(call, cost)
        if denied is not None:
            raise too_much(denied, call.exchange.now)

    async def _taken(self, call: Call, cost: Cost) -> Denied | None:
        budgets, exchange = call.front.budgets, call.exchange
        if budgets is None:
            return None
        found = budgets.reserve(exchange.caller, granted(call).budgets, exchange.model, cost, exchange.now)
        return found if found is None or isinstance(found, Denied) else await found

    def _spender(self, call: Call, paid: int) -> Spend:
        """Takes tokens out of the caller's budgets as they pass, beyond those that are paid already."""

        async def spend(tokens: int) -> bool:
            nonlocal paid
            call.exchange.rows += tokens
            more, paid = max(0, tokens - paid), max(0, paid - tokens)
            if not more:
                return True
            denied = await self._taken(call, Cost(requests=0, tokens=more))
            if denied is None:
                self._settle(call, more)
            return denied is None

        return spend

    def _settle(self, call: Call, tokens: int) -> None:
        budgets, exchange = call.front.budgets, call.exchange
        if budgets is not None:
            more = Cost(requests=0, tokens=tokens)
            budgets.settle(exchange.caller, granted(call).budgets, exchange.model, more, exchange.now)

    async def close(self) -> None:
        """Let go of all connections."""
        for _, upstream in self._upstreams.values():
            await upstream.close()


__all__ = ["Chats", "Chatter"]
