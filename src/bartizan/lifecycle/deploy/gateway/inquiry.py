"""The way of a question: read, paid for, looked at by the guards, put to the model, looked at again, and told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

from bartizan.core.errors import SandboxError, WorkError
from bartizan.lifecycle.deploy.gateway import asgi
from bartizan.lifecycle.deploy.gateway.application import Call
from bartizan.lifecycle.deploy.gateway.asgi import Bodies
from bartizan.lifecycle.deploy.gateway.budget import Cost, Denied
from bartizan.lifecycle.deploy.gateway.budgets.refusal import too_much
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.front import Granted
from bartizan.lifecycle.deploy.gateway.guard import Action, Answer, Asked
from bartizan.lifecycle.deploy.gateway.pipeline import Collected, Gathered
from bartizan.lifecycle.deploy.gateway.protocol import Description, Output, Question
from bartizan.lifecycle.deploy.gateway.schedule import Served
from bartizan.lifecycle.deploy.gateway.serving import Lane, Lanes

OUT = "the model is not in service"
UNANSWERED = "this request is not answered"
CANNOT = "the model cannot answer these rows"
FALLBACK = "fallback"
Read = Callable[[bytes, Description], Question]
_LOG = logging.getLogger("bartizan.gateway")


class Inquiry:
    """One question and what is known of it so far."""

    __slots__ = (
        "answer",
        "asked",
        "beside",
        "body",
        "call",
        "collected",
        "described",
        "exchange",
        "gathered",
        "granted",
        "is_paid",
        "lane",
        "microseconds",
        "passage",
        "question",
        "read",
        "served",
        "told",
    )

    asked: Asked
    question: Question
    answer: Answer
    """Of the model, once it was asked."""

    def __init__(self, call: Call, lane: Lane, served: Served, body: bytes, read: Read) -> None:
        self.call, self.lane, self.served, self.body, self.read = call, lane, served, body, read
        self.exchange, self.passage = call.exchange, call.exchange.passage
        self.granted, self.described = granted(call), served.description
        self.beside: Gathered | None = None
        """Its rows among those of others, for guards that look at many at once."""
        self.collected: Collected | None = None
        """The answer among those to others."""
        self.gathered: Callable[[], Answer] | None = None
        """Gives the answer of a model that was asked together with others."""
        self.told: Mapping[str, Output] | None = None
        """What the role is told; None when a person has to look first."""
        self.microseconds = 0
        """That the model worked for it."""
        self.is_paid = False
        """Whether what its rows cost was taken; the model's work is settled then."""


class Inquiries:
    """Leads questions from the body of a request to what is told."""

    def __init__(self, lanes: Lanes, bodies: Bodies) -> None:
        self._lanes, self._bodies = lanes, bodies
        self._telling = (self._read, self._count, self._look, self._ask, self._weigh, self._tell)
        self._explaining = self._telling[:-1]

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
        body = call.scope.get(asgi.BODY)
        if body is None or len(body) > self._bodies.most_bytes:
            length = call.headers.get(b"content-length", b"")
            body = await self._bodies.read(call.receive, length, is_here=call.is_led)
        exchange, signatures = call.exchange, call.front.signatures
        exchange.body = body
        if signatures is not None:
            scope, role = call.scope, exchange.caller.role
            path = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
            query = scope.get("query_string", b"").decode("latin-1")
            source = signatures.source(scope["method"], path, call.headers, body, exchange.now, role=role, query=query)
            if not isinstance(source, str):
                await call.apart()
                source = await source
            exchange.signed_by = source
        if granted(call).role.signed_input and not exchange.signed_by:
            raise RequestError(401, "this request has to be signed", reason="role.signed_input, and no signature")
        return body

    async def told(self, call: Call, lane: Lane, body: bytes, read: Read) -> Inquiry:
        """Answer a question, as far as the role is told.

        Raises:
            RequestError: nothing is in service, the question is none, a budget is spent, a guard stops it, or the model
                cannot answer.
        """
        served, paying = self._opened(call, lane, body)
        if paying is not None:
            await paying
        await call.join()
        inquiry = Inquiry(call, lane, served, body, read)
        try:
            await call.walk(self._telling, inquiry)
        finally:
            if inquiry.is_paid:
                _settle(call, inquiry.microseconds)
        return inquiry

    async def explained(self, call: Call, lane: Lane, body: bytes, read: Read) -> tuple[Inquiry, dict[str, Any]]:
        """Why the model answers so; its guards are asked first.

        Raises:
            RequestError: see ``told``; what stands in for a model explains nothing.
        """
        served, paying = self._opened(call, lane, body)
        if paying is not None:
            await paying
        await call.join()
        inquiry, exchange, spent = Inquiry(call, lane, served, body, read), call.exchange, 0.0
        try:
            if served is not lane.door.served:
                raise _out(lane)
            await call.walk(self._explaining, inquiry)
            if inquiry.served is not served:
                raise _out(lane)
            if exchange.passage.action >= Action.COARSEN or inquiry.answer.source != "model":
                raise RequestError(422, UNANSWERED, reason="what is held back or overruled is not explained")
            if exchange.passage.action and call.front.cases is not None:
                call.front.cases.flag(inquiry.asked, inquiry.answer, exchange.passage)
            await call.apart()
            try:
                loop = asyncio.get_running_loop()
                given, spent = await loop.run_in_executor(served.thread, _timed, served.explain, inquiry.asked.rows)
            except WorkError as error:
                raise self._failed(inquiry, error) from error
        finally:
            if inquiry.is_paid:
                _settle(call, inquiry.microseconds + int(1e6 * spent))
        if served.withdrawn:
            raise _out(lane)
        return inquiry, given

    def spend_all(self, call: Call, cost: Cost) -> Awaitable[None] | None:
        """Take a cost that is known as a whole beforehand; gives what has to be waited for, where anything has.

        Raises:
            RequestError: a budget is spent.
        """
        paying = _pay(call, cost)
        if paying is not None:
            return self._spent(call, paying)
        _settle(call, 0)
        return None

    async def _spent(self, call: Call, paying: Awaitable[None]) -> None:
        await paying
        _settle(call, 0)

    def _opened(self, call: Call, lane: Lane, body: bytes) -> tuple[Served, Awaitable[None] | None]:
        """What answers a question, and its price, before it is read."""
        served = lane.door.served
        if served is None:
            served = self._instead(call, lane)
        call.use(served)
        call.exchange.digest = served.description.digest
        # paid before it is read: mistakes cost, and reading is work that a spent budget does not buy
        return served, self.spend_all(call, Cost(bytes=len(body)))

    # ---- the steps of a question

    def _read(self, inquiry: Inquiry) -> None:
        inquiry.question = inquiry.read(inquiry.body, inquiry.served.description)

    def _count(self, inquiry: Inquiry) -> Awaitable[None] | None:
        """Take what its rows cost out of the budgets of whoever asks."""
        call, exchange, rows = inquiry.call, inquiry.exchange, inquiry.question.rows
        exchange.rows = count = len(rows)
        exchange.input = call.front.log.keyed(rows.tobytes())
        described = inquiry.described
        inquiry.asked = Asked(
            request=exchange.id,
            caller=exchange.caller,
            model=described.name,
            digest=described.digest,
            rows=rows,
            now=exchange.now,
            verified=exchange.signed_by,
        )
        given = inquiry.granted
        bits = given.bits.get(described.name)
        if bits is None:
            bits = given.bits[described.name] = call.front.teller.bits(given.role, len(described.classes))
        paying = _pay(call, Cost(requests=0, rows=count, labels=count, bits=bits * count))
        if paying is not None:
            return self._paid(inquiry, paying)
        inquiry.is_paid = True
        self._gather(inquiry)
        return None

    async def _paid(self, inquiry: Inquiry, paying: Awaitable[None]) -> None:
        await paying
        inquiry.is_paid = True
        self._gather(inquiry)

    def _gather(self, inquiry: Inquiry) -> None:
        """Have the first guards look at its rows together with those of others."""
        inquiry.beside = inquiry.served.pipeline.gather(inquiry.asked.rows)

    def _look(self, inquiry: Inquiry) -> None:
        """Let the guards look at the question."""
        served, asked = inquiry.served, inquiry.asked
        served.pipeline.before(asked, inquiry.passage, inquiry.beside)
        if inquiry.passage.stopped:
            self._stop(inquiry)
        inquiry.gathered = None if served.gather is None else served.gather(asked.rows)

    def _ask(self, inquiry: Inquiry) -> Awaitable[None] | None:
        """Put it to the model."""
        served, gathered = inquiry.served, inquiry.gathered
        try:
            if gathered is not None:
                answer = gathered()
            else:
                scores = served.pipeline.wants_scores or inquiry.granted.role.detail != "label"
                given = served.host.answer(inquiry.asked.rows, scores=scores)
                if not isinstance(given, Answer):
                    return self._waited(inquiry, given)
                answer = given
        except WorkError as error:
            return self._retried(inquiry, error)
        self._take(inquiry, answer)
        return None

    async def _waited(self, inquiry: Inquiry, given: Awaitable[Answer]) -> None:
        await inquiry.call.apart()
        try:
            answer = await given
        except WorkError as error:
            await self._retried(inquiry, error)
        else:
            self._take(inquiry, answer)

    def _take(self, inquiry: Inquiry, answer: Answer) -> None:
        inquiry.microseconds += answer.microseconds
        if inquiry.served.withdrawn:
            raise _out(inquiry.lane)
        if inquiry.exchange.source == FALLBACK:
            answer.source = FALLBACK
        inquiry.answer = answer
        inquiry.collected = inquiry.served.pipeline.collect(inquiry.asked, answer)

    def _weigh(self, inquiry: Inquiry) -> None:
        """Let the guards look at the answer."""
        inquiry.served.pipeline.after(inquiry.asked, inquiry.answer, inquiry.passage, inquiry.collected)
        if inquiry.passage.stopped:
            self._stop(inquiry)

    def _tell(self, inquiry: Inquiry) -> None:
        """Say of the answer what the role is told."""
        front, exchange, passage = inquiry.call.front, inquiry.exchange, inquiry.passage
        asked, answer, role = inquiry.asked, inquiry.answer, inquiry.granted.role
        if passage.action == Action.HOLD:
            return
        if front.cases is not None:
            if passage.action:
                front.cases.flag(asked, answer, passage)
            else:
                front.cases.answered(asked, answer)
        coarse = passage.action == Action.COARSEN
        exchange.detail = "label" if coarse else role.detail
        exchange.source = answer.source
        inquiry.told = front.teller.tell(answer, asked, role, coarse=coarse)

    def _instead(self, call: Call, lane: Lane) -> Served:
        """What stands in for a model that is out of service."""
        served = self._lanes.standing_in(lane)
        if served is None:
            raise _out(lane)
        call.exchange.source, call.exchange.reason = FALLBACK, lane.door.reason
        return served

    async def _retried(self, inquiry: Inquiry, error: WorkError) -> None:
        """The model failed while it was asked: it is out, and what stands in for it is asked, once."""
        refused = self._failed(inquiry, error)
        call, exchange = inquiry.call, inquiry.exchange
        if exchange.source == FALLBACK or not (isinstance(error, SandboxError) or hasattr(error, "as_request_error")):
            raise refused from error
        served = self._lanes.standing_in(inquiry.lane)
        if served is None:
            raise refused from error
        exchange.source, exchange.reason = FALLBACK, error.message
        call.use(served)
        inquiry.served, inquiry.described = served, served.description
        exchange.digest = served.description.digest
        self._gather(inquiry)
        await call.walk((self._look, self._ask), inquiry)

    def _stop(self, inquiry: Inquiry) -> NoReturn:
        """End it here: that is what the guards say."""
        passage, cases = inquiry.passage, inquiry.call.front.cases
        if cases is not None:
            cases.flag(inquiry.asked, getattr(inquiry, "answer", None), passage)
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


def _pay(call: Call, cost: Cost) -> Awaitable[None] | None:
    """Take a cost out of the budgets of whoever asks; gives what has to be waited for, where anything has.

    Raises:
        RequestError: a budget is spent.
    """
    budgets, exchange = call.front.budgets, call.exchange
    if budgets is None:
        return None
    denied = budgets.reserve(exchange.caller, granted(call).budgets, exchange.model, cost, exchange.now)
    if denied is None:
        return None
    if isinstance(denied, Denied):
        raise too_much(denied, exchange.now)
    return _paid(call, denied)


async def _paid(call: Call, paying: Awaitable[Denied | None]) -> None:
    await call.apart()
    denied = await paying
    if denied is not None:
        raise too_much(denied, call.exchange.now)


def _settle(call: Call, microseconds: int) -> None:
    """Take what the model's work has cost, now that it is known: once for everything that was reserved."""
    budgets, exchange = call.front.budgets, call.exchange
    if budgets is not None and budgets.settles:
        taken = Cost(requests=0, microseconds=microseconds)
        budgets.settle(exchange.caller, granted(call).budgets, exchange.model, taken, exchange.now)


def _out(lane: Lane) -> RequestError:
    reason = lane.door.reason or "it was withdrawn meanwhile"
    return RequestError(503, OUT, headers={"retry-after": "1"}, reason=reason)


__all__ = ["OUT", "UNANSWERED", "Inquiries", "Inquiry", "granted"]
