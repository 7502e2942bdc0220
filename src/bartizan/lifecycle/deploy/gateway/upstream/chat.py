"""Chats in the shape of OpenAI's API: what clients may send, what is sent on, and what of the answer is let through.

Nothing is handed on as it came. A request is read into the fields that are known, bounded, and written anew with the
upstream's own name for the model; an answer likewise, so that nothing of the upstream's inside (fingerprints, hosts,
reasoning) slips through. Log probabilities and logit bias are closed by default: together they give a model's last
layer away (Carlini et al., Stealing Part of a Production Language Model, 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.upstream.port import UpstreamError, Usage
from bartizan.lifecycle.deploy.gateway.upstream.settings import Allowance, UpstreamSettings

MOST_MESSAGES = 512
BYTES_A_TOKEN = 3
"""Bytes of UTF-8 text that are counted as one token where nobody counts better. Common vocabularies need about four
for English and two for other scripts."""
TOKENS_A_MESSAGE = 4
"""What the frame of a message costs."""
MOST_USAGE = 1 << 24
"""No believable usage is larger."""
_CLOSED: dict[str, Allowance] = {
    "tools": "tools",
    "tool_choice": "tools",
    "parallel_tool_calls": "tools",
    "logprobs": "logprobs",
    "top_logprobs": "logprobs",
    "logit_bias": "logit_bias",
}
Text = Annotated[str, Meta(max_length=1 << 22)]
Unit = Annotated[float, Meta(ge=0, le=2)]
Signed = Annotated[float, Meta(ge=-2, le=2)]
Tokens = Annotated[int, Meta(ge=1, le=1 << 22)]


# ---- requests


class _Part(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    type: Literal["text", "image_url"]
    text: Text | UnsetType = UNSET
    image_url: dict[str, str] | UnsetType = UNSET


class _Message(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[_Part], Meta(max_length=64)] | None = None
    name: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET
    tool_calls: Annotated[list[dict[str, Any]], Meta(max_length=64)] | UnsetType = UNSET
    tool_call_id: Annotated[str, Meta(max_length=128)] | UnsetType = UNSET
    refusal: Text | UnsetType | None = UNSET


class _Options(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    include_usage: bool = False


class _Request(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    model: Annotated[str, Meta(max_length=128)]
    messages: Annotated[list[_Message], Meta(min_length=1, max_length=MOST_MESSAGES)]
    stream: bool = False
    stream_options: _Options | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    temperature: Unit | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=8)] | None = None
    stop: Annotated[str, Meta(max_length=128)] | Annotated[list[str], Meta(max_length=8)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: Signed | None = None
    frequency_penalty: Signed | None = None
    response_format: dict[str, Any] | None = None
    user: Annotated[str, Meta(max_length=256)] | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    logit_bias: dict[str, float] | None = None


_REQUEST = msgspec.json.Decoder(_Request)
_ENCODER = msgspec.json.Encoder()


class _Named(msgspec.Struct, frozen=True):
    model: str


_NAMED = msgspec.json.Decoder(_Named)


class ChatAsked(msgspec.Struct, frozen=True, kw_only=True):
    """A chat request that is sound."""

    body: bytes
    """What is sent to the upstream."""
    stream: bool
    tells_usage: bool
    """The client asked for the usage at the end of the stream."""
    prompt_tokens: int
    """Estimate, on the safe side."""
    answer_tokens: int
    """Most that the answer may have, over all choices: reserve this."""


def asked_for(body: bytes) -> str:
    """Which model a chat request names; empty when it names none. For finding the settings that it is read by."""
    try:
        return _NAMED.decode(body).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def read(body: bytes, settings: UpstreamSettings) -> ChatAsked:
    """Read a chat request and write the one that is sent on.

    Raises:
        RequestError: it is none, or asks for what is not allowed here.
    """
    try:
        request = _REQUEST.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, "this is no chat request that is taken here", reason=str(error)) from error
    _check(request, settings.allow)
    prompt = prompt_tokens(request)
    if prompt > settings.prompt_tokens:
        raise RequestError(413, "the prompt is too long", reason=f"about {prompt} tokens")
    bound = min(request.max_completion_tokens or request.max_tokens or settings.answer_tokens, settings.answer_tokens)
    return ChatAsked(
        body=_ENCODER.encode(_sent_on(request, settings, bound)),
        stream=request.stream,
        tells_usage=request.stream_options is not None and request.stream_options.include_usage,
        prompt_tokens=prompt,
        answer_tokens=bound * (request.n or 1),
    )


def _check(request: _Request, allow: Sequence[Allowance]) -> None:
    for field, allowance in _CLOSED.items():
        if getattr(request, field) is not None and allowance not in allow:
            raise RequestError(400, f"{field} is not taken here")
    if (request.n or 1) > 1 and "several" not in allow:
        raise RequestError(400, "n is not taken here")
    for message in request.messages:
        if (message.role == "tool" or message.tool_calls or message.tool_call_id) and "tools" not in allow:
            raise RequestError(400, "tools are not taken here")
        if isinstance(message.content, list):
            _check_parts(message.content, allow)


def _check_parts(parts: Sequence[_Part], allow: Sequence[Allowance]) -> None:
    """Images only where they are allowed, and only inside of the request: an upstream fetches nothing for a caller."""
    for part in parts:
        if part.type == "text" and part.text is UNSET:
            raise RequestError(400, "a part of a message has no text")
        if part.type == "image_url":
            where = "" if part.image_url is UNSET else part.image_url.get("url", "")
            if "images" not in allow or not where.startswith("data:image/"):
                raise RequestError(400, "images are not taken here", reason="image by address, or not allowed")


def _sent_on(request: _Request, settings: UpstreamSettings, bound: int) -> dict[str, Any]:
    """The fields that go on; who asked here is nobody's business there."""
    given = {
        name: value
        for name in request.__struct_fields__
        if name not in {"model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "user"}
        and (value := getattr(request, name)) is not None
    }
    stream = {"stream": True, "stream_options": {"include_usage": True}} if request.stream else {}
    return {"model": settings.model or settings.name, **given, settings.limit_field: bound, **stream}


def prompt_tokens(request: _Request) -> int:
    """Estimate of what a prompt costs, tools included."""
    count = sum(TOKENS_A_MESSAGE + estimated(_size(message)) for message in request.messages)
    return count + (estimated(len(_ENCODER.encode(request.tools))) if request.tools else 0)


def estimated(size: int) -> int:
    """Tokens of so many bytes of UTF-8 text, rounded up."""
    return -(-size // BYTES_A_TOKEN)


def _size(message: _Message) -> int:
    plain = isinstance(message.content, str) and message.tool_calls is UNSET
    return len(message.content.encode()) if plain else len(_ENCODER.encode(message))  # type: ignore[union-attr]


# ---- answers


class _Function(msgspec.Struct, omit_defaults=True):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, omit_defaults=True):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: _Function | None = None


class _Said(msgspec.Struct, omit_defaults=True):
    """A message, or what a chunk adds to one."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct, omit_defaults=True):
    # A default that is made anew is never left out.
    index: int = msgspec.field(default_factory=int)
    message: _Said | None = None
    delta: _Said | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw | None = None


class _Counted(msgspec.Struct):
    prompt_tokens: int = -1
    completion_tokens: int = -1

    @property
    def believable(self) -> bool:
        return 0 < self.prompt_tokens < MOST_USAGE and 0 <= self.completion_tokens < MOST_USAGE


class _Reply(msgspec.Struct):
    id: str = ""
    created: int = 0
    choices: list[_Choice] = []
    usage: _Counted | None = None


class _Written(msgspec.Struct, omit_defaults=True):
    """What the client gets."""

    id: str
    object: str
    created: int
    model: str
    choices: list[_Choice]
    usage: dict[str, int] | None = None


_REPLY = msgspec.json.Decoder(_Reply)
_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
MOST_CHOICES = 8
MOST_ID = 128


class Tally:
    """Counts the tokens of one answer as they pass, and lets through what may pass."""

    def __init__(self, settings: UpstreamSettings, asked: ChatAsked, model: str) -> None:
        self._allow, self._asked, self._model = frozenset(settings.allow), asked, model
        self._size, self._deltas = 0, 0
        self._given: _Counted | None = None
        self.finished: set[int] = set()
        """Choices that the upstream said are complete."""
        self.choices: set[int] = set()

    def chunk(self, data: bytes) -> bytes:
        """One chunk of a stream, written anew; empty when nothing of it is for the client.

        Raises:
            UpstreamError: it is no chunk, or an error.
        """
        reply = self._decoded(data)
        for choice in reply.choices:
            choice.message = None
            self._pass(choice, choice.delta)
            choice.delta = choice.delta or _Said()
        told = reply.usage is not None and self._asked.tells_usage
        if not reply.choices and not told:
            return b""
        return self._written(reply, "chat.completion.chunk", told=told)

    def whole(self, data: bytes) -> bytes:
        """A whole answer, written anew.

        Raises:
            UpstreamError: it is none, or an error.
        """
        reply = self._decoded(data)
        if not reply.choices:
            raise UpstreamError("wrong", "its answer to a chat has no choices")
        for choice in reply.choices:
            if choice.message is None:
                raise UpstreamError("wrong", "its answer to a chat has no message")
            choice.delta = None
            self._pass(choice, choice.message)
        return self._written(reply, "chat.completion", told=True)

    def _decoded(self, data: bytes) -> _Reply:
        try:
            reply = _REPLY.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamError("wrong", "a part of its answer is no chat completion") from error
        if not reply.choices and reply.usage is None and not reply.id:
            raise UpstreamError("failed", "it answers with an error in place of a chat completion")
        if len(reply.choices) > MOST_CHOICES or any(not 0 <= item.index < MOST_CHOICES for item in reply.choices):
            raise UpstreamError("wrong", "its answer has choices that nobody asked for")
        self._given = reply.usage or self._given
        return reply

    def _pass(self, choice: _Choice, said: _Said | None) -> None:
        self.choices.add(choice.index)
        if choice.finish_reason is not None:
            choice.finish_reason = choice.finish_reason if choice.finish_reason in _REASONS else "stop"
            self.finished.add(choice.index)
        if "logprobs" not in self._allow:
            choice.logprobs = None
        if said is None:
            return
        size = sum(len(part.encode()) for part in _texts(said) if part)
        self._size += size
        self._deltas += size > 0
        said.reasoning = said.reasoning_content = None
        said.role = None if said.role is None else "assistant"
        if "tools" not in self._allow:
            said.tool_calls = None

    def _written(self, reply: _Reply, kind: str, *, told: bool) -> bytes:
        usage = self.usage
        counts = {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": usage.total,
        }
        written = _Written(
            reply.id[:MOST_ID], kind, reply.created, self._model, reply.choices, counts if told else None
        )
        return _ENCODER.encode(written)

    @property
    def passed(self) -> int:
        """Tokens of the answer so far, by estimate: at least one for each piece that came."""
        return max(self._deltas, estimated(self._size))

    @property
    def usage(self) -> Usage:
        """As the upstream counts when that can be believed, by estimate otherwise."""
        given = self._given
        # A piece is one token or more: whoever counts fewer than one for each four pieces counts wrongly.
        if given is not None and given.believable and given.completion_tokens * 4 >= self._deltas:
            return Usage(prompt=given.prompt_tokens, completion=given.completion_tokens, estimated=False)
        return Usage(prompt=self._asked.prompt_tokens, completion=self.passed)


def _texts(said: _Said) -> list[str | None]:
    calls = [call.function for call in said.tool_calls or () if call.function]
    inside = [text for function in calls for text in (function.name, function.arguments)]
    return [said.content, said.refusal, said.reasoning, said.reasoning_content, *inside]


def failure(message: str, kind: str) -> bytes:
    """The last event of a stream that did not come to its own end."""
    return _ENCODER.encode({"error": {"message": message, "type": kind, "code": kind}})


__all__ = ["ChatAsked", "Tally", "asked_for", "estimated", "failure", "prompt_tokens", "read"]
