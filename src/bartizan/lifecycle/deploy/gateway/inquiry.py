"""The way of a question: read, paid for, looked at by the guards, put to the model, looked at again, and told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from bartizan.core.errors import SandboxError, WorkError
from bartizan.lifecycle.deploy.gateway import asgi
from bartizan.lifecycle.deploy.gateway.application import Call
from bartizan.lifecycle.deploy.gateway.asgi import Bodies
from bartizan.lifecycle.deploy.gateway.budget import Cost, Denied
from bartizan.lifecycle.deploy.gateway.budgets.refusal import too_much
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.front import Granted
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked
from bartizan.lifecycle.deploy.gateway.protocol import Description, Output, Question
from bartizan.lifecycle.deploy.gateway.schedule import Served
from bartizan.lifecycle.deploy.gateway.serving import Lane, Lanes
from bartizan.lifecycle.deploy.gateway.turns import turn

OUT = "the model is not in service"
UNANSWERED = "this request is not answered"
CANNOT = "the model cannot answer these rows"
FALLBACK = "fallback"
Read = Callable[[Description], Question]
_LOG = logging.getLogger("bartizan.gateway")


class Inquiry:
    """One question and what is known of it so far."""

    __slots__ = ("answer", "asked", "call", "described", "granted", "lane", "microseconds", "question", "served")

    def __init__(self, call: Call, lane: Lane, served: Served, question: Question) -> None:
        exchange = call.exchange
        self.call, self.lane, self.served, self.question = call, lane, served, question
        self.granted, self.described = granted(call), served.description
        self.asked = Asked(
            request=exchange.id,
            caller=exchange.caller,
            model=self.described.name,
            digest=self.described.digest,
            rows=question.rows,
            now=exchange.now,
            verified=exchange.signed_by,
        )
        self.answer: Answer | None = None
        self.microseconds = 0
        """That the model worked for it."""


class Inquiries:
    """Leads questions from the body of a request to what is told."""

    def __init__(self, lanes: Lanes, bodies: Bodies) -> None:
        self._lanes, self._bodies = lanes, bodies

    async def body(self, call: Call, *, binary: bool = False) -> bytes:
        """The body of a request, signed where it has to be.

        Raises:
            RequestError: it is of another kind, out of bounds, or not signed.
        """
        kind = call.headers.get(b"content-type", b"")
        if kind != asgi.JSON:
            kind = kind.partition(b";")[0].strip().lower()
            # clients of Triton leave it out, or say octets, also where all of it is JSON
            if kind != asgi.JSON and not (binary and kind in {b"", asgi.BINARY}):
                raise RequestError(415, "requests are application/json, or tensors with the length of their head")
        if b"content-encoding" in call.headers and call.headers[b"content-encoding"].lower() != b"identity":
            raise RequestError(415, "compressed requests are not taken")
        body = await self._bodies.read(call.receive, call.headers.get(b"content-length", b""))
        exchange, signatures = call.exchange, call.front.signatures
        exchange.body = body
        if signatures is not None:
            scope, role = call.scope, exchange.caller.role
            path = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
            query = scope.get("query_string", b"").decode("latin-1")
            source = signatures.source(scope["method"], path, call.headers, body, exchange.now, role=role, query=query)
            exchange.signed_by = source if isinstance(source, str) else await source
        if granted(call).role.signed_input and not exchange.signed_by:
            raise RequestError(401, "this request has to be signed", reason="role.signed_input, and no signature")
        return body

    async def open(self, call: Call, lane: Lane, body: bytes, read: Read) -> Inquiry:
        """Read a question and take what it costs out of the budgets of whoever asks.

        Raises:
            RequestError: nothing is in service, the question is none, or a budget is spent.
        """
        exchange = call.exchange
        served = lane.door.served
        if served is None:
            served = self._instead(call, lane)
        call.use(served)
        exchange.digest = served.description.digest
        # paid before it is read: mistakes cost, and reading is work that a spent budget does not buy
        await self.spend_all(call, Cost(bytes=len(body)))
        await call.join()
        question = read(served.description)
        await turn()
        exchange.rows = count = len(question.rows)
        exchange.input = call.front.log.keyed(question.rows.tobytes())
        if call.front.budgets is not None:
            described, given = served.description, granted(call)
            bits = given.bits.get(described.name)
            if bits is None:
                bits = given.bits[described.name] = call.front.teller.bits(given.role, len(described.classes))
            await self.spend(call, Cost(requests=0, rows=count, labels=count, bits=bits * count))
        return Inquiry(call, lane, served, question)

    async def spend_all(self, call: Call, cost: Cost) -> None:
        """Take a cost that is known as a whole beforehand. Raises RequestError when a budget is spent."""
        await self.spend(call, cost)
        _settle(call, 0)

    async def told(self, inquiry: Inquiry) -> Mapping[str, Output] | None:
        """What the role is told; None when a person has to look first.

        Raises:
            RequestError: a guard stops it, or the model cannot answer.
        """
        front, exchange, asked = inquiry.call.front, inquiry.call.exchange, inquiry.asked
        try:
            answer = inquiry.answer = await self._answer(inquiry)
        finally:
            _settle(inquiry.call, inquiry.microseconds)
        passage = exchange.passage
        if passage.action == Action.HOLD:
            return None
        if front.cases is not None:
            if passage.action:
                front.cases.flag(asked, answer, passage)
            else:
                front.cases.answered(asked, answer)
        coarse = passage.action == Action.COARSEN
        exchange.detail = "label" if coarse else inquiry.granted.role.detail
        exchange.source = answer.source
        return front.teller.tell(answer, asked, inquiry.granted.role, coarse=coarse)

    async def explained(self, inquiry: Inquiry) -> dict[str, Any]:
        """Why the model answers so; its guards are asked first.

        Raises:
            RequestError: see ``told``; what stands in for a model explains nothing.
        """
        served, lane, exchange = inquiry.served, inquiry.lane, inquiry.call.exchange
        spent = 0.0
        try:
            if served is not lane.door.served:
                raise _out(lane)
            answer = await self._answer(inquiry)
            if inquiry.served is not served:
                raise _out(lane)
            if exchange.passage.action >= Action.COARSEN or answer.source != "model":
                raise RequestError(422, UNANSWERED, reason="what is held back or overruled is not explained")
            if exchange.passage.action and inquiry.call.front.cases is not None:
                inquiry.call.front.cases.flag(inquiry.asked, answer, exchange.passage)
            inquiry.call.leave()
            try:
                loop = asyncio.get_running_loop()
                given, spent = await loop.run_in_executor(served.thread, _timed, served.explain, inquiry.asked.rows)
            except WorkError as error:
                raise self._failed(inquiry, error) from error
        finally:
            _settle(inquiry.call, inquiry.microseconds + int(1e6 * spent))
        if served.withdrawn:
            raise _out(lane)
        return given

    def _instead(self, call: Call, lane: Lane) -> Served:
        """What stands in for a model that is out of service."""
        served = self._lanes.standing_in(lane)
        if served is None:
            raise _out(lane)
        call.exchange.source, call.exchange.reason = FALLBACK, lane.door.reason
        return served

    async def spend(self, call: Call, cost: Cost) -> None:
        """Take a cost out of the budgets of whoever asks. Raises RequestError when one is spent."""
        budgets, exchange = call.front.budgets, call.exchange
        if budgets is None:
            return
        denied = budgets.reserve(exchange.caller, granted(call).budgets, exchange.model, cost, exchange.now)
        if denied is not None and not isinstance(denied, Denied):
            call.leave()
            denied = await denied
        if denied is not None:
            raise too_much(denied, exchange.now)

    async def _answer(self, inquiry: Inquiry) -> Answer:
        served, asked, exchange = inquiry.served, inquiry.asked, inquiry.call.exchange
        stack = served.pipeline.gather(asked.rows)
        await turn()
        served.pipeline.before(asked, exchange.passage, stack)
        self._stop(inquiry)
        try:
            if served.gather is not None:
                gathered = served.gather(asked.rows)
                await turn()
                answer = gathered()
            else:
                scores = served.pipeline.wants_scores or inquiry.granted.role.detail != "label"
                given = served.host.answer(asked.rows, scores=scores)
                if not isinstance(given, Answer):
                    inquiry.call.leave()  # others need not wait for this model
                    given = await given
                answer = given
        except SandboxError as error:
            return await self._retried(inquiry, error)
        except WorkError as error:
            if hasattr(error, "as_request_error"):
                return await self._retried(inquiry, error)
            raise self._failed(inquiry, error) from error
        inquiry.microseconds += answer.microseconds
        if served.withdrawn:
            raise _out(inquiry.lane)
        if exchange.source == FALLBACK:
            answer.source = FALLBACK
        inquiry.answer = answer
        await turn()
        served.pipeline.after(asked, answer, exchange.passage)
        self._stop(inquiry)
        return answer

    async def _retried(self, inquiry: Inquiry, error: WorkError) -> Answer:
        """The model failed while it was asked: it is out, and what stands in for it is asked, once."""
        refused = self._failed(inquiry, error)
        if inquiry.call.exchange.source == FALLBACK:
            raise refused from error
        served = self._lanes.standing_in(inquiry.lane)
        if served is None:
            raise refused from error
        inquiry.call.exchange.source, inquiry.call.exchange.reason = FALLBACK, error.message
        inquiry.call.use(served)
        inquiry.served, inquiry.described = served, served.description
        inquiry.call.exchange.digest = served.description.digest
        return await self._answer(inquiry)

    def _stop(self, inquiry: Inquiry) -> None:
        """End it here, when that is what the guards say."""
        passage = inquiry.call.exchange.passage
        if not passage.stopped:
            return
        cases = inquiry.call.front.cases
        if cases is not None:
            cases.flag(inquiry.asked, inquiry.answer, passage)
        if passage.action == Action.THROTTLE:
            wait = str(max(1, round(passage.wait)))
            raise RequestError(429, UNANSWERED, headers={"retry-after": wait})
        raise RequestError(422, UNANSWERED)

    def _failed(self, inquiry: Inquiry, error: WorkError) -> RequestError:
        """A model whose process failed is out until it was verified and opened anew."""
        if isinstance(error, SandboxError):
            _LOG.error("%s", error.message)
            inquiry.lane.door.take_out(inquiry.served, error.message)
            return _out(inquiry.lane)
        if hasattr(error, "as_request_error"):
            refused: RequestError = error.as_request_error()
            return refused
        _LOG.warning("%s", error.message)
        return RequestError(422, CANNOT, reason=error.message)


def _timed(explain: Callable[[Any], dict[str, Any]], rows: Any) -> tuple[dict[str, Any], float]:
    """On the model's thread: what it gives, and the seconds that it took."""
    began = time.perf_counter()
    return explain(rows), time.perf_counter() - began


def granted(call: Call) -> Granted:
    """What the policy granted for this call; without a word of the policy, nothing."""
    if call.granted is None:
        raise RequestError(403, "this is not granted", reason="no policy was asked")
    return call.granted


def _settle(call: Call, microseconds: int) -> None:
    """Take what the model's work has cost, now that it is known: once for everything that was reserved."""
    budgets, exchange = call.front.budgets, call.exchange
    if budgets is not None:
        taken = Cost(requests=0, microseconds=microseconds)
        budgets.settle(exchange.caller, granted(call).budgets, exchange.model, taken, exchange.now)


def _out(lane: Lane) -> RequestError:
    reason = lane.door.reason or "it was withdrawn meanwhile"
    return RequestError(503, OUT, headers={"retry-after": "1"}, reason=reason)


__all__ = ["OUT", "UNANSWERED", "Inquiries", "Inquiry", "granted"]
