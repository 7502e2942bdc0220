"""Chat models behind servers that speak OpenAI's API, whole or as a stream of events."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator

from bartizan.adapters.upstream.inference import answers
from bartizan.adapters.upstream.wire import Opened, Wire
from bartizan.lifecycle.deploy.gateway.upstream.chat import ChatAsked, Tally, failure
from bartizan.lifecycle.deploy.gateway.upstream.events import DONE, EventReader, event
from bartizan.lifecycle.deploy.gateway.upstream.port import Ended, Spend, UpstreamError, Usage
from bartizan.lifecycle.deploy.gateway.upstream.settings import UpstreamSettings

COMPLETIONS = "/v1/chat/completions"
STREAM = "text/event-stream"
SLACK = 2
"""An answer is cut off where its estimate is so many times what the upstream was told to stop at."""


class ChatUpstream:
    """A chat model. What is asked was read by ``upstream.chat.read``."""

    def __init__(self, settings: UpstreamSettings, model: str = "") -> None:
        """``model`` is how clients call it; they see no other name.

        Raises:
            InputError: address, credential or certificates cannot be used.
        """
        self.name = settings.name
        self._settings, self._wire, self._model = settings, Wire(settings), model or settings.name

    @property
    def state(self) -> str:
        """Of the circuit: ``closed``, ``open`` or ``half-open``."""
        return self._wire.circuit.state

    async def complete(self, asked: ChatAsked) -> tuple[bytes, Usage]:
        """A whole answer as JSON, and what it cost. Raises UpstreamError."""
        tally = Tally(self._settings, asked, self._model)
        async with await self._open(asked, "application/json") as opened:
            body = await opened.received()
            try:
                written = tally.whole(body)
            except UpstreamError as error:
                raise opened.failed(error.kind, error.message) from None
            opened.done()
        return written, tally.usage

    async def stream(self, asked: ChatAsked, spend: Spend) -> Stream:
        """An answer in events; close it. ``spend`` is told of tokens beyond those of the prompt as they pass.

        Raises:
            UpstreamError: no answer begins.
        """
        opened = await self._open(asked, STREAM)
        kind = opened.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != STREAM:
            raise opened.failed("wrong", "it answers with no stream of events")
        return Stream(opened, Tally(self._settings, asked, self._model), self._settings, asked, spend)

    async def _open(self, asked: ChatAsked, accept: str) -> Opened:
        headers = {"content-type": "application/json", "accept": accept}
        return await self._wire.open("POST", COMPLETIONS, asked.body, headers, repeatable=False)

    async def ready(self) -> bool:
        """Whether it lists its models."""
        return await answers(self._wire, "/v1/models")

    async def close(self) -> None:
        """Let go of all connections."""
        await self._wire.close()


class Stream:
    """See ``port.ChatStream``."""

    def __init__(
        self, opened: Opened, tally: Tally, settings: UpstreamSettings, asked: ChatAsked, spend: Spend
    ) -> None:
        self._opened, self._tally, self._asked, self._spend = opened, tally, asked, spend
        self._reader = EventReader(settings.event_bytes)
        self._spent = 0
        self._done = False
        self.ended: Ended = ""
        self.failure = ""
        """What was wrong with the upstream, for the audit record."""

    @property
    def usage(self) -> Usage:
        """See ``port.ChatStream``."""
        return self._tally.usage

    @property
    def spent(self) -> int:
        """Tokens that were taken out of the budget while they passed: settle the difference to the usage."""
        return self._spent

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """See ``port.ChatStream``."""
        try:
            while not self._done:
                if not (block := await self._opened.block()):
                    self._closed_early()
                elif written := self._passed(block):
                    yield written
                if not self._done:
                    await self._afford()
        except UpstreamError as error:
            self._fail(error)
        yield self._last()

    def _passed(self, block: bytes) -> bytes:
        """What a block of the upstream's gives for the client; all that was sound before a fault still passes."""
        written = []
        try:
            for data in self._reader.feed(block):
                if data == DONE:
                    self._finish()
                    break
                if chunk := self._tally.chunk(data):
                    written.append(event(chunk))
        except UpstreamError as error:
            self._fail(error)
        return b"".join(written)

    async def _afford(self) -> None:
        """Take what passed out of the budget; ends the stream when nothing is left of that or of our bound."""
        passed = self._tally.passed
        if passed > SLACK * self._asked.answer_tokens:
            self._end("length")
            return
        more, self._spent = passed - self._spent, passed
        allowed = self._spend(more) if more else True
        if inspect.isawaitable(allowed):
            allowed = await allowed
        if not allowed:
            self._end("budget")

    def _finish(self) -> None:
        self._opened.done()
        self._end("finished")

    def _closed_early(self) -> None:
        """The connection ended without the last event: whole all the same when every choice said so."""
        if self._tally.choices and self._tally.choices == self._tally.finished:
            self._finish()
        else:
            self._fail(UpstreamError("wrong", "its answer broke off"))

    def _fail(self, error: UpstreamError) -> None:
        self.failure = self._opened.failed(error.kind, error.message).message
        self._end("failed")

    def _end(self, ended: Ended) -> None:
        self.ended, self._done = self.ended or ended, True

    def _last(self) -> bytes:
        """The end of the stream, with the reason where it is not the upstream's own end."""
        match self.ended:
            case "budget":
                return event(failure("the budget is spent", "insufficient_quota")) + event(DONE)
            case "length":
                return event(failure("the answer is too long", "length")) + event(DONE)
            case "failed":
                return event(failure("the answer broke off", "server_error")) + event(DONE)
        return event(DONE)

    async def aclose(self) -> None:
        """See ``port.ChatStream``."""
        self._end("left")
        self._opened.close()


__all__ = ["ChatUpstream", "Stream"]
